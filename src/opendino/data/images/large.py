"""Large TIFFs piece by piece: windows at full size, and the whole reduced, in the memory of a band of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from opendino.data.images.colour import array_to_srgb
from opendino.data.images.errors import ImageError, TooLarge, Unsupported
from opendino.data.images.picture import MAX_PIXELS, MAX_VALUE_BYTES, Image, Reading, require_frame
from opendino.data.images.tiff import ALPHA, find_pages, open_page, read_values, tile_sides
from opendino.data.images.tone import HIGH_PERCENT, Values, choose_bands, find_valid, scale, sensor_range
from opendino.data.images.upright import ORIENTATION_TAG

LARGE_PIXELS = 2**24
"""A smaller picture is decoded whole: some 50 MB in RGB, and everything that is read of it comes at once."""
_BAND_PIXELS = 2**22
PLACES = 8
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_JPEG = 7


@dataclass(frozen=True)
class LargeTiff:
    """An open page of more than LARGE_PIXELS that can be read in parts; equal to the same parts of the whole.

    height, width: in pixels. reading: with the range that the whole picture has, so that the file can be opened again
    without measuring. rule: why this range, in words.
    """

    height: int
    width: int
    reading: Reading
    rule: str
    _page: Any
    _name: str

    def window(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, 3] RGB as `Image.array`; what lies beyond the picture is left out."""
        return self._part(top, left, height, width)[0]

    def reduced(self, at_least: int) -> Image:
        """The whole picture, averaged over squares of the largest 2^k pixels that leave both sides at `at_least`.

        Raises Unsupported when not one pixel is measured.
        """
        by = 1
        while -(-min(self.height, self.width) // (2 * by)) >= at_least:
            by *= 2
        parts, measured = [], False
        for top, rows in self._bands(by):
            pixels, valid = self._part(top, 0, rows, self.width)
            measured = measured or bool(valid.any())
            parts.append(_averaged(pixels, by))
        if not measured:
            raise Unsupported(self._name, "has no measured pixel: all are NaN or marked as missing")
        meta: dict[str, Any] = {"kind": "tiff", "range": self.reading.value_range, "range_rule": self.rule}
        if by > 1:
            meta["full_size"] = (self.height, self.width)
        dtype, samples = self._page.dtype, self._page.samplesperpixel
        return Image(np.concatenate(parts), f"{dtype}x{samples}", 1 if dtype == np.bool_ else dtype.itemsize * 8, meta)

    def _part(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels, and which are measured."""
        height, width = min(height, self.height - top), min(width, self.width - left)
        values = read_values(self._page, (top, left, height, width), self._name)
        array, valid = _measured(values, self.reading, self._name)
        assert self.reading.value_range is not None
        pixels = scale(array, *self.reading.value_range)
        pixels[~valid] = 0
        grey = pixels.shape[2] == 1
        pixels = np.repeat(pixels, 3, axis=2) if grey else pixels
        if values.transparent is not None and self.reading.alpha == "white":
            pixels[values.transparent] = 255
        if _follows_profile(self._page, self.reading):
            pixels = array_to_srgb(pixels, grey, bytes(self._page.iccprofile or b""))[0]
        return pixels, valid

    def _bands(self, unit: int) -> Iterator[tuple[int, int]]:
        """(top, rows) of bands over the picture: whole tiles or strips, and multiples of `unit` rows but the last."""
        tall = tile_sides(self._page)[0]
        rows = max(unit, _BAND_PIXELS // self.width // unit * unit)
        if tall % unit == 0:
            rows = max(tall, rows // tall * tall)
        for top in range(0, self.height, rows):
            yield top, min(rows, self.height - top)


@contextmanager
def open_large(stored: BinaryIO, reading: Reading, name: str) -> Iterator[LargeTiff | None]:
    """A TIFF as one that is read in parts; None where it must be decoded whole: it is small, or of a kind that Pillow
    alone turns into RGB, or its range follows from all of its numbers and they fit.

    Args:
        stored: a TIFF file that stays open meanwhile.
    Raises:
        TooLarge: it is too large to be decoded whole, and a range must be declared to read it in parts. Unsupported:
            its bands must be named. Inside of the `with` also what decoding raises.
    """
    pages = find_pages(stored)
    place = require_frame(reading.frame, max(1, len(pages)), name)
    if find_spec("tifffile") is None or not _is_large(stored, pages[place] if pages else 0):
        yield None
        return
    with open_page(stored, pages[place] if pages else 0, name) as page:
        yield _in_parts(page, reading, name)


def decode_reduced(stored: BinaryIO, reading: Reading, name: str) -> Image | None:
    """A large TIFF at `reading.at_least` or more; None for what must be decoded whole."""
    if reading.at_least is None or reading.window is not None:
        return None
    with open_large(stored, reading, name) as large:
        return None if large is None else large.reduced(reading.at_least)


def sample_values(stored: BinaryIO, reading: Reading, name: str) -> Values | None:
    """Stored numbers of a large TIFF, all bands, in rows from PLACES parts of it; None for a small one.

    Raises what decoding raises, but nothing about bands or ranges.
    """
    pages = find_pages(stored)
    number = pages[require_frame(reading.frame, len(pages), name)] if pages else 0
    if find_spec("tifffile") is None or not _is_large(stored, number):
        return None
    with open_page(stored, number, name) as page:
        height, width = int(page.imagelength), int(page.imagewidth)
        rows = max(1, min(height // PLACES, _BAND_PIXELS // PLACES // width))
        tops = [place * (height - rows) // (PLACES - 1) for place in range(PLACES)]
        parts = [read_values(page, (top, 0, rows, width), name) for top in tops]
    valid = None if parts[0].valid is None else np.concatenate([one.valid for one in parts if one.valid is not None])
    return replace(parts[0], array=np.concatenate([one.array for one in parts]), valid=valid, transparent=None)


def _is_large(stored: BinaryIO, number: int) -> bool:
    try:
        with open_page(stored, number, "picture") as page:
            return bool(page.imagelength * page.imagewidth > LARGE_PIXELS)
    except ImageError:
        return False  # whoever decodes it whole says what is wrong with it


def _in_parts(page: Any, reading: Reading, name: str) -> LargeTiff | None:
    height, width, dtype = int(page.imagelength), int(page.imagewidth), page.dtype
    samples = page.samplesperpixel
    kind, jpeg = int(page.photometric), int(page.compression) == _JPEG
    if kind not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) and not (kind == _YCBCR and jpeg):
        return None
    if dtype is None or dtype.kind not in "buif" or page.imagedepth != 1:
        return None
    if ORIENTATION_TAG in page.tags and int(page.tags[ORIENTATION_TAG].value) != 1:
        return None
    tall, wide = tile_sides(page)
    if tall < 1 or wide < 1 or tall * wide * samples * dtype.itemsize > MAX_VALUE_BYTES:
        return None
    has_alpha = samples > 1 and [int(one) for one in page.extrasamples][-1:] in ([one] for one in ALPHA)
    choose_bands(np.empty((1, 1, samples - has_alpha)), reading.bands, name)
    large = LargeTiff(height, width, reading, "declared", page, name)
    if reading.value_range is not None:
        return large
    if dtype == np.bool_ or dtype == np.uint8:
        of_type = (1, "1 bit") if dtype == np.bool_ else (255, "8 bits")
        return replace(large, reading=replace(reading, value_range=(0, of_type[0])), rule=of_type[1])
    if dtype == np.uint16:
        low, high, rule = _sensor_range(large)
        return replace(large, reading=replace(reading, value_range=(low, high)), rule=rule)
    if height * width > MAX_PIXELS or height * width * samples * dtype.itemsize > MAX_VALUE_BYTES:
        cause = f"{width}x{height} pixels of {dtype}, whose range is not known before all are read"
        raise TooLarge(name, cause, "declare it: --value-range LOW HIGH, or value_range in opendino-reading.json")
    return None


def _sensor_range(large: LargeTiff) -> tuple[float, float, str]:
    """`tone.find_range` of unsigned 16 bits, from the counts of all numbers."""
    counts = np.zeros(2**16, np.int64)
    for top, rows in large._bands(1):
        values = read_values(large._page, (top, 0, rows, large.width), large._name)
        array, valid = _measured(values, large.reading, large._name)
        counts += np.bincount(array[valid].ravel(), minlength=2**16)
    total = int(counts.sum())
    if total == 0:
        raise Unsupported(large._name, "has no measured pixel: all are NaN or marked as missing")
    place = min(total - 1, int(total * HIGH_PERCENT / 100))
    return sensor_range(int(np.searchsorted(np.cumsum(counts), place, side="right")))


def _measured(values: Values, reading: Reading, name: str) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """The chosen bands, and which pixels are measured."""
    array = choose_bands(values.array, reading.bands, name)
    if array.dtype == np.uint8 and reading.bands is None:
        # Plain 8-bit files are decoded by Pillow when they are small, which knows no such tag.
        values = replace(values, nodata=None)
    return array, find_valid(values, array, reading)[0]


def _follows_profile(page: Any, reading: Reading) -> bool:
    return bool(page.dtype == np.uint8 and reading.bands is None and reading.icc == "srgb" and page.iccprofile)


def _averaged(pixels: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """Means over squares of `by` pixels, those at the right and lower end over what there is."""
    if by == 1:
        return pixels
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, by), np.arange(0, width, by)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, 0, dtype=np.uint32), columns, 1)
    counts = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
    means: NDArray[np.uint8] = np.rint(sums / counts[:, :, None]).astype(np.uint8)
    return means
