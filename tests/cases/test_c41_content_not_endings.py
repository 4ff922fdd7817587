"""C41 (haraldk/TwelveMonkeys 185; facebookresearch/dinov2 78): pictures are told by content, not by endings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from opendino.data.sources import open_source
from tests.data.drawing import encoded, photo


def test_a_png_under_any_name_is_a_picture(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.TIF", "d", "e.data"):
        (tmp_path / name).write_bytes(encoded(photo(0), "PNG"))
    (tmp_path / "note.txt").write_text("a note")
    source = open_source(tmp_path)
    assert [source.id(index) for index in range(len(source))] == ["a.jpg", "b.JPEG", "c.TIF", "d", "e.data"]
    assert all(np.array_equal(source.read(index).array, photo(0)) for index in range(len(source)))
    assert source.skip_counts == {"no image": 1}
