"""Everything that Pillow decodes: JPEG, PNG, GIF, WebP, BMP, AVIF, JPEG 2000, portable maps, Targa, plain TIFF; HEIC by
pillow-heif (extra `heic`)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError, features

from opendino.data.images.colour import to_srgb
from opendino.data.images.errors import ImageError, TooLarge, Truncated, Unsupported
from opendino.data.images.jpeg import reduction
from opendino.data.images.kinds import Kind
from opendino.data.images.picture import MAX_PIXELS, Image, Reading, need, require_frame, require_size
from opendino.data.images.quiet import silence_decoders
from opendino.data.images.tone import Values
from opendino.data.images.upright import turn, turn_upright

# Frames of a larger GIF are not counted: that means a walk through the whole file.
MAX_COUNTED_BYTES = 2**24
# No byte of deflated data gives more than this many.
DEFLATE_RATIO = 1032
NODATA_TAG = 42113
ORIENTATION_TAG = 274
_OPTIONAL = {"avif": "avif", "webp": "webp", "jpeg2000": "jpg_2000"}
"""Kinds that a Pillow may lack, with its own words for them."""
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


@contextmanager
def typed_errors(kind: str, name: str, *, stored: bool = False) -> Iterator[None]:
    """Whatever a decoder raises on damaged files becomes one of our errors; not what the storage of a `stored` file,
    which is still being read, raises.
    """
    try:
        silence_decoders()
        yield
    except ImageError:
        raise
    except PillowImage.DecompressionBombError:
        fix = "cut it into tiles, or read it by window (TIFF)"
        raise TooLarge(name, f"more than {MAX_PIXELS} pixels", fix) from None
    except MemoryError:
        raise TooLarge(name, "does not fit in memory", "cut it into tiles") from None
    except UnidentifiedImageError:
        raise Truncated(name, f"{kind} with a header that is cut or damaged") from None
    except Exception as error:  # decoders raise nearly every type on damaged files
        if stored and isinstance(error, OSError) and error.errno is not None:
            raise
        cause = str(error) or type(error).__name__
        if "decoder" in cause and "not available" in cause:
            raise Unsupported(name, f"{kind}: {cause}", "convert it to PNG or JPEG") from None
        raise Truncated(name, f"{kind} that is cut or damaged ({cause})") from None


def decode_pillow(data: bytes, kind: Kind, reading: Reading, name: str) -> Image | Values:
    """Decode a file of a kind that names Pillow's formats."""
    if kind.name == "png":
        _require_enough_data(data, name)
    with (
        typed_errors(kind.name, name),
        _open(data, kind, name) as opened,
    ):
        return decode_opened(opened, len(data), kind, reading, name)


def _open(data: bytes, kind: Kind, name: str) -> PillowImage.Image:
    if kind.name == "HEIC":
        # Not registered with Pillow, which is the whole process's; turned upright by the library.
        opened: PillowImage.Image = need("pillow_heif", "heic", name, "HEIC").HeifImageFile(io.BytesIO(data))
        return opened
    if kind.name in _OPTIONAL and not features.check(_OPTIONAL[kind.name]):
        raise Unsupported(name, f"this Pillow was built without {kind.name}", "pip install -U pillow")
    return PillowImage.open(io.BytesIO(data), formats=kind.formats)


