"""The one reader of picture files: any supported kind to upright RGB uint8, or a typed error of one line.

The kind follows from the content, never from the name. One file a family of kinds: `jpeg` (fast path), `pillow_kinds`,
`tiff` (and `large` ones in parts), `dicom`, `nifti`, `video`; what they share is the safe opening (`file`), the kinds
(`kinds`), turning (`upright`), colour profiles (`colour`) and the way from any numbers to 8 bits (`tone`).

To add a kind: a row in `kinds.KINDS`; for a new family also its file and its line in `read.py`; golden pixels in
`tests/data`.
"""

from opendino.data.images.errors import (
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
    "find_kind",
    "find_valid",
    "is_pointer",
    "is_tiff",
    "load_file",
    "open_file",
    "open_large",
    "patiently",
    "read",
    "read_stored",
    "to_picture",
    "typed_storage_errors",
]
