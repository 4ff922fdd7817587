"""What looks at a run while it trains: health in words, k-NN, PCA pictures, the report, the best weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opendino.cli.drift_watch import SIZE_STEPS, MaskedPictures, curve_over_sizes, gauges, sizes_in_words
from opendino.cli.protocol_watch import Planned, score_protocols
from opendino.data.sources import Source, open_source
from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.probes import KnnProbe, knn_row
from opendino.models.batch_norm import calibrate
from opendino.monitor.drift import judge_drift, stage_change
from opendino.monitor.health import Health, alarms, health_from_row, in_words, measure
from opendino.monitor.incidents import IncidentLog
from opendino.monitor.metrics import MetricsLog
from opendino.monitor.spikes import Spikes
from opendino.pages.pca import Basis, pca_maps
from opendino.pages.report import write_report
from opendino.pages.sheet import save_training_pictures
from opendino.train.config import RunConfig
from opendino.train.loop import Watcher
from opendino.train.method import BackboneMethod
from opendino.train.run import RunDirectory
from opendino.train.schedules import to_steps
from opendino.weights import write_model

PROBE_IMAGES = 64
CALIBRATION_IMAGES = 512
PICTURE_IMAGES = 6
SIZE_IMAGES = 16
LEAST_STEPS = {"health": 10, "knn": 20, "picture": 20, "drift": 20, "protocols": 20}
"""Shares of a short run are at least so many steps: looking must not cost more than learning."""


@dataclass
class Watch:
    """The watchers of one run and what they share. `carry` is saved with each checkpoint: best score, PCA basis.

    say: prints a line for people. card: provenance written beside exported weights.
    """

    config: RunConfig
    run: RunDirectory
    source: Source
    transform: Transform
    device: torch.device
    knn: KnnProbe | None
    card: dict[str, Any]
    say: Callable[[str], None]
    protocols: Sequence[Planned] = ()
    masked: MaskedPictures | None = None
    carry: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics, self.incidents = MetricsLog(self.run.metrics_file), IncidentLog(self.run.incidents_file)
        self.calibration_images = read_evenly(self.source, self.transform, CALIBRATION_IMAGES)
        stride = max(1, len(self.calibration_images) // PROBE_IMAGES)
        self.probe_images = self.calibration_images[::stride][:PROBE_IMAGES]
        picture_px = max(1, self.config.watch.picture_px // self.transform.patch) * self.transform.patch
        shown = open_source(Path(self.config.watch.picture_dir)) if self.config.watch.picture_dir else self.source
        self.shown_images = read_evenly(shown, replace(self.transform, size=picture_px), PICTURE_IMAGES)
        self.spikes = Spikes("loss"), Spikes("gradient norm")
        self.healths: list[Health] = []
        self.alarmed: set[str] = set()

    def model(self, method: BackboneMethod) -> nn.Module:
        """The backbone as a user would load it now: a copy, BatchNorm calibrated on pictures at the reading size."""
        model = copy.deepcopy(method.export())
        calibrate(model, (self.calibration_images.to(self.device)).split(128))
        return model

    def measure_colours(self) -> str:
        """Mean and standard deviation of RGB over the calibration pictures, kept in the card; says them in words."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.transform.mean, self.transform.std))
        pixels = self.calibration_images * std + mean
        measured = [[round(float(value), 3) for value in of((0, 2, 3))] for of in (pixels.mean, pixels.std)]
        self.card.update(picture_mean=measured[0], picture_std=measured[1])
        used = f"{list(self.transform.mean)}, {list(self.transform.std)} (--data.mean, --data.std)"
        found = f"mean {measured[0]}, std {measured[1]}"
        return f"colours of the pictures at {pixels.shape[-1]} px: {found}; normalised by {used}"

    def watchers(self) -> list[Watcher]:
        """In the order in which they are called at a step: the report comes last and shows what the others wrote."""
        watch, total = self.config.watch, self.config.steps
        every = {}
        for name, least in LEAST_STEPS.items():
            length = getattr(watch, f"{name}_every")
            every[name] = max(least if isinstance(length, float) else 1, to_steps(length, total))
        found = [
            Watcher(every["health"], self._health),
            Watcher(every["picture"], self._picture),
            Watcher(every["drift"], self._drift),
        ]
        if self.knn is not None:
            found.append(Watcher(every["knn"], self._knn))
        if self.protocols:
            found.append(Watcher(every["protocols"], self._score))
        if self.config.stage.name == "highres":
            found.append(Watcher(total, self._sizes))
        return [*found, Watcher(every["health"], self._report)]

    def shown(self) -> Sequence[str]:
        """Words for the progress bar, before the losses."""
        return ()

    def on_step(self, step: int, loss: float, grad_norm: float) -> None:
        """Say it when loss or gradient jump."""
        for spikes, value in zip(self.spikes, (loss, grad_norm), strict=True):
            if words := spikes.push(value):
                self.incidents.append("alarm", step, words)
                self.say(f"step {step:,}: ALARM: {words}")

    def _health(self, step: int, method: BackboneMethod) -> None:
        if step and not self.healths:  # resumed: what the run said before, cut back to the checkpoint by now
            self.healths = [health_from_row(row) for row in self.metrics.rows() if row["kind"] == "health"]
        health = measure(method.probe(self.probe_images.to(self.device)))
        self.healths.append(health)
        words = in_words(health, self.healths[0])
        self.metrics.append("health", step, **vars(health), words=words)
        self.say(f"step {step:,}: {words}")
        if step == 0:
            self._export("model-start", step, self.model(method))
        for alarm in alarms(self.healths):
            name = alarm.split(":")[0]  # the numbers behind it move, the alarm is the same
            if name not in self.alarmed:
                self.alarmed.add(name)
                self.incidents.append("alarm", step, alarm)
                self.say(f"step {step:,}: ALARM: {alarm}")

    @property
    def _at_start(self) -> str:
        return " (the start)" if self.config.stage.start else " (untrained)"

    def _knn(self, step: int, method: BackboneMethod) -> None:
        assert self.knn is not None
        model = self.model(method)
        (result,) = self.knn(model)
        self.metrics.append("knn", step, **knn_row(result))
        assert result.interval is not None
        low, high = (result.config[name] for name in ("gain_low", "gain_high"))
        gain = f", {result.config['gain']:+.1f} [{low:.1f}, {high:.1f}] since the start" if step else self._at_start
        self.say(f"step {step:,}: k-NN {result.value:.1f} % [{result.interval[0]:.1f}, {result.interval[1]:.1f}]{gain}")
        best = self.carry.get("best")
        better = step > 0 and (best is None or result.value > best["value"])
        if better and self._export(self.run.best_model.name, step, model):
            self.carry["best"] = {"step": step, "value": result.value}

    def _score(self, step: int, method: BackboneMethod) -> None:
        model = self.model(method)
        score_protocols(
            self.protocols, model, self.transform, step, self.device, self.metrics, self.incidents, self.say
        )

    def _drift(self, step: int, method: BackboneMethod) -> None:
        """Gauges of dense features; with masks their segmentation, at the size of the pictures that are drawn."""
        row: dict[str, Any] = gauges(measure(method.probe(self.probe_images.to(self.device))))
        if self.masked is not None:
            row |= self.masked.scores(self.model(method), self.transform, self.config.watch.picture_px, self.device)
        self.metrics.append("drift", step, **row)
        if step:
            rows = self.metrics.rows()
            drift = judge_drift(rows)
            if self.config.stage.start:
                self.say(f"step {step:,}: {stage_change(rows)}")
            elif drift.kind != "unknown":  # after the first looks there is nothing to say yet
                self.say(f"step {step:,}: {drift.words}")

    def _sizes(self, step: int, method: BackboneMethod) -> None:
        """Before and after of a high-resolution stage: dense quality by input size."""
        patch, model = self.transform.patch, self.model(method)
        sides = [max(2, round(self.transform.size * times / patch)) * patch for times in SIZE_STEPS]

        def images(side: int) -> Tensor:
            return read_evenly(self.source, replace(self.transform, size=side), SIZE_IMAGES)

        rows = curve_over_sizes(model, self.transform, images, sides, self.masked, self.device)
        self.metrics.append("sizes", step, rows=rows)
        self.say(f"step {step:,}: {sizes_in_words(rows)}")

    def _picture(self, step: int, method: BackboneMethod) -> None:
        with torch.no_grad():
            patches = self.model(method)(self.shown_images.to(self.device)).patches
        previous = self.carry.get("basis")
        maps, basis = pca_maps(patches, Basis.from_dict(previous) if previous else None)
        self.carry["basis"] = basis.to_dict()
        photos = [to_picture(image, self.transform) for image in self.shown_images]
        path = self.written(
            "picture", step, lambda: save_training_pictures(self.run.pictures, step, photos, list(maps))
        )
        if path is not None:
            self.metrics.append("picture", step, path=path.relative_to(self.run.path).as_posix())

    def _report(self, step: int, method: BackboneMethod) -> None:
        self.written("report", step, lambda: write_report(self.run.path, running=step < self.config.steps))

    def _export(self, name: str, step: int, model: nn.Module) -> bool:
        """Write a model folder of the run; whether it is there now."""
        final, card = self.run.path / name, {**self.card, "step": step}

        def write() -> Path:
            export_model(final, model, self.transform, card)
            return final

        return self.written(name, step, write) is not None

    def written(self, what: str, step: int, write: Callable[[], Path]) -> Path | None:
        """What `write` returns; None, and an incident, when the disk refuses: only a checkpoint is worth a run."""
        try:
            return write()
        except OSError as error:
            words = f"{what} not written ({error.strerror or error})"
            self.incidents.append(f"{what} failed", step, words)
            self.say(f"step {step:,}: {words}")
            return None


