"""Training batches by step number: read, draw, cut in workers; augment on the device."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from opendino.data.augment import augment, normalise
from opendino.data.config import DataConfig
from opendino.data.crops import cut
from opendino.data.draws import ColorDraws, Draws, crops_of_step, draw
from opendino.data.images import ImageError, too_slow
from opendino.data.listing import Skipped
from opendino.data.masks import block_masks
from opendino.data.order import Order
from opendino.data.sources import Source
from opendino.data.watch import Watch
from opendino.errors import DataError

# So many neighbours are tried in place of a picture that cannot be read.
MAX_SUBSTITUTES = 100
# So many may fail to read whatever `max_bad` says, and so many are named when it is too many.
FEW_BAD, NAMED = 10, 10
RESTART_SECONDS = 300


@dataclass(frozen=True)
class Crops:
    """One training batch of B pictures, view-major: all first views, then all second ones, ...

    Args:
        global_crops: [2B, 3, S, S] float32, augmented and normalised. local_crops: [L*B, 3, s, s], None without locals.
        gram_crops: [2B, 3, G, G] float32, the global crops cut at G >= S, only normalised; None without a Gram teacher.
        masks: [2B, h, w] bool on the device, True = hidden; None for a model without masking.
        positions: [B] int64 of the run's order. ids: B names of the pictures shown.
        bad: pictures of these positions that could not be read; another one was shown in their place.
    """

    global_crops: Tensor
    local_crops: Tensor | None
    gram_crops: Tensor | None
    masks: Tensor | None
    positions: Tensor
    ids: tuple[str, ...]
    bad: tuple[Skipped, ...]

    @property
    def device(self) -> torch.device:
        """Where the crops are."""
        return self.global_crops.device


@dataclass(frozen=True)
class _Cut:
    """What a worker hands over: uint8 crops [V*B, 3, S, S] and the draws that the device still has to apply."""

    global_crops: Tensor
    global_draws: ColorDraws
    local_crops: Tensor | None
    local_draws: ColorDraws
    gram_crops: Tensor | None
    masks: Tensor | None
    ids: tuple[str, ...]
    bad: tuple[Skipped, ...]

    def pin_memory(self) -> _Cut:
        """Called by DataLoader before a copy to CUDA."""
        pinned = {name: getattr(self, name) for name in ("global_crops", "local_crops", "gram_crops", "masks")}
        return replace(self, **{name: tensor.pin_memory() for name, tensor in pinned.items() if tensor is not None})


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker: exceptions with fields do not survive DataLoader's pipe."""

    thing: str
    cause: str
    fix: str


class _Steps(Dataset[_Cut | _Failure]):
    """Batches by step number; lives in the workers."""

    def __init__(
        self, source: Source, config: DataConfig, mask_patch: int | None, stage: int, cache_bytes: int
    ) -> None:
        self._source = source
        self._config = config
        self._mask_patch = mask_patch
        self._stage = stage
        self._order = Order(len(source), config.seed)
        self._cache: dict[int, np.ndarray] = {}
        self._cache_bytes = cache_bytes
        self.watches: list[Watch] = []
        """One a worker."""
        self.slow: set[int] = set()
        """Pictures whose decoders had to be stopped."""

    def __getitem__(self, step: int) -> _Cut | _Failure:
        try:
            return self._cut(step)
        except DataError as error:
            return _Failure(error.thing, error.cause, error.fix)

    def _cut(self, step: int) -> _Cut:
        size = self._config.batch_size
        config = crops_of_step(self._config.seed, self._stage, step, self._config.crops)
        sides = (
            [config.global_px] * 2 + [config.local_px] * config.num_locals + [config.gram_px] * bool(config.gram_px) * 2
        )
        views = [torch.empty(size, 3, side, side, dtype=torch.uint8) for side in sides]
        draws: list[Draws] = []
        ids: list[str] = []
        bad: list[Skipped] = []
        for row, position in enumerate(range(step * size, (step + 1) * size)):
            index, array = self._read(self._order(position), bad)
            sample = draw(self._config.seed, self._stage, position, config, self._config.color, *array.shape[:2])
            for view, crop in zip(views, cut(array, sample, config.gram_px), strict=True):
                view[row] = crop
            draws.append(sample)
            ids.append(self._source.id(index))
        return _Cut(
            global_crops=torch.cat(views[:2]),
            global_draws=ColorDraws.stack(draws, slice(0, 2)),
            local_crops=torch.cat(views[2 : config.num_views]) if config.num_locals else None,
            local_draws=ColorDraws.stack(draws, slice(2, None)),
            gram_crops=torch.cat(views[config.num_views :]) if config.gram_px else None,
            masks=self._masks(step, config.global_px),
            ids=tuple(ids),
            bad=tuple(bad),
        )

    def _masks(self, step: int, global_px: int) -> Tensor | None:
        if self._mask_patch is None:
            return None
        config, side = self._config, global_px // self._mask_patch
        masks = block_masks(config.seed, self._stage, step, 2 * config.batch_size, (side, side), config.masks)
        return torch.from_numpy(masks)

    def _read(self, wanted: int, bad: list[Skipped]) -> tuple[int, np.ndarray]:
        """The wanted picture, or the next one after it that can be read: the same one whoever asks."""
        count = len(self._source)
        for distance in range(min(count, MAX_SUBSTITUTES + 1)):
            index = (wanted + distance) % count
            array = self._cache.get(index)
            if array is not None:
                return index, array
            try:
                array = self._decode(index)
            except ImageError as error:
                # A neighbour that fails too is listed when its own position comes.
                if distance == 0:
                    bad.append(Skipped(self._source.id(index), f"{error.reason}: {error.cause}"))
                continue
            if array.nbytes <= self._cache_bytes:
                self._cache_bytes -= array.nbytes
                self._cache[index] = array
            return index, array
        tried = min(count, MAX_SUBSTITUTES + 1)
        last = bad[-1] if bad else Skipped(self._source.id(wanted), "bad")
        cause = f"{tried} pictures in a row cannot be read, the first is {last.id} ({last.reason})"
        raise DataError(self._config.path or "pictures", cause, "check the pictures, or the storage they lie on")

    def _decode(self, index: int) -> np.ndarray:
        if index in self.slow:
            raise too_slow(self._source.id(index))
        worker = get_worker_info()
        if worker is None:
            return self._source.read(index).array
        with self.watches[worker.id].at(index):
            return self._source.read(index).array


