"""`read`: a path or bytes to a picture, or to a typed error."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from opendino.data.images.apart import is_limited, read_apart
from opendino.data.images.file import load_file, open_file, patiently, read_rest, typed_storage_errors
from opendino.data.images.jpeg import MANY_SCANS, decode_fast, require_few_scans
from opendino.data.images.kinds import HEAD_BYTES, require_kind
from opendino.data.images.picture import Image, Reading, require_inside
from opendino.data.images.pillow_kinds import decode_pillow
from opendino.data.images.tone import Values, choose_bands, scale, to_image

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
    if not isinstance(source, Path | str):
        name = name or "picture"
        return to_picture(read_stored(source, name, reading), reading, name)
    path = Path(source)
    if reading.window is not None:
        part = patiently(lambda: _read_part(path, name or str(path), reading))
        if part is not None:
            return to_picture(part, reading, name or str(path))
    return to_picture(read_stored(load_file(path, name), name or str(path), reading), reading, name or str(path))


def read_stored(source: bytes | BinaryIO, name: str, reading: Reading = _PLAIN_READING) -> Image | Values:
    """Decode a file: 8-bit pictures as they are, everything else as its stored numbers with all bands; a large TIFF of
    which less is needed (`reading.at_least`) as a picture.

    Raises what `read` does, but nothing about bands.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = require_kind(head, name)
    if kind.family == "tiff":
        from opendino.data.images.large import decode_reduced
        from opendino.data.images.tiff import decode_tiff

        return decode_reduced(file, reading, name) or decode_tiff(file, kind, reading, name)
    data = source if isinstance(source, bytes) else head + read_rest(file, len(head), name)
    if kind.family == "jpeg":
        image = decode_fast(data, reading, name)
        if image is not None:
            return image
    heavy = kind.heavy or (kind.family == "jpeg" and require_few_scans(data, name) > MANY_SCANS)
    if heavy and not is_limited():
        return read_apart(data, name, reading)
    if kind.family == "dicom":
        from opendino.data.images.dicom import decode_dicom

        return decode_dicom(data, reading, name)
    if kind.family == "nifti":
        from opendino.data.images.nifti import decode_nifti

        return decode_nifti(data, reading, name)
    if kind.family == "video":
        from opendino.data.images.video import decode_video

        return decode_video(data, kind, reading, name)
    return decode_pillow(data, kind, reading, name)


def to_picture(stored: Image | Values, reading: Reading, name: str) -> Image:
    """What `read_stored` gave, as the picture that `read` returns. Raises Unsupported for bands that are not there."""
    image = to_image(stored, reading, name) if isinstance(stored, Values) else stored
    if reading == _PLAIN_READING:
        return image
    # The window of a TIFF was read alone.
    return _cut(image, replace(reading, window=None) if image.meta["kind"] == "tiff" else reading, name)


def _read_part(path: Path, name: str, reading: Reading) -> Image | Values | None:
    """The window of a TIFF, of which only the tiles or strips below it are read; None for another kind."""
    with typed_storage_errors(name, "file"), open_file(path, name) as file:
        kind = require_kind(file.read(HEAD_BYTES), name)
        if kind.family != "tiff":
            return None
        from opendino.data.images.tiff import decode_tiff

        return decode_tiff(file, kind, reading, name)


def _cut(image: Image, reading: Reading, name: str) -> Image:
    """Bands and window of what is decoded whole; range of 8-bit pictures, and their number for "not measured"."""
    array, valid, meta = image.array, image.valid, dict(image.meta)
    if "range_rule" not in meta:
        array = choose_bands(array, reading.bands, name)
        measured = None if reading.nodata is None else (array != reading.nodata).any(axis=2)
        if reading.value_range is not None:
            array = scale(array, *reading.value_range)
        if measured is not None and not measured.all():
            array = np.where(measured[:, :, None], array, np.uint8(0))
            valid = measured if valid is None else valid & measured
            meta["missing"] = round(float(1 - measured.mean()), 6)
        if array.shape[2] == 1:
            array = np.repeat(array, 3, axis=2)
    if reading.window is not None:
        top, left, rows, columns = reading.window
        height, width = array.shape[:2]
        require_inside(reading.window, height, width, name)
        where = (slice(top, top + rows), slice(left, left + columns))
        array, valid = array[where], None if valid is None else valid[where]
    return replace(image, array=np.ascontiguousarray(array), valid=valid, meta=meta)
