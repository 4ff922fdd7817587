"""The command as a stranger types it: start-up, help, did-you-mean, exit codes, one-line errors."""

import subprocess
import sys

import pytest

from opendino.cli import VERBS, main
from opendino.cli.fields import parse_fields, split_fields
from opendino.train.config import RunConfig


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_and_help_load_no_torch():
    heavy = "{'torch', 'kornia', 'grain', 'plotly', 'numpy', 'tyro', 'rich'}"
    code = (
        f"import sys, opendino, opendino.cli; opendino.cli.main(['--help']); print(sorted({heavy} & set(sys.modules)))"
    )
    assert python(code).strip().endswith("[]")


def one_line(capsys):
    """The complaint: the last line, the only one of its kind, and no trace."""
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("opendino: ")] == lines[-1:], lines
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_version(capsys):
    import opendino

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"opendino {opendino.__version__}\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def recipe(situation):\n    return 1 / 0", "fails in line 2: ZeroDivisionError: division by zero"),
        ("def recipe(:", "fails in line 1: SyntaxError: invalid syntax"),
        ("import nosuchthing", "fails in line 1: ModuleNotFoundError: No module named 'nosuchthing'"),
        ("def recipe(situation):\n    return 3", "returned int, not RunConfig; define recipe"),
        ("x = 1", "has no function named recipe; define recipe"),
    ],
)
def test_a_recipe_file_that_fails_is_one_line(code, said, capsys, tmp_path):
    from tests.train.runs import draw_pictures

    pictures = draw_pictures(tmp_path / "pictures", 4)
    (tmp_path / "mine.py").write_text(code)
    assert main(["pretrain", str(pictures), "--steps", "2", "--recipe", str(tmp_path / "mine.py")]) == 2
    assert said in one_line(capsys)


def test_a_recipe_file_is_used(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom opendino.recipes.small import small\n"
        "def recipe(situation):\n    return replace(small(situation), seed=5)\n"
    )
    assert main(["pretrain", "--fields", "--steps", "2", "--recipe", str(tmp_path / "mine.py")]) == 0
    assert "--seed 5 " in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code in (0, None)
    assert f"opendino {verb}" in capsys.readouterr().out


