"""Fitting heads on frozen features: a grid of them at once on the one loop, all on the same batches."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from opendino.data.listing import Skipped
from opendino.errors import ShapeError, StoppedError
from opendino.models.head_grid import HeadGrid
from opendino.train.config import SaveConfig, WatchConfig
from opendino.train.loop import train
from opendino.train.method import LossTerms
from opendino.train.optim import OptimConfig, Rate
from opendino.train.run import open_run

G = TypeVar("G", bound=HeadGrid)
HeadLoss = Callable[[Tensor, Tensor], Tensor]
"""(outputs of one head [b, ...], targets [b, ...]) -> scalar."""


@dataclass(frozen=True)
class Setting:
    """Peak learning rate and weight decay of one head."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Recipe:
    """steps of `batch_size` rows; optimizer "sgd" (momentum 0.9) or "adamw"; warm-up, then a cosine towards 0."""

    steps: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    warmup_steps: int = 0

    @property
    def optim(self) -> OptimConfig:
        """Rate and decay 1: what each head has is its multiplier."""
        return OptimConfig(
            kind=self.optimizer,
            lr=1.0,
            lr_final=0.0,
            schedule="open cosine",
            warmup=self.warmup_steps,
            weight_decay=1.0,
            weight_decay_final=1.0,
            clip=0.0,
        )


@dataclass(frozen=True)
class Rows:
    """A batch of features [b, ...] and targets [b, ...]; ids: the rows' numbers."""

    features: Tensor
    targets: Tensor
    ids: tuple[str, ...]
    bad: tuple[Skipped, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.features.device


@dataclass(frozen=True)
class RowBatches:
    """Features [n, ...] and targets [n, ...] in memory, in an order that follows from seed and step alone."""

    features: Tensor
    targets: Tensor
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not len(self.features) or len(self.features) != len(self.targets):
            found = f"{len(self.features)} rows of features and {len(self.targets)} targets"
            raise ShapeError("head fitting", found, "give one target a row, and one row at least")

    def batches(self, start: int, stop: int) -> Iterator[Rows]:
        """Every epoch is another permutation; a batch may end one and begin the next."""
        permutation = functools.lru_cache(maxsize=2)(self._permutation)
        for step in range(start, stop):
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            epochs = range(positions[0] // len(self.features), positions[-1] // len(self.features) + 1)
            joined = torch.cat([permutation(epoch) for epoch in epochs])
            offset = positions[0] - epochs[0] * len(self.features)
            rows = joined[offset : offset + self.batch_size]
            yield Rows(self.features[rows], self.targets[rows], tuple(map(str, rows.tolist())))

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.features), generator=generator)


class HeadFitting(nn.Module):
    """Heads that train side by side; fulfils `train.method.Method`.

    Losses are added up, so a head gets the gradient that it would get alone. A head whose loss is not finite gets no
    gradient in that step and stops no other.
    """

    def __init__(self, heads: HeadGrid, loss: HeadLoss) -> None:
        super().__init__()
        self.heads, self._loss = heads, loss

    def trained(self) -> Mapping[str, nn.Module]:
        return {"heads": self.heads}

    def losses(self, batch: Rows, step: int) -> Iterator[LossTerms]:
        self.heads.train()
        each = [self._loss(outputs, batch.targets) for outputs in self.heads(batch.features)]
        # Left out rather than multiplied by 0: the gradient of such a loss is no number either.
        kept = torch.stack([one for one in each if torch.isfinite(one)] or each)
        yield LossTerms(kept.sum(), {"lowest": kept.detach().min()})

    def after_step(self, step: int) -> None:
        """Nothing follows an update."""

    def scalars(self, step: int) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class HeadConfig:
    """What the loop reads, for heads: saved at the end alone, logged at a hundred steps."""

    steps: int
    seed: int
    batch_size: int
    optim: OptimConfig
    precision: Literal["fp32", "bf16"] = "fp32"
    data_ahead_steps: int = 0
    save: SaveConfig = field(default_factory=lambda: SaveConfig(minutes=10.0, milestones=0))
    watch: WatchConfig = field(default_factory=lambda: WatchConfig(log_every=100))


def fit_heads(
    heads: G,
    features: Tensor,
    targets: Tensor,
    loss: HeadLoss,
    settings: Sequence[Setting],
    recipe: Recipe,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> G:
    """Train every head with its own setting; returns the heads in eval mode.

    Args:
        heads: one for each setting.
        features: [n, ...]; targets: [n, ...], what `loss` compares outputs with.
        loss: of one head.
        seed: of the order of rows. Heads share each batch and no gradient, so one trained among many equals it alone.
    Raises:
        StoppedError: on Ctrl-C, TERM or USR1. The run's directory is a temporary one: features are kept by whoever
            extracted them, and heads are fitted anew.
    """
    if heads.count != len(settings):
        raise ShapeError("head fitting", f"{heads.count} heads, {len(settings)} settings", "give one each")
    own = {f"heads.{name}": settings[heads.head_of(name)] for name, _ in heads.named_parameters()}
    batch_size = min(recipe.batch_size, len(features))
    config = HeadConfig(recipe.steps, seed, batch_size, recipe.optim)
    rows = RowBatches(features, targets, batch_size, seed)
    rates = {name: Rate(one.lr, one.weight_decay) for name, one in own.items()}
    with (
        tempfile.TemporaryDirectory(prefix="opendino-heads-") as folder,
        open_run(Path(folder)) as run,
        torch.enable_grad(),
    ):
        try:
            train(
                config,
                HeadFitting(heads, loss),
                rows,
                run,
                rates=rates,
                on_step=lambda step, result, speed: progress(step, recipe.steps),
            )
        except StoppedError:
            cause = "stopped before its end, and nothing of it is kept"
            raise StoppedError("fitting the head", cause, "the same command begins it again") from None
    return heads.eval()
