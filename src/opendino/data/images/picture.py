"""What reading a picture takes and gives: `Reading` in, `Image` out, and the limits that both keep."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from opendino.data.images.errors import NotAnImage, TooLarge, Unsupported
from opendino.errors import UsageError

# Twice Pillow's warning mark: a header that claims more is a bomb or needs reading by window.
MAX_PIXELS = 178_956_970
MIN_SIDE_PX = 8
MAX_FILE_BYTES = 2**31
# Numbers of a picture before they become 8-bit: four bytes for each pixel of the largest.
MAX_VALUE_BYTES = 4 * MAX_PIXELS


@dataclass(frozen=True)
class Reading:
    """How to read pictures whose files leave it open. The default is right for ordinary pictures.

    Args:
        bands: numbers of the bands to take, from 0; needed for 2 bands, for 4 without a mark of transparency, and for
            more. One becomes grey in RGB, three become RGB, any other number stays that many channels.
        value_range: (low, high) that become black and white, in stored numbers (DICOM and NIfTI: after their slope and
            intercept); values beyond are clipped. None takes the rule of `tone.find_range`.
        nodata: a stored number that means "not measured", besides what the file itself declares.
        frame: of an animation, a multi-page file, a DICOM series, a volume (slice) or a video; from 0, negative from
            the end. None is the first, for a volume its middle slice.
        window: (top, left, height, width) in stored pixels; tiled TIFF decodes only the tiles that it touches.
        at_least: both sides of the result may be smaller than the file's, but not smaller than this; JPEG then decodes
            at 1/2, 1/4 or 1/8, for a fraction of the time.
        alpha: `white` lays transparent pixels on white; `mask` leaves colours and gives `Image.valid`.
        icc: `srgb` converts by an embedded colour profile, `keep` leaves the stored numbers.
    Raises:
        UsageError: a value that no picture could be read with.
    """

    bands: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    nodata: float | None = None
    frame: int | None = None
    window: tuple[int, int, int, int] | None = None
    at_least: int | None = None
    alpha: Literal["white", "mask"] = "white"
    icc: Literal["srgb", "keep"] = "srgb"

    def __post_init__(self) -> None:
        if self.bands is not None and (not self.bands or min(self.bands) < 0):
            raise UsageError("reading.bands", f"must be numbers from 0, got {self.bands}")
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError("reading.value_range", f"must be two numbers, the smaller first, got {low}, {high}")
        if self.window is not None and (min(self.window) < 0 or min(self.window[2:]) < 1):
            raise UsageError("reading.window", f"must be top, left, height, width in pixels, got {self.window}")
        if self.at_least is not None and self.at_least < 1:
            raise UsageError("reading.at_least", f"must be 1 pixel or more, got {self.at_least}")


@dataclass(frozen=True)
class Image:
    """One decoded picture.

    Args:
        array: [H, W, 3] uint8 RGB, contiguous, upright (EXIF orientation applied); [H, W, n] when n bands, not 1 or 3,
            were asked for.
        mode: what the file held, in Pillow's words (`RGB`, `L`, `P`, `CMYK`, `I;16`, ...), or type and number of bands
            (`float32x1`).
        bits: bits of a value in the file: 1, 8, 16, 32 or 64.
        meta: `kind`; and where they apply `orientation` (2-8, as it was before turning), `exif` = "broken", `frames`
            (number of them), `time_s` (of a video's frame, from its time stamp), `full_size` (height, width before a
            reduced decoding), `range` and `range_rule` (what became black and white, and why), `peak` (largest stored
            value), `missing` (share of pixels without a value), `fill` (a stored number taken for "not measured"),
            `icc`, `cmyk`, `geo`.
        valid: [H, W] bool, True = measured; None when every pixel is. What is missing is 0 in `array`, transparent
            pixels are white.
    """

    array: np.ndarray
    mode: str
    bits: int
    meta: dict[str, Any] = field(default_factory=dict)
    valid: np.ndarray | None = None

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the upright picture in the file, in pixels, also where it was decoded reduced."""
        height, width = self.meta.get("full_size", self.array.shape[:2])
        turned = "full_size" in self.meta and self.meta.get("orientation", 1) >= 5
        return (width, height) if turned else (height, width)


def require_size(width: int, height: int, name: str) -> None:
    """Raise TooLarge or NotAnImage unless a picture of these sides may be decoded."""
    if width * height > MAX_PIXELS:
        cause = f"{width}x{height} pixels, at most {MAX_PIXELS} are decoded at once"
        raise TooLarge(name, cause, "cut it into tiles, or read it by window (TIFF)")
    if min(width, height) < MIN_SIDE_PX:
        raise NotAnImage(name, f"too small: {width}x{height} pixels, both sides must be at least {MIN_SIDE_PX}")


def require_inside(window: tuple[int, int, int, int], height: int, width: int, name: str) -> None:
    """Raise Unsupported unless a window (top, left, rows, columns) lies in a picture of these sides."""
    top, left, rows, columns = window
    if top + rows > height or left + columns > width:
        cause = f"window {top},{left},{rows},{columns} is outside of {height} x {width} pixels (height x width)"
        raise Unsupported(name, cause)


def require_frame(frame: int | None, count: int, name: str, default: int = 0) -> int:
    """The number of the frame to read, from 0. Raises Unsupported when there is no such frame."""
    if frame is None:
        return default
    if not -count <= frame < count:
        raise Unsupported(name, f"has {count} frames, frame {frame} was asked for", f"ask for 0 to {count - 1}")
    return frame % count


def need(module: str, extra: str, name: str, kind: str) -> Any:
    """Import an optional decoder, or raise Unsupported naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        fix = f"pip install 'opendino[{extra}]'"
        raise Unsupported(name, f"{kind} needs {module.partition('.')[0]}", fix) from None
