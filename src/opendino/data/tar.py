"""Pictures inside plain tar files, opened by number without unpacking.

Own reader because exact resume needs any member at once: one pass over the headers gives offsets, and a member is one
`pread`. Nothing is ever written to disk, so hostile member names can only become ids.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from opendino.data import images
from opendino.data.listing import (
    ListedSource,
    Listing,
    Skips,
    build_listing,
    first_folder,
    has_picture_ending,
    is_own,
    left_in,
    left_out,
)
from opendino.errors import DataError

BLOCK = 512
# A name or a pax header longer than this is an attack or damage.
MAX_EXTRA_BYTES = 2**20
_KINDS = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "device", b"S": "sparse"}
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class TarError(Exception):
    """A header that cannot be trusted; what follows in this tar is lost."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: raw name, type flag, where its bytes start and how many there are."""

    name: bytes
    flag: bytes
    offset: int
    size: int


class TarSource(ListedSource):
    """The pictures of one or several tar files; see `sources.Source`. Reopens its files in each process."""

    def __init__(
        self, shards: list[Path], listing: Listing, reading: images.Reading, shard_of: np.ndarray, offsets: np.ndarray
    ) -> None:
        super().__init__(listing, reading)
        self._shards = shards
        self._shard_of = shard_of
        self._offsets = offsets
        self._descriptors: dict[int, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptors": {}}

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)

    def stamp(self, index: int) -> tuple[int, int]:
        """Size of the member in bytes and time of the tar's last change in ns; (-1, -1) when it cannot be found."""
        try:
            changed = os.stat(self._shards[int(self._shard_of[index])]).st_mtime_ns
        except OSError:
            return -1, -1
        return int(self._listing.sizes[index]), changed

    def load(self, index: int) -> bytes:
        """Bytes of a member. Raises an ImageError that names its id."""
        name = self.id(index)
        size = int(self._listing.sizes[index])
        if size > images.MAX_FILE_BYTES:
            raise images.TooLarge(name, f"member of {size} bytes, at most {images.MAX_FILE_BYTES} are read at once")
        with images.typed_storage_errors(name, "tar"):
            data = images.patiently(lambda: self._read(int(self._shard_of[index]), size, int(self._offsets[index])))
        if len(data) < size:
            raise images.Truncated(name, "its tar is shorter than when the run began")
        return data

    def _read(self, shard: int, size: int, offset: int) -> bytes:
        descriptor = self._open(shard)
        try:
            return _pread(descriptor, size, offset)
        except OSError:
            # What storage calls stale stays so until it is opened anew; dup2 swaps under the feet of other threads.
            fresh = os.open(self._shards[shard], os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(fresh, descriptor, inheritable=False)
            os.close(fresh)
            raise

    def _open(self, shard: int) -> int:
        # A descriptor may be shared with the parent process: pread has no position that could be shared too.
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(self._shards[shard], os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[shard]


def open_tars(
    shards: list[tuple[bytes, Path]],
    skips: Skips | None = None,
    leave_out: Mapping[bytes, str] | None = None,
    reading: images.Reading | None = None,
) -> TarSource:
    """Index tar files.

    Args:
        shards: (prefix of the ids, path) of each; an empty prefix for a single tar, `b"name.tar/"` for several.
        skips: what a scan of their folder already left out. leave_out: a skip list, by raw id.
        reading: how pictures are read.
    Raises:
        DataError: the only tar is compressed or no tar at all. Damage further on is counted, not raised.
    """
    skips = skips or Skips()
    found: list[tuple[bytes, int, int, int]] = []
    for number, (prefix, path) in enumerate(shards):
        with _open_regular(path) as file:
            try:
                for member in read_members(file.fileno()):
                    reason = _reason_to_skip(file.fileno(), member)
                    if reason is None:
                        found.append((prefix + _plain(member.name), number, member.offset, member.size))
                    elif reason:
                        skips.add(prefix + _plain(member.name), reason)
            except TarError as error:
                if len(shards) == 1 and not found and not skips.counts:
                    raise DataError(path, str(error), "give a plain .tar or a folder of pictures") from None
                skips.add(prefix or os.fsencode(path.name), str(error))
            except OSError as error:
                skips.add(prefix or os.fsencode(path.name), f"storage error ({error.strerror})")
    # Of two members with one name the later counts, as for `tar -x`.
    last: dict[bytes, tuple[bytes, int, int, int]] = {}
    for row in found:
        if row[0] in last:
            skips.add(row[0], "replaced by a later member of the same name")
        last[row[0]] = row
    names = sorted(last)
    rows = [last[names[place]] for place in left_in(names, leave_out or {}, skips)]
    numbers = np.array([row[1:] for row in rows], np.int64).reshape(-1, 3)
    folders = [first_folder(name[len(shards[number][0]) :]) for name, number, _, _ in rows]
    listing = build_listing([row[0] for row in rows], numbers[:, 2].copy(), folders, skips)
    paths = [path for _, path in shards]
    shard_of, offsets = numbers[:, 0].astype(np.int32), numbers[:, 1].copy()
    return TarSource(paths, listing, reading or images.Reading(), shard_of, offsets)


def _open_regular(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(images.patiently(lambda: os.stat(path)).st_mode):
            raise DataError(path, "not a regular file")
        return images.patiently(lambda: open(path, "rb"))
    except OSError as error:
        raise DataError(path, f"cannot be opened ({error.strerror})", "check the path and its rights") from None


def _plain(name: bytes) -> bytes:
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


def _reason_to_skip(descriptor: int, member: Member) -> str | None:
    """Why a member is no picture; "" for what nobody misses, None for a picture."""
    if member.flag == b"5" or member.name.endswith(b"/") or is_own(member.name):
        return ""
    if member.flag not in (b"0", b"\0", b"7"):
        return _KINDS.get(member.flag, "unknown type of member")
    for part in _plain(member.name).split(b"/"):
        reason = left_out(part) if part not in (b".", b"..") else None
        if reason:
            return reason
    if member.size == 0:
        return "empty"
    if not has_picture_ending(member.name):
        head = _scan(descriptor, min(images.HEAD_BYTES, member.size), member.offset)
        kind = images.find_kind(head)
        if kind is None or not kind.still:
            return "no image" if kind is None else "video"
    return None


def read_members(descriptor: int) -> Iterator[Member]:
    """All members in order, long names (GNU, pax) put together. Raises TarError where the headers stop making sense."""
    end = os.fstat(descriptor).st_size
    offset = 0
    extra: dict[str, bytes] = {}
    while offset < end:
        header = _scan(descriptor, BLOCK, offset)
        if not header.strip(b"\0"):
            return
        _check_header(header, offset)
        flag, size = header[156:157], _number(header[124:136])
        start = offset + BLOCK
        if flag in (b"L", b"K", b"x", b"g"):
            if size > MAX_EXTRA_BYTES or start + size > end:
                raise TarError(f"extra header of {size} bytes")
            body = _scan(descriptor, size, start)
            if flag == b"L":
                extra["path"] = body.rstrip(b"\0")
            elif flag == b"x":
                extra.update(_parse_pax(body))
        else:
            size = _whole(extra["size"]) if "size" in extra else size
            if flag in (b"1", b"2", b"3", b"4", b"5", b"6"):
                size = 0
            if start + size > end:
                raise TarError("cut: a member goes beyond the end")
            yield Member(extra.get("path") or _header_name(header), flag, start, size)
            extra = {}
        offset = start + -(-size // BLOCK) * BLOCK


def _scan(descriptor: int, size: int, offset: int) -> bytes:
    return images.patiently(lambda: _pread(descriptor, size, offset))


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size:
        part = os.pread(descriptor, min(size, 2**30), offset)
        if not part:
            break
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_header(header: bytes, offset: int) -> None:
    if offset == 0 and header.startswith(_COMPRESSED):
        raise TarError("is compressed, which allows no access by number; decompress it first")
    if len(header) < BLOCK:
        raise TarError("ends inside a header")
    try:
        # The sum is taken with the eight bytes of its own field as spaces.
        right = _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * ord(" ")
    except TarError:
        right = False
    if not right:
        raise TarError("is no tar file" if offset == 0 else "damaged header")


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:  # base 256, for sizes beyond 8 GiB
        value = int.from_bytes(raw, "big") - (1 << (8 * len(raw) - 1))
        if raw[0] & 0x40 or value >= 2**62:
            raise TarError("damaged header (negative or impossible size)")
        return value
    digits = raw.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):  # Python would also take signs and underscores, and a negative size leads back
        raise TarError("damaged header (a number is none)")
    return int(digits, 8)


def _whole(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise TarError("damaged header (size in a pax header)")
    return int(text)


def _header_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    # Only POSIX headers have a prefix; GNU ("ustar  ") keeps times in those bytes.
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _parse_pax(body: bytes) -> dict[str, bytes]:
    """`path` and `size` of a pax header: records `LENGTH KEY=VALUE\\n`, LENGTH counting the whole record."""
    found: dict[str, bytes] = {}
    while body.strip(b"\0"):
        length, space, _ = body.partition(b" ")
        if not space or not length.isdigit() or len(length) > 8 or not len(length) + 2 < int(length) <= len(body):
            raise TarError("damaged header (pax)")
        key, _, value = body[len(length) + 1 : int(length) - 1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            raise TarError("holds a sparse member in pax form")
        if key in (b"path", b"size"):
            found[key.decode()] = value
        body = body[int(length) :]
    return found
