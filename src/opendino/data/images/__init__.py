"""The one reader of picture files: any supported kind to upright RGB uint8, or a typed error of one line.

The kind follows from the content, never from the name. One file a family of kinds: `jpeg` (fast path), `pillow_kinds`,
`tiff` (and `large` ones in parts), `dicom`, `nifti`, `video`; what they share is the safe opening (`file`), the kinds
(`kinds`), turning (`upright`), colour profiles (`colour`), silence (`quiet`), a limit of time (`apart`) and the way
from any numbers to 8 bits (`tone`).

To add a kind: a row in `kinds.KINDS`; for a new family also its file and its line in `read.py`; golden pixels in
`tests/data`.
"""

from opendino.data.images.apart import PATIENCE_S, crashed, limited_time, too_slow
from opendino.data.images.errors import (
    Crashed,
    Denied,
    Empty,
    ImageError,
    IOFault,
    NotAnImage,
    TooLarge,
    TooSlow,
    Truncated,
    Unsupported,
    Vanished,
)
from opendino.data.images.file import load_file, open_file, patiently, typed_storage_errors
from opendino.data.images.kinds import HEAD_BYTES, KINDS, Kind, find_kind, is_pointer, is_tiff
from opendino.data.images.large import LargeTiff, open_large
from opendino.data.images.picture import MAX_FILE_BYTES, MAX_PIXELS, MIN_SIDE_PX, Image, Reading
from opendino.data.images.read import read, read_stored, to_picture
from opendino.data.images.tone import Values, find_valid

__all__ = [
    "HEAD_BYTES",
    "KINDS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "PATIENCE_S",
    "Crashed",
    "Denied",
    "Empty",
    "IOFault",
    "Image",
    "ImageError",
    "Kind",
    "LargeTiff",
    "NotAnImage",
    "Reading",
    "TooLarge",
    "TooSlow",
    "Truncated",
    "Unsupported",
    "Values",
    "Vanished",
    "crashed",
    "find_kind",
    "find_valid",
    "is_pointer",
    "is_tiff",
    "limited_time",
    "load_file",
    "open_file",
    "open_large",
    "patiently",
    "read",
    "read_stored",
    "to_picture",
    "too_slow",
    "typed_storage_errors",
]
