"""`read`: a path or bytes to a picture, or to a typed error."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np

from opendino.data.images.errors import Unsupported
from opendino.data.images.file import load_file, open_file, patiently, read_rest, typed_storage_errors
from opendino.data.images.jpeg import decode_fast
from opendino.data.images.kinds import HEAD_BYTES, Kind, require_kind
from opendino.data.images.picture import Image, Reading
from opendino.data.images.pillow_kinds import decode_pillow
from opendino.data.images.tone import choose_bands, find_measured, scale

_PLAIN_READING = Reading()


def read(source: Path | str | bytes | BinaryIO, *, name: str | None = None, reading: Reading = _PLAIN_READING) -> Image:
    """Read one picture.

    Args:
        source: a path (only a regular file is opened, so a pipe never blocks), the file's bytes, or the open file. Of a
            TIFF at a path or in an open file a window reads only its part, so it may be of any size; for `at_least` a
            large one is read in parts, see `large`.
        name: what errors call it; the path, or "picture", when not given.
        reading: bands, value range, frame, window and the like, where the file leaves them open.
    Returns:
        Upright RGB uint8. Transparency lies on white; of an animation the first frame; an embedded colour profile is
        converted to sRGB; numbers of more than 8 bits become 8 by the rule of `tone.find_range`, which is in `meta`.
    Raises:
        Empty, NotAnImage, Truncated, TooLarge, TooSlow, Unsupported, Denied, Vanished, IOFault: all ImageError.
    """
    if isinstance(source, bytes):
        return _decode(source, name or "picture", reading)
    if not isinstance(source, Path | str):
        return _read_open(source, name or "picture", reading)
    path = Path(source)
    if reading.window is not None:
        image = patiently(lambda: _read_part(path, name or str(path), reading))
        if image is not None:
            return image
    return _decode(load_file(path, name), name or str(path), reading)


def _read_open(file: BinaryIO, name: str, reading: Reading) -> Image:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = require_kind(head, name)
    if kind.family == "tiff":
        return _decode_stored(file, kind, reading, name)
    return _decode(head + read_rest(file, len(head), name), name, reading)


def _read_part(path: Path, name: str, reading: Reading) -> Image | None:
    """The window of a TIFF, of which only the tiles or strips below it are read; None for another kind."""
    with typed_storage_errors(name, "file"), open_file(path, name) as file:
        kind = require_kind(file.read(HEAD_BYTES), name)
        if kind.family != "tiff":
            return None
        return _decode_stored(file, kind, reading, name)


def _decode(data: bytes, name: str, reading: Reading) -> Image:
    kind = require_kind(data[:HEAD_BYTES], name)
    if kind.family == "tiff":
        return _decode_stored(io.BytesIO(data), kind, reading, name)
    image = _decode_other(data, kind, name, reading)
    return image if reading == _PLAIN_READING else _in_declared_range(_cut(image, reading, name), reading)


def _decode_stored(stored: BinaryIO, kind: Kind, reading: Reading, name: str) -> Image:
    from opendino.data.images.large import decode_reduced
    from opendino.data.images.tiff import decode_tiff

    reduced = decode_reduced(stored, reading, name)
    return _in_declared_range(decode_tiff(stored, kind, reading, name), reading) if reduced is None else reduced


def _decode_other(data: bytes, kind: Kind, name: str, reading: Reading) -> Image:
    if kind.family == "jpeg":
        image = decode_fast(data, reading, name)
        if image is not None:
            return image
    elif kind.family == "dicom":
        from opendino.data.images.dicom import decode_dicom

        return decode_dicom(data, reading, name)
    elif kind.family == "nifti":
        from opendino.data.images.nifti import decode_nifti

        return decode_nifti(data, reading, name)
    elif kind.family == "video":
        from opendino.data.images.video import decode_video

        return decode_video(data, kind, reading, name)
    return decode_pillow(data, kind, reading, name)


def _cut(image: Image, reading: Reading, name: str) -> Image:
    """Bands and window of what is decoded whole; numbers of more than 8 bits have their bands already."""
    array, valid = image.array, image.valid
    if "range_rule" not in image.meta:
        array = choose_bands(array, reading.bands, name)
        if array.shape[2] == 1:
            array = np.repeat(array, 3, axis=2)
    if reading.window is not None:
        top, left, rows, columns = reading.window
        height, width = array.shape[:2]
        if top + rows > height or left + columns > width:
            cause = f"window {top},{left},{rows},{columns} is outside of {height} x {width} pixels (height x width)"
            raise Unsupported(name, cause)
        where = (slice(top, top + rows), slice(left, left + columns))
        array, valid = array[where], None if valid is None else valid[where]
    return dataclasses.replace(image, array=np.ascontiguousarray(array), valid=valid)


def _in_declared_range(image: Image, reading: Reading) -> Image:
    """8-bit pictures in a range that was declared, without the number that means "not measured"."""
    if "range_rule" in image.meta or (reading.value_range is None and reading.nodata is None):
        return image
    array, valid, meta = image.array, image.valid, dict(image.meta)
    if reading.value_range is not None:
        array = scale(array, *reading.value_range)
        meta |= {"range": reading.value_range, "range_rule": "declared"}
    measured = find_measured(image.array, None, [reading.nodata])
    if not measured.all():
        array = np.where(measured[:, :, None], array, 0).astype(np.uint8)
        valid = measured if valid is None else valid & measured
        meta["missing"] = round(float(1 - measured.mean()), 6)
    return dataclasses.replace(image, array=np.ascontiguousarray(array), valid=valid, meta=meta)
