"""CLS and pooled patch tokens of every picture of a source, by a frozen backbone in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendino.data.sources import Skipped, Source
from opendino.data.transform import Transform
from opendino.errors import DataError

NO_LABEL = -1


@dataclass(frozen=True)
class Bank:
    """Features of the readable pictures, in source order, on the CPU.

    cls [n, D] float32; pooled [n, pool * pool * D] float32: patches averaged over a pool x pool grid, row by row;
    labels [n] int64, -1 where the source has none; ids: n names; skipped: pictures that could not be read.
    """

    cls: Tensor
    pooled: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Inputs:
    """A batch for the backbone: images [b, 3, H, W] of one size, their labels and ids; skipped: met before it."""

    images: Tensor
    labels: tuple[int, ...]
    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def read_inputs(
    source: Source, transform: Transform, *, batch_size: int = 64, limit: int | None = None
) -> Iterator[Inputs]:
    """Batches in source order; a change of picture size starts a new batch (transform mode `whole`).

    The first `limit` pictures are read, or all. Pictures that fail are left out and named in `skipped`; the last batch
    may hold no image when only failures were left.
    """
    images: list[Tensor] = []
    labels: list[int] = []
    ids: list[str] = []
    skipped: list[Skipped] = []

    def batch() -> Inputs:
        stacked = torch.stack(images) if images else torch.empty(0, 3, transform.size, transform.size)
        inputs = Inputs(stacked, tuple(labels), tuple(ids), tuple(skipped))
        for part in (images, labels, ids, skipped):
            part.clear()
        return inputs

    for index in range(len(source) if limit is None else min(limit, len(source))):
        try:
            image = transform.apply(source.read(index))
        except DataError as error:
            skipped.append(Skipped(source.id(index), getattr(error, "reason", error.cause)))
            continue
        if len(images) == batch_size or (images and images[0].shape != image.shape):
            yield batch()
        label = source.label(index)
        images.append(image)
        labels.append(NO_LABEL if label is None else label)
        ids.append(source.id(index))
    if images or skipped:
        yield batch()


def extract_inputs(
    model: nn.Module,
    batches: Iterable[Inputs],
    *,
    device: torch.device | str = "cpu",
    pool: int = 3,
    progress: Callable[[int], None] | None = None,
) -> Bank:
    """As `extract`, from batches that were read before."""
    cls: list[Tensor] = []
    pooled: list[Tensor] = []
    labels: list[int] = []
    ids: list[str] = []
    skipped: list[Skipped] = []
    was_training = model.training
    model.to(device).eval()
    try:
        # no_grad, not inference_mode: a table that the backbone keeps for later would be unusable in training.
        with torch.no_grad():
            for inputs in batches:
                skipped.extend(inputs.skipped)
                if inputs.ids:
                    features = model(inputs.images.to(device))
                    grid = F.adaptive_avg_pool2d(features.patches.float().permute(0, 3, 1, 2), pool)
                    cls.append(features.cls.float().cpu().clone())  # a view would keep all tokens of its batch
                    pooled.append(grid.permute(0, 2, 3, 1).flatten(1).cpu())
                    labels.extend(inputs.labels)
                    ids.extend(inputs.ids)
                if progress is not None:
                    progress(len(ids) + len(skipped))
    finally:
        model.train(was_training)
    if not ids:
        reasons = ", ".join(f"{s.id}: {s.reason}" for s in islice(skipped, 3))
        raise DataError("pictures", f"none could be read ({reasons})" if skipped else "the source is empty")
    return Bank(torch.cat(cls), torch.cat(pooled), torch.tensor(labels), tuple(ids), tuple(skipped))


def extract(
    model: nn.Module,
    source: Source,
    transform: Transform,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    pool: int = 3,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Bank:
    """Run a backbone over a source.

    Args:
        model: returns `models.contract.Features`; moved to `device`, put in eval mode and put back afterwards.
        pool: side of the grid over which patch tokens are averaged; a smaller map is repeated.
        limit: only the first so many pictures of the source.
        progress: called after each batch with the number of pictures done, skipped ones included.
    Returns:
        Bank; a picture gives the same row whatever stands beside it in the batch, up to float32 rounding.
    Raises:
        DataError: not one picture could be read.
    """
    batches = read_inputs(source, transform, batch_size=batch_size, limit=limit)
    return extract_inputs(model, batches, device=device, pool=pool, progress=progress)
