"""`opendino track VIDEO --mask M.png`: follow painted objects through a video, and say where one was lost."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rich.console import Console
from rich.progress import track as progress_over

from opendino.cli.arguments import OptionalPath, Switch, parse_arguments
from opendino.cli.device import choose_device
from opendino.cli.model import ModelArgs, choose_model, model_changes, model_inputs
from opendino.cli.output import OutputFolder, claim_folder
from opendino.data import images
from opendino.data.beside import read_declared
from opendino.data.images.video import read_frames
from opendino.data.listing import has_picture_ending
from opendino.errors import DataError, UsageError
from opendino.evaluation.datasets.videos import read_objects
from opendino.evaluation.protocol import Subject
from opendino.evaluation.tracking import TrackedFrame, follow
from opendino.files import write_atomic
from opendino.pages.overlay import COLOURS, overlay
from opendino.pages.page import png_bytes

FPS = 10.0
"""Of the overlay when frames come from a folder."""


@dataclass(frozen=True)
class Gap:
    """A stretch of frames, ends included, in which an object was lost."""

    object: int
    first: int
    last: int


@dataclass(frozen=True)
class Track:
    """frames: how many were followed; gaps: where an object was lost; masks: folder of PNGs; overlay: the video, or
    the folder of pictures where no encoder is installed; table: a row a frame and object.
    """

    frames: int
    gaps: tuple[Gap, ...]
    masks: Path
    overlay: Path
    table: Path


def track(
    video: Path | str,
    mask: Path | str,
    model: Path | str | None = None,
    *,
    corrections: Mapping[int, Path | str] | None = None,
    start: int = 0,
    out: Path | str | None = None,
    rows: int = 30,
    device: str = "auto",
    quiet: bool = False,
    **changes: Any,
) -> Track:
    """Carry the painted objects of one frame to all later ones; write masks, overlay and confidence.

    Args:
        video: a video file, or a folder of frames in order of their names.
        mask: PNG of the frame's size, 0 background, every other value an object (255 alone counts as object 1).
        model: what `opendino.load` takes; None is the best at hand.
        corrections: later frames that were painted too, by number from 0: from there on they are known as well.
        start: number of the frame that `mask` belongs to.
        out: folder; default: `track-NAME`. Other corrections replace what is in it.
        rows: patches on the short side: more follow finer outlines, for the square of the time.
        changes: stride=, channels=, mean= and what else `cli.model.choose_model` takes.
    Raises:
        UsageError: a mask that does not fit its frame; `out` holds other files. DataError: what cannot be read.
    """
    source = Path(video)
    if start < 0:
        raise UsageError(f"--start {start}", "must be 0 or more", "frames count from 0")
    known = len(_paths(source)) if source.is_dir() else None
    for number in corrections or {}:
        if number <= start:
            raise UsageError(f"--correct {number}=", f"comes no later than frame {start}, which --mask paints")
        if known is not None and number >= known:
            raise UsageError(f"--correct {number}=", f"the video has {known} frames", "count frames from 0")
    given = {start: Path(mask), **{number: Path(path) for number, path in (corrections or {}).items()}}
    painted = {number: read_objects(path) for number, path in given.items()}
    console = Console(quiet=quiet, stderr=True)
    place = choose_device(device)
    backbone = choose_model(model, place, **changes).model
    subject = Subject(backbone, backbone.transform, str(backbone.card["name"]), "", place)
    inputs = {"video": source, "mask": Path(mask), "start": start, "rows": rows}
    folder = claim_folder(
        Path(out) if out is not None else Path(f"track-{source.stem}"),
        "track",
        inputs | model_inputs(backbone, backbone.transform),
        reads=given.values(),
    )
    table, lost, count = io.StringIO(), dict[int, list[int]](), 0
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("frame", "object", "confidence", "share", "state"))
    with ExitStack() as stack:
        made, write = _overlay_writer(folder, stack)
        frames = progress_over(
            _frames(source), "frames", console=console, transient=True, disable=quiet or not console.is_terminal
        )
        for one in follow(subject, frames, painted, rows):
            write_atomic(folder.file(f"masks/{one.number:05d}.png"), _palette_png(one.mask))
            write(one)
            count += 1
            for number, seen in one.sightings.items():
                state = "painted" if one.painted else "lost" if seen.lost else "seen"
                writer.writerow((one.number, number, f"{seen.confidence:.3f}", f"{seen.share:.5f}", state))
                if seen.lost:
                    lost.setdefault(number, []).append(one.number)
    write_atomic(folder.file("track.csv"), table.getvalue())
    folder.finish()
    return Track(count, tuple(_gaps(lost)), folder.path / "masks", made, folder.path / "track.csv")


def _frames(source: Path) -> Iterator[images.Image]:
    if not source.is_dir():
        yield from read_frames(source)
        return
    paths = _paths(source)
    if not paths:
        frames = source / "images"
        fix = f"give its frames: {frames}" if frames.is_dir() else "give a video file, or a folder of frames"
        raise DataError(source, "holds no picture", fix)
    for path in paths:
        yield read_declared(path)


def _paths(folder: Path) -> list[Path]:
    """Its pictures, in the order of their names."""
    return sorted(path for path in folder.iterdir() if has_picture_ending(path.name.encode()))


def _overlay_writer(folder: OutputFolder, stack: ExitStack) -> tuple[Path, Callable[[TrackedFrame], None]]:
    """overlay.mp4 with PyAV, else overlay/NNNNN.jpg; and what writes a frame into it until `stack` is closed."""
    try:
        import av
    except ImportError:
        return folder.path / "overlay", lambda one: PillowImage.fromarray(overlay(one.picture.array, one.mask)).save(
            folder.file(f"overlay/{one.number:05d}.jpg"), quality=90
        )
    streams: list[Any] = []

    def begin(shape: tuple[int, ...], fps: float) -> Any:
        # Not before the first frame was followed: a mask that does not fit leaves no film.
        container = stack.enter_context(av.open(str(folder.file("overlay.mp4")), "w"))
        stream = container.add_stream("mpeg4", rate=round(fps) or 1)
        stream.height, stream.width, stream.pix_fmt = *shape[:2], "yuv420p"
        stream.bit_rate = 8 * shape[0] * shape[1]
        stack.callback(lambda: container.mux(stream.encode()))
        return stream

    def write(one: TrackedFrame) -> None:
        # Encoders take even sides alone: the last row or column is left out of the film, never of a mask.
        painted = overlay(one.picture.array, one.mask)
        painted = np.ascontiguousarray(painted[: painted.shape[0] // 2 * 2, : painted.shape[1] // 2 * 2])
        if not streams:
            streams.append(begin(painted.shape, float(one.picture.meta.get("fps", FPS))))
        streams[0].container.mux(streams[0].encode(av.VideoFrame.from_ndarray(painted, format="rgb24")))

    return folder.path / "overlay.mp4", write


def _palette_png(mask: NDArray[np.uint8]) -> bytes:
    picture = PillowImage.fromarray(mask)
    picture.putpalette(COLOURS.tobytes())
    return png_bytes(picture)


def _gaps(lost: Mapping[int, Sequence[int]]) -> Iterator[Gap]:
    for number, frames in sorted(lost.items()):
        first = before = frames[0]
        for frame in frames[1:]:
            if frame != before + 1:
                yield Gap(number, first, before)
                first = frame
            before = frame
        yield Gap(number, first, before)


@dataclass(frozen=True, kw_only=True)
class TrackArgs(ModelArgs):
    """Follow objects that were painted in one frame through a video.

    Example: opendino track walk.mp4 --mask first.png --model runs/photos-small

    Writes a mask a frame, the video with objects painted over it, and track.csv: how sure it is of each object in each
    frame. Where one is lost it says so: paint that frame too and give it as --correct 57=frame57.png.
    """

    video: tyro.conf.Positional[Path]
    """A video file, or a folder of frames."""
    mask: Path
    """PNG of a frame's size: black is background, every other value an object."""
    start: int = 0
    """The frame that was painted, from 0."""
    correct: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FRAME=MASK: another frame that was painted; may be given again."""
    out: OptionalPath = None
    """Folder to write; default: track-NAME."""
    rows: int = 30
    """Patches on the short side: more follow finer outlines and take longer."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as one JSON object."""


