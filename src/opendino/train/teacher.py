"""A frozen teacher: it looks once at each batch, and what it says goes with the batch to every student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.data.config import MaskConfig
from opendino.data.listing import Skipped
from opendino.data.loader import Crops
from opendino.data.masks import block_masks
from opendino.losses import balanced_targets, sinkhorn
from opendino.losses.prototypes import BalancedTargets
from opendino.models.heads import ProjectionHead
from opendino.train.method import Batches
from opendino.train.schedules import Schedule

Grid = tuple[int, int]


@dataclass(frozen=True)
class TeacherHeads:
    """Heads trained with or on the teacher. ibot: None where it has none. spread: of `spread_logits`, 0 for none."""

    dino: ProjectionHead
    ibot: ProjectionHead | None
    spread: float = 0.0


@dataclass(frozen=True)
class PatchTargets:
    """masks: [2B, h, w] bool, the M places that are compared; probs: their targets, in the order of the masks."""

    masks: Tensor
    probs: BalancedTargets


@dataclass(frozen=True)
class Taught:
    """A batch with what the teacher says of its global crops; fulfils `train.method.Batch`.

    cls: [2B, D], final-normed. patches: [2B, h, w, D] by grid, resized to it. dino: [2, B, K] balanced targets, None
    without heads. ibot: by grid, only of grids where some place is masked. scale: the side of its global crops over the
    `Lesson.global_px`, which other sides are stated for.
    """

    crops: Crops
    cls: Tensor
    patches: Mapping[Grid, Tensor]
    dino: Tensor | None
    ibot: Mapping[Grid, PatchTargets]
    scale: float = 1.0

    @property
    def device(self) -> torch.device:
        return self.crops.device

    @property
    def ids(self) -> Sequence[str]:
        return self.crops.ids

    @property
    def bad(self) -> Sequence[Skipped]:
        return self.crops.bad


class Sight(NamedTuple):
    """How a student sees a global crop: side in pixels, and of its patches."""

    px: int
    patch: int


@dataclass(frozen=True)
class Lesson:
    """What the teacher is asked for.

    sights: of the students. px: side in pixels at which the teacher sees global crops, 0 as they are. Both are stated
    for crops of `global_px` and grow with them where sizes take turns. patches: whether whole maps are wanted. masks:
    how the places of the iBOT term are drawn, by (mask_seed, step); None for no iBOT term. temperature: divides the
    teacher's logits. chunk: pictures at a time, 0 for all at once.
    """

    sights: tuple[Sight, ...]
    global_px: int
    patches: bool
    masks: MaskConfig | None
    mask_seed: int
    temperature: Schedule
    total_steps: int
    px: int = 0
    chunk: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"


class Teacher:
    """A frozen backbone, in eval mode and without gradient, with its heads or without."""

    def __init__(self, backbone: nn.Module, heads: TeacherHeads | None) -> None:
        self.backbone: Any = backbone.eval().requires_grad_(False)
        self.heads = heads
        for head in () if heads is None else (heads.dino, heads.ibot):
            if head is not None:
                head.eval().requires_grad_(False)

    @torch.no_grad()
    def teach(self, crops: Crops, lesson: Lesson, step: int) -> Taught:
        """One forward of each global crop. `step` is the number of the batch."""
        images = crops.global_crops
        scale = images.shape[-1] / lesson.global_px
        sides = {round(scale * sight.px) // sight.patch: None for sight in lesson.sights}
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=lesson.precision == "bf16"):
            parts = images.split(2 * lesson.chunk or len(images))
            found = [self.backbone(resize_images(part, round(scale * lesson.px))) for part in parts]
            cls = torch.cat([one.cls for one in found])
            tokens = torch.cat([one.patches for one in found])
            maps = {(side, side): resize_map(tokens, (side, side)) for side in sides}
            temperature = lesson.temperature.at(step, lesson.total_steps)
            dino = None
            if self.heads is not None:
                dino = sinkhorn(self.logits(cls), temperature).unflatten(0, (2, -1))
            ibot = dict(self._patch_targets(maps, lesson, step, temperature))
        return Taught(crops, cls, maps if lesson.patches else {}, dino, ibot, scale)

    def logits(self, cls: Tensor) -> Tensor:
        """[N, K] of the DINO head, spread as its targets were made: fp32."""
        assert self.heads is not None
        return spread_logits(self.heads.dino(cls).float(), self.heads.spread)

    def _patch_targets(
        self, maps: Mapping[Grid, Tensor], lesson: Lesson, step: int, temperature: float
    ) -> Iterator[tuple[Grid, PatchTargets]]:
        head = None if self.heads is None else self.heads.ibot
        if head is None or lesson.masks is None:
            return
        for grid, tokens in maps.items():
            drawn = block_masks(lesson.mask_seed, 0, step, len(tokens), grid, lesson.masks)
            masks = torch.from_numpy(drawn).to(tokens.device)
            if masks.any():
                targets = balanced_targets(head.bottleneck(tokens[masks]), head.prototypes(), temperature)
                yield grid, PatchTargets(masks, targets)


def spread_logits(logits: Tensor, spread: float) -> Tensor:
    """[N, K] centred per prototype and scaled to a standard deviation of `spread` over all; unchanged for 0."""
    if spread == 0:
        return logits
    centred = logits - logits.mean(dim=0, keepdim=True)
    return centred * (spread / centred.std().clamp_min(1e-6))


def resize_map(tokens: Tensor, grid: Grid) -> Tensor:
    """[B, h, w, D] -> [B, *grid, D], bilinear, averaging where it shrinks; unchanged when the grid is the same."""
    if tuple(tokens.shape[1:3]) == grid:
        return tokens
    planes = tokens.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False, antialias=True)
    return resized.permute(0, 2, 3, 1).to(tokens.dtype)


def resize_images(images: Tensor, px: int) -> Tensor:
    """[B, C, S, S] -> [B, C, px, px], bilinear, averaging where it shrinks; unchanged for 0 and for S."""
    if px in (0, images.shape[-1]):
        return images
    return F.interpolate(images, size=(px, px), mode="bilinear", align_corners=False, antialias=True)


class Lessons:
    """Batches with the teacher's answers, the same for all students that ask: the teacher looks once at each.

    Students that are at the same place share one stream of batches and the newest answer; one that is elsewhere (it was
    saved earlier, or is new) has a stream of its own until it has caught up. Answers are a function of the batch alone.
    """

    def __init__(self, loader: Batches[Crops], teacher: Teacher, lesson: Lesson) -> None:
        self._loader, self._teacher, self._lesson = loader, teacher, lesson
        self._streams: dict[int, Iterator[Crops]] = {}
        """By the step of their next batch."""
        self._newest: dict[int, Taught] = {}
        """The last answer of each stream, by step."""

    def batches(self, start: int, stop: int) -> Iterator[Taught]:
        """The batches of steps start to stop - 1, each when asked for."""
        for step in range(start, stop):
            yield self._at(step, stop)

    def _at(self, step: int, stop: int) -> Taught:
        if step not in self._newest:
            stream = self._streams.pop(step, None) or self._loader.batches(step, stop)
            # A student whose data run ahead asks for more batches than the one that began the stream.
            crops = next(stream, None) or next(stream := self._loader.batches(step, stop))
            self._newest.pop(step - 1, None)
            self._newest[step] = self._teacher.teach(crops, self._lesson, step)
            self._streams[step + 1] = stream
        elif step in self._streams:
            # Another stream was here before: this one has caught up and ends.
            self._streams.pop(step)
            self._newest.pop(step - 1, None)
        return self._newest[step]
