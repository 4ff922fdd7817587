"""Ordinary JPEG by the fast decoder (extra `fast`), equal to Pillow's to the byte; every other JPEG goes to Pillow."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

from opendino.data.images.colour import array_to_srgb
from opendino.data.images.errors import TooSlow
from opendino.data.images.picture import Image, Reading, require_size
from opendino.data.images.upright import turn_upright

# Ten is usual. Each scan passes over all pixels, so thousands of tiny ones would take minutes, and more than a few of a
# large picture get a limit of time.
MAX_SCANS, MANY_SCANS = 200, 20
REDUCTIONS = (8, 4, 2)


@functools.cache
def fast_decoder() -> Any | None:
    """simplejpeg, or None where it is not installed."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


@dataclass(frozen=True)
class JpegHeader:
    """plain: baseline, 8 bits, 1 or 3 components. exif, icc: their blocks, empty where there are none."""

    plain: bool
    width: int
    height: int
    components: int
    exif: bytes
    icc: bytes


def parse_header(data: bytes) -> JpegHeader | None:
    """Walk the segments up to the frame header; None when there is none."""
    exif, icc, place = b"", {}, 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0") and not exif:
            exif = body
        if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            icc[body[12:13]] = body[14:]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6:
                return None
            bits, height, width, components = struct.unpack(">BHHB", body[:6])
            plain = marker == 0xC0 and bits == 8 and components in (1, 3)
            profile = b"".join(icc[number] for number in sorted(icc))
            return JpegHeader(plain, width, height, components, exif, profile)
        if marker in (0xD9, 0xDA) or length < 2:
            return None
        place += 2 + length
    return None


def reduction(width: int, height: int, at_least: int | None) -> int:
    """The largest of 8, 4, 2, 1 that leaves both sides at `at_least` or more."""
    if at_least is None:
        return 1
    return next((by for by in REDUCTIONS if min(-(-width // by), -(-height // by)) >= at_least), 1)


def require_few_scans(data: bytes, name: str) -> int:
    """The number of scans of a JPEG. Raises TooSlow for more than MAX_SCANS."""
    scans = data.count(b"\xff\xda")  # a scan's mark never stands in compressed data
    if scans > MAX_SCANS:
        raise TooSlow(name, f"JPEG of {scans} scans, at most {MAX_SCANS} are decoded", "save it again as plain JPEG")
    return scans


def decode_fast(data: bytes, reading: Reading, name: str) -> Image | None:
    """The picture, or None when the file must go to Pillow."""
    decoder = fast_decoder()
    header = parse_header(data) if decoder else None
    if decoder is None or header is None or not header.plain or reading.frame not in (None, 0):
        return None
    require_size(header.width, header.height, name)
    by = reduction(header.width, header.height, reading.at_least)
    sides = {"min_height": -(-header.height // by), "min_width": -(-header.width // by)} if by > 1 else {}
    try:
        array = decoder.decode_jpeg(data, colorspace="RGB", **sides)
    except (ValueError, RuntimeError):
        return None  # Pillow decides what is wrong with it, so that the verdict does not depend on the extra
    grey = header.components == 1
    meta: dict[str, Any] = {"kind": "jpeg"}
    if by > 1:
        meta["full_size"] = (header.height, header.width)
    if reading.icc == "srgb":
        array, noted = array_to_srgb(array, grey, header.icc)
        meta |= noted
    array, turned = turn_upright(array, header.exif)
    return Image(array, "L" if grey else "RGB", 8, meta | turned)
