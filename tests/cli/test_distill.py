"""`opendino distill` from the command line on small folders: what it writes, says, resumes and refuses."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

import opendino
from opendino import load
from opendino.cli import main
from opendino.monitor.metrics import read_rows
from opendino.train.teacher_heads import read_heads
from tests.train.runs import draw_pictures

SMALL = ["--model.dim", "32", "--model.depth", "1", "--model.heads", "1", "--model.hidden", "32"]
CROPS = ["--data.batch-size", "4", "--data.crops.global-px", "16", "--data.crops.local-px", "8", "--read-px", "16"]
SELDOM = [
    *("--watch.knn-every", "1.0", "--watch.health-every", "1.0"),
    *("--watch.picture-every", "1.0", "--watch.picture-px", "16", "--optim.muon-lr", "0"),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("p") / "pictures", 16, px=24, classes=2)


@pytest.fixture(scope="module")
def teacher(pictures, tmp_path_factory):
    """A run, whose checkpoint has heads."""
    out = tmp_path_factory.mktemp("t") / "teacher"
    own = ["--method.prototypes", "8", "--method.ibot-prototypes", "6", "--method.hidden", "16", "--steps", "3"]
    command = ["pretrain", str(pictures), "--model", "vit_tiny", "--out", str(out)]
    assert main([*command, *SMALL, *CROPS, "--data.crops.num-locals", "1", *SELDOM, *own]) == 0
    return out


def distill(pictures, teacher, out, *more, students=("vit_tiny",), locals_=("--data.crops.num-locals", "1")):
    named = [word for name in students for word in ("--student", name)]
    command = ["distill", str(pictures), "--teacher", str(teacher), *named, "--out", str(out)]
    recipe = () if "--recipe" in more else ("--recipe", "distill")
    return main([*command, *CROPS, *locals_, *SELDOM, "--steps", "6", *recipe, *more])


def test_a_run_as_teacher_brings_its_heads_and_every_student_has_its_own_directory(pictures, teacher, tmp_path, capsys):
    assert distill(pictures, teacher, tmp_path, students=("vit_tiny", "conv_mini")) == 0
    said = capsys.readouterr().err
    for word in ("the teacher's k-NN is", "the line to reach", "conv_mini step 6", "next:   opendino evaluate"):
        assert word in said
    assert "training them" not in said and not (tmp_path / "teacher-heads").exists()
    for name in ("vit_tiny", "conv_mini"):
        run = tmp_path / name
        config = json.loads((run / "config.json").read_text())
        assert config["distill"]["teacher"] == str(teacher) and config["method"]["prototypes"] == 8
        assert config["method"]["ibot_weight"] == 1.0 and config["method"]["ibot_prototypes"] == 6
        assert (run / "checkpoints" / "step-00000006").is_dir() and (run / "report.html").is_file()
        assert "teacher" in (run / "report.html").read_text()
        assert load(run)(torch.zeros(1, 3, 16, 16)).cls.shape == (1, load(run).dim)
        assert load(run).card["teacher"]["name"] == "vit_tiny"
        rows = read_rows(run / "metrics.jsonl")
        assert [row["step"] for row in rows if row["kind"] == "teacher"] == [0]
        assert {"dino", "ibot", "koleo"} == set(next(row for row in rows if row["kind"] == "step")["losses"])
    assert read_heads(tmp_path / "vit_tiny").heads.dino.last_layer.weight.shape == (8, 64)


def test_a_teacher_without_heads_gets_them_first_and_they_are_found_again(pictures, teacher, tmp_path, capsys):
    model, out = teacher / "model", tmp_path / "job"
    assert distill(pictures, model, out, "--heads-steps", "4") == 0
    said = capsys.readouterr().err
    assert "has no heads: training them" in said and "prototypes in use, two views" in said
    assert "teacher's DINO head: targets of" in said and "teacher's iBOT head: targets of" in said
    heads = out / "teacher-heads"
    assert [row["head"] for row in read_rows(heads / "metrics.jsonl") if row["kind"] == "heads"] == ["DINO", "iBOT"]
    assert distill(pictures, model, out, "--heads-steps", "4", students=("conv_mini",)) == 0
    said = capsys.readouterr().err
    assert "training them" not in said and "teacher's DINO head" in said
    other = tmp_path / "other"
    assert distill(pictures, model, other, "--heads", str(heads)) == 0
    assert not (other / "teacher-heads").exists()
    a, b = (load(where / "vit_tiny").state_dict() for where in (out, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_features_are_matched_without_heads(pictures, teacher, tmp_path, capsys):
    kinds = ("vit_tiny", "conv_mini")
    assert distill(pictures, teacher / "model", tmp_path, "--recipe", "distill_match", locals_=(), students=kinds) == 0
    said = capsys.readouterr().err
    assert "features differ: they use" in said and "prototypes" not in said
    rows = read_rows(tmp_path / "vit_tiny" / "metrics.jsonl")
    losses = [row["losses"] for row in rows if row["kind"] == "step"]
    assert set(losses[0]) == {"match_cls", "match_patches"}
    report = (tmp_path / "vit_tiny" / "report.html").read_text()
    assert "Teacher entropy" not in report and "Prototypes in use" not in report


def test_the_same_command_goes_on_after_a_kill_and_equals_an_unbroken_job(pictures, teacher, tmp_path, capsys):
    students = ("vit_tiny", "conv_mini")

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:9=SIGKILL"
        distill(pictures, teacher, tmp_path / "job", "--save-steps", "2", students=students)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert distill(pictures, teacher, tmp_path / "job", "--save-steps", "2", students=students) == 0
    assert "going on from step 4 of 6" in capsys.readouterr().err
    assert distill(pictures, teacher, tmp_path / "job", students=students) == 0
    assert "is complete: step 6 of 6" in capsys.readouterr().err
    for name in students:  # each alone, too
        assert distill(pictures, teacher, tmp_path / "alone", students=(name,)) == 0
        a, b = (load(tmp_path / job / name).state_dict() for job in ("job", "alone"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_stopped_job_saves_every_student_and_answers_machines(pictures, teacher, tmp_path, capfd, monkeypatch):
    from opendino.cli import watchers

    monkeypatch.setattr(watchers.Watch, "on_step", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert distill(pictures, teacher, tmp_path, "--json", students=("vit_tiny", "conv_mini")) == 75
    said = json.loads(capfd.readouterr().out)
    assert said == {"out": str(tmp_path), "stopped": "stopped by SIGTERM, every student saved"}
    assert (tmp_path / "vit_tiny" / "checkpoints" / "step-00000001").is_dir()


def test_json_and_python_give_the_same_fields(pictures, teacher, tmp_path, capsys):
    assert distill(pictures, teacher, tmp_path / "a", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    fields = [*CROPS, "--data.crops.num-locals", "1", *SELDOM]
    result = opendino.distill(
        pictures,
        teacher=teacher,
        student="vit_tiny",
        recipe="distill",
        steps=6,
        out=tmp_path / "b",
        fields=fields,
        quiet=True,
    )
    assert said["teacher_knn"] == result.teacher_knn
    (one,), (other,) = said["students"], result.students
    assert (one["name"], one["knn"], one["steps"]) == (other.name, other.knn, other.steps)
    assert one["run"] == str(tmp_path / "a" / "vit_tiny") and other.model == tmp_path / "b" / "vit_tiny" / "model"


def test_minutes_become_steps_once(pictures, teacher, tmp_path):
    def once():
        named = ["--student", "vit_tiny", "--recipe", "distill", "--out", str(tmp_path), "--minutes", "0.005"]
        fields = [*CROPS, *SMALL, "--data.crops.num-locals", "1", *SELDOM]
        assert main(["distill", str(pictures), "--teacher", str(teacher), *named, *fields]) == 0
        return json.loads((tmp_path / "vit_tiny" / "config.json").read_text())["steps"]

    first = once()
    assert first >= 20
    assert once() == first


@pytest.mark.parametrize(
    ("more", "students", "words"),
    [
        ([], ("vit_tyni",), "did you mean vit_tiny?"),
        ([], (), "no student given"),
        ([], ("vit_tiny", "vit_tiny"), "named twice"),
        (["--method.prototypes", "16"], ("vit_tiny",), "method.prototypes: is 16, but the teacher's head has 8"),
        (["--method.ibot-prototypes", "9"], ("vit_tiny",), "the teacher's head has 6"),
        (["--distill.teacher-px", "20"], ("vit_tiny",), "the nearest is --distill.teacher-px 16"),
        (["--data.crops.local-px", "12"], ("vit_tiny",), "the nearest is --data.crops.local_px 16"),
        ([], ("convnext_tiny",), "sees 8 px as 16, no multiple of its 32; the nearest is --data.crops.local_px 16"),
        (["--distill.student-px", "0"], ("convnext_tiny",), "multiple of the patch side 32"),
        (["--recipe", "distill_match"], ("vit_tiny",), "add --data.crops.num-locals 0"),
        (["--recipe", "distil"], ("vit_tiny",), "did you mean distill?"),
        (["--data.mean", "0", "0", "0"], ("vit_tiny",), "differ from the teacher's"),
        (["--heads", "nowhere"], ("vit_tiny",), "is no run with heads"),
    ],
)
def test_wrong_commands_are_one_line(pictures, teacher, tmp_path, capsys, more, students, words):
    out = tmp_path / "out"
    assert distill(pictures, teacher, out, *more, students=students) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert words in said and said.startswith("opendino: ")
    assert not out.exists()


def test_a_teacher_that_is_not_there_and_heads_of_another_are_refused(pictures, teacher, tmp_path, capsys):
    assert distill(pictures, tmp_path / "nothing", tmp_path / "out") == 3
    assert "nothing" in capsys.readouterr().err.splitlines()[-1]
    assert distill(pictures, teacher, tmp_path / "student") == 0
    capsys.readouterr()
    assert (
        distill(pictures, tmp_path / "student" / "vit_tiny" / "model", tmp_path / "out", "--heads", str(teacher)) == 2
    )
    assert "take 32 numbers, the teacher gives 128" in capsys.readouterr().err.splitlines()[-1]
    assert main(["pretrain", str(pictures), "--steps", "2", "--distill.student-px", "32"]) == 2
    assert "use opendino distill" in capsys.readouterr().err.splitlines()[-1]


def test_another_teacher_is_another_run(pictures, teacher, tmp_path, capsys):
    assert distill(pictures, teacher, tmp_path / "job") == 0
    assert distill(pictures, tmp_path / "job" / "vit_tiny", tmp_path / "second", "--data.crops.num-locals", "1") == 0
    capsys.readouterr()
    assert distill(pictures, tmp_path / "second" / "vit_tiny", tmp_path / "job") == 2
    assert "distill.teacher_hash" in capsys.readouterr().err


def test_fields_are_listed_with_reasons_and_nothing_is_written(pictures, teacher, tmp_path, capsys):
    assert distill(pictures, teacher, tmp_path / "out", "--fields", "--json", "--method.hidden", "20") == 0
    said = {field["name"]: field for field in json.loads(capsys.readouterr().out)}
    assert said["method.prototypes"]["default"] == 8
    assert said["method.prototypes"]["reason"] == "as the teacher's heads were trained"
    assert said["method.hidden"]["reason"] == "set by the command"
    assert said["distill.teacher"]["default"] == str(teacher)
    assert not (tmp_path / "out").exists()


def test_heads_of_this_teacher_stay_when_pictures_come(teacher, tmp_path, capsys):
    folder = draw_pictures(tmp_path / "pictures", 8, px=24, classes=2)
    command = (folder, teacher / "model", tmp_path / "out", "--heads-steps", "2")
    assert distill(*command) == 0
    draw_pictures(folder, 10, px=24, classes=2)
    capsys.readouterr()
    assert distill(*command, "--data-changed", "continue") == 0
    assert "the teacher's heads are those of" in capsys.readouterr().err


@pytest.fixture(scope="module")
def job(teacher, tmp_path_factory):
    """Two students of larger pictures, so that there is a higher resolution to go to."""
    root = tmp_path_factory.mktemp("job")
    pictures = draw_pictures(root / "pictures", 16, px=48, classes=2)
    assert distill(pictures, teacher, root / "job", students=("vit_tiny", "conv_mini")) == 0
    return root / "job"


def test_high_resolution_goes_on_from_the_averages_of_a_job_in_one_line(teacher, job, tmp_path, capsys):
    command = ["distill", "--stage", "highres", "--from", str(job), "--out", str(tmp_path / "a"), "--steps", "4"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "16 pictures in" in said and "training them" not in said
    for name in ("vit_tiny", "conv_mini"):
        assert f"{name}: highres stage of {(job / name).resolve()}, from the average of step 6" in said
        run = tmp_path / "a" / name
        config = json.loads((run / "config.json").read_text())
        assert config["stage"]["name"] == "highres" and config["stage"]["start"].endswith("step-00000006")
        assert config["data"]["crops"]["mix"].startswith("32/8/0:0.3 48/8/0:0.3") and config["data"]["batch_size"] == 2
        assert config["method"]["gram"]["weight"] == 0 and config["distill"]["teacher"] == str(teacher)
        before, start = (load(path).state_dict() for path in (job / name / "model", run / "model-start"))
        assert all(torch.equal(value, before[key]) for key, value in start.items())
        rows = read_rows(run / "metrics.jsonl")
        assert "dino" in next(row for row in rows if row["kind"] == "step")["losses"]
        old = [row for row in read_rows(job / name / "metrics.jsonl") if row["kind"] == "knn"][-1]
        assert next(row for row in rows if row["kind"] == "knn")["value"] == old["value"]
    assert main(command) == 0
    assert "step 4 of 4" in capsys.readouterr().err


def test_a_stage_of_one_student_resumes_to_the_bit(job, tmp_path):
    def stage(out, *more):
        command = ["distill", "--stage", "highres", "--from", str(job / "vit_tiny"), "--out", str(out), "--steps", "4"]
        return main([*command, "--save-steps", "1", *more])

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:3=SIGKILL"
        stage(tmp_path / "killed")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert stage(tmp_path / "killed") == stage(tmp_path / "whole") == 0
    a, b = (load(tmp_path / name / "vit_tiny").state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--from", "JOB"], "is of a stage; add --stage highres"),
        (["--stage", "highres"], "needs the job that it goes on from; add --from JOB"),
        (["--stage", "gram", "--from", "JOB"], "--stage gram: distillation has one stage; use --stage highres"),
        (["--stage", "highres", "--from", "TEACHER"], "holds no student of distill"),
        (["--stage", "highres", "--from", "JOB", "--student", "vits16"], "its students: conv_mini, vit_tiny"),
        (["--stage", "highres", "--from", "JOB", "--model.dim", "64"], "a stage keeps the model"),
        (
            ["PICTURES", "--teacher", "TEACHER", "--student", "vit_tiny", "--recipe", "distill_highres"],
            "goes on from a",
        ),
        (["PICTURES", "--stage", "highres", "--from", "JOB"], "have 24 px, and the smallest high resolution"),
    ],
)
def test_stages_that_cannot_be_are_refused(pictures, teacher, job, tmp_path, capsys, flags, words):
    places = {"JOB": str(job), "TEACHER": str(teacher), "PICTURES": str(pictures)}
    assert main(["distill", *(places.get(word, word) for word in flags), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
