"""C16 (opencv/opencv 14132; MouseLand/cellpose 1150): names beyond ASCII are read and stay distinct."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from opendino.data.sources import decode_id, open_source
from tests.data.drawing import encoded, photo

NAMES = ["crack 🛣️ é.jpg", "crack 🛣️ e\u0301.jpg", "two\nlines.jpg"]


def test_names_are_read_and_round_trip(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(encoded(photo(number), "PNG"))
    source = open_source(tmp_path)
    ids = [source.id(index) for index in range(len(source))]
    assert len(set(ids)) == 3 and "crack 🛣️ é.jpg" in ids
    assert not any("\n" in id for id in ids)
    for index, id in enumerate(json.loads(json.dumps(ids))):
        number = NAMES.index(os.fsdecode(decode_id(id)))
        assert np.array_equal(source.read(index).array, photo(number))
