"""`opendino adapt` from the command line: what it writes, says, keeps, resumes and refuses."""

import json
import multiprocessing
import os

import pytest
import torch

import opendino
from opendino import load
from opendino.cli import main
from opendino.data.transform import Transform
from opendino.models.family import build_model
from opendino.monitor.metrics import read_rows
from opendino.weights import write_model
from tests.train.runs import draw_pictures

QUICK = [
    *("--data.batch-size", "4", "--data.crops.num-locals", "1", "--method.prototypes", "8", "--method.hidden", "16"),
    *("--watch.knn-every", "2", "--watch.health-every", "1.0", "--watch.picture-every", "1.0"),
    "--watch.picture-px=32",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("p") / "pictures", 20, px=24, classes=2)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "mine"
    torch.manual_seed(3)
    model = build_model("vit_tiny", dim=32, depth=1, heads=1, hidden=32)
    write_model(folder, model, Transform(size=32, patch=8), {"name": "mine", "licence": "CC0", "source": "a test"})
    return folder


def adapt(folder, start, out, *more):
    return main(["adapt", str(folder), "--model", str(start), "--out", str(out), *QUICK, *more])


def test_a_run_leaves_all_that_was_promised(pictures, start, tmp_path, capsys):
    out = tmp_path / "run"
    assert adapt(pictures, start, out, "--steps", "4", "--keep", str(pictures)) == 0
    said = capsys.readouterr().err
    for word in ("step 0: k-NN", "to be kept: k-NN", "step 4: gain", "; kept ", "your pictures, k-NN", "->", "model:"):
        assert word in said
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"] == "adapt" and config["adapt"]["start"] and config["adapt"]["keep"]
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "retention"] == [0, 2, 4]
    assert {"anchor", "gram"} <= set([row for row in rows if row["kind"] == "step"][-1]["losses"])
    card = load(out).card
    assert card["licence"] == "CC0"
    assert "from a test" in load(out / "model-last").card["source"]
    for name in ("model", "model-start", "model-last"):
        assert load(out / name)(torch.zeros(1, 3, 32, 32)).cls.shape == (1, 32)
    a, b = load(start).state_dict(), load(out / "model-start").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "What it keeps" in (out / "report.html").read_text()


def test_a_fifth_is_held_out_without_val(pictures, start, tmp_path, monkeypatch):
    from opendino.data import loader

    seen = set()
    finish = loader.Loader._finish
    monkeypatch.setattr(
        loader.Loader, "_finish", lambda self, step, cut: (seen.update(cut.ids), finish(self, step, cut))[1]
    )
    assert adapt(pictures, start, tmp_path / "run", "--steps", "8") == 0
    assert len(seen) == 16


