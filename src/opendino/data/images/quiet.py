"""Decoders print no words of their own: what they find wrong with a file is said by our errors, once."""

from __future__ import annotations

import ctypes
import functools
import logging
import warnings

from PIL import _imaging

_LOGGERS = ("PIL", "tifffile", "pydicom", "nibabel.global", "libav")
_MODULES = r"(PIL|tifffile|imagecodecs|pydicom|nibabel|pillow_heif|av)\b"


@functools.cache
def silence_decoders() -> None:
    """Once a process: decoders' log lines, Python warnings, and what libtiff writes to standard error are left out.

    For the whole process and not around each picture, because pictures are read in threads, whose changes of filters
    would undo each other.
    """
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=_MODULES)
    # Symbols of the libraries that Pillow is linked with are found through its own; without a handler libtiff is still.
    pillow = ctypes.CDLL(_imaging.__file__)
    for handler in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
        if hasattr(pillow, handler):  # no Pillow without libtiff has it
            getattr(pillow, handler)(None)
