"""C02 (ultralytics/ultralytics 19222; tensorflow/tensorflow 49834): boxes are off by a quarter turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from opendino.cli.check import check
from opendino.data.images import read


def test_pixels_are_turned_once_and_boxes_are_spoken_of(tmp_path: Path) -> None:
    array = np.zeros((60, 80, 3), np.uint8)
    array[20:40, :20] = 255  # a white square at the left, as stored
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "pictures/phone.jpg"
    path.parent.mkdir()
    Image.fromarray(array).save(path, quality=95, exif=exif.tobytes())
    image = read(path)
    assert image.array.shape == (80, 60, 3) and image.meta["orientation"] == 6
    rows, columns = np.nonzero(image.array[:, :, 0] > 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 19, 20, 39)  # at the top, once turned
    result = check(path.parent, out=tmp_path / "out")
    assert result.summary.orientations == {"6": 1}
    assert any("turned by their EXIF orientation. Boxes and masks" in line for line in result.advice)
