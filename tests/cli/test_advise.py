"""`opendino advise`: three ways measured on the same pictures, one sentence, one command."""

import json

import pytest

from opendino.cli import main
from opendino.data.transform import Transform
from opendino.models.family import build_model
from opendino.weights import write_model
from tests.train.runs import draw_pictures


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "mine"
    model = build_model("conv_mini")
    write_model(folder, model, Transform(size=32, patch=8), {"name": "conv_mini", "licence": "mine", "source": "here"})
    return folder


def test_a_table_a_sentence_and_a_command(start, tmp_path, capsys):
    pictures = draw_pictures(tmp_path / "my pictures", 20, px=24, classes=2)
    command = ["advise", str(pictures), "--model", str(start), "--steps", "4", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert [line.split()[0] for line in lines if line[:10].strip() in ("frozen", "adapt", "pretrain")][:3]
    assert "expected gain" in said and "next:   opendino " in said and "'" in lines[-1]
    saved = json.loads((tmp_path / "out" / "advice.json").read_text())
    assert [option["way"] for option in saved["options"]] == ["frozen", "adapt", "pretrain"]
    assert saved["way"] in ("frozen", "adapt", "pretrain") and saved["options"][1]["hours"] == pytest.approx(1, rel=0.5)
    page = (tmp_path / "out" / "advice.html").read_text()
    assert saved["words"] in page and "expected gain over frozen after 1 h" in page and "my pictures" in page
    assert main([*command, "--json"]) == 0, "the same command finds its runs"
    again = json.loads(capsys.readouterr().out)
    assert again["words"] == saved["words"] and again["command"] == saved["command"]


def test_what_is_wrong_is_one_line(start, tmp_path, capsys):
    flat = draw_pictures(tmp_path / "flat", 6, px=24)
    for arguments, words in (
        ([str(flat), "--model", str(start)], "without labels no way can be called better"),
        ([str(flat)], "no model to ask about"),
        ([], "no pictures given"),
        ([str(flat), "--model", str(start), "--minutes", "0"], "must be above 0"),
    ):
        assert main(["advise", *arguments, "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
