"""The one reader of picture files: bytes of any supported kind to upright RGB uint8, or a typed error.

The kind follows from the content, never from the name. Nothing is guessed silently: what cannot be shown faithfully in
8-bit RGB (float pixels, more than 16 bits) is refused by name.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
import struct
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from opendino.errors import DataError

# Twice Pillow's warning mark: a header that claims more is a bomb or needs reading by window.
MAX_PIXELS = 178_956_970
MIN_SIDE_PX = 8
MAX_FILE_BYTES = 2**31
# The longest magic number sits at byte 128 (DICOM).
HEAD_BYTES = 256
ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Image:
    """One decoded picture.

    Args:
        array: [H, W, 3] uint8 RGB, contiguous, upright (EXIF orientation applied).
        mode: what the file held, in Pillow's words (`RGB`, `L`, `P`, `CMYK`, `I;16`, ...).
        bits: bits of a value in the file, 1, 8 or 16.
        meta: `kind`; and where they apply `orientation` (2-8, as it was before turning), `exif` = "broken",
            `peak` (largest stored value of a 16-bit picture).
    """

    array: np.ndarray
    mode: str
    bits: int
    meta: dict[str, Any] = field(default_factory=dict)


class ImageError(DataError):
    """A picture that cannot be read. `reason` is one short word for tables and counts."""

    reason = "bad"

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return type(self), (self.thing, self.cause, self.fix)


class Empty(ImageError):
    """No bytes."""

    reason = "empty"


class NotAnImage(ImageError):
    """Something else than a picture, or one too small to learn from."""

    reason = "not-an-image"


class Truncated(ImageError):
    """Cut short or damaged."""

    reason = "truncated"


class TooLarge(ImageError):
    """More pixels or bytes than are decoded at once."""

    reason = "too-large"


class Unsupported(ImageError):
    """A picture of a kind that this reader does not decode."""

    reason = "unsupported"


class Denied(ImageError):
    """No permission to read the file."""

    reason = "denied"


class Vanished(ImageError):
    """The file is no longer there."""

    reason = "vanished"


class IOFault(ImageError):
    """The storage failed, also after repeated tries."""

    reason = "io-fault"


@dataclass(frozen=True)
class Kind:
    """How a kind of file is told by its first bytes, and which of Pillow's decoders may open it (() = none)."""

    name: str
    matches: Callable[[bytes], bool]
    decoders: tuple[str, ...] = ()


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _brand(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


def _is_portable_map(head: bytes) -> bool:
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\n", b"\r", b"\t")


def _is_bitmap(head: bytes) -> bool:
    # "BM" alone starts many texts: the size of the second header must be one that exists.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


KINDS = (
    Kind("jpeg", _starts(b"\xff\xd8\xff"), ("JPEG",)),
    Kind("png", _starts(b"\x89PNG\r\n\x1a\n"), ("PNG",)),
    Kind("gif", _starts(b"GIF87a", b"GIF89a"), ("GIF",)),
    Kind("webp", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", ("WEBP",)),
    Kind("tiff", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), ("TIFF",)),
    Kind("bmp", _is_bitmap, ("BMP",)),
    Kind("portable map", _is_portable_map, ("PPM",)),
    Kind("jpeg2000", _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), ("JPEG2000",)),
    Kind("avif", _brand(b"avif", b"avis"), ("AVIF",)),
    Kind("HEIC", _brand(b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")),
    Kind("Canon raw", _brand(b"crx ")),
    Kind("JPEG XL", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    Kind("float map", _starts(b"PF\n", b"Pf\n")),
    Kind("OpenEXR", _starts(b"\x76\x2f\x31\x01")),
    Kind("Photoshop", _starts(b"8BPS")),
    Kind("DICOM", lambda head: head[128:132] == b"DICM"),
)

# What a web server, a page or a large-file store leaves under a picture's name.
_ACTIVE = (b"%pdf", b"%!ps", b"<svg", b"<?xml", b"<html", b"<!doctype")
_POINTER = b"version https://git-lfs"

# Errors of network storage that pass by themselves.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EINTR}
_TRIES = 5


def find_kind(head: bytes) -> Kind | None:
    """The kind of a picture file from its first HEAD_BYTES bytes; None when they belong to no picture."""
    return next((kind for kind in KINDS if kind.matches(head)), None)


def is_pointer(head: bytes) -> bool:
    """Whether these bytes are a stand-in left by large-file storage, not the file itself."""
    return head.startswith(_POINTER)


def read(source: Path | bytes, *, name: str | None = None) -> Image:
    """Read one picture.

    Args:
        source: a path (only a regular file is opened, so a pipe never blocks) or the file's bytes.
        name: what errors call it; the path, or "picture" for bytes, when not given.
    Returns:
        Upright RGB uint8. Transparency lies on white; of an animation the first frame; 16-bit grey divided by 257.
    Raises:
        Empty, NotAnImage, Truncated, TooLarge, Unsupported, Denied, Vanished, IOFault: all ImageError.
    """
    if isinstance(source, bytes):
        return _decode(source, name or "picture")
    name = name or str(source)
    for attempt in range(_TRIES):
        try:
            return _decode(_read_file(source, name), name)
        except (FileNotFoundError, NotADirectoryError):
            raise Vanished(name, "no such file") from None
        except PermissionError:
            raise Denied(name, "no permission to read it", "change its rights or leave it out") from None
        except OSError as error:
            if error.errno not in _PASSING or attempt == _TRIES - 1:
                cause = error.strerror or str(error)
                raise IOFault(name, f"cannot be read ({cause})", "check the storage and start again") from None
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _read_file(path: Path, name: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotAnImage(name, "not a regular file")
    # Between the two looks the file may have become a pipe: O_NONBLOCK keeps the opening from waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAnImage(name, "not a regular file")
        head = file.read(HEAD_BYTES)
        _require_kind(head, name)
        if status.st_size > MAX_FILE_BYTES:
            raise TooLarge(name, f"file of {status.st_size} bytes, at most {MAX_FILE_BYTES} are read at once")
        return head + file.read()


def _require_kind(head: bytes, name: str) -> Kind:
    if not head:
        raise Empty(name, "0 bytes")
    kind = find_kind(head)
    if kind is None:
        if is_pointer(head):
            raise NotAnImage(name, "a pointer of large-file storage, not the picture", "run `git lfs pull`")
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_ACTIVE):
            raise NotAnImage(name, "a document (SVG, XML, HTML, PDF or PostScript), not pixels")
        raise NotAnImage(name, "no picture of a known kind")
    if not kind.decoders:
        raise Unsupported(name, f"{kind.name} is not decoded", "convert it to PNG or JPEG")
    return kind


def _require_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(name, f"{width}x{height} pixels, at most {MAX_PIXELS} are decoded at once", "cut it into tiles")
    if min(width, height) < MIN_SIDE_PX:
        raise NotAnImage(name, f"too small: {width}x{height} pixels, both sides must be at least {MIN_SIDE_PX}")


def _decode(data: bytes, name: str) -> Image:
    kind = _require_kind(data[:HEAD_BYTES], name)
    if kind.name == "jpeg":
        image = _decode_plain_jpeg(data, name)
        if image is not None:
            return image
    return _decode_with_pillow(data, kind, name)


@functools.cache
def _fast_decoder() -> Any | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


@dataclass(frozen=True)
class _JpegHeader:
    plain: bool  # baseline, 8 bits, 1 or 3 components
    width: int
    height: int
    components: int
    exif: bytes


def _parse_jpeg_header(data: bytes) -> _JpegHeader | None:
    """Walk the segments up to the frame header; None when there is none."""
    exif, place = b"", 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0") and not exif:
            exif = body
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6:
                return None
            bits, height, width, components = struct.unpack(">BHHB", body[:6])
            plain = marker == 0xC0 and bits == 8 and components in (1, 3)
            return _JpegHeader(plain, width, height, components, exif)
        if marker in (0xD9, 0xDA) or length < 2:
            return None
        place += 2 + length
    return None


def _decode_plain_jpeg(data: bytes, name: str) -> Image | None:
    """The fast way for ordinary JPEG, equal to Pillow's to the byte; None hands the file to Pillow."""
    decoder = _fast_decoder()
    header = _parse_jpeg_header(data) if decoder else None
    if decoder is None or header is None or not header.plain:
        return None
    _require_size(header.width, header.height, name)
    try:
        array = decoder.decode_jpeg(data, colorspace="RGB")
    except (ValueError, RuntimeError):
        return None  # Pillow decides what is wrong with it, so that the verdict does not depend on the extra
    array, meta = _turn_upright(array, header.exif)
    return Image(array, "RGB" if header.components == 3 else "L", 8, {"kind": "jpeg", **meta})


def _decode_with_pillow(data: bytes, kind: Kind, name: str) -> Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of big pictures and odd tags; size is checked here and odd tags are in `meta`.
            warnings.simplefilter("ignore")
            with PillowImage.open(io.BytesIO(data), formats=kind.decoders) as opened:
                _require_size(*opened.size, name)
                opened.load()
                mode = opened.mode
                array, bits, meta = _to_rgb(opened, name)
                # Pillow turns TIFF by itself while loading.
                exif = b"" if kind.name == "tiff" else opened.info.get("exif", b"")
    except ImageError:
        raise
    except PillowImage.DecompressionBombError:
        raise TooLarge(name, f"more than {MAX_PIXELS} pixels", "cut it into tiles") from None
    except MemoryError:
        raise TooLarge(name, "does not fit in memory", "cut it into tiles") from None
    except UnidentifiedImageError:
        raise Truncated(name, f"{kind.name} with a header that is cut or damaged") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        cause = str(error) or type(error).__name__
        if "decoder" in cause and "not available" in cause:
            raise Unsupported(name, f"{kind.name}: {cause}", "convert it to PNG or JPEG") from None
        raise Truncated(name, f"{kind.name} that is cut or damaged ({cause})") from None
    array, turned = _turn_upright(array, exif)
    return Image(array, mode, bits, {"kind": kind.name, **meta, **turned})


def _to_rgb(image: PillowImage.Image, name: str) -> tuple[np.ndarray, int, dict[str, Any]]:
    """Pixels [H, W, 3] uint8, bits of a stored value, and notes."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image)
        low, peak = int(values.min()), int(values.max())
        if low < 0 or peak > 65535:
            raise Unsupported(name, f"whole numbers from {low} to {peak}", "convert it to 16-bit grey")
        # 65535 / 255 = 257, so black and white stay exact; Pillow's own conversion clips at 255.
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), 16, {"peak": peak}
    if mode == "F":
        raise Unsupported(name, "float pixels have no stated range", "convert it to 8-bit or 16-bit grey")
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        colour = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", colour.size, "white"), colour)
    return np.array(image.convert("RGB")), 1 if mode == "1" else 8, {}


def _turn_upright(array: np.ndarray, exif: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    if not exif:
        return array, {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = PillowImage.Exif()
            tags.load(exif)
            orientation = tags.get(ORIENTATION_TAG, 1)
    except Exception:  # a broken tag block is no reason to lose the picture
        return array, {"exif": "broken"}
    if orientation not in range(2, 9):
        return array, {}
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array), {"orientation": int(orientation)}
