"""`read`: a path or bytes to a picture, or to a typed error."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from opendino.data.images.errors import Unsupported
from opendino.data.images.file import load_file, open_file, patiently, typed_storage_errors
from opendino.data.images.jpeg import decode_fast
from opendino.data.images.kinds import HEAD_BYTES, require_kind
from opendino.data.images.picture import Image, Reading
from opendino.data.images.pillow_kinds import decode_pillow
from opendino.data.images.tone import Values, choose_bands, to_image

_PLAIN_READING = Reading()


def read(source: Path | str | bytes, *, name: str | None = None, reading: Reading = _PLAIN_READING) -> Image:
    """Read one picture.

    Args:
        source: a path (only a regular file is opened, so a pipe never blocks) or the file's bytes. Of a TIFF at a path
            a window reads only its part, so the file may be of any size.
        name: what errors call it; the path, or "picture" for bytes, when not given.
        reading: bands, value range, frame, window and the like, where the file leaves them open.
    Returns:
        Upright RGB uint8. Transparency lies on white; of an animation the first frame; an embedded colour profile is
        converted to sRGB; numbers of more than 8 bits become 8 by the rule of `tone.find_range`, which is in `meta`.
    Raises:
        Empty, NotAnImage, Truncated, TooLarge, TooSlow, Unsupported, Denied, Vanished, IOFault: all ImageError.
    """
    if isinstance(source, bytes):
        name = name or "picture"
        return to_picture(read_stored(source, name, reading), reading, name)
    path = Path(source)
    if reading.window is not None:
        part = patiently(lambda: _read_part(path, name or str(path), reading))
        if part is not None:
            return to_picture(part, reading, name or str(path))
    return to_picture(read_stored(load_file(path, name), name or str(path), reading), reading, name or str(path))


def read_stored(data: bytes, name: str, reading: Reading = _PLAIN_READING) -> Image | Values:
    """Decode a file: 8-bit pictures as they are, everything else as its stored numbers with all bands.

    Raises what `read` does, but nothing about bands.
    """
    kind = require_kind(data[:HEAD_BYTES], name)
    if kind.family == "tiff":
        from opendino.data.images.tiff import decode_tiff

        return decode_tiff(io.BytesIO(data), kind, reading, name)
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
    """Bands and window of what is decoded whole; the range of 8-bit pictures."""
    array, valid = image.array, image.valid
    if "range_rule" not in image.meta:
        array = choose_bands(array, reading.bands, name)
        if reading.value_range is not None:
            low, high = reading.value_range
            array = np.rint(np.clip((array.astype(np.float32) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
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
    return replace(image, array=np.ascontiguousarray(array), valid=valid)
