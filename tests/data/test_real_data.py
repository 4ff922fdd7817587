"""Real pictures beside the checkout, where they are: odd files, class folders, decoders."""

from __future__ import annotations

import csv
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from opendino.data import images
from opendino.data.images import ImageError, jpeg
from opendino.data.sources import open_source

FOLDER = Path(os.environ.get("OPENDINO_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
pytestmark = pytest.mark.skipif(
    not (FOLDER / "odd_files").is_dir(),
    reason=f"no test pictures at {FOLDER}; set OPENDINO_TEST_DATA to their folder",
)


def test_odd_files_are_pictures_or_typed_errors() -> None:
    rows = csv.DictReader((FOLDER / "odd_files/index.tsv").open(), delimiter="\t")
    for row in rows:
        path = FOLDER / "odd_files" / row["file"]
        try:
            array = images.read(path).array
        except ImageError as error:
            # Kinds this reader does not decode, and files that are damaged on purpose.
            assert row["pillow_load"] != "ok" or error.reason in ("unsupported", "not-an-image"), row["file"]
            continue
        assert row["pillow_load"] == "ok" or row["file"] == "pillow_hopper_webp.tif", row["file"]
        sides = [int(side) for side in row["size"].split("x")]
        if row["format"] == "TIFF" or row["why"] == "exif_orientation":
            sides, shape = sorted(sides), sorted(array.shape[:2])
        else:
            shape = list(array.shape[1::-1])
        if row["exif_orientation"] in "5678" and row["why"] == "exif_rotated":
            shape = shape[::-1]
        assert shape == sides, row["file"]


def test_class_tars_have_their_classes_and_equal_their_folders(tmp_path: Path) -> None:
    path = FOLDER / "class_caltech30/val.tar"
    source = open_source(path)
    names = (FOLDER / "class_caltech30/classes.txt").read_text().split()
    assert list(source.classes) == names
    assert Counter(source.label(index) for index in range(len(source))) == dict.fromkeys(range(30), 12)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = open_source(tmp_path)
    assert folder.fingerprint == source.fingerprint
    assert np.array_equal(folder.read(77).array, source.read(77).array)


def test_both_decoders_agree_on_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    source = open_source(FOLDER / "class_tinyimagenet/val.tar")
    chosen = range(0, len(source), 30)
    fast = [source.read(index) for index in chosen]
    monkeypatch.setattr(jpeg, "fast_decoder", lambda: None)
    for index, image in zip(chosen, fast, strict=True):
        slow = source.read(index)
        assert np.array_equal(image.array, slow.array) and image.mode == slow.mode
