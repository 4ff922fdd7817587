"""Damaged files by the thousand: only pictures and typed errors, no crash, no hang, bounded memory."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image as PillowImage

from opendino.data.images import Image, ImageError, Reading, read
from tests.data.drawing import encoded, photo
from tests.data.test_heif import heic
from tests.data.test_image_families import dicom, tiff, video

PATIENCE_S = 20
LIMIT_MB = 1000
READINGS = (
    Reading(),
    Reading(bands=(0,)),
    Reading(frame=1),
    Reading(window=(1, 2, 9, 9), bands=(0,)),
    Reading(at_least=9),
)


def seeds() -> dict[str, bytes]:
    """One small file of each kind."""
    small = photo(1, 24, 32)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    grey16 = (small[:, :, 0].astype(np.uint16) * 16).copy()
    frames = [PillowImage.fromarray(photo(number, 24, 32)) for number in range(3)]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    found = {
        "jpeg": encoded(small, "JPEG", exif=exif.tobytes()),
        "progressive": encoded(small, "JPEG", progressive=True),
        "cmyk": _saved(PillowImage.fromarray(small).convert("CMYK"), "JPEG"),
        "png": encoded(small, "PNG"),
        "png16": encoded(grey16, "PNG"),
        "palette": _saved(PillowImage.fromarray(small).quantize(16), "PNG"),
        "gif": gif.getvalue(),
        "webp": encoded(small, "WEBP"),
        "bmp": encoded(small, "BMP"),
        "tga": encoded(small, "TGA"),
        "ppm": encoded(small, "PPM"),
        "jp2": encoded(small, "JPEG2000"),
        "avif": encoded(small, "AVIF"),
        "heic": heic(small),
        "tiff": encoded(small, "TIFF", compression="tiff_lzw"),
        "tiff bands": tiff(np.dstack([small, small]), photometric="minisblack", planarconfig="contig", tile=(16, 16)),
        "tiff float": tiff(small[:, :, 0].astype(np.float64), compression="zlib", predictor=True),
        "dicom": dicom(np.stack([grey16, grey16])),
        "nifti": _nifti(small),
        "nifti.gz": gzip.compress(_nifti(small)),
        "video": video([photo(number, 24, 32) for number in range(2)]),
    }
    return found


def _saved(picture: PillowImage.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


def _nifti(small: np.ndarray) -> bytes:
    nibabel = pytest.importorskip("nibabel")
    return nibabel.Nifti1Image(small.astype(np.int16)[:, :, :], np.eye(4)).to_bytes()


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Bytes changed, cut, repeated, or numbers made extreme; most of it in the head, where the lengths stand."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        reach = len(changed) if generator.random() < 0.4 else min(len(changed), 400)
        place = int(generator.integers(0, reach))
        way = generator.integers(0, 6)
        if way == 0:
            changed[place] = generator.integers(0, 256)
        elif way == 1:
            changed[place : place + 4] = generator.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif way == 2:
            del changed[place : place + int(generator.integers(1, 40))]
        elif way == 3:
            changed[place:place] = changed[place : place + int(generator.integers(1, 200))]
        elif way == 4:
            del changed[max(place, 16) :]
        else:
            changed[place] ^= 1 << int(generator.integers(0, 8))
        if len(changed) < 20:
            break
    return bytes(changed)


def _try(count: int, seed: int) -> tuple[int, int]:
    """Pictures and typed errors among `count` damaged files. Anything else raises."""
    generator = np.random.default_rng(seed)
    pictures = errors = 0
    for name, data in _rounds(count):
        damaged = mutate(data, generator)
        reading = READINGS[int(generator.integers(len(READINGS)))]
        start = time.process_time()
        try:
            image = read(damaged, name=name, reading=reading)
        except ImageError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{name}: ")
            assert error.cause != "does not fit in memory", name  # a bomb must be refused before memory is asked for
            errors += 1
        else:
            assert isinstance(image, Image) and image.array.dtype == np.uint8 and image.array.ndim == 3
            pictures += 1
        assert time.process_time() - start < PATIENCE_S, name
    return pictures, errors


def _rounds(count: int) -> Iterator[tuple[str, bytes]]:
    files = list(seeds().items())
    for number in range(count):
        yield files[number % len(files)]


def _in_a_bounded_process(count: int, seed: int) -> tuple[int, int]:
    """`_try` where more than LIMIT_MB beyond what the libraries take fails, and a hang or a crash ends it.

    The limit is on addresses, so it also sees what is set aside and never touched.
    """
    code = (
        "import resource; from tests.data import test_mutations as t;"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (held + t.LIMIT_MB * 10**6,) * 2);"
        f"print(*t._try({count}, {seed}))"
    )
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    pictures, errors = done.stdout.split()[-2:]
    return int(pictures), int(errors)


def test_2000_damaged_files() -> None:
    pictures, errors = _in_a_bounded_process(2000, seed=0)
    assert pictures > 200 and errors > 200 and pictures + errors == 2000


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(1, 501))
def test_a_million_damaged_files(seed: int) -> None:
    assert sum(_in_a_bounded_process(2000, seed)) == 2000
