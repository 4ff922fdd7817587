"""One picture: what kind it is, its numbers, its hashes, and what is suspicious about it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image as PillowImage

from opendino.data.images import (
    HEAD_BYTES,
    Image,
    ImageError,
    Reading,
    Values,
    find_valid,
    is_tiff,
    read_stored,
    sample_values,
    to_picture,
)

AT_LEAST_PX = 256
"""Large JPEGs are looked at reduced, but not below this: a survey judges pictures, not pixels."""
TINY_PX = 32
EXTREME_ASPECT = 4
NEARLY = 0.995
"""Share of pixels that makes a picture "nearly" white, black or of one colour."""
_NEAR_LEVELS, _DARK = 8, 32
QUANTILES = (0, 0.01, 0.5, 0.99, 1)
_MOST_SAMPLED = 1_000_000
"""Pixels that quantiles are taken from; the smallest and the largest number are those of all."""
FLAT, FLAT_LEVELS, FLAT_SHARE = 0.85, 32, 0.97
"""A picture is flat when this share of its pixels equals the right neighbour, and so many levels hold that share."""
MIN_HASH_ONES = 24
"""A difference hash with fewer ones is of a flat ground, and equal for many pictures that are not alike."""


@dataclass(frozen=True)
class Measured:
    """What is kept of a picture.

    Args:
        id: its name in the source. size, changed: bytes and time of last change in ns.
        reason, cause: short word and sentence when it cannot be read; then the fields below are empty, but those of
            numbers that were read all the same; `masks` marks masks so.
        kind, mode, bits: see `images.Image`. height, width: of the file, upright.
        orientation: EXIF, 1-8. frames: 1 for still pictures.
        low, high, rule: what became black and white. missing: share of pixels without a value.
        bands: of numbers beyond 8 bits or RGB, each band's QUANTILES of stored numbers that were measured.
        grey: whether all channels are equal. flat: whether areas of few values fill it, as in a mask or a drawing.
        mean, square: of each channel, in [0, 1], of x and of x^2.
        digest: SHA-256 of the file. hash: difference hash of 256 bits, b"" for a picture without structure.
        suspicions: short words, sorted. notes: what is unusual but handled.
    """

    id: str
    size: int
    changed: int
    label: int = -1
    reason: str = ""
    cause: str = ""
    kind: str = ""
    mode: str = ""
    bits: int = 0
    height: int = 0
    width: int = 0
    orientation: int = 1
    frames: int = 1
    low: float = 0.0
    high: float = 255.0
    rule: str = ""
    missing: float = 0.0
    bands: tuple[tuple[float, ...], ...] = ()
    grey: bool = False
    flat: bool = False
    mean: tuple[float, ...] = ()
    square: tuple[float, ...] = ()
    digest: bytes = b""
    hash: bytes = b""
    suspicions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def measure(data: bytes, seen: Measured, reading: Reading) -> Measured:
    """Fill in what the bytes of a picture tell.

    Args:
        seen: id, size, changed and label.
    """
    seen = replace(seen, digest=hashlib.sha256(data).digest())
    reading = replace(reading, at_least=reading.at_least or AT_LEAST_PX)
    try:
        if is_tiff(data[:HEAD_BYTES]):  # a large one is reduced while it is read, and its numbers are gone then
            seen = _with_numbers(seen, sample_values(io.BytesIO(data), reading, seen.id), reading)
        stored = read_stored(data, seen.id, reading)
        seen = _with_numbers(seen, stored, reading)
        image = to_picture(stored, reading, seen.id)
    except ImageError as error:
        return unreadable(seen, error)
    histograms = _histograms(image.array)
    height, width = image.full_size
    low, high = image.meta.get("range", (0, 255))
    levels = np.arange(256) / 255
    shares = histograms / histograms.sum(axis=1, keepdims=True)
    suspicions = _suspicions(image, shares, height, width)
    return replace(
        seen,
        kind=image.meta["kind"],
        mode=image.mode,
        bits=image.bits,
        height=int(height),
        width=int(width),
        orientation=image.meta.get("orientation", 1),
        frames=image.meta.get("frames", 1),
        low=float(low),
        high=float(high),
        rule=image.meta.get("range_rule", ""),
        missing=image.meta.get("missing", 0.0),
        grey=bool((histograms == histograms[0]).all()),
        flat=_is_flat(image.array, shares),
        mean=tuple(float(one) for one in shares @ levels),
        square=tuple(float(one) for one in shares @ levels**2),
        hash=difference_hash(image.array),
        suspicions=suspicions,
        notes=_notes(image),
    )


def unreadable(seen: Measured, error: ImageError) -> Measured:
    """A picture that gave an error."""
    cause = f"{error.cause}; {error.fix}" if error.fix else error.cause
    return replace(seen, reason=error.reason, cause=" ".join(cause.split()))


def _with_numbers(seen: Measured, stored: Image | Values | None, reading: Reading) -> Measured:
    if not isinstance(stored, Values):
        return seen
    return replace(seen, kind=stored.kind, mode=stored.mode, bands=_band_quantiles(stored, reading))


def _band_quantiles(values: Values, reading: Reading) -> tuple[tuple[float, ...], ...]:
    """QUANTILES of each band's measured numbers; () for what is 8-bit grey or RGB after all."""
    array = values.array
    if array.dtype.itemsize == 1 and array.shape[2] in (1, 3):
        return ()
    valid, _ = find_valid(values, array, reading)
    if not valid.any():
        return ()
    step = -(-int(valid.sum()) // _MOST_SAMPLED)
    found = []
    for band in range(array.shape[2]):
        measured = array[:, :, band][valid]
        middle = np.quantile(measured[::step], QUANTILES[1:-1])
        found.append((float(measured.min()), *(float(one) for one in middle), float(measured.max())))
    return tuple(found)


def _is_flat(array: np.ndarray, shares: np.ndarray) -> bool:
    if (np.sort(shares, axis=1)[:, -FLAT_LEVELS:].sum(axis=1) < FLAT_SHARE).any():
        return False
    return bool((array[:, 1:] == array[:, :-1]).all(axis=2).mean() >= FLAT)


def _histograms(array: np.ndarray) -> np.ndarray:
    """[C, 256] counts."""
    if array.shape[2] == 3:
        return np.asarray(PillowImage.fromarray(array).histogram(), np.int64).reshape(3, 256)
    return np.stack([np.bincount(array[:, :, band].ravel(), minlength=256) for band in range(array.shape[2])])


def _suspicions(image: Image, shares: np.ndarray, height: int, width: int) -> tuple[str, ...]:
    found = []
    if (shares.max(axis=1) == 1).all():
        color = [int(one) for one in shares.argmax(axis=1)]
        name = {0: "black", 255: "white"}.get(color[0], "one") if len(set(color)) == 1 else "one"
        found.append("one colour" if name == "one" else f"one colour: {name}")
    elif (shares[:, :_NEAR_LEVELS].sum(axis=1) >= NEARLY).all():
        found.append("nearly one colour: black")
    elif (shares[:, -_NEAR_LEVELS:].sum(axis=1) >= NEARLY).all():
        found.append("nearly one colour: white")
    elif all(np.convolve(one, np.ones(_NEAR_LEVELS), "valid").max() >= NEARLY for one in shares):
        found.append("nearly one colour")
    elif (shares[:, :_DARK].sum(axis=1) >= NEARLY).all():
        found.append("very dark")
    elif (shares[:, -_DARK:].sum(axis=1) >= NEARLY).all():
        found.append("very bright")
    if ((shares > 0).sum(axis=1) == 2).all():
        found.append("two values: a mask or a scan")
    if min(height, width) < TINY_PX:
        found.append("tiny")
    if max(height, width) > EXTREME_ASPECT * min(height, width):
        found.append("extreme shape")
    if "fill" in image.meta:
        found.append("fill value not declared")
    return tuple(sorted(found))


def _notes(image: Image) -> tuple[str, ...]:
    notes = []
    if image.meta.get("exif") == "broken":
        notes.append("broken EXIF, not turned")
    if image.meta.get("icc"):
        notes.append(f"colour profile: {image.meta['icc']}")
    if "cmyk" in image.meta:
        notes.append(f"CMYK {image.meta['cmyk']}")
    if "geo" in image.meta:
        notes.append("geographic tags")
    return tuple(notes)


def difference_hash(array: np.ndarray) -> bytes:
    """256 bits: whether each of 16 x 17 grey cells is brighter than its right neighbour.

    Nearly equal pictures (saved again, resized, slightly changed in brightness) differ in few bits. b"" when the
    picture has too little structure to be told from others so.
    """
    grey = PillowImage.fromarray(np.ascontiguousarray(array[:, :, :3]) if array.shape[2] >= 3 else array[:, :, 0])
    cells = np.asarray(grey.convert("L").resize((17, 16), PillowImage.Resampling.BOX, reducing_gap=2.0), np.int16)
    brighter = cells[:, :-1] > cells[:, 1:]
    return np.packbits(brighter).tobytes() if brighter.sum() >= MIN_HASH_ONES else b""
