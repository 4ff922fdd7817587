"""TIFF: plain ones by Pillow; several bands, 64 bits, rare codecs and windows by tifffile (extra `sci`)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from opendino.data.images.errors import ImageError, TooLarge, Truncated, Unsupported
from opendino.data.images.kinds import Kind
from opendino.data.images.picture import (
    MAX_VALUE_BYTES,
    Image,
    Reading,
    need,
    require_frame,
    require_inside,
    require_size,
)
from opendino.data.images.pillow_kinds import decode_opened, typed_errors
from opendino.data.images.tone import Values
from opendino.data.images.upright import turn

ALPHA = (1, 2)  # values of the tag ExtraSamples: associated, unassociated
MAX_TILES = 2**22
_COLOURED_BY_PILLOW = ("P", "PA", "CMYK", "LAB")
_COLOUR_WORDS = {3: "palette colours", 5: "CMYK", 8: "LAB colours"}
_PLAIN = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB")
BITS_TAG, COMPRESSION_TAG, SUBFILE_TAG, SAMPLES_TAG, EXTRA_TAG = 258, 259, 254, 277, 338
# None, CCITT, LZW, JPEG, deflate, PackBits: what every build of Pillow decodes.
_PLAIN_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946)
MAX_PAGES = 100_000
# How many times larger deflate and PackBits can make a byte: what claims more is no picture, and asks for memory.
_MOST_GROWTH = {8: 1032, 32946: 1032, 32773: 64}


def decode_tiff(stored: BinaryIO, kind: Kind, reading: Reading, name: str) -> Image | Values:
    """Decode a TIFF, or its window.

    A channel marked as transparency is a mask: where it is 0 the pixel is white. Geographic tags are kept in
    `meta["geo"]` as they stand.
    """
    pages = find_pages(stored)
    place = require_frame(reading.frame, max(1, len(pages)), name)
    noted = {"frames": len(pages)} if len(pages) > 1 else {}
    if place == 0 and reading.bands is None:
        image = _decode_plain(stored, kind, reading, name)
        if image is not None:
            image = replace(image, meta=image.meta | noted)
            return image if reading.window is None else _cut(image, reading.window, name)
    with open_page(stored, pages[place] if pages else 0, name) as page:
        values = _read_page(page, reading, name)
        return replace(values, meta=values.meta | noted)


@contextmanager
def open_page(stored: BinaryIO, number: int, name: str) -> Iterator[Any]:
    """A directory of the file as a page of tifffile; what is raised while it is open becomes one of our errors."""
    tifffile = need("tifffile", "sci", name, "TIFF of this kind (several bands, 64 bits, a window)")
    with typed_errors("tiff", name, stored=True):
        try:
            stored.seek(0)
            with tifffile.TiffFile(stored) as file:
                yield file.pages[number]
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            words = str(error)
            if "imagecodecs" in words:
                raise Unsupported(name, f"TIFF: {words}", "pip install 'opendino[sci]'") from None
            raise


def _decode_plain(stored: BinaryIO, kind: Kind, reading: Reading, name: str) -> Image | Values | None:
    """By Pillow, or None for what Pillow does not open, would give with fewer bits than it has, or need not decode
    whole for a window."""
    try:
        with (
            typed_errors(kind.name, name),
            PillowImage.open(stored, formats=kind.formats) as opened,
        ):
            tags = getattr(opened, "tag_v2", {})
            bits = tags.get(BITS_TAG, (1,))
            if reading.window is not None and opened.mode not in _COLOURED_BY_PILLOW:
                return None
            numbers = opened.mode in ("F", "I;16", "I;16B") and len(bits) == 1
            if not _holds_all_samples(opened.mode, opened.getbands(), tags):
                return None
            if tags.get(COMPRESSION_TAG, 1) not in _PLAIN_COMPRESSIONS:
                return None
            if not numbers and (opened.mode not in _PLAIN or max(bits) > 8):
                return None
            return decode_opened(opened, 0, kind, reading, name)
    except TooLarge:
        if reading.window is not None:
            return None
        raise
    except Truncated as error:
        if isinstance(error.__context__, UnidentifiedImageError):
            return None
        raise


def _cut(image: Image | Values, window: tuple[int, int, int, int], name: str) -> Image | Values:
    top, left, rows, columns = window
    height, width = image.array.shape[:2]
    require_inside(window, height, width, name)
    where = (slice(top, top + rows), slice(left, left + columns))
    valid = None if image.valid is None else image.valid[where]
    return replace(image, array=np.ascontiguousarray(image.array[where]), valid=valid)


def _holds_all_samples(mode: str, bands: tuple[str, ...], tags: Mapping[int, Any]) -> bool:
    """Whether Pillow's mode is the whole pixel: it drops bands without a name, or calls one alpha."""
    if tags.get(SAMPLES_TAG, 1) != len(bands):
        return False
    return mode not in ("LA", "RGBA", "PA") or any(one in ALPHA for one in tags.get(EXTRA_TAG, ()))


