"""What looks at an adaptation while it trains: the pair of gain and retention, and the guard that acts on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from opendino.cli.watchers import LEAST_STEPS, Watch
from opendino.evaluation.agreement import AgreementProbe
from opendino.evaluation.probes import KnnProbe, knn_row
from opendino.evaluation.results import Result
from opendino.models.batch_norm import batch_norms
from opendino.monitor.guard import Decision, Limits, Look, decide, looks_of, pair_in_words
from opendino.train.config import RunConfig
from opendino.train.loop import ENDED, Watcher
from opendino.train.method import BackboneMethod
from opendino.train.schedules import to_steps


@dataclass(kw_only=True)
class GuardedWatch(Watch):
    """`Watch` whose best model is the guard's choice (`monitor.guard` has the rule), and which may end the run.

    start: the backbone that the run goes on from. keep: k-NN on what is to be kept; None: `agreement` with the start.
    """

    start: nn.Module
    keep: KnnProbe | None
    agreement: AgreementProbe
    moved: bool = field(default=False, init=False)

    def model(self, method: BackboneMethod) -> nn.Module:
        # Before the first step it is the start as it came, with its own BatchNorm statistics.
        return super().model(method) if self.moved else copy.deepcopy(self.start).to(self.device)

    def on_step(self, step: int, loss: float, grad_norm: float) -> None:
        self.moved = True
        super().on_step(step, loss, grad_norm)

    def watchers(self) -> list[Watcher]:
        found = super().watchers()
        if self.knn is None:
            length = self.config.watch.knn_every
            least = LEAST_STEPS["knn"] if isinstance(length, float) else 1
            every = max(least, to_steps(length, self.config.steps))
            found.insert(-1, Watcher(every, self._knn))
        return found

    def shown(self) -> Sequence[str]:
        pair = self.carry.get("pair")
        return (f"[bold]{pair}[/bold] |",) if pair else ()

    def _knn(self, step: int, method: BackboneMethod) -> None:
        model = self.model(method)
        if self.knn is not None:
            (own,) = self.knn(model)
            self.metrics.append("knn", step, **knn_row(own))
            if step == 0 and batch_norms(model):
                # What training is then measured against: this much comes without it.
                (free,) = self.knn(super().model(method))
                self.metrics.append("norms", step, **knn_row(free))
                gain = f"{free.config['gain']:+.1f} [{free.config['gain_low']:.1f}, {free.config['gain_high']:.1f}]"
                self.say(f"step 0: its norms set to your pictures alone, no training: {gain} (k-NN {free.value:.1f} %)")
        kept = self._retention(model)
        looks = looks_of([*self.metrics.rows(), {"kind": "retention", "step": step, **kept}])
        decision = decide(looks, limits_of(self.config))
        # The report reads the decision here, and needs no rule of its own.
        self.metrics.append("retention", step, **kept, best=decision.best.step, ended=decision.ended)
        self._tell(looks[-1])
        if step and decision.best.step == step:
            self._export(self.run.best_model.name, step, model)
        if decision.ended and step < self.config.steps:
            self.carry[ENDED] = decision.ended
            self.say(f"step {step:,}: ends here: {decision.ended}; the best is that of step {decision.best.step:,}")

    def _retention(self, model: nn.Module) -> dict[str, Any]:
        if self.keep is not None:
            (kept,) = self.keep(model)
            return {"measure": "knn", **knn_row(kept)}
        result: Result = self.agreement(model)
        low, high = result.interval or (None, None)
        values = {"value": result.value, "low": low, "high": high, "n": result.n}
        return {"measure": "neighbours", **values, "cka": result.config["cka"]}

    def _tell(self, look: Look) -> None:
        self.say(f"step {look.step:,}: {pair_in_words(look)}")
        gain = f"gain {look.own['gain']:+.1f}" if look.own is not None else "gain ?"
        kept = f"{look.kept['gain']:+.1f}" if look.kept["measure"] == "knn" else f"{look.kept['value']:.0f} %"
        self.carry["pair"] = f"{gain} kept {kept}"


def limits_of(config: RunConfig) -> Limits:
    """What the guard of a run allows."""
    adapt = config.adapt
    settled = 2 * to_steps(config.optim.freeze_backbone, config.steps)
    return Limits(adapt.max_loss, adapt.least_agreement, adapt.patience, settled)


def decision_of(watch: Watch) -> Decision:
    """What the guard says of all looks of a run."""
    return decide(looks_of(watch.metrics.rows()), limits_of(watch.config))
