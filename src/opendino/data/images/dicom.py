"""DICOM pictures by pydicom (extra `sci`): slope, window, inverted grey, one frame of several."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from opendino.data.images.errors import NotAnImage, TooLarge, Unsupported
from opendino.data.images.picture import MAX_VALUE_BYTES, Reading, need, require_frame, require_size
from opendino.data.images.pillow_kinds import typed_errors
from opendino.data.images.tone import Values

# JPEG extended, and lossless in its two forms.
_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_12_BIT = ("1.2.840.10008.1.2.4.51", *_LOSSLESS)


def decode_dicom(data: bytes, reading: Reading, name: str) -> Values:
    """Decode a frame (the first, unless one is asked for).

    Numbers are those after the modality's slope and intercept (Hounsfield units for CT). The file's first window, where
    it has one, is the range. Nothing else of the header, patient fields above all, is kept.
    """
    pydicom = need("pydicom", "sci", name, "DICOM")
    with typed_errors("DICOM", name):
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise NotAnImage(name, "DICOM without a picture")
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        require_size(columns, rows, name)
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        frame = require_frame(reading.frame, frames, name)
        samples = int(dataset.get("SamplesPerPixel", 1))
        if rows * columns * samples * int(dataset.BitsAllocated) // 8 > MAX_VALUE_BYTES:
            raise TooLarge(name, "DICOM frame that does not fit in memory")
        array = _pixels(dataset, frame, frames, name)
        if array.shape != ((rows, columns) if samples == 1 else (rows, columns, samples)):
            raise ValueError(f"pixels of shape {array.shape}")
        meta: dict[str, Any] = {"frames": frames} if frames > 1 else {}
        mode = f"{array.dtype}x{samples}"
        if samples > 1:
            return Values(array, mode, "DICOM", meta=meta)
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        bits = array.dtype.itemsize * 8
        if (slope, intercept) != (1, 0):
            array = array.astype(np.float32) * slope + intercept
        return Values(
            array[:, :, None],
            mode,
            "DICOM",
            stated=_window(dataset),
            bits=bits,
            inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
            meta=meta,
        )


def _pixels(dataset: Any, frame: int, frames: int, name: str) -> np.ndarray:
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _JPEG_12_BIT and int(dataset.BitsAllocated) > 8:
        # pydicom's own way is a plugin under the GPL.
        from pydicom.encaps import get_frame

        codecs = need("imagecodecs", "sci", name, f"DICOM in {syntax.name}")
        compressed = get_frame(dataset.PixelData, frame, number_of_frames=frames)
        decoded: np.ndarray = codecs.ljpeg_decode(compressed) if syntax in _LOSSLESS else codecs.jpeg_decode(compressed)
        if decoded.shape != (int(dataset.Rows), int(dataset.Columns)):
            raise ValueError(f"a frame of shape {decoded.shape}")
        return decoded
    try:
        array: np.ndarray = pixel_array(dataset, index=frame if frames > 1 else None)
    except (RuntimeError, NotImplementedError) as error:
        words = str(error)
        if "plugin" in words or "Unable to decompress" in words:
            fix = "convert it to an uncompressed transfer syntax"
            raise Unsupported(name, f"DICOM in {syntax.name} needs a decoder that is not installed", fix) from None
        raise
    return array


def _window(dataset: Any) -> tuple[tuple[float, float], str] | None:
    """The first display window as (low, high). Source: DICOM PS3.3 C.11.2.1.2 (the linear function)."""

    def first(value: Any) -> float:
        return float(value[0] if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else value)

    try:
        center, width = first(dataset.WindowCenter), first(dataset.WindowWidth)
    except (AttributeError, TypeError, ValueError, IndexError):
        return None
    if not width > 1:
        return None
    return (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2), "window of the file"
