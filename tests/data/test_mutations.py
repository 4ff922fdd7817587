"""Damaged files by the thousand: only pictures and typed errors, no crash, no hang, bounded memory."""

from __future__ import annotations

import gzip
import io
import resource
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image as PillowImage

from opendino.data.images import Image, ImageError, Reading, read
from tests.data.drawing import encoded, photo
from tests.data.test_image_families import dicom, tiff, video

PATIENCE_S = 20
MEMORY_MB = 1500
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
        "tiff": encoded(small, "TIFF", compression="tiff_lzw"),
        "tiff bands": tiff(np.dstack([small, small]), photometric="minisblack", compression="zlib", tile=(16, 16)),
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


@pytest.fixture
def bounded() -> Iterator[None]:
    """A hang ends the test, and so does an allocation far beyond the limit of pixels."""
    signal.alarm(3600)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEMORY_MB


def test_2000_damaged_files(bounded: None) -> None:
    pictures, errors = _try(2000, seed=0)
    assert pictures > 200 and errors > 200 and pictures + errors == 2000


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(1, 501))
def test_a_million_damaged_files(seed: int, bounded: None) -> None:
    assert sum(_try(2000, seed)) == 2000