def test_killed_and_gone_on_with_equals_an_unbroken_run(pictures, start, tmp_path, capsys):
    arguments = ("--steps", "6", "--save-steps", "2", "--keep", str(pictures))

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:5=SIGKILL"
        adapt(pictures, start, tmp_path / "cut", *arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert adapt(pictures, start, tmp_path / "cut", *arguments) == 0
    assert "going on from step 4 of 6" in capsys.readouterr().err
    assert adapt(pictures, start, tmp_path / "whole", *arguments) == 0
    for name in ("model", "model-last"):
        a, b = (load(tmp_path / run / name).state_dict() for run in ("cut", "whole"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    kept = [
        [row for row in read_rows(tmp_path / run / "metrics.jsonl") if row["kind"] == "retention"]
        for run in ("cut", "whole")
    ]
    assert kept[0] == kept[1]


def test_the_guard_stops_a_collapse_keeps_the_start_and_stays_stopped(start, tmp_path, capsys, monkeypatch):
    from opendino.train.methods.adaptation import Adaptation

    after = Adaptation.after_step

    @torch.no_grad()
    def collapse(self, step):
        after(self, step)
        for parameter in self.teacher["backbone"].norm.parameters():
            parameter.zero_()

    monkeypatch.setattr(Adaptation, "after_step", collapse)
    pictures = draw_pictures(tmp_path / "pictures", 60, px=24)
    assert adapt(pictures, start, tmp_path / "run", "--steps", "40") == 0
    said = capsys.readouterr().err
    assert "step 4: ends here: it forgets:" in said and "keep the model that you had" in said
    a, b = load(start).state_dict(), load(tmp_path / "run").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert adapt(pictures, start, tmp_path / "run", "--steps", "40") == 0
    steps = [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert max(steps) == 4 and "keep the model that you had" in capsys.readouterr().err


def test_low_rank_changes_are_merged_into_what_is_written(pictures, start, tmp_path):
    pytest.importorskip("peft")
    assert adapt(pictures, start, tmp_path / "run", "--steps", "3", "--lora", "2", "--optim.freeze-backbone", "0") == 0
    last, first = load(tmp_path / "run" / "model-last").state_dict(), load(start).state_dict()
    assert last.keys() == first.keys()
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved and all(
        name.startswith("blocks.") and name.endswith("weight") and "norm" not in name for name in moved
    )


def test_python_and_machines_get_the_same(pictures, start, tmp_path, capsys):
    assert adapt(pictures, start, tmp_path / "a", "--steps", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    result = opendino.adapt(pictures, model=load(start), steps=2, out=tmp_path / "b", fields=QUICK, quiet=True)
    assert told["best_step"] == result.best_step and told["verdict"] == result.verdict
    assert [one["after"] for one in told["changes"]] == [one.after for one in result.changes]


def test_convolutions_go_on_too_and_what_their_norms_give_is_told_apart(pictures, tmp_path, capsys):
    write_model(
        tmp_path / "conv",
        build_model("conv_mini"),
        Transform(size=32, patch=8),
        {"name": "conv_mini", "licence": "mine", "source": "here"},
    )
    assert adapt(pictures, tmp_path / "conv", tmp_path / "run", "--steps", "2") == 0
    assert load(tmp_path / "run").card["name"] == "conv_mini"
    said = capsys.readouterr().err
    assert "its norms set to your pictures alone" in said and "the same by new norms alone" in said


def test_pictures_without_classes_have_no_gain_but_keep(start, tmp_path, capsys):
    plain = draw_pictures(tmp_path / "pictures", 10, px=24)
    assert adapt(plain, start, tmp_path / "run", "--steps", "2") == 0
    said = capsys.readouterr().err
    assert "fewer than two class subfolders: gain cannot be told" in said and "% of the start's neighbours" in said


def test_folders_of_one_picture_each_are_no_classes_to_score_by(start, tmp_path, capsys):
    for name in "abcdefgh":
        draw_pictures(tmp_path / "pictures" / name, 1, px=24)
    assert adapt(tmp_path / "pictures", start, tmp_path / "run", "--steps", "2") == 0
    assert "no class folder with two pictures: gain cannot be told" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--model", "START", "--keep", "FLAT"],
            2,
            "fewer than two class subfolders, so what is kept cannot be scored",
        ),
        (["--model", "START", "--val", "FLAT"], 2, "has no class subfolders to score by"),
        (["--model", "nowhere/model"], 3, "nowhere/model"),
        ([], 2, "no model to go on from"),
        (["--model", "START", "--data.crops.global-px", "20"], 2, "multiple of the patch side 8"),
        (["--model", "START", "--model.dim", "64"], 2, "is that of the model to go on from"),
        (["--model", "START", "--lora", "-1"], 2, "must be a rank of at least 1"),
        (["--model", "START", "--kepe", "x"], 2, "did you mean --keep?"),
        (["--model", "START", "--channels", "4"], 2, "takes 4 channels"),
        (["--model", "START", "--stride", "4"], 2, "is for reading"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(pictures, start, tmp_path, capsys, arguments, code, words):
    flat = draw_pictures(tmp_path / "flat", 6, px=24)
    places = {"START": str(start), "FLAT": str(flat)}
    command = [places.get(word, word) for word in arguments]
    assert main(["adapt", str(pictures), "--out", str(tmp_path / "run"), "--steps", "2", *command]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("opendino: ")]
    assert len(said) == 1 and words in said[0]
    assert not (tmp_path / "run").exists()


def test_another_start_is_another_run(pictures, start, tmp_path, capsys):
    out = tmp_path / "run"
    assert adapt(pictures, start, out, "--steps", "2") == 0
    other = build_model("vit_tiny", dim=32, depth=1, heads=1, hidden=32)
    write_model(
        tmp_path / "other", other, Transform(size=32, patch=8), {"name": "mine", "licence": "CC0", "source": "x"}
    )
    assert adapt(pictures, tmp_path / "other", out, "--steps", "2") == 2
    assert "adapt.start:" in capsys.readouterr().err


def test_pretraining_does_not_take_its_fields(pictures, capsys):
    assert main(["pretrain", str(pictures), "--adapt.cls-weight", "1", "--steps", "2"]) == 2
    assert "use opendino adapt PICTURES --model MODEL" in capsys.readouterr().err


def test_fields_lists_values_with_reasons(pictures, start, capsys):
    assert main(["adapt", str(pictures), "--model", str(start), "--fields", "--steps", "5"]) == 0
    said = capsys.readouterr().out
    assert "--optim.backbone-lr 0.1    it is trained already" in said and "--data.crops.global-px 16 " in said
    assert main(["adapt", "--fields", "--json"]) == 0
    named = {row["name"]: row["default"] for row in json.loads(capsys.readouterr().out)}
    assert named["model.name"] == "vits16" and named["read_px"] == 224


def test_low_rank_changes_of_a_network_without_blocks_are_refused_before_anything_is_written(
    pictures, tmp_path, capsys
):
    card = {"name": "conv_mini", "licence": "mine", "source": "here"}
    write_model(tmp_path / "conv", build_model("conv_mini"), Transform(size=32, patch=8), card)
    assert adapt(pictures, tmp_path / "conv", tmp_path / "run", "--lora", "4", "--steps", "2") == 2
    assert "no transformer blocks" in capsys.readouterr().err and not (tmp_path / "run").exists()
