"""From stored numbers of any type to 8 bits, by one stated rule, so that no picture becomes white or black unsaid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opendino.data.images.errors import Unsupported
from opendino.data.images.picture import Image, Reading

# Sensors give these numbers of bits in 16-bit files.
SENSOR_BITS = (8, 10, 12, 14, 16)
LOW_PERCENT, HIGH_PERCENT = 0.1, 99.9
# A lonely extreme value is taken for "not measured" when at least this share of the pixels has it.
FILL_SHARE = 0.01
CONSTANT_GREY = 128


@dataclass(frozen=True)
class Values:
    """Stored numbers of a picture.

    Args:
        array: [H, W, C], bool, integer or float. mode, kind: see `Image`.
        valid: [H, W] bool, or None.
        stated: the range that the file itself declares, and its words, e.g. ((-160, 240), "window of the file").
        nodata: the number that the file declares for "not measured".
        bits: of a stored number, where `array` has another type.
        transparent: [H, W] bool, pixels that lie on white unless a mask is asked for; or None.
        inverted: whether low numbers are bright.
        meta: notes that go into the picture's.
    """

    array: np.ndarray
    mode: str
    kind: str
    valid: np.ndarray | None = None
    stated: tuple[tuple[float, float], str] | None = None
    nodata: float | None = None
    bits: int | None = None
    transparent: np.ndarray | None = None
    inverted: bool = False
    meta: dict[str, Any] = field(default_factory=dict)


def choose_bands(values: np.ndarray, bands: tuple[int, ...] | None, name: str) -> np.ndarray:
    """The asked-for bands of [H, W, C]; all of them when there is 1 or are 3. Raises Unsupported otherwise."""
    count = values.shape[2]
    if bands is None:
        if count in (1, 3):
            return values
        some = range(1 if count < 3 else 3)
        flags, listed = (join.join(map(str, some)) for join in (" ", ", "))
        fix = f'say which of 0 to {count - 1}: --bands {flags}, or {{"bands": [{listed}]}} in opendino-reading.json'
        raise Unsupported(name, f"has {count} bands", fix)
    if max(bands) >= count:
        raise Unsupported(name, f"has {count} bands, band {max(bands)} was asked for", f"ask for 0 to {count - 1}")
    return values[:, :, list(bands)]


def find_range(values: np.ndarray, stated: tuple[tuple[float, float], str] | None) -> tuple[float, float, str]:
    """Which stored numbers become black and white, and why in words.

    The first that applies, for a picture without a declared `value_range`:
    1. what the file states (a DICOM window, display limits of NIfTI);
    2. bool: 0 to 1; 8-bit: 0 to 255;
    3. unsigned 16-bit: 0 to 2^b - 1 with the smallest b of 8, 10, 12, 14, 16 that holds 99.9 % of the pixels, since
       sensors fill only the lower bits of such files; the full range is divided by 257 exactly;
    4. float within 0 to 1 that reaches 0.5: 0 to 1;
    5. everything else: from the 0.1th to the 99.9th percentile of this picture's measured pixels.

    Args:
        values: [n] measured numbers, finite, at least one.
    """
    if stated is not None:
        (low, high), words = stated
        return low, high, words
    if values.dtype == np.bool_:
        return 0, 1, "1 bit"
    if values.dtype == np.uint8:
        return 0, 255, "8 bits"
    if values.dtype == np.uint16:
        place = min(len(values) - 1, int(len(values) * HIGH_PERCENT / 100))
        return sensor_range(int(np.partition(values, place)[place]))
    low, high = (float(value) for value in np.percentile(values, [LOW_PERCENT, HIGH_PERCENT]))
    if values.dtype.kind == "f" and values.min() >= 0 and 0.5 <= values.max() <= 1:
        return 0, 1, "float from 0 to 1"
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return low, high, f"measured: percentiles {LOW_PERCENT} and {HIGH_PERCENT} of this picture"


def sensor_range(high: int) -> tuple[float, float, str]:
    """The range of a picture of unsigned 16 bits whose 99.9th percentile is `high`."""
    bits = next(bits for bits in SENSOR_BITS if high < 2**bits)
    return 0, 2**bits - 1, "full 16 bits" if bits == 16 else f"{bits} of 16 bits, which hold 99.9 % of its pixels"


def find_fill(values: np.ndarray) -> float | None:
    """A stored number that looks like "not measured": the smallest or largest, of at least 1 % of the pixels, and
    farther from the next number than all others from each other. None when there is no such number.

    Args:
        values: [n] finite numbers.
    """
    different, counts = np.unique(values, return_counts=True)
    if len(different) < 4:
        return None
    # In Python numbers, or float64: differences of small integers would wrap.
    first, second, before_last, last = (float(different[place]) for place in (0, 1, -2, -1))
    if counts[0] >= FILL_SHARE * len(values) and second - first > last - second:
        return first
    if counts[-1] >= FILL_SHARE * len(values) and last - before_last > before_last - first:
        return last
    return None


def find_valid(values: Values, array: np.ndarray, reading: Reading) -> tuple[np.ndarray, float | None]:
    """Which pixels of some bands were measured, [H, W] bool, and a number taken for "not measured" that nobody
    declared."""
    valid = np.ones(array.shape[:2], np.bool_) if values.valid is None else values.valid.copy()
    if array.dtype.kind == "f":
        valid &= np.isfinite(array).all(axis=2)
    for nodata in (values.nodata, reading.nodata):
        if nodata is not None:
            valid &= ~_equals(array, nodata).all(axis=2)
    fill = None
    if reading.value_range is None and values.stated is None and array.dtype.kind in "fi" and valid.any():
        fill = find_fill(array[valid].ravel())
        if fill is not None:
            valid &= ~_equals(array, fill).all(axis=2)
    return valid, fill


def to_image(values: Values, reading: Reading, name: str) -> Image:
    """Choose bands, mask what is not measured, and bring the range to 0..255."""
    array = choose_bands(values.array, reading.bands, name)
    bits = values.bits or (1 if array.dtype == np.bool_ else array.dtype.itemsize * 8)
    meta = {"kind": values.kind, **values.meta}
    valid, fill = find_valid(values, array, reading)
    measured = array[valid].ravel()
    if fill is not None:
        meta["fill"] = fill
    if not len(measured):
        raise Unsupported(name, "has no measured pixel: all are NaN or marked as missing")
    if reading.value_range is not None:
        low, high, rule = *reading.value_range, "declared"
    else:
        low, high, rule = find_range(measured, values.stated)
    meta |= {"range": (low, high), "range_rule": rule}
    if array.dtype.kind in "ui" and bits > 8:
        meta["peak"] = int(measured.max())
    pixels = scale(array, low, high)
    if not valid.all():
        pixels[~valid] = 0
        meta["missing"] = round(float(1 - valid.mean()), 6)
    if values.transparent is not None and reading.alpha == "white":
        pixels[values.transparent] = 255
    if values.inverted:
        pixels = 255 - pixels
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    whole = None if "missing" not in meta else valid
    return Image(np.ascontiguousarray(pixels), values.mode, bits, meta, whole)


def _equals(array: np.ndarray, value: float) -> np.ndarray:
    # A declared -3.4028235e38 is a float32 in the pixels and a decimal text in the tag.
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.isclose(array, np.array(value, array.dtype), rtol=1e-6, atol=0)
    return array == value


def scale(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stored numbers to uint8: `low` is 0, `high` 255, what lies beyond is clipped."""
    if array.dtype == np.uint16 and (low, high) == (0, 65535):
        # 65535 / 255 = 257, so black and white stay exact.
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype == np.uint8 and (low, high) == (0, 255):
        return array.copy()
    if high <= low:
        return np.full(array.shape, CONSTANT_GREY, np.uint8)
    exact = np.float64 if array.dtype.itemsize > 2 else np.float32
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.multiply(np.subtract(array, low, dtype=exact), 255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0), 0, 255)).astype(np.uint8)
