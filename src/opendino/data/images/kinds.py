"""Kinds of picture files, told by their first bytes and never by their names."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from opendino.data.images.errors import Empty, NotAnImage, Unsupported

# The longest magic number sits at byte 344 (NIfTI).
HEAD_BYTES = 512


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        name: in words. matches: whether the first HEAD_BYTES bytes are of this kind.
        family: which file of this package decodes it; None = not decoded.
        formats: Pillow's names of the decoders that may open it, for the families that use Pillow.
        still: False for video, which a folder of pictures does not take in.
        heavy: whether the time that decoding takes is no matter of pixels and bytes alone: its decoder is given a
            process that can be ended.
    """

    name: str
    matches: Callable[[bytes], bool]
    family: Literal["jpeg", "pillow", "tiff", "dicom", "nifti", "video"] | None = None
    formats: tuple[str, ...] = ()
    still: bool = True
    heavy: bool = False


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _brand(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


_ANY_CODEC = (b"mif1", b"msf1", b"miaf")


def _is_avif(head: bytes) -> bool:
    # The first brand may leave the codec to the list of compatible ones.
    if _brand(*_ANY_CODEC)(head):
        listed = head[16 : min(len(head), int.from_bytes(head[:4], "big"))]
        return any(listed[place : place + 4] in (b"avif", b"avis") for place in range(0, len(listed), 4))
    return _brand(b"avif", b"avis")(head)


def _is_portable_map(head: bytes) -> bool:
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\n", b"\r", b"\t")


def _is_bitmap(head: bytes) -> bool:
    # "BM" alone starts many texts: the size of the second header must be one that exists.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


def _is_nifti(head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, 352)
        except zlib.error:
            return False
    return head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and head[344:348] == b"n+1\0"


def _is_targa(head: bytes) -> bool:
    # Targa has no magic number: all fields of its header must be ones that exist, and none of them is text.
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11) or head[17] & 0xC0:
        return False
    map_length, map_bits = int.from_bytes(head[5:7], "little"), head[7]
    width, height = (int.from_bytes(head[place : place + 2], "little") for place in (12, 14))
    if not (0 < width <= 16384 and 0 < height <= 16384):
        return False
    if head[2] in (1, 9):
        return head[1] == 1 and 0 < map_length <= 256 and map_bits in (15, 16, 24, 32) and head[16] == 8
    return head[3:8] == bytes(5) and head[1] == 0 and head[16] in ((8, 16) if head[2] in (3, 11) else (15, 16, 24, 32))


KINDS = (
    # First, since the bytes before its mark are free: some of these files are TIFF too.
    Kind("DICOM", lambda head: head[128:132] == b"DICM", "dicom", heavy=True),
    Kind("jpeg", _starts(b"\xff\xd8\xff"), "jpeg", ("JPEG",)),
    Kind("png", _starts(b"\x89PNG\r\n\x1a\n"), "pillow", ("PNG",)),
    Kind("gif", _starts(b"GIF87a", b"GIF89a"), "pillow", ("GIF",)),
    Kind("webp", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", "pillow", ("WEBP",)),
    Kind("tiff", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff", ("TIFF",)),
    Kind("bmp", _is_bitmap, "pillow", ("BMP",)),
    Kind("portable map", _is_portable_map, "pillow", ("PPM",)),
    Kind("float map", _starts(b"Pf\n"), "pillow", ("PPM",)),
    Kind("jpeg2000", _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "pillow", ("JPEG2000",), heavy=True),
    Kind("avif", _is_avif, "pillow", ("AVIF",), heavy=True),
    Kind("NIfTI", _is_nifti, "nifti"),
    Kind("HEIC", _brand(b"heic", b"heix", b"hevc", b"heim", b"heis", *_ANY_CODEC), "pillow", heavy=True),
    Kind("Canon raw", _brand(b"crx ")),
    Kind("JPEG XL", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    Kind("colour float map", _starts(b"PF\n")),
    Kind("OpenEXR", _starts(b"\x76\x2f\x31\x01")),
    Kind("Photoshop", _starts(b"8BPS")),
    Kind("mp4", lambda head: head[4:8] == b"ftyp", "video", still=False),  # any brand that is no picture's
    Kind("matroska", _starts(b"\x1a\x45\xdf\xa3"), "video", still=False),
    Kind("avi", lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", "video", still=False),
    Kind("targa", _is_targa, "pillow", ("TGA",)),
)

# What a web server, a page or a large-file store leaves under a picture's name.
_ACTIVE = (b"%pdf", b"%!ps", b"<svg", b"<?xml", b"<html", b"<!doctype")
_POINTER = b"version https://git-lfs"


def find_kind(head: bytes) -> Kind | None:
    """The kind of a picture file from its first HEAD_BYTES bytes; None when they belong to no picture."""
    return next((kind for kind in KINDS if kind.matches(head)), None)


def is_tiff(head: bytes) -> bool:
    """Whether a file of these first bytes is a TIFF."""
    kind = find_kind(head)
    return kind is not None and kind.family == "tiff"


def is_pointer(head: bytes) -> bool:
    """Whether these bytes are a stand-in left by large-file storage, not the file itself."""
    return head.startswith(_POINTER)


def require_kind(head: bytes, name: str) -> Kind:
    """`find_kind`, or the typed error that says what the bytes are instead."""
    if not head:
        raise Empty(name, "0 bytes")
    kind = find_kind(head)
    if kind is None:
        if is_pointer(head):
            raise NotAnImage(name, "a pointer of large-file storage, not the picture", "run `git lfs pull`")
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_ACTIVE):
            raise NotAnImage(name, "a document (SVG, XML, HTML, PDF or PostScript), not pixels")
        raise NotAnImage(name, "no picture of a known kind")
    if kind.family is None:
        raise Unsupported(name, f"{kind.name} is not decoded", "convert it to PNG, JPEG or, with its range, TIFF")
    return kind
