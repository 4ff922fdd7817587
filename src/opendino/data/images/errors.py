"""Why a picture cannot be read: one type for each cause, each one line."""

from __future__ import annotations

from opendino.errors import DataError


class ImageError(DataError):
    """A picture that cannot be read. `reason` is one short word for tables and counts."""

    reason = "bad"

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return type(self), (self.thing, self.cause, self.fix)


class Empty(ImageError):
    """No bytes."""

    reason = "empty"


class NotAnImage(ImageError):
    """Something else than a picture, or one too small to learn from."""

    reason = "not-an-image"


class Truncated(ImageError):
    """Cut short or damaged."""

    reason = "truncated"


class TooLarge(ImageError):
    """More pixels or bytes than are decoded at once."""

    reason = "too-large"


class TooSlow(ImageError):
    """Built so that decoding it takes minutes."""

    reason = "too-slow"


class Crashed(ImageError):
    """Its decoder ends the process that it runs in."""

    reason = "crash"


class Unsupported(ImageError):
    """A picture of a kind that this reader does not decode, or not without an extra or a choice of bands."""

    reason = "unsupported"


class Denied(ImageError):
    """No permission to read the file."""

    reason = "denied"


class Vanished(ImageError):
    """There is no such file, or no longer."""

    reason = "vanished"


class IOFault(ImageError):
    """The storage failed, also after repeated tries."""

    reason = "io-fault"
