"""`opendino pretrain --stage`: one line goes on from a run, says what anchors it, and refuses what does not fit."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from opendino import load
from opendino.cli import main
from opendino.monitor.metrics import MetricsLog, read_rows
from opendino.train.checkpoint import list_checkpoints
from opendino.train.start import newest_checkpoint, teacher_backbone
from tests.cli.test_pretrain import QUICK
from tests.train.runs import draw_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("p") / "pictures", 16, px=48, classes=2)


@pytest.fixture(scope="module")
def masked(pictures, tmp_path_factory):
    """Pictures whose left half is one class and whose right half is another."""
    root = tmp_path_factory.mktemp("masked")
    for part, count in (("train", 4), ("val", 6)):
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3)).astype(np.uint8)
            pixels[:, 16:] //= 4
            mask = np.zeros((32, 32), np.uint8)
            mask[:, 16:] = 1
            mask[:3] = 9  # no class
            Image.fromarray(pixels).save(root / part / "images" / f"{index}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(pictures, masked, tmp_path_factory):
    """A run of 4 steps whose dense features were looked at after 2 and 4."""
    out = tmp_path_factory.mktemp("runs") / "before"
    looks = ("--watch.drift-every", "2", "--watch.masks", str(masked), "--watch.masks-ignore", "9")
    command = ["pretrain", str(pictures), "--model", "vit_tiny", "--out", str(out), *QUICK, *looks]
    assert main([*command, "--steps", "4", "--save-steps", "2"]) == 0
    return out


def stage(pictures, name, start, *more):
    return main(["pretrain", str(pictures), "--stage", name, "--from", str(start), *more])


def test_looks_at_dense_features_are_kept_and_said(run):
    looks = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "drift"]
    assert [row["step"] for row in looks] == [0, 2, 4]
    assert all(0 < row["miou"] < 100 and len(row["picture_iou"]) == 6 for row in looks)
    assert looks[-1]["miou"] > 60  # brightness parts the two halves


def test_gram_in_one_line_names_its_teacher_resumes_and_opens(pictures, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert stage(pictures, "gram", run, "--steps", "3") == 0
    said = capsys.readouterr().err
    assert f"gram stage of {run}, from step 4" in said and "Gram teacher: step " in said
    assert "chosen by the looks of" in said and "k-NN segmentation" in said
    (out,) = (tmp_path / "runs").iterdir()
    config = json.loads((out / "config.json").read_text())
    assert config["stage"]["name"] == "gram" and config["stage"]["start"].endswith("step-00000004")
    assert config["method"]["gram"]["weight"] == 2.0 and config["data"]["crops"]["gram_px"] == 32
    losses = [row["losses"] for row in read_rows(out / "metrics.jsonl") if row["kind"] == "step"]
    assert "gram" in losses[-1]
    assert stage(pictures, "gram", run, "--steps", "3") == 0
    assert "is complete: step 3 of 3" in capsys.readouterr().err
    assert load(out).transform.size == 16


def test_a_stage_goes_on_with_the_pictures_of_its_run(pictures, run, tmp_path, capsys):
    assert main(["pretrain", "--stage", "gram", "--from", str(run), "--steps", "1", "--out", str(tmp_path / "a")]) == 0
    assert f"16 pictures in {pictures}" in capsys.readouterr().err
    for name, stage, code, words in (
        ("model", "highres", 2, "is a model, and no pictures are given; name some: opendino pretrain PICTURES"),
        ("model", "gram", 2, "is no run with checkpoints, and Gram anchoring goes on with heads"),
        ("elsewhere", "highres", 3, "elsewhere"),
    ):
        assert main(["pretrain", "--stage", stage, "--from", str(run / name), "--steps", "1"]) == code
        assert words in capsys.readouterr().err
    assert main(["pretrain", "--stage", "gram"]) == 2
    assert "--stage gram: needs the run that it goes on from" in capsys.readouterr().err
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    config["data"]["path"] = "/gone"
    (moved / "config.json").write_text(json.dumps(config))
    assert main(["pretrain", "--stage", "gram", "--from", str(moved)]) == 2
    assert "learned from /gone, which is not there any more; name the pictures" in capsys.readouterr().err


def test_the_teacher_can_be_named(pictures, run, tmp_path, capsys):
    for asked in ("2", str(run / "model"), "ema"):
        out = tmp_path / f"out-{asked[-5:].replace('/', '-')}"
        assert stage(pictures, "gram", run, "--steps", "2", "--gram-teacher", asked, "--out", str(out)) == 0
        assert "as the command says" in capsys.readouterr().err
        names = newest_checkpoint(out).tensors()
        assert any("gram_teacher" in name for name in names) == (asked != "ema")


def test_by_default_the_teacher_is_the_step_with_the_best_dense_features(pictures, run, tmp_path, capsys):
    other = tmp_path / "before"
    shutil.copytree(run, other)
    log = MetricsLog(other / "metrics.jsonl")
    rows = [row for row in log.rows() if row["kind"] != "drift"]
    log.truncate(0)
    for step, value in ((2, 60.0), (4, 30.0)):
        gauges = {"cls_patch_cosine": 0.1, "patch_cosine": 0.1, "norm_ratio": 1.0}
        rows.append(
            {"kind": "drift", "step": step, **gauges, "miou": value, "picture_iou": [value + i for i in range(6)]}
        )
    for row in rows:
        log.append(**row)
    out = tmp_path / "stage"
    assert stage(pictures, "gram", other, "--steps", "1", "--out", str(out)) == 0
    assert "Gram teacher: step 2; dense features degrade: k-NN segmentation 60.0 % at step 2" in capsys.readouterr().err
    held = newest_checkpoint(out).tensors()["method.gram_teacher.backbone.cls_token"]
    kept = dict(list_checkpoints(other / "checkpoints"))[2]
    assert (held == teacher_backbone(newest_checkpoint(kept).tensors())["cls_token"]).all()


def test_high_resolution_in_one_line_shows_sizes_before_and_after(pictures, run, masked, tmp_path, capsys):
    out = tmp_path / "high"
    assert stage(pictures, "highres", run, "--steps", "2", "--out", str(out)) == 0
    said = capsys.readouterr().err
    assert "Gram teacher: step 4, what the stage starts from" in said
    assert said.count("k-NN segmentation by input side: 16 px") == 2
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["crops"]["mix"].startswith("32/8/48:0.3 48/8/72:0.3")
    curves = [row for row in read_rows(out / "metrics.jsonl") if row["kind"] == "sizes"]
    assert [row["step"] for row in curves] == [0, 2]
    assert [one["px"] for one in curves[0]["rows"]] == [16, 24, 32, 48, 64]
    assert curves[0]["rows"][0]["agreement"] == pytest.approx(1.0)
    knn = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "knn"][-1]
    began = next(row for row in read_rows(out / "metrics.jsonl") if row["kind"] == "knn")
    assert began["value"] == knn["value"]  # its step 0 is the end of the run before


def test_high_resolution_of_a_model_begins_with_fresh_heads_and_its_licence(pictures, run, tmp_path, capsys):
    out = tmp_path / "high"
    assert stage(pictures, "highres", run / "model", "--steps", "10", "--out", str(out)) == 0
    assert "student, average and Gram teacher, fresh heads" in capsys.readouterr().err
    config = json.loads((out / "config.json").read_text())
    assert config["model"]["dim"] == 32 and config["data"]["crops"]["mix"].startswith("32/8/48")
    assert config["optim"]["freeze_backbone"] == 0.1 and "fresh ones" in config["reasons"]["optim.freeze_backbone"]
    before, start = (load(path).state_dict() for path in (run / "model", out / "model-start"))
    assert all((before[name] == start[name]).all() for name in before)
    assert load(out).card["licence"] == load(run).card["licence"]
    assert stage(pictures, "highres", run / "model", "--out", str(tmp_path / "other")) == 2
    assert "has no length after a model; add --steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage", "gram"], "--stage gram: needs the run that it goes on from; add --from RUN"),
        (["--from", "RUN"], "is of a stage; add --stage gram or --stage highres"),
        (["--gram-teacher", "2"], "--gram-teacher 2: is of a stage"),
        (["--stage", "grams", "--from", "RUN"], "--stage grams: no such stage; did you mean gram?"),
        (["--stage", "gram", "--from", "RUN", "--model", "vits16"], "the run decides the model"),
        (["--stage", "gram", "--from", "RUN/model"], "is no run with checkpoints, and Gram"),
        (["--stage", "highres", "--from", "RUN/model", "--gram-teacher", "2"], "the model is its Gram teacher"),
        (["--stage", "gram", "--from", "RUN", "--gram-teacher", "7"], "step 7: was not kept; kept are 1, 2, 3, 4"),
        (["--stage", "gram", "--from", "RUN", "--gram-teacher", "nothing"], "--gram-teacher nothing: cannot be opened"),
        (["--stage", "gram", "--from", "RUN", "--model.dim", "64"], "model: differs from that of the start"),
        (["--stage", "gram", "--from", "RUN", "--data.crops.gram-px", "36"], "gram_px: must be a positive multiple"),
        (["--stage", "gram", "--from", "RUN", "--data.crops.gram-px", "0"], "has no crops for the Gram teacher"),
        (["--recipe", "gram"], "goes on from a run; use --stage gram --from RUN"),
        (["--recipe", "vit7b16_gram"], "use --stage gram --recipe vit7b16_gram --from RUN"),
        (["--stage", "gram", "--recipe", "vit7b16_grm", "--from", "RUN"], "did you mean vit7b16_gram?"),
        (["--watch.masks", "nowhere"], "watch.masks nowhere: is no folder"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(pictures, run, tmp_path, capsys, flags, words):
    flags = [flag.replace("RUN", str(run)) for flag in flags]
    assert main(["pretrain", str(pictures), "--out", str(tmp_path / "out"), "--steps", "2", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_too_small_for_high_resolution_are_refused(run, tmp_path, capsys):
    small = draw_pictures(tmp_path / "small", 6, px=24)
    assert stage(small, "highres", run, "--out", str(tmp_path / "out")) == 2
    assert "have 24 px, and the smallest high resolution of a run at 16 px is 32 px" in capsys.readouterr().err


def test_folders_of_the_run_before_are_found_from_elsewhere(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(pictures.parent)
    shown = ("--watch.picture-dir", pictures.name)
    before = tmp_path / "before"
    command = ["pretrain", str(pictures), "--model", "vit_tiny", "--out", str(before), *QUICK, *shown]
    assert main([*command, "--steps", "2", "--save-steps", "2"]) == 0
    monkeypatch.chdir(tmp_path)
    assert stage(pictures, "gram", before, "--steps", "1", "--gram-teacher", "2", "--out", "gram") == 0
    gone = ("--watch.picture-dir", "gone", "--out", "never")
    assert stage(pictures, "gram", before, "--steps", "1", "--gram-teacher", "2", *gone) == 3
    assert "gone: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_fields_of_a_stage_are_listed_with_their_reasons(pictures, run, capsys):
    assert stage(pictures, "gram", run, "--fields") == 0
    listed = capsys.readouterr().out
    assert "--method.gram.weight 2.0" in listed and "--data.crops.gram-px 32" in listed


def test_another_teacher_is_another_run(pictures, run, tmp_path, capsys):
    out = tmp_path / "out"
    assert stage(pictures, "gram", run, "--steps", "1", "--gram-teacher", "2", "--out", str(out)) == 0
    assert stage(pictures, "gram", run, "--steps", "1", "--gram-teacher", "4", "--out", str(out)) == 2
    assert "stage.gram_teacher_hash" in capsys.readouterr().err
