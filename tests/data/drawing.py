"""Pictures and folders that tests make for themselves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """[height, width, 3] uint8: smooth coloured shapes with some grain, as a photograph has."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + generator.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)


def encoded(array: np.ndarray, format: str, **options: object) -> bytes:
    """A picture file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def write_photos(folder: Path, count: int, height: int = 48, width: int = 64, format: str = "PNG") -> list[Path]:
    """Write `photo-00.png`, ... and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{number:02d}.{format.lower()}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(photo(number, height, width), format))
    return paths