def test_help_names_what_is_to_be_given(capsys):
    for verb, words in (("show", "KIND IMAGE..."), ("pretrain", "DIR")):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert capsys.readouterr().out.splitlines()[0].endswith(words)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["pretran"], 2, "did you mean pretrain?"),
        (["pretrain", "nowhere"], 3, "no such file or folder"),
        (["pretrain", "{pictures}", "--steps", "2", "--optim.lrr", "1"], 2, "did you mean --optim.lr?"),
        (["pretrain", "{pictures}", "--steps", "2", "--recipe", "smal"], 2, "did you mean small?"),
        (["pretrain", "{pictures}", "--steps", "2", "--model", "vit_tinny"], 2, "did you mean vit_tiny?"),
        (["pretrain", "{pictures}", "--steps", "2", "--minutes", "3"], 2, "different lengths"),
        (["pretrain", "{pictures}", "--steps", "0"], 2, "must be a number above 0"),
        (["pretrain", "{pictures}", "--minutes", "nan"], 2, "must be a number above 0"),
        (["pretrain", "{pictures}", "--epochs", "inf"], 2, "must be a number above 0"),
        (["pretrain", "{pictures}", "--steps", "2", "--save-minutes", "-1"], 2, "save.minutes: must be 0 or more"),
        (["pretrain", "{pictures}", "--steps", "2", "--grace", "-1"], 2, "save.grace_s: must be 0 or more"),
        (["pretrain", "{pictures}", "--steps", "2", "--optim.lr", "nan"], 2, "optim.lr: must be above 0"),
        (
            ["pretrain", "{pictures}", "--steps", "2", "--optim.warmup", "-3"],
            2,
            "optim.warmup: must be steps or a share",
        ),
        (["pretrain", "{pictures}", "--steps", "2", "--watch.knn-every", "0"], 2, "watch.knn_every: must be above 0"),
        (["pretrain", "{pictures}", "--steps", "2", "--watch.log-every", "0"], 2, "watch.log_every: must be above 0"),
        (["pretrain", "{pictures}", "--steps", "2", "--data.batch-size", "0"], 2, "data.batch_size: must be 1 or more"),
        (["pretrain", "{pictures}", "--steps", "2", "--read-px", "0"], 2, "read_px: must be at least 1"),
        (["pretrain", "{pictures}", "--steps", "2", "--seed", "-1"], 2, "seed: must be 0 or more"),
        (["pretrain", "{pictures}", "--steps", "2", "--watch.picture-dir", "nowhere"], 3, "nowhere: no such file"),
        (["pretrain", "{pictures}", "--steps", "2", "--model", "vit_tiny", "--model.heads", "5"], 2, "heads"),
        (["pretrain", "{pictures}", "--steps", "2", "--val", "{single}"], 2, "no class"),
        (["pretrain", "{pictures}", "--steps", "2", "--optim.lr", "fast"], 2, "fast"),
        (["pretrain", "{pictures}", "--steps", "2", "--optim.lr", "-1"], 2, "must be above 0"),
        (["pretrain", "{pictures}", "--steps", "2", "--device", "tpu"], 2, "not on this machine"),
        (["pretrain", "{empty}", "--steps", "2"], 3, "no pictures found"),
        (["pretrain", "{single}", "--steps", "2"], 3, "one picture"),
        (["pretrain"], 2, "no pictures given"),
        (
            ["pretrain", "--optim.lr", "0.1", "{pictures}", "--stepps", "2"],
            2,
            "--stepps: no such flag; did you mean --steps?",
        ),
        (
            ["pretrain", "{pictures}", "--steps", "abc"],
            2,
            "--steps abc: not a whole number; see opendino pretrain --help",
        ),
        (["pretrain", "{pictures}", "--steps=1.5"], 2, "--steps 1.5: not a whole number"),
        (["pretrain", "{pictures}", "--epochs", "x"], 2, "--epochs x: not a number"),
        (["pretrain", "{pictures}", "--steps"], 2, "--steps: needs a value"),
        (["pretrain", "{pictures}", "more", "--steps", "2"], 2, "more: not expected here"),
        (["pretrain", "{pictures}", "--steps", "2", "--precision", "bf61"], 2, "did you mean bf16?"),
        (["pretrain", "{pictures}", "--steps", "2", "--precision"], 2, "--precision: needs a value"),
        (["pretrain", "{pictures}", "--steps", "2", "--optim.betas", "1"], 2, "--optim.betas 1: needs 2 values"),
        (["show", "pca", "nowhere.png", "--model", "{empty}"], 3, ""),
        (["show", "pca"], 2, "no picture given"),
        (["show", "pca", "nowhere.png", "--modle", "x"], 2, "did you mean --model?"),
        (["models", "--jsn"], 2, "did you mean --json?"),
        (["models", "all"], 2, "all: not expected here"),
        (["demo", "--seed", "one"], 2, "--seed one: not a whole number"),
    ],
)
def test_bad_input_is_one_line_with_the_right_code(argv, code, said, capsys, tmp_path):
    from tests.train.runs import draw_pictures

    places = {
        "pictures": draw_pictures(tmp_path / "pictures", 4),
        "single": draw_pictures(tmp_path / "single", 1),
        "empty": tmp_path / "empty",
    }
    places["empty"].mkdir()
    arguments = [argument.format(**places) for argument in argv]
    if arguments[0] == "pretrain" and len(arguments) > 3:
        arguments[1:1] = ["--out", str(tmp_path / "run")]
    assert main(arguments) == code
    assert said in one_line(capsys)
    assert not (tmp_path / "run" / "model").exists()


def test_a_field_that_is_on_or_off_may_stand_alone():
    for typed in (["--compile"], ["--compile", "True"], ["--compile=True"], ["--compile", "--optim.lr", "0.1"]):
        assert split_fields([*typed, "--steps", "3", "photos"], {"--steps"})[0] == ["--steps", "3", "photos"]
        assert parse_fields(RunConfig(compile=False), typed).compile
    mine, fields = split_fields(["--compile", "photos"], set())
    assert mine == ["photos"] and fields == ["--compile", "True"]
    assert not parse_fields(RunConfig(compile=True), ["--compile", "False"]).compile
