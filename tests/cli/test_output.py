"""The claim on an output folder or drawing: who may write, what is removed, what a kill or a forged record can do."""

import json
from pathlib import Path

import pytest
from PIL import Image

from opendino.cli.output import RECORD, claim_drawing, claim_folder
from opendino.errors import OpendinoError, UsageError
from opendino.files import write_atomic
from opendino.pages.page import png_bytes

INPUTS = {"data": Path("pictures"), "model": "a (12ab)", "size": None, "layers": (1, 2)}


def fill(folder, names=("a.txt", "sub/b.txt"), **changed):
    output = claim_folder(folder, "evaluate", INPUTS | changed)
    for name in names:
        write_atomic(output.file(name), name)
    return output


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_same_inputs_go_on_and_what_they_no_longer_write_is_removed(tmp_path):
    fill(tmp_path / "out").finish()
    fill(tmp_path / "out", ["a.txt"])
    assert files(tmp_path / "out") == ["a.txt", RECORD, "sub/b.txt"], "nothing goes before the command is done"
    fill(tmp_path / "out", ["a.txt"]).finish()
    assert files(tmp_path / "out") == ["a.txt", RECORD]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "b (34cd)"}, r"model a \(12ab\) instead of b \(34cd\)"),
        ({"size": 64, "layers": None}, r"size none instead of 64; also layers"),
        ({"data": Path("others")}, r"data .*pictures instead of .*others"),
    ],
)
def test_other_inputs_are_refused_with_what_differs(tmp_path, change, words):
    fill(tmp_path / "out")
    with pytest.raises(UsageError, match=words + ".*choose another --out"):
        claim_folder(tmp_path / "out", "evaluate", INPUTS | change)
    with pytest.raises(UsageError, match="holds the output of opendino evaluate"):
        claim_folder(tmp_path / "out", "track", INPUTS)


def test_a_command_that_failed_before_its_first_file_leaves_the_folder_free(tmp_path):
    claim_folder(tmp_path / "out", "evaluate", INPUTS)
    fill(tmp_path / "out", model="b")


def test_foreign_files_keep_a_command_out_and_are_never_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no opendino command wrote there \(mine.txt\)"):
        fill(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        fill(tmp_path / "mine.txt")
    with pytest.raises(OpendinoError, match="cannot be written"):
        fill(tmp_path / "mine.txt" / "below")
    fill(tmp_path / "out", ["a.txt"]).finish()
    (tmp_path / "out" / "c.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"c.txt: is there already"):
        fill(tmp_path / "out", ["a.txt", "c.txt"])
    fill(tmp_path / "out", ["a.txt"]).finish()
    assert (tmp_path / "out" / "c.txt").read_text() == "mine"
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    fill(tmp_path / "hidden")


def test_a_killed_run_is_known_and_a_cut_line_of_the_record_is_none(tmp_path):
    output = fill(tmp_path / "out")  # never finished
    with open(output.path / RECORD, "a") as record:
        record.write('{"file": "su')
    fill(tmp_path / "out", ["sub/b.txt", "d.txt"]).finish()
    assert files(tmp_path / "out") == ["d.txt", RECORD, "sub/b.txt"]


def test_a_forged_record_removes_nothing_outside(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("mine")
    fill(tmp_path / "out", ["a.txt"]).finish()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with open(tmp_path / "out" / RECORD, "a") as record:
        for name in ("../mine.txt", str(tmp_path / "mine.txt"), "link/x"):
            record.write(json.dumps({"file": name}) + "\n")
    fill(tmp_path / "out", ["a.txt"]).finish()
    assert (tmp_path / "mine.txt").exists() and (tmp_path / "elsewhere" / "x").exists()
    for wrong in ("", "[]\n", "{}\n", "null\n", "\xff"):
        (tmp_path / "out" / RECORD).write_text(wrong, encoding="latin-1")
        with pytest.raises(UsageError, match="is no record"):
            fill(tmp_path / "out")


def test_a_drawing_says_what_it_was_drawn_from_without_naming_it(tmp_path):
    def draw(named=False, **changed):
        drawing = claim_drawing(tmp_path / "x.png", "show", INPUTS | changed, named=named)
        drawing.path.write_bytes(png_bytes(Image.new("RGB", (4, 4)), drawing.text))
        return drawing.path.name

    assert draw() == draw() == "x.png"
    content = (tmp_path / "x.png").read_bytes()
    assert b"pictures" not in content, "pictures are passed on; paths of the disk are nobody's business"
    assert draw(model="b", size=3) == draw(model="b", size=3) == "x-2.png"
    assert draw(model="c") == "x-3.png"
    assert draw() == "x.png"
    assert (tmp_path / "x.png").read_bytes() == content
    assert draw(named=True, model="b") == "x.png"
    assert (tmp_path / "x.png").read_bytes() != content
    for foreign in (b"GIF89a", b"", png_bytes(Image.new("RGB", (4, 4)))):
        (tmp_path / "x.png").write_bytes(foreign)
        with pytest.raises(UsageError, match="not drawn by opendino"):
            draw(named=True)
        assert draw() == "x-4.png"
        assert (tmp_path / "x.png").read_bytes() == foreign
