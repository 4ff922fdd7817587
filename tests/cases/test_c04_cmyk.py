"""C04 (python-pillow/Pillow 6563; haraldk/TwelveMonkeys 147): a CMYK photograph is green or inverted."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from opendino.data.images import read
from tests.data.drawing import photo


def test_cmyk_is_right_or_named_as_ambiguous() -> None:
    original = photo(4, 64, 64)
    cmyk = Image.fromarray(original).convert("CMYK")
    as_written = io.BytesIO()
    cmyk.save(as_written, "JPEG", quality=98, subsampling=0)
    assert np.abs(read(as_written.getvalue()).array.astype(int) - original).mean() < 10

    inverted = io.BytesIO()
    Image.fromarray(255 - np.asarray(cmyk), "CMYK").save(inverted, "JPEG", quality=98, subsampling=0)
    data = inverted.getvalue()
    start = data.index(b"\xff\xee")
    without_mark = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    image = read(without_mark)
    right = np.abs(image.array.astype(int) - original).mean() < 10
    assert right or image.meta["cmyk"].startswith("ambiguous")