def decode_opened(opened: PillowImage.Image, size: int, kind: Kind, reading: Reading, name: str) -> Image | Values:
    """Decode what Pillow has opened, of so many bytes; inside `typed_errors`."""
    require_size(*opened.size, name)
    meta = _choose_frame(opened, size, kind, reading, name)
    if kind.name == "jpeg" and (by := reduction(*opened.size, reading.at_least)) > 1:
        meta["full_size"] = opened.size[::-1]
        opened.draft(None, (opened.width // by, opened.height // by))  # rounded down, or Pillow takes the next larger
    exif, profile = opened.info.get("exif", b""), opened.info.get("icc_profile", b"")
    orientation, nodata = _tiff_tags(opened) if kind.name == "tiff" else (1, None)
    opened.load()
    if opened.mode.startswith("I") or opened.mode == "F":
        return _numbers(opened, kind, nodata, b"" if kind.name == "tiff" else exif, meta)
    valid = None
    if "transparency" in opened.info or opened.mode in _TRANSPARENT:
        image, valid = _on_white(opened, reading)
        if reading.icc == "srgb":
            image, noted = to_srgb(image, profile)
            meta |= noted
    else:
        image, noted = _to_rgb(opened, profile if reading.icc == "srgb" else b"")
        meta |= noted
    # Pillow turns TIFF by itself while loading.
    array, turned = turn_upright(np.array(image.convert("RGB")), b"" if kind.name == "tiff" else exif)
    if valid is not None:
        valid = turn(valid[:, :, None], turned.get("orientation", 1))[0][:, :, 0]
    if orientation in range(2, 9):
        turned = {"orientation": orientation}
    return Image(array, opened.mode, 1 if opened.mode == "1" else 8, {"kind": kind.name, **meta, **turned}, valid)


def _require_enough_data(data: bytes, name: str) -> None:
    """A PNG header may lie about the size: then nothing is set aside for it."""
    if len(data) < 29 or data[12:16] != b"IHDR":
        raise Truncated(name, "png with a header that is cut or damaged")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    require_size(width, height, name)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    if width * height * depth * channels // 8 > len(data) * DEFLATE_RATIO:
        raise Truncated(name, f"png that claims {width}x{height} pixels, too many for its {len(data)} bytes")


def _choose_frame(opened: PillowImage.Image, size: int, kind: Kind, reading: Reading, name: str) -> dict[str, Any]:
    if kind.name == "tiff":  # its pages are counted, and all but the first are read, by `tiff`
        return {}
    counted = kind.name != "gif" or size <= MAX_COUNTED_BYTES
    frames = getattr(opened, "n_frames", 1) if counted else 1
    # A HEIC file says which of its pictures comes first.
    frame = require_frame(reading.frame, frames, name, opened.tell()) if counted else (reading.frame or 0)
    if frame != opened.tell():
        opened.seek(frame)
        require_size(*opened.size, name)
    return {"frames": frames} if frames > 1 else {}


def _tiff_tags(opened: Any) -> tuple[object, float | None]:
    """Orientation and the number for "not measured"."""
    try:
        nodata = float(str(opened.tag_v2[NODATA_TAG]).strip("\0 "))
    except (KeyError, ValueError):
        nodata = None
    return opened.tag_v2.get(ORIENTATION_TAG, 1), nodata


def _numbers(opened: PillowImage.Image, kind: Kind, nodata: float | None, exif: bytes, meta: dict[str, Any]) -> Values:
    array, turned = turn_upright(np.asarray(opened)[:, :, None], exif)
    if array.dtype == np.int32 and kind.name != "tiff" and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)  # Pillow gives PNG and portable maps of 16 bits as 32-bit numbers
    transparent = opened.info.get("transparency")
    if isinstance(transparent, int) and nodata is None:
        nodata = transparent
    return Values(array, opened.mode, kind.name, nodata=nodata, meta=meta | turned)


def _on_white(opened: PillowImage.Image, reading: Reading) -> tuple[PillowImage.Image, np.ndarray | None]:
    colour = opened.convert("RGBA")
    if reading.alpha == "mask":
        return colour.convert("RGB"), np.asarray(colour)[:, :, 3] > 0
    return PillowImage.alpha_composite(PillowImage.new("RGBA", colour.size, "white"), colour).convert("RGB"), None


def _to_rgb(opened: PillowImage.Image, profile: bytes) -> tuple[PillowImage.Image, dict[str, Any]]:
    meta: dict[str, Any] = {}
    if opened.mode == "CMYK" and opened.format == "JPEG" and "adobe" not in opened.info:
        # Programs that invert CMYK say so in the Adobe segment; without it both readings are possible.
        meta["cmyk"] = "ambiguous: no Adobe segment, taken as not inverted"
    image: PillowImage.Image = opened
    if opened.mode in ("RGB", "L", "CMYK"):
        image, noted = to_srgb(opened, profile)
        meta |= noted
    return image, meta
