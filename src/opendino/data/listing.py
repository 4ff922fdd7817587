"""The list of pictures of a source: names, sizes and classes of millions of files in a few flat arrays."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np

from opendino.data.images import Image, Reading, read

# Of each reason this many are kept by name; the counts are exact.
MAX_NAMED = 1000
# A folder still counts as sorted into classes when fewer than this share of its pictures lie outside them.
MAX_UNSORTED = 0.01
PICTURE_ENDINGS = (
    b".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .jpx .avif .heic .heif "
    b".mpo .apng"
).split()


@dataclass(frozen=True)
class Skipped:
    """A file that is not used: its id, and why in a word or a short sentence."""

    id: str
    reason: str


class Skips:
    """Collects what a scan leaves out: exact counts, and the first names of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._named: list[Skipped] = []

    def add(self, name: bytes, reason: str) -> None:
        """Count one file or folder."""
        self.counts[reason] += 1
        if self.counts[reason] <= MAX_NAMED:
            self._named.append(Skipped(encode_id(name), reason))

    @property
    def named(self) -> tuple[Skipped, ...]:
        """Up to MAX_NAMED of each reason, sorted by id."""
        return tuple(sorted(self._named, key=lambda skipped: skipped.id))


def encode_id(name: bytes) -> str:
    """A file name as text, one to one: bytes that are not UTF-8, control characters and `%` become `%XX`."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "%" not in text:
        return text
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"
    if code < 0x20 or code == 0x7F or character in "%\u0085\u2028\u2029":
        return "".join(f"%{byte:02X}" for byte in character.encode())
    return character


def decode_id(id: str) -> bytes:
    """The file name whose `encode_id` this is."""
    return unquote_to_bytes(id)


def left_out(base: bytes) -> str | None:
    """Why a file or folder of this name (without its path) is never a picture of the user's; None when it may be."""
    if base.startswith(b"._"):
        return "AppleDouble"
    if base in (b"@eaDir", b"Thumbs.db", b"__MACOSX", b"desktop.ini"):
        return "system file"
    return "hidden" if base.startswith(b".") else None


def is_own(base: bytes) -> bool:
    """Whether a file is one that lies beside pictures for opendino (`beside`): no picture, and nobody's loss."""
    return base.endswith((b"opendino-skip.txt", b"opendino-reading.json"))


OUTPUT = "output of opendino"
OUTPUT_MARKS = (b"run.lock", b"store.lock", b"check.lock", b"demo.lock", b"made-from.jsonl")
"""A folder with one of these files holds what a command wrote: run, store, survey, demo, page or scores."""
_DRAWINGS = (b"search-", b"pca-", b"similarity-", b"attention-")


def is_drawing(base: bytes, head: Callable[[], bytes]) -> bool:
    """Whether a file is a sheet that a command drew here unasked for a name. head: reads its first bytes."""
    # The mark that `cli.output` sets, in the first chunk after the header. Other PNGs are not opened for it.
    return base.startswith(_DRAWINGS) and base.endswith(b".png") and b"tEXtopendino\0" in head()


def has_picture_ending(name: bytes) -> bool:
    """Whether a name ends like a picture's, in any case of letters."""
    dot = name.rfind(b".")
    return dot >= 0 and name[dot:].lower() in PICTURE_ENDINGS


PARTS = frozenset((b"train", b"training", b"test", b"testing", b"val", b"valid", b"validation", b"dev", b"eval"))
"""Names of folders that hold a part of a data set. Taken for classes, they would be scored, and mean nothing."""
LAYERS = frozenset((b"images", b"imgs", b"jpegimages", b"masks", b"labels", b"annotations", b"ground_truth", b"depth"))
"""Names of folders that hold pictures and what is known of each: no classes either."""