def run(argv: Sequence[str]) -> int:
    """Parse, follow, print."""
    args = parse_arguments(TrackArgs, argv, "track")
    corrections = dict(_correction(text) for text in args.correct)
    done = track(
        args.video,
        args.mask,
        args.model,
        corrections=corrections,
        start=args.start,
        out=args.out,
        rows=args.rows,
        device=args.device,
        quiet=args.json,
        **model_changes(args),
    )
    if args.json:
        print(json.dumps(asdict(done), default=str))
        return 0
    for gap in done.gaps:
        where = f"frame {gap.first}" if gap.first == gap.last else f"frames {gap.first} to {gap.last}"
        print(f"object {gap.object} lost in {where}")
    print(f"followed {done.frames} frames{'' if done.gaps else ', no object was lost'}")
    print(f"wrote {done.masks}, {done.overlay} and {done.table}")
    if done.gaps:
        frame = done.gaps[0].first
        command = ["opendino", "track", *argv, "--correct", f"{frame}=MASK.png"]
        print(f"next: paint frame {frame} and run: {shlex.join(command)}")
    else:
        print(f"next: look at {done.overlay}")
    return 0


def _correction(text: str) -> tuple[int, Path]:
    number, sign, path = text.partition("=")
    if not sign or not number.strip().isdigit():
        raise UsageError(f"--correct {text}", "must be FRAME=MASK", "as in --correct 57=frame57.png")
    return int(number), Path(path)