class Loader:
    """Batches of a source, each a function of (seed, stage, step) alone: workers and restarts change nothing.

    Args:
        source: at least one picture; fewer than a batch are enough, since positions run on through the epochs.
        config: batch size, crops, colour, masks, workers, cache.
        mask_patch: side in pixels of the patches that masks hide; None for no masks.
        device: where the crops are augmented and handed over.
        stage: number of the training stage; another stage draws other crops and masks.
    """

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        mask_patch: int | None,
        device: torch.device | str,
        *,
        stage: int = 0,
    ) -> None:
        self._config = config
        self._device = torch.device(device)
        self._count = len(source)
        cache_bytes = config.cache_mb * 10**6 // max(1, config.workers)
        self._steps = _Steps(source, config, mask_patch, stage, cache_bytes)
        self._bad: dict[str, str] = {}

    def batches(self, start_step: int, end_step: int) -> Iterator[Crops]:
        """Yield the batches of steps start_step to end_step - 1; step s holds positions [s * B, (s + 1) * B).

        Raises:
            DataError: more pictures than `max_bad` failed to read (10 always may, of few half of them), none in a row
                can be read, or workers were killed twice in 5 minutes.
        """
        restarted = -math.inf
        step, cuts = start_step, self._cuts(start_step, end_step)
        while step < end_step:
            try:
                batch = next(cuts)
            except (RuntimeError, OSError, EOFError) as error:
                if not self._config.workers or not _is_a_death(error):
                    raise
                slow = {watch.place for watch in self._steps.watches if watch.too_slow and watch.place is not None}
                if slow:
                    self._steps.slow |= slow
                    cuts = self._cuts(step, end_step)
                    continue
                # A worker that the system killed, mostly for want of memory; the batches are the same from another.
                if time.monotonic() - restarted < RESTART_SECONDS:
                    fix = f"memory is short: lower --data.workers (now {self._config.workers}) or --data.cache-mb"
                    raise DataError("loader", "its workers were killed twice in 5 minutes", fix) from None
                restarted, cuts = time.monotonic(), self._cuts(step, end_step)
                continue
            if isinstance(batch, _Failure):
                raise DataError(batch.thing, batch.cause, batch.fix)
            self._count_bad(batch)
            yield self._finish(step, batch)
            step += 1

    def _cuts(self, start_step: int, end_step: int) -> Iterator[_Cut | _Failure]:
        self._steps.watches = [Watch() for _ in range(self._config.workers)]
        cuts = iter(
            DataLoader(
                self._steps,
                batch_size=None,
                sampler=range(start_step, end_step),
                num_workers=self._config.workers,
                pin_memory=self._device.type == "cuda",
                # DataLoader draws a seed for its workers; from the global generator it would change what the model
                # draws.
                generator=torch.Generator(),
            )
        )
        if self._config.workers and threading.current_thread() is threading.main_thread():
            # DataLoader's own handler raises wherever the training happens to be; `next` finds the dead worker as well.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return cuts

    def _count_bad(self, batch: _Cut) -> None:
        if not batch.bad:
            return
        self._bad.update((skipped.id, skipped.reason) for skipped in batch.bad)
        if len(self._bad) > max(min(FEW_BAD, self._count // 2), self._config.max_bad * self._count):
            named = "; ".join(f"{id} ({reason})" for id, reason in list(self._bad.items())[:NAMED])
            more = f" and {len(self._bad) - NAMED} more" if len(self._bad) > NAMED else ""
            cause = f"{len(self._bad)} of {self._count} pictures cannot be read: {named}{more}"
            fix = f"repair or remove them, or allow a larger share than {self._config.max_bad:g} by --data.max-bad"
            raise DataError(self._config.path or "pictures", cause, fix)

    def _finish(self, step: int, batch: _Cut) -> Crops:
        config, locals_, grams = self._config, batch.local_crops, batch.gram_crops
        size, device = config.batch_size, self._device
        return Crops(
            global_crops=self._augment(batch.global_crops, batch.global_draws),
            local_crops=None if locals_ is None else self._augment(locals_, batch.local_draws),
            gram_crops=None
            if grams is None
            else normalise(grams.to(device, non_blocking=True), config.mean, config.std),
            masks=None if batch.masks is None else batch.masks.to(device, non_blocking=True),
            positions=torch.arange(step * size, (step + 1) * size),
            ids=batch.ids,
            bad=batch.bad,
        )

    def _augment(self, crops: Tensor, draws: ColorDraws) -> Tensor:
        return augment(crops.to(self._device, non_blocking=True), draws, self._config.mean, self._config.std)


def _is_a_death(error: Exception) -> bool:
    """Of a worker: it is found missing, or a batch that it had announced cannot be fetched from it any more."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and "Caught" not in str(error)