@dataclass(frozen=True)
class Listing:
    """The pictures of a source, sorted by the raw bytes of their names.

    Args:
        names: all names, one after another. ends: [n] int64, where each name ends.
        sizes: [n] int64 bytes. labels: [n] int32, -1 where there is none.
        classes: names of the classes in byte order; () when the pictures are not sorted into any.
        skips: what was left out.
        parts: first folders, where all are named as parts of a data set (train, val; images, masks): no classes.
    """

    names: bytes
    ends: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    skips: Skips
    parts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> bytes:
        """Raw name of a picture, relative to the source. Raises IndexError outside 0 to n - 1."""
        if not 0 <= index < len(self.ends):
            raise IndexError(f"picture {index} of {len(self.ends)}")
        return self.names[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])]

    @property
    def fingerprint(self) -> str:
        """Hash of all names and sizes, 16 hex digits: equal for a folder and a tar of it."""
        digest = hashlib.sha256(self.names)
        digest.update(self.ends.tobytes())
        digest.update(self.sizes.tobytes())
        return digest.hexdigest()[:16]


def build_listing(names: Sequence[bytes], sizes: np.ndarray, folders: Sequence[bytes | None], skips: Skips) -> Listing:
    """Pack sorted names, sizes and first folders (None = loose); the folders become classes where that fits."""
    found = sorted({folder for folder in folders if folder is not None})
    if len(found) < 2 or sum(folder is None for folder in folders) > MAX_UNSORTED * len(names):
        found = []
    lowered = {folder.lower().rstrip(b"0123456789") for folder in found}  # train2017 is a part too
    parts = tuple(map(encode_id, found)) if lowered <= PARTS | LAYERS else ()
    if parts:
        found = []
    numbers: dict[bytes | None, int] = {folder: number for number, folder in enumerate(found)}
    labels = np.fromiter((numbers.get(folder, -1) for folder in folders), np.int32, len(names))
    ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), dtype=np.int64)
    return Listing(b"".join(names), ends, sizes, labels, tuple(map(encode_id, found)), skips, parts)


def left_in(names: Sequence[bytes], leave_out: Mapping[bytes, str], skips: Skips) -> list[int]:
    """Places of the names that a skip list does not hold; what it holds is counted, also names that are not there."""
    kept = []
    met = set()
    for place, name in enumerate(names):
        if name in leave_out:
            skips.add(name, f"skip list: {leave_out[name]}")
            met.add(name)
        else:
            kept.append(place)
    for name in leave_out.keys() - met:
        skips.add(name, "in the skip list, but not there")
    return kept


def first_folder(name: bytes) -> bytes | None:
    """First component of a path that has several."""
    first, slash, _ = name.lstrip(b"/").partition(b"/")
    return first if slash else None


class ListedSource:
    """What sources over a listing have in common; `load` and `stamp` are theirs. See `sources.Source`."""

    def __init__(self, listing: Listing, reading: Reading) -> None:
        self._listing = listing
        self.reading = reading
        self.classes, self.parts = listing.classes, listing.parts
        self.fingerprint = listing.fingerprint
        lasting = replace(reading, at_least=None)  # how large JPEGs are decoded is a matter of speed
        if lasting != Reading():
            # Other pixels of the same files are other pictures.
            self.fingerprint = hashlib.sha256(f"{self.fingerprint} {lasting}".encode()).hexdigest()[:16]
        self.skipped: tuple[Skipped, ...] = listing.skips.named
        self.skip_counts: dict[str, int] = dict(listing.skips.counts)

    def __len__(self) -> int:
        return len(self._listing)

    def id(self, index: int) -> str:
        """Name relative to the source as text, one to one."""
        return encode_id(self._listing.name(index))

    def load(self, index: int) -> bytes:
        """Bytes of a picture's file."""
        raise NotImplementedError

    @contextmanager
    def open(self, index: int) -> Iterator[BinaryIO]:
        """A picture's file, to read anywhere in. Raises an ImageError."""
        yield BytesIO(self.load(index))

    def read(self, index: int) -> Image:
        """Decode one picture. Raises an ImageError that names its id."""
        return read(self.load(index), name=self.id(index), reading=self.reading)

    def label(self, index: int) -> int | None:
        """Number of the class, or None."""
        label = int(self._listing.labels[index])
        return None if label < 0 else label
