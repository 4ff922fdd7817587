"""What commands say of the pictures that they were given: which were left out, and paths that are none."""

from pathlib import Path

import pytest

from opendino.cli.pictures import SHOWN, name_left_out
from opendino.data.listing import Skipped
from opendino.data.sources import open_source
from opendino.files import point_near
from tests.data.drawing import encoded, photo


def test_a_long_list_says_how_many_more_there_are_and_where() -> None:
    skipped = [Skipped(f"{number:02d}.jpg", "truncated") for number in range(17)]
    assert name_left_out([], "x") == ""
    assert name_left_out(skipped[:2], "x") == "left out 2: 00.jpg (truncated), 01.jpg (truncated)"
    assert name_left_out(skipped[:SHOWN], "x").count("truncated") == SHOWN
    assert "more" not in name_left_out(skipped[:SHOWN], "x")
    said = name_left_out(skipped, "out/try.html")
    assert said.startswith("left out 17: 00.jpg (truncated), ") and said.endswith(", ... and 12 more, see out/try.html")


@pytest.mark.parametrize("name", ["opendino-skip.txt", "opendino-reading.json", "x.tar.opendino-skip.txt"])
def test_our_own_files_beside_pictures_are_not_counted_as_left_out(name: str, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encoded(photo(number), "PNG"))
    (tmp_path / name).write_text("{}" if name.endswith("json") else "# nothing\n")
    source = open_source(tmp_path)
    assert len(source) == 2 and source.skip_counts == {} and source.skipped == ()


def test_the_path_that_was_probably_meant(tmp_path: Path) -> None:
    (tmp_path / "photos" / "summer").mkdir(parents=True)
    assert point_near(tmp_path / "photso" / "summer") == f"did you mean {tmp_path / 'photos' / 'summer'}?"
    assert point_near(tmp_path / "photos" / "sumer") == f"did you mean {tmp_path / 'photos' / 'summer'}?"
    assert point_near(tmp_path / "zzz" / "a") == f"the nearest that exists is {tmp_path}"
    assert point_near(Path("zzz") / "no" / "where").startswith(("the nearest", "did you mean"))
