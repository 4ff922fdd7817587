"""Decoders write nothing to standard error, in one thread or in many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.drawing import encoded, photo

CHILD = """
import logging, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from opendino.data.images import ImageError, read, quiet
if sys.argv[2] == "loud":
    for module in ("pillow_kinds", "upright"):
        setattr(sys.modules[f"opendino.data.images.{module}"], "silence_decoders", lambda: None)
def one(path):
    try:
        read(path)
    except ImageError as error:
        return error.reason
with ThreadPoolExecutor(4) as threads:
    print(*sorted(map(str, threads.map(one, 5 * sorted(Path(sys.argv[1]).iterdir())))))
warnings.warn("ours is heard")
"""


def run(folder: Path, how: str) -> tuple[list[str], list[str]]:
    """Reasons of the pictures in a folder, each read five times, and lines on standard error."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), how], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr.splitlines()


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A TIFF of which libtiff complains, one of which tifffile does, and a JPEG with an EXIF block that is cut."""
    strip = bytearray(encoded(photo(1), "TIFF", compression="tiff_lzw"))
    strip[40] ^= 255
    (tmp_path / "lzw.tif").write_bytes(strip)
    deep = photo(2).astype(np.float64)
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    whole = (tmp_path / "deep.tif").read_bytes()
    (tmp_path / "deep.tif").write_bytes(whole[: len(whole) // 2])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01\x03\0\x01\0\0\0\x06"
    (tmp_path / "exif.jpg").write_bytes(encoded(photo(3), "JPEG", exif=exif))
    return tmp_path


def test_nothing_is_said_beside_the_typed_reason(damaged: Path) -> None:
    reasons, lines = run(damaged, "quiet")
    assert reasons.count("truncated") == 10 and reasons.count("None") == 5
    assert [line for line in lines if "ours is heard" not in line and 'warnings.warn("ours' not in line] == []
    assert any("ours is heard" in line for line in lines)  # not all warnings of the process are gone


def test_these_files_are_loud_without_it(damaged: Path) -> None:
    lines = run(damaged, "loud")[1]
    assert any("EXIF" in line for line in lines) and any("tif" in line and "Tiff" not in line for line in lines)
