"""An in-memory source and a transparent backbone: what features of them must be is known without running anything."""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from opendino.data.images import Image, Reading, Truncated
from opendino.models.contract import Features


class ArraySource:
    """Pictures from arrays; a picture of None fails to read. Labels of -1 are no label."""

    skipped = ()
    parts = ()
    skip_counts: dict[str, int] = {}  # noqa: RUF012
    reading = Reading()

    def __init__(self, pictures, labels=None, classes=(), fingerprint="arrays"):
        self.pictures, self.classes, self.fingerprint = list(pictures), tuple(classes), fingerprint
        self.labels = [-1] * len(self.pictures) if labels is None else list(labels)
        self.reads = 0

    def __len__(self):
        return len(self.pictures)

    def id(self, index):
        return f"picture {index}"

    def label(self, index):
        return None if self.labels[index] < 0 else int(self.labels[index])

    def read(self, index):
        self.reads += 1
        if self.pictures[index] is None:
            raise Truncated(self.id(index), "cut")
        return Image(self.pictures[index], "RGB", 8)

    def load(self, index):
        stored = BytesIO()
        PillowImage.fromarray(self.pictures[index]).save(stored, "PNG")
        return stored.getvalue()

    @contextmanager
    def open(self, index):
        yield BytesIO(self.load(index))

    def stamp(self, index):
        return 1, 1


def noise(count, height=16, width=16, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


class MeanColour(nn.Module):
    """CLS: mean colour of the picture; patches: mean colour of each 4 x 4 square. Counts what a wrong mode would do."""

    dim, patch, num_layers, num_registers, strides = 3, 4, 1, 0, (4,)

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Features:
        assert not torch.is_grad_enabled()
        self.batches.append(len(images))
        cells = torch.nn.functional.avg_pool2d(self.norm(images), 4)
        return Features(cells.mean(dim=(2, 3)), cells.new_empty(len(images), 0, 3), cells.permute(0, 2, 3, 1))
