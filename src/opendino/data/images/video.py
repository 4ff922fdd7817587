"""Frames of videos by number or one after another, by PyAV (extra `video`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from opendino.data.images.errors import NotAnImage, Truncated, Unsupported
from opendino.data.images.file import load_file
from opendino.data.images.kinds import HEAD_BYTES, Kind, require_kind
from opendino.data.images.picture import Image, Reading, need, require_size
from opendino.data.images.pillow_kinds import typed_errors

_QUARTERS = {90: 1, 180: 2, 270: 3}


def decode_video(data: bytes, kind: Kind, reading: Reading, name: str) -> Image:
    """Decode frame number `frame` in order of showing, turned as the file says.

    Counting from the start is the one exact way: seeking finds key frames and time stamps, not numbers.
    """
    av = need("av", "video", name, "video")
    if reading.frame is not None and reading.frame < 0:
        raise Unsupported(name, "the frames of a video are counted from its start", "ask for frame 0 or later")
    with typed_errors(kind.name, name), av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise NotAnImage(name, "no picture in it, only sound")
        stream = container.streams.video[0]
        require_size(stream.codec_context.width, stream.codec_context.height, name)
        wanted, number = reading.frame or 0, -1
        for number, frame in enumerate(container.decode(stream)):
            if number == wanted:
                return _image(frame, kind, int(stream.frames))
        if number < 0:
            raise Truncated(name, "video without a frame that decodes")
        raise Unsupported(name, f"has {number + 1} frames, frame {wanted} was asked for", f"ask for 0 to {number}")


def read_frames(path: Path) -> Iterator[Image]:
    """All frames of a video file in order of showing, decoded once; `meta["fps"]` when the file says it.

    Raises:
        ImageError: no video, or it ends in the middle; frames before that have been given.
    """
    name = str(path)
    data = load_file(path)
    kind = require_kind(data[:HEAD_BYTES], name)
    if kind.family != "video":
        raise Unsupported(name, f"is a picture ({kind.name}), not a video", "give a video file or a folder of frames")
    av = need("av", "video", name, "video")
    seen = False
    with typed_errors(kind.name, name), av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise NotAnImage(name, "no picture in it, only sound")
        stream = container.streams.video[0]
        require_size(stream.codec_context.width, stream.codec_context.height, name)
        rate = {"fps": float(stream.average_rate)} if stream.average_rate else {}
        for frame in container.decode(stream):
            image = _image(frame, kind, int(stream.frames))
            seen = True
            yield replace(image, meta={**image.meta, **rate})
    if not seen:
        raise Truncated(name, "video without a frame that decodes")


def _image(frame: Any, kind: Kind, count: int) -> Image:
    array = frame.to_ndarray(format="rgb24")
    quarters = _QUARTERS.get(int(getattr(frame, "rotation", 0)) % 360, 0)
    array = np.ascontiguousarray(np.rot90(array, quarters))
    meta: dict[str, Any] = {"kind": kind.name} | ({"frames": count} if count > 1 else {})
    if frame.time is not None:  # from the time stamp, never number / rate: rates vary
        meta["time_s"] = float(frame.time)
    return Image(array, frame.format.name, 8, meta)
