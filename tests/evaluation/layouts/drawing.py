"""What the layouts are drawn with: a bright textured square on a dark ground, as a picture, a mask or a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48


def picture(kind: int, seed: int, top: int = 16, left: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [48, 48, 3] and the square's mask [48, 48] bool; `kind` is its colour and stripes."""
    generator = np.random.default_rng(seed)
    array = generator.integers(0, 40, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + 16, left : left + 16] = True
    rows, columns = np.indices((SIDE, SIDE))
    stripes = ((rows if kind % 2 else columns) // 2 % 2 * 60 + 190).astype(np.uint8)
    array[mask, kind % 3] = stripes[mask]
    return array, mask


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(array)
    if mode == "P":
        made = Image.fromarray(array, "L").convert("P")
        made.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
        made.putdata(array.ravel().tolist())
    made.save(path)


def film(path: Path, kind: int, seed: int, frames: int = 5) -> None:
    """A square that wanders, as a lossless video."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "bgr0"
        for index in range(frames):
            array = picture(kind, seed, top=8, left=4 + 4 * index)[0]
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
