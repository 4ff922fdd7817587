"""Sources of pictures that a list names, rather than the folder that they lie in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from opendino.data import images
from opendino.data.beside import declared_reading
from opendino.data.sources import Skipped, Source
from opendino.errors import DataError
from opendino.evaluation.datasets.units import hash_ids


class ListSource(Source):
    """Pictures at given names below a root: a `data.sources.Source`.

    Args:
        names: relative to `root`, with "/"; they are the ids.
        labels: the class name of each.
        classes: all class names in order of their numbers; by default those that occur, sorted.
    Raises:
        DataError: a name leads out of the root.
    """

    skipped: tuple[Skipped, ...] = ()
    parts: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root, self.names, self.reading = root, list(names), declared_reading(root)
        if bad := next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None):
            raise DataError(root, f"a list names {bad}, which lies outside of it")
        self.classes = tuple(classes if classes is not None else sorted(set(labels or ())))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._labels = None if labels is None else [numbers[label] for label in labels]
        self.skip_counts: dict[str, int] = {}
        read_as = [f"{self.reading}"] if self.reading != images.Reading() else []
        stamps = [f"{name} {self.stamp(index)[0]}" for index, name in enumerate(self.names)]
        self.fingerprint = hash_ids(stamps + read_as)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """Where the picture lies."""
        return self.root / self.names[index]

    def id(self, index: int) -> str:
        """The name."""
        return self.names[index]

    def label(self, index: int) -> int | None:
        """Index into `classes`."""
        return None if self._labels is None else self._labels[index]

    def read(self, index: int) -> images.Image:
        """Decode."""
        return images.read(self.path(index), reading=self.reading)

    def load(self, index: int) -> bytes:
        """Bytes of the file."""
        return images.load_file(self.path(index), self.id(index))

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of last change in ns; (-1, -1) when the file is gone."""
        try:
            status = self.path(index).stat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def require_files(self, expected: str) -> None:
        """Raise DataError naming the first picture that is not there, how many more, and what is expected."""
        if absent := [index for index in range(len(self)) if self.stamp(index)[0] < 0]:
            raise DataError(self.path(absent[0]), f"is missing, and {len(absent) - 1} more pictures", expected)


class ArraySource(Source):
    """Pictures of one size from memory: a `data.sources.Source`.

    Args:
        pictures: [n, H, W, 3] uint8. names: ids. labels: [n] numbers of classes.
    """

    skipped: tuple[Skipped, ...] = ()
    parts: tuple[str, ...] = ()
    reading = images.Reading()

    def __init__(
        self, pictures: NDArray[np.uint8], names: Sequence[str], labels: Sequence[int], classes: Sequence[str]
    ) -> None:
        self.pictures, self.names, self._labels = pictures, list(names), list(labels)
        self.classes = tuple(classes)
        self.skip_counts: dict[str, int] = {}
        self.fingerprint = hash_ids([f"{name} {pictures[0].nbytes}" for name in self.names])

    def __len__(self) -> int:
        return len(self.names)

    def id(self, index: int) -> str:
        """The name."""
        return self.names[index]

    def label(self, index: int) -> int | None:
        """Index into `classes`."""
        return self._labels[index]

    def read(self, index: int) -> images.Image:
        """The picture, nothing to decode."""
        return images.Image(np.ascontiguousarray(self.pictures[index]), "RGB", 8)

    def load(self, index: int) -> bytes:
        """The picture as PNG."""
        stored = io.BytesIO()
        PillowImage.fromarray(self.pictures[index]).save(stored, "PNG")
        return stored.getvalue()

    def stamp(self, index: int) -> tuple[int, int]:
        """Memory does not change."""
        return self.pictures[index].nbytes, 0