def find_pages(stored: BinaryIO) -> list[int]:
    """Numbers of the directories that hold a full picture: reduced copies and masks are left out.

    Stops at a directory met before, at one outside of the file, and after MAX_PAGES.
    """
    size = stored.seek(0, io.SEEK_END)
    stored.seek(0)
    magic = stored.read(4)
    order = "<" if magic[:2] == b"II" else ">"
    big = b"+" in magic[2:]
    offset_form, count_form, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)

    def number(form: str, place: int) -> int:
        stored.seek(place)
        value: int = struct.unpack(order + form, stored.read(struct.calcsize(order + form)))[0]
        return value

    found: list[int] = []
    met: set[int] = set()
    try:
        offset = number(offset_form, 8 if big else 4)
        while offset and offset not in met and offset < size and len(met) < MAX_PAGES:
            entries = number(count_form, offset)
            start = offset + struct.calcsize(order + count_form)
            end = start + entries * entry_bytes
            if end > size:
                break
            # The first bit of a subfile's kind: reduced copy of another page; the third: mask. Tags stand in rising
            # order, and this one is the lowest.
            subfile = entries > 0 and number("H", start) == SUBFILE_TAG
            form = "H" if subfile and number("H", start + 2) == 3 else "I"
            if not subfile or not number(form, start + entry_bytes // 2 + 2) & 0b101:
                found.append(len(met))
            met.add(offset)
            offset = number(offset_form, end)
    except struct.error:  # a cut file: the decoders say what is missing
        pass
    return found


def _read_page(page: Any, reading: Reading, name: str) -> Values:
    """Numbers of one page; its channel of transparency is a mask."""
    height, width = page.imagelength, page.imagewidth
    top, left, rows, columns = reading.window or (0, 0, height, width)
    require_inside((top, left, rows, columns), height, width, name)
    require_size(columns, rows, name)
    if reading.bands is None and int(page.photometric) in _COLOUR_WORDS:
        words = _COLOUR_WORDS[int(page.photometric)]
        cause = f"TIFF of {words}, of which no further page and no part of a large one is decoded"
        raise Unsupported(name, cause, "convert it to RGB")
    samples, dtype = page.samplesperpixel, page.dtype
    if dtype is None or dtype.kind not in "buif" or page.imagedepth != 1:
        raise Unsupported(name, f"TIFF of numbers {dtype}", "convert it to 16-bit or float TIFF")
    if rows * columns * samples * dtype.itemsize > MAX_VALUE_BYTES:
        raise TooLarge(name, f"{rows * columns * samples * dtype.itemsize} bytes of pixels", "read it by window")
    return read_values(page, (top, left, rows, columns), name)


def read_values(page: Any, window: tuple[int, int, int, int], name: str) -> Values:
    """Numbers of a window (top, left, height, width) that lies in the page; a channel of transparency is a mask."""
    samples, dtype = page.samplesperpixel, page.dtype
    array = _read_window(page, window, name)
    array, turned = turn(array, int(page.tags[274].value)) if 274 in page.tags else (array, {})
    extra = [int(one) for one in page.extrasamples]
    alpha = None
    if extra and extra[-1] in ALPHA and samples > 1:
        array, alpha = array[:, :, :-1], array[:, :, -1] > 0
    if page.photometric == 0 and dtype.kind in "bu" and samples == 1:
        array = ~array if dtype.kind == "b" else np.iinfo(dtype).max - array  # 0 is white
    mode = f"{dtype}x{samples}"
    nodata = page.nodata if 42113 in page.tags else None
    meta: dict[str, Any] = dict(turned)
    geo = _geo(page)
    if geo:
        meta["geo"] = geo
    transparent = None if alpha is None else ~alpha
    return Values(array, mode, "tiff", alpha, nodata=nodata, transparent=transparent, meta=meta)


def _read_window(page: Any, window: tuple[int, int, int, int], name: str) -> np.ndarray:
    """[rows, columns, samples]: only the tiles or strips that the window touches are read and decoded."""
    top, left, rows, columns = window
    planar = page.planarconfig == 2 and page.samplesperpixel > 1
    samples = page.samplesperpixel
    tile_h, tile_w = tile_sides(page)
    if tile_h < 1 or tile_w < 1 or tile_h * tile_w * samples * page.dtype.itemsize > MAX_VALUE_BYTES:
        raise TooLarge(name, f"TIFF in tiles of {tile_h} x {tile_w} pixels")
    down, across = -(-page.imagelength // tile_h), -(-page.imagewidth // tile_w)
    planes = samples if planar else 1
    offsets, counts = page.dataoffsets, page.databytecounts
    if down * across * planes > MAX_TILES or len(offsets) < down * across * planes or len(counts) < len(offsets):
        raise Truncated(name, f"TIFF with {len(offsets)} tiles or strips, {down * across * planes} are needed")
    result = np.zeros((rows, columns, samples), page.dtype)
    for plane in range(planes):
        for row in range(top // tile_h, -(-(top + rows) // tile_h)):
            for column in range(left // tile_w, -(-(left + columns) // tile_w)):
                index = (plane * down + row) * across + column
                high = tile_h if page.is_tiled else min(tile_h, page.imagelength - row * tile_h)
                size = high * tile_w * (1 if planar else samples) * page.dtype.itemsize
                if 0 < counts[index] * _MOST_GROWTH.get(int(page.compression), size) < size:
                    raise Truncated(name, f"TIFF with {counts[index]} bytes for {size} of pixels")
                tile = _decode_tile(page, index, offsets[index], counts[index])
                if tile is None:
                    continue  # a sparse file: the tile was never written, its pixels are 0
                y, x = row * tile_h, column * tile_w
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(top + rows, y + tile.shape[0]), min(left + columns, x + tile.shape[1])
                where = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
                part = tile[y0 - y : y1 - y, x0 - x : x1 - x]
                result[(*where, slice(plane, plane + 1) if planar else slice(None))] = part
    return result


def tile_sides(page: Any) -> tuple[int, int]:
    """Height and width of what is decoded at once, a tile or a strip, in pixels."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _decode_tile(page: Any, index: int, offset: int, count: int) -> np.ndarray | None:
    if count == 0:
        return None
    handle = page.parent.filehandle
    if offset + count > handle.size:
        raise ValueError("a tile goes beyond the end of the file")
    handle.seek(offset)
    data = handle.read(count)  # before `page.decode` is looked up, which reads tags and moves the place
    decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
    return None if decoded is None else decoded[0]


def _geo(page: Any) -> dict[str, Any]:
    """Geographic tags as plain numbers and words."""
    kept: dict[str, Any] = {}
    for tag, words in ((33550, "pixel_scale"), (33922, "tie_points"), (34264, "transformation")):
        if tag in page.tags:
            kept[words] = [float(number) for number in page.tags[tag].value]
    try:
        keys = page.geotiff_tags or {}
    except Exception:  # a broken key block is no reason to lose the picture
        return kept
    for key in ("ProjectedCSTypeGeoKey", "GeographicTypeGeoKey", "GTCitationGeoKey"):
        if key in keys:
            kept[key] = keys[key] if isinstance(keys[key], str) else int(keys[key])
    return kept
