"""Pictures in a folder and the folders below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from opendino.data import images
from opendino.data.listing import (
    OUTPUT,
    OUTPUT_MARKS,
    ListedSource,
    Listing,
    Skips,
    build_listing,
    first_folder,
    has_picture_ending,
    is_drawing,
    is_own,
    left_in,
    left_out,
)

# Files smaller than this are looked into even when their name says picture: large-file storage leaves such stand-ins.
_POINTER_BYTES = 400
# Files up to this are opened by loading them.
_LOADED_BYTES = 2**26


class FolderSource(ListedSource):
    """The pictures of a folder; see `sources.Source`."""

    def __init__(self, root: bytes, listing: Listing, reading: images.Reading) -> None:
        super().__init__(listing, reading)
        self._root = root

    def load(self, index: int) -> bytes:
        """Bytes of a picture's file. Raises an ImageError that names its id."""
        return images.load_file(Path(os.fsdecode(self._path(index))), self.id(index))

    def read(self, index: int) -> images.Image:
        """Decode one picture, by its path: of a window in a large TIFF only the part is read."""
        return images.read(Path(os.fsdecode(self._path(index))), name=self.id(index), reading=self.reading)

    @contextmanager
    def open(self, index: int) -> Iterator[BinaryIO]:
        """The file of a picture; a small one is loaded, since one reading is quick and can be tried again."""
        if int(self._listing.sizes[index]) <= _LOADED_BYTES:
            with super().open(index) as file:
                yield file
            return
        name, path = self.id(index), Path(os.fsdecode(self._path(index)))
        with images.typed_storage_errors(name, "file"), images.open_file(path, name) as file:
            yield file

    def stamp(self, index: int) -> tuple[int, int]:
        """Size in bytes and time of last change in ns, now; (-1, -1) when the file cannot be found."""
        try:
            status = os.stat(self._path(index))
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def _path(self, index: int) -> bytes:
        return os.path.join(self._root, self._listing.name(index))


class FolderScan:
    """One pass over a folder tree.

    Attributes:
        names, sizes: candidates for pictures, in the order of finding. shards: names of `.tar` files.
        skips: everything else.
    """

    def __init__(self, root: bytes, follow: bool) -> None:
        self.names: list[bytes] = []
        self.sizes: list[int] = []
        self.shards: list[bytes] = []
        self.skips = Skips()
        self._follow = follow
        self._seen: set[tuple[int, int]] = set()
        self._folders = [(root, b"")]
        if follow:
            status = images.patiently(lambda: os.stat(root))
            self._seen.add((status.st_dev, status.st_ino))
        while self._folders:
            self._scan(*self._folders.pop())

    def _scan(self, path: bytes, prefix: bytes) -> None:
        try:
            with images.patiently(lambda: os.scandir(path)) as entries:
                for entry in entries:
                    if is_own(entry.name):
                        continue
                    name = prefix + entry.name
                    try:
                        reason = left_out(entry.name) or images.patiently(partial(self._look, entry, name))
                    except PermissionError:
                        reason = "denied"
                    except FileNotFoundError:
                        reason = "broken link" if entry.is_symlink() else "vanished"
                    except OSError as error:
                        reason = f"storage error ({error.strerror})"
                    if reason:
                        self.skips.add(name, reason)
        except PermissionError:
            self.skips.add(prefix, "denied")
        except OSError as error:
            self.skips.add(prefix, f"storage error ({error.strerror})")

    def _look(self, entry: os.DirEntry[bytes], name: bytes) -> str | None:
        """Take an entry in, or return why not."""
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            if entry.is_symlink() and not self._follow:
                return "link to a folder"
            if self._follow:
                key = (status.st_dev, status.st_ino)
                if key in self._seen:
                    return "folder met before"
                self._seen.add(key)
            # A command that is started among the pictures writes there too.
            if any(os.path.exists(os.path.join(entry.path, mark)) for mark in OUTPUT_MARKS):
                return OUTPUT
            self._folders.append((entry.path, name + b"/"))
            return None
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size == 0:
            return "empty"
        if entry.name.lower().endswith(b".tar"):
            self.shards.append(name)
            return None
        if is_drawing(entry.name, lambda: _read_head(entry.path)):
            return OUTPUT
        named_so = has_picture_ending(entry.name)
        if not named_so or status.st_size < _POINTER_BYTES:
            head = _read_head(entry.path)
            if images.is_pointer(head):
                return "pointer of large-file storage"
            kind = images.find_kind(head)
            if not named_so and kind is None:
                return "no image"
            if kind is not None and not kind.still:
                return "video"
        self.names.append(name)
        self.sizes.append(status.st_size)
        return None

    def listing(self, leave_out: Mapping[bytes, str]) -> Listing:
        """The candidates sorted by the raw bytes of their relative paths, without those of a skip list."""
        order = sorted(left_in(self.names, leave_out, self.skips), key=self.names.__getitem__)
        names = [self.names[index] for index in order]
        sizes = np.fromiter((self.sizes[index] for index in order), np.int64, len(order))
        return build_listing(names, sizes, [first_folder(name) for name in names], self.skips)


def _read_head(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, images.HEAD_BYTES)
    finally:
        os.close(descriptor)
