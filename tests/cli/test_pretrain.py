"""`opendino pretrain` from the command line on small folders: what it writes, says, resumes and refuses."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from opendino import files, load
from opendino.cli import main
from opendino.data.sources import open_source
from opendino.monitor.metrics import read_rows
from opendino.train.config import flatten
from tests.train.runs import draw_pictures

QUICK = [
    *("--model.dim", "32", "--model.depth", "1", "--model.heads", "1", "--model.hidden", "32"),
    *("--data.batch-size", "4", "--data.crops.global-px", "16", "--data.crops.local-px", "8", "--read-px", "16"),
    *("--data.crops.num-locals", "1", "--method.prototypes", "8", "--method.hidden", "16"),
    *("--watch.knn-every", "0.5", "--watch.health-every", "0.5", "--watch.picture-every", "0.5"),
    "--watch.picture-px=32",
]


def pretrain(folder, out, *more):
    return main(["pretrain", str(folder), "--model", "vit_tiny", "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("p") / "pictures", 16, px=24, classes=2)


def test_a_run_leaves_all_that_was_promised(pictures, tmp_path, capsys):
    out = tmp_path / "run"
    assert pretrain(pictures, out, "--steps", "6", "--save-steps", "3") == 0
    said = capsys.readouterr().err
    for word in (
        "16 pictures",
        "of the pictures at 16 px: mean [0.",
        "k-NN",
        "prototypes in use",
        "report:",
        "next:",
        "model:",
    ):
        assert word in said
    config = json.loads((out / "config.json").read_text())
    assert config["steps"] == 6 and config["model"]["name"] == "vit_tiny"
    assert all(config["reasons"][name] == "set by the command" for name in ("model.name", "data.batch_size"))
    kinds = {json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert kinds == {"step", "health", "knn", "picture", "drift"}
    assert (out / "report.html").stat().st_size > 1000
    assert list((out / "pictures").glob("pca-*.png")) and (out / "checkpoints" / "step-00000006").is_dir()
    for name in ("model", "model-best", "model-start"):
        model = load(out / name)
        assert model(torch.zeros(1, 3, 16, 16)).cls.shape == (1, 32)
    assert load(out).transform.size == 16


def test_what_was_trained_opens_in_transformers(pictures, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert pretrain(pictures, tmp_path / "run", "--steps", "2") == 0
    ours = load(tmp_path / "run")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "run" / "model").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    image = open_source(pictures).read(0)
    pixels = processor(images=image.array, return_tensors="pt")["pixel_values"]
    mine = ours.transform.apply(image)[None]
    torch.testing.assert_close(pixels, mine, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(theirs(mine).pooler_output, ours(mine).cls, rtol=1e-4, atol=1e-5)


def test_the_same_command_goes_on_and_another_one_is_refused(pictures, tmp_path, capsys):
    out = tmp_path / "run"

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:5=SIGKILL"
        pretrain(pictures, out, "--steps", "6", "--save-steps", "2")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9 and not (out / "model").exists()
    newest = max((out / "checkpoints").iterdir())
    given, kept = load(out), load(newest)
    assert f"has not ended; this is its step {int(newest.name[5:])}" in capsys.readouterr().err
    assert all(torch.equal(one, kept.state_dict()[name]) for name, one in given.state_dict().items())
    assert given.transform == load(out / "model-start").transform
    assert pretrain(pictures, out, "--steps", "6", "--save-steps", "2", "--optim.lr", "0.5") == 2
    assert "optim.lr: 0.002 -> 0.5" in capsys.readouterr().err
    capsys.readouterr()
    assert pretrain(pictures, out, "--steps", "6", "--save-steps", "2") == 0
    assert "going on from step 4 of 6" in capsys.readouterr().err
    assert pretrain(pictures, out, "--steps", "6", "--save-steps", "2") == 0
    assert "is complete: step 6 of 6" in capsys.readouterr().err
    unbroken = tmp_path / "unbroken"
    assert pretrain(pictures, unbroken, "--steps", "6", "--save-steps", "2") == 0
    for name in ("model", "model-start"):
        a, b = load(out / name).state_dict(), load(unbroken / name).state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_default_directory_follows_from_the_command(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["pretrain", str(pictures), "--model", "vit_tiny", *QUICK]
    assert main([*arguments, "--steps", "2"]) == main([*arguments, "--steps", "2"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert main([*arguments, "--steps", "3"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_minutes_become_steps_once(pictures, tmp_path):
    out = tmp_path / "run"
    assert pretrain(pictures, out, "--minutes", "0.01") == 0
    steps = json.loads((out / "config.json").read_text())["steps"]
    assert steps >= 20
    assert pretrain(pictures, out, "--minutes", "0.01") == 0
    assert json.loads((out / "config.json").read_text())["steps"] == steps


def test_ctrl_c_says_so_at_once_saves_without_a_look_and_tells_how_to_go_on(pictures, tmp_path, capfd, monkeypatch):
    from opendino.cli import watchers

    looked = []

    def interrupt(self, step, loss, grad_norm):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            assert "stopping after this step and saving" in capfd.readouterr().err

    monkeypatch.setattr(watchers.Watch, "on_step", interrupt)
    monkeypatch.setattr(watchers.Watch, "_health", lambda self, step, method: looked.append(step))
    assert pretrain(pictures, tmp_path / "run", "--steps", "6", "--watch.health-every", "1") == 75
    assert "stopped at step 3 of 6 by SIGINT, saved" in capfd.readouterr().err
    assert looked == [0, 1, 2]


def test_a_stopped_run_answers_machines_too(pictures, tmp_path, capfd, monkeypatch):
    from opendino.cli import watchers

    monkeypatch.setattr(watchers.Watch, "on_step", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert pretrain(pictures, tmp_path / "run", "--steps", "6", "--json") == 75
    said = json.loads(capfd.readouterr().out)
    assert said == {"run": str(tmp_path / "run"), "stopped": "stopped at step 1 of 6 by SIGTERM, saved"}


def test_the_one_file_that_is_no_picture_is_not_called_one(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "b.jpg").write_text("not a picture at all")
    assert main(["pretrain", str(tmp_path / "texts")]) == 3
    said = capsys.readouterr().err
    assert "b.jpg" in said and "holds one picture" not in said


def test_short_runs_look_seldom(pictures, tmp_path):
    run = tmp_path / "run"
    shares = [field for field in QUICK if not field.startswith("--watch") and field != "0.5"]
    assert main(["pretrain", str(pictures), "--model", "vit_tiny", "--out", str(run), *shares, "--steps", "23"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "health"] == [0, 10, 20, 23]
    assert [row["step"] for row in rows if row["kind"] == "knn"] == [0, 20, 23]


def test_a_folder_of_other_files_is_no_place_for_a_run(pictures, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert pretrain(pictures, tmp_path / "mine", "--steps", "2") == 2
    assert "holds other files and no run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_changed_pictures_are_counted_and_refused_unless_allowed(tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "pictures", 10, px=24)
    out = tmp_path / "run"
    assert pretrain(pictures, out, "--steps", "3") == 0
    (pictures / "0000.png").unlink()
    (pictures / "0001.png").rename(pictures / "other.png")
    assert pretrain(pictures, out, "--steps", "3", "--allow") == 2
    assert "was begun with other pictures (1 added, 2 removed); add --data-changed continue" in capsys.readouterr().err
    assert pretrain(pictures, out, "--steps", "6", "--allow", "--data-changed", "continu") == 2
    assert "did you mean continue?" in capsys.readouterr().err
    assert pretrain(pictures, out, "--steps", "6", "--allow", "--data-changed", "continue") == 0
    assert json.loads((out / "config.json").read_text())["data_ahead_steps"] == 0
    assert pretrain(pictures, out, "--steps", "6") == 0
    (pictures / "0002.png").write_bytes((pictures / "0003.png").read_bytes())
    assert pretrain(pictures, out, "--steps", "6") == 2
    assert "(the same names, other sizes)" in capsys.readouterr().err


def test_pictures_that_would_be_read_otherwise_are_refused_whatever_is_allowed(tmp_path, capsys):
    pictures, out = draw_pictures(tmp_path / "pictures", 6, px=24), tmp_path / "run"
    begun = ["--steps", "1", "--value-range", "0", "200"]
    assert pretrain(pictures, out, *begun) == 0
    assert json.loads(json.loads((out / "config.json").read_text())["reading"]) == {"value_range": [0, 200]}
    for more in ([], ["--data-changed", "continue"], ["--allow"]):
        capsys.readouterr()
        assert pretrain(pictures, out, "--steps", "1", "--value-range", "0", "100", *more) == 2
        said = capsys.readouterr().err
        assert "begun with pictures read with value_range [0.0, 200.0]; now they would be read with" in said
    # The file says what the flags said.
    (pictures / "opendino-reading.json").write_text('{"value_range": [0, 200]}')
    assert pretrain(pictures, out, "--steps", "1") == 0


def test_restart_epoch_begins_a_whole_pass_over_the_changed_pictures(tmp_path, monkeypatch):
    from opendino.data import loader

    pictures, out = draw_pictures(tmp_path / "pictures", 10, px=24), tmp_path / "run"
    assert pretrain(pictures, out, "--steps", "3") == 0  # 12 positions: in the second pass over 10
    draw_pictures(pictures, 12, px=24)
    seen: list[str] = []
    finish = loader.Loader._finish

    def watched(self, step, cut):
        seen.extend(cut.ids)
        return finish(self, step, cut)

    monkeypatch.setattr(loader.Loader, "_finish", watched)
    command = (pictures, out, "--steps", "6", "--allow", "--data-changed", "restart-epoch")
    assert pretrain(*command) == 0
    assert sorted(seen) == sorted(path.name for path in pictures.iterdir())
    config = json.loads((out / "config.json").read_text())
    assert config["data_ahead_steps"] == 0  # 12 positions are one pass over 12
    draw_pictures(pictures, 13, px=24)
    seen.clear()
    assert pretrain(pictures, out, "--steps", "10", "--allow", "--data-changed", "restart-epoch") == 0
    # The next pass begins at position 26, its first whole batch is number 7 at position 28.
    assert json.loads((out / "config.json").read_text())["data_ahead_steps"] == 1
    assert len(set(seen[:11])) == 11
    assert pretrain(pictures, out, "--steps", "10") == 0, "the same command goes on"


def test_a_run_goes_on_for_longer_when_asked_and_records_it(pictures, tmp_path, capsys):
    out = tmp_path / "run"
    assert pretrain(pictures, out, "--steps", "2") == 0
    assert pretrain(pictures, out, "--steps", "4") == 2
    assert "add --allow" in capsys.readouterr().err
    assert pretrain(pictures, out, "--steps", "4", "--allow", "--data.batch-size", "3") == 2
    assert pretrain(pictures, out, "--steps", "4", "--allow") == 0
    assert json.loads((out / "config.json").read_text())["steps"] == 4
    (row,) = [row for row in read_rows(out / "incidents.jsonl") if row["kind"] == "settings changed"]
    assert row["step"] == 2 and "steps: 2 -> 4" in row["words"]
    steps = [row["step"] for row in read_rows(out / "metrics.jsonl") if row["kind"] == "step"]
    assert steps[-1] == 4


def test_c10_three_pictures_and_a_larger_batch(tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "pictures", 3, px=24)
    assert pretrain(pictures, tmp_path / "run", "--steps", "2", "--data.batch-size", "64") == 0
    assert "fewer than two class subfolders" in capsys.readouterr().err


def test_c11_one_class_is_no_class(tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "pictures" / "only", 6, px=24).parent
    assert pretrain(pictures, tmp_path / "run", "--steps", "2") == 0
    assert "k-NN is skipped" in capsys.readouterr().err


def test_class_folders_of_one_picture_each_are_learned_from_and_not_scored(tmp_path, capsys):
    for name in "abcdef":
        draw_pictures(tmp_path / "pictures" / name, 1, px=24)
    assert pretrain(tmp_path / "pictures", tmp_path / "run", "--steps", "2") == 0
    assert "no class folder with two pictures: k-NN is skipped" in capsys.readouterr().err


def test_c13_a_batch_of_one_runs_finite(pictures, tmp_path, capsys):
    arguments = ("--steps", "3", "--data.batch-size", "1", "--data.crops.num-locals", "2", "--watch.log-every", "1")
    assert pretrain(pictures, tmp_path / "run", *arguments) == 0
    assert capsys.readouterr().err.count("KoLeo term is off") == 1
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["losses"] for row in rows if row["kind"] == "step"]
    assert losses and all("koleo" not in terms and terms["dino"] > 0 for terms in losses)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_c14_one_truncated_file_is_listed_and_the_run_ends(tmp_path, capsys, workers):
    pictures = draw_pictures(tmp_path / "pictures", 40, px=24)
    broken = pictures / "0013.png"
    broken.write_bytes(broken.read_bytes()[: int(broken.stat().st_size * 0.6)])
    (pictures / "note.txt").write_text("not a picture")
    arguments = ("--epochs", "2", "--data.workers", workers, "--data.max-bad", "0.05")
    assert pretrain(pictures, tmp_path / "run", *arguments) == 0
    said = capsys.readouterr().err
    assert "complete with 1 bad picture" in said
    incidents = [json.loads(line) for line in (tmp_path / "run" / "incidents.jsonl").read_text().splitlines()]
    found = [row for row in incidents if row["kind"] == "skipped picture" and "0013.png" in row["ids"]]
    assert found and "truncated" in found[0]["words"]


def test_full_disk_at_the_last_save_is_one_line(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPENDINO_FAULT", "commit.before_manifest:1=ENOSPC")
    files._passages.clear()
    assert pretrain(pictures, tmp_path / "run", "--steps", "2", "--save.milestones", "1") == 1
    assert "No space left" in capsys.readouterr().err


def test_tar_and_folder_train_alike(pictures, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        tar.add(pictures, arcname=".")
    for place, out in ((pictures, "a"), (tmp_path / "pictures.tar", "b")):
        assert pretrain(place, tmp_path / out, "--steps", "2") == 0
    a, b = load(tmp_path / "a").state_dict(), load(tmp_path / "b").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_fields_lists_values_with_reasons(pictures, capsys):
    assert main(["pretrain", str(pictures), "--fields", "--steps", "5"]) == 0
    shown = capsys.readouterr().out
    assert "--optim.lr 0.002" in shown and "--method.prototypes 128    16 pictures" in shown


def test_fields_of_a_budget_are_those_of_the_run(pictures, tmp_path, capsys):
    command = ("--model", "vit_tiny", *QUICK, "--epochs", "2")
    assert main(["pretrain", str(pictures), "--fields", "--json", *command]) == 0
    listed = {row["name"]: row["default"] for row in json.loads(capsys.readouterr().out)}
    assert main(["pretrain", str(pictures), "--out", str(tmp_path / "run"), *command]) == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert listed == {name: value for name, value in flatten(saved) if name != "reasons"}
    assert main(["pretrain", str(pictures), "--fields", "--minutes", "0.01", "--model", "vit_tiny", *QUICK]) == 0
    assert "--steps 0 " not in capsys.readouterr().out


def test_fields_without_a_folder_are_those_of_the_recipe_and_say_what_they_are(capsys):
    assert main(["pretrain", "--fields", "--json", "--recipe", "vitl16_imagenet"]) == 0
    told = capsys.readouterr()
    assert "as for 10,000 pictures" in told.err
    rows = {row["name"]: row for row in json.loads(told.out)}
    assert rows["steps"]["default"] == 125_000 and rows["steps"]["type"] == "int"
    assert "10 of 100 epochs" in rows["optim.warmup"]["reason"]
    assert [name for name, row in rows.items() if not row["meaning"]] == []


def test_out_among_the_pictures_is_refused_and_nothing_is_left_there(tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "pictures", 6, px=24)
    for out in (pictures, pictures / "below" / "run"):
        assert pretrain(pictures, out, "--steps", "2") == 2
        assert "lies among the pictures" in capsys.readouterr().err
    assert sorted(path.suffix for path in pictures.iterdir()) == [".png"] * 6


def test_a_wrong_command_leaves_no_run_behind(pictures, tmp_path):
    out = tmp_path / "run"
    assert pretrain(pictures, out, "--steps", "2", "--optim.lrr", "1") == 2
    assert pretrain(pictures, out, "--steps", "2", "--val", str(tmp_path / "nowhere")) == 3
    assert main(["pretrain", str(pictures), "--recipe", "smal", "--steps", "2", "--out", str(out)]) == 2
    assert not out.exists()


def test_few_and_small_pictures_are_said_and_a_short_run_claims_nothing(tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "pictures", 6, px=12)
    assert pretrain(pictures, tmp_path / "run", "--steps", "2") == 0
    said = capsys.readouterr().err
    assert "few pictures: 6" in said and "small pictures: 12 px" in said and "too few steps to tell" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "vit_tini"], "did you mean vit_tiny?"),
        (["--data.crops.global-px", "30"], "multiple of the patch side 8"),
    ],
)
def test_what_no_model_can_be_is_said_before_the_speed_is_measured_or_a_folder_made(
    pictures, tmp_path, capsys, flags, words
):
    out = tmp_path / "run"
    assert main(["pretrain", str(pictures), "--out", str(out), "--model", "vit_tiny", "--minutes", "1", *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and "measuring" not in said and not out.exists()


def test_a_file_is_no_run_directory(pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert pretrain(pictures, tmp_path / "file", "--steps", "2") == 2
    assert "is a file, where a run needs a folder" in capsys.readouterr().err