def export_model(final: Path, model: nn.Module, transform: Transform, card: dict[str, Any]) -> None:
    """Write a model folder in place of an earlier one, so that a whole one is there at any moment but a rename."""
    replace_folder(final, lambda fresh: write_model(fresh, model, transform, card))


def replace_folder(final: Path, write: Callable[[Path], Any]) -> None:
    """`write` a folder under another name, then put it in the place of an earlier one."""
    fresh = final.with_name(f"{final.name}.tmp-new")
    shutil.rmtree(fresh, ignore_errors=True)
    write(fresh)
    old = final.with_name(f"{final.name}.tmp-old")
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_evenly(source: Source, transform: Transform, count: int) -> Tensor:
    """Up to `count` readable pictures spread evenly over the source, [n, 3, H, W], normalised."""
    stride = max(1, len(source) // count)
    images: list[Tensor] = []
    for index in range(0, len(source), stride):
        try:
            images.append(transform.apply(source.read(index)))
        except DataError:
            continue  # listed when training or scoring meets it; the probe takes the next one
        if len(images) == count:
            break
    if len(images) < 2:
        raise DataError("pictures", "fewer than 2 of those tried can be read", "open some of them with a viewer")
    return torch.stack(images)


def to_picture(image: Tensor, transform: Transform) -> Any:
    """A normalised [3, H, W] back to uint8 [H, W, 3]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    pixels = (image.cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(1, 2, 0).numpy()
