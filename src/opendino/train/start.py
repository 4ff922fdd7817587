"""Where a later stage begins: a checkpoint of an earlier run, taken over as step 0 of a new one.

A stage is a new run with its own directory, config and schedules; what it takes from the earlier one are tensors. They
are written as its checkpoint of step 0, so a stage is resumed as every run is, and the earlier run may go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file
from torch import Tensor, nn

from opendino.errors import DataError, UsageError
from opendino.files import check_directory
from opendino.monitor.drift import Drift
from opendino.train.checkpoint import list_checkpoints, load_optimizer, save_checkpoint
from opendino.train.config import RunConfig
from opendino.train.methods.distillation import Distillation
from opendino.train.methods.self_distillation import SelfDistillation
from opendino.train.optim import build_optimizer
from opendino.train.run import RunDirectory

FRESH = {"metrics_offset": 0, "carry": {}, "skipped": {}, "passed_over": 0}
"""What a checkpoint holds beside tensors, for a run that has said nothing yet."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint of a run."""

    run: Path
    step: int
    path: Path

    @property
    def hash(self) -> str:
        """Of its manifest, which holds the hashes of all its files."""
        return hashlib.sha256((self.path / "MANIFEST.json").read_bytes()).hexdigest()[:16]

    def tensors(self) -> dict[str, Tensor]:
        """Of method and optimizer, by their names in the file. Raises DataError when a byte has changed."""
        if problem := check_directory(self.path):
            raise DataError(self.path, f"is damaged ({problem})", "name another checkpoint")
        return load_file(self.path / "state.safetensors")


def is_run(where: Path) -> bool:
    """Whether a path is the directory of a run with a checkpoint, or a checkpoint itself."""
    return (where / "MANIFEST.json").is_file() or bool(list_checkpoints(where / "checkpoints"))


def newest_checkpoint(where: Path) -> Checkpoint:
    """The newest checkpoint of a run directory, or the one that `where` itself is.

    Raises UsageError when there is none.
    """
    if (where / "MANIFEST.json").is_file() and re.fullmatch(r"step-\d{8}", where.name):
        return Checkpoint(where.parent.parent, int(where.name.removeprefix("step-")), where)
    found = list_checkpoints(where / "checkpoints")
    if not found:
        raise UsageError(where, "holds no checkpoint of a run", "name a run directory, as pretrain writes it")
    return Checkpoint(where, *found[-1])


def checkpoint_at(run: Path, step: int) -> Checkpoint:
    """The checkpoint of a run at a step. Raises UsageError with the steps that were kept."""
    found = dict(list_checkpoints(run / "checkpoints"))
    if step not in found:
        kept = ", ".join(f"{kept:,}" for kept in found)
        raise UsageError(f"{run}, step {step:,}", "was not kept", f"kept are {kept}")
    return Checkpoint(run, step, found[step])


def choose_anchor(run: Path, drift: Drift) -> tuple[Checkpoint, str]:
    """The kept checkpoint that becomes the Gram teacher by the verdict on dense features, and why, in words.

    Raises UsageError when nothing was measured.
    """
    if drift.step is None:
        fix = "name it: --gram-teacher STEP, a model, or ema"
        raise UsageError(run, "has no look at dense features to choose a Gram teacher by", fix)
    found = list_checkpoints(run / "checkpoints")
    step, path = min(found, key=lambda one: abs(one[0] - drift.step))  # type: ignore[operator]
    nearest = "" if step == drift.step else f" (the nearest that was kept to step {drift.step:,})"
    return Checkpoint(run, step, path), f"step {step:,}{nearest}; {drift.words}"


def teacher_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged backbone in the tensors of a checkpoint."""
    prefix = "method.teacher.backbone."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def begin_stage(
    run: RunDirectory,
    config: RunConfig,
    method: SelfDistillation,
    start: Checkpoint,
    *,
    student: Literal["student", "teacher"],
    anchor: Mapping[str, Tensor] | None,
) -> None:
    """Write step 0 of `run`: the state of `start`, heads included, under the new config.

    Args:
        method: freshly built; it holds the state afterwards.
        student: "student" goes on as it was, with the optimizer's moments; "teacher" puts the average in its place.
        anchor: the Gram teacher's backbone, None for the one of the start (or no Gram teacher).
    Raises:
        UsageError: model or heads of the config are not those of the start.
    """
    tensors = start.tensors()
    found = {name.removeprefix("method."): value for name, value in tensors.items() if name.startswith("method.")}
    found = {name: value for name, value in found.items() if not name.startswith("gram_teacher.")}
    if student == "teacher":
        averaged = {name: value for name, value in found.items() if name.startswith("teacher.")}
        found |= {name.replace("teacher.", "student.", 1): value for name, value in averaged.items()}
    fresh = method.state_dict()
    own = {name: value for name, value in fresh.items() if not name.startswith("gram_teacher.")}
    _check_same(own, found, start.run)
    method.load_state_dict({**fresh, **found})
    gram = method.gram_teacher
    if gram is not None and config.method.gram.teacher == "frozen":
        backbone = teacher_backbone(tensors) if anchor is None else dict(anchor)
        _check_same(gram.backbone.state_dict(), backbone, "the Gram teacher")
        gram.backbone.load_state_dict(backbone)
    optimizer = build_optimizer(method.trained(), config.optim)
    if student == "student":
        load_optimizer(optimizer, tensors)
    save_checkpoint(run.checkpoints, 0, method, optimizer, FRESH)


def begin_student(run: RunDirectory, config: RunConfig, method: Distillation, start: Checkpoint) -> None:
    """Write step 0 of `run`: a student and its average, both as the average of `start`, heads included."""
    tensors = start.tensors()
    found = {name.removeprefix("method."): value for name, value in tensors.items() if name.startswith("method.")}
    averaged = {name: value for name, value in found.items() if name.startswith("average.")}
    found |= {name.replace("average.", "student.", 1): value for name, value in averaged.items()}
    _check_same(method.state_dict(), found, start.run)
    method.load_state_dict(found)
    save_checkpoint(run.checkpoints, 0, method, build_optimizer(method.trained(), config.optim), FRESH)


def begin_from_model(run: RunDirectory, config: RunConfig, method: SelfDistillation, backbone: nn.Module) -> None:
    """Write step 0 of `run`: a trained backbone as student, average and Gram teacher, under fresh heads.

    Raises UsageError when the backbone is not of the config's shape.
    """
    state = backbone.state_dict()
    places = [method.student["backbone"], method.teacher["backbone"]]
    if method.gram_teacher is not None and config.method.gram.teacher == "frozen":
        places.append(method.gram_teacher.backbone)
    for place in places:
        _check_same(place.state_dict(), state, "the model")
        place.load_state_dict(state)
    save_checkpoint(run.checkpoints, 0, method, build_optimizer(method.trained(), config.optim), FRESH)


def _check_same(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: object) -> None:
    """Raise UsageError unless names and shapes agree."""
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape)
    other += sorted(wanted.keys() ^ found.keys())
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        fix = "a stage keeps model, heads and queue of the run that it goes on from"
        raise UsageError(where, f"has other weights than the stage ({other[0]}{more})", fix)
