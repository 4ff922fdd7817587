"""Slices of NIfTI volumes by nibabel (extra `sci`)."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from opendino.data.images.errors import TooLarge, Truncated, Unsupported
from opendino.data.images.picture import (
    MAX_FILE_BYTES,
    MAX_VALUE_BYTES,
    Reading,
    need,
    require_frame,
    require_size,
)
from opendino.data.images.pillow_kinds import typed_errors
from opendino.data.images.tone import Values


def decode_nifti(data: bytes, reading: Reading, name: str) -> Values:
    """Decode one axial slice: `frame` counts from the feet, None is the middle; of a series the first volume.

    Rows run from the front of the body to its back, columns from the patient's left to right (the nearest axes by the
    file's affine). Numbers are those after slope and intercept; display limits of the file, where it has them, are the
    range.
    """
    nibabel = need("nibabel", "sci", name, "NIfTI")
    with typed_errors("NIfTI", name):
        if data.startswith(b"\x1f\x8b"):
            data = _inflate(data, name)
        volume = nibabel.Nifti1Image.from_bytes(data)
        shape = volume.shape
        if not 2 <= len(shape) <= 5 or min(shape) < 1:
            raise Unsupported(name, f"NIfTI of shape {shape}")
        if volume.get_data_dtype().kind not in "uif":
            raise Unsupported(name, f"NIfTI of numbers {volume.get_data_dtype()}")
        if int(np.prod(shape[:3], dtype=np.float64)) * 8 > 4 * MAX_VALUE_BYTES:
            raise TooLarge(name, f"NIfTI of shape {shape}")
        place = (slice(None),) * min(len(shape), 3) + (0,) * (len(shape) - 3)
        array = np.asarray(volume.dataobj[place])
        array = array.reshape(array.shape + (1,) * (3 - array.ndim))
        array = nibabel.orientations.apply_orientation(array, nibabel.io_orientation(volume.affine))
        frame = require_frame(reading.frame, array.shape[2], name, default=array.shape[2] // 2)
        require_size(array.shape[0], array.shape[1], name)
        pixels = np.ascontiguousarray(array[:, ::-1, frame].T)[:, :, None]
        meta = {"frames": array.shape[2]} if array.shape[2] > 1 else {}
        dtype = volume.get_data_dtype()
        stated = _limits(volume.header)
        return Values(pixels, f"{dtype}x1", "NIfTI", stated=stated, bits=dtype.itemsize * 8, meta=meta)


def _inflate(data: bytes, name: str) -> bytes:
    unpacker = zlib.decompressobj(31)
    result = unpacker.decompress(data, min(MAX_FILE_BYTES, 8 * MAX_VALUE_BYTES))
    if unpacker.unconsumed_tail:
        raise TooLarge(name, "NIfTI that unpacks to more than is read at once")
    if not unpacker.eof:
        raise Truncated(name, "NIfTI whose compressed data are cut")
    return result


def _limits(header: Any) -> tuple[tuple[float, float], str] | None:
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return ((low, high), "display limits of the file") if np.isfinite([low, high]).all() and low < high else None
