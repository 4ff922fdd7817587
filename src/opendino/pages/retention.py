"""The part of a run's report that only an adaptation has: what is gained, what is kept, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opendino.monitor.guard import Change, Decision, changes, guard_verdict, looks_of, pair_in_words
from opendino.monitor.verdict import Verdict
from opendino.pages.charts import Chart, Level, line_chart, series

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Retention:
    """verdict: of the whole run, or the live pair while it trains; chart: the pair over steps; table: start to best."""

    verdict: Verdict
    chart: Chart
    table: Sequence[Change]
    best_step: int


def read_retention(rows: Sequence[Row], config: Mapping[str, Any], running: bool) -> Retention | None:
    """From the rows of metrics.jsonl; None for a run that is no adaptation."""
    looks = looks_of(rows)
    if not looks:
        return None
    last = looks[-1]
    best = next(look for look in looks if look.step == last.kept["best"])
    ended = str(last.kept["ended"])
    words = pair_in_words(last) if running else guard_verdict(looks, Decision(best, ended), ended, rows)
    sure = best.own is not None and best.step > 0 and best.own["gain_low"] > 0
    kind = "learning" if sure else "unlabelled" if best.own is None else "no gain"
    adapt = config.get("adapt")
    limits: Mapping[str, Any] = adapt if isinstance(adapt, Mapping) else {}
    return Retention(Verdict(kind, words), _chart(rows, limits), changes(looks, best, rows), best.step)  # type: ignore[arg-type]


def _chart(rows: Sequence[Row], limits: Mapping[str, Any]) -> Chart:
    own = [row for row in rows if row["kind"] == "knn"]
    kept = [row for row in rows if row["kind"] == "retention"]
    if kept[0]["measure"] == "knn":
        curves = {"kept": series(kept, "gain")}
        floor = Level(-float(limits.get("max_loss", 0)), "most that may be lost")
        says = "k-NN on your pictures and on what is to be kept, in points above the start."
    else:
        curves = {"neighbours kept": series(kept, "value")}
        floor = Level(100 * float(limits.get("least_agreement", 0)), "fewest that must stay")
        says = "Share of the start's nearest neighbours that are still neighbours among your pictures, in percent."
    if own and kept[0]["measure"] == "knn":
        curves = {"gain on your pictures": series(own, "gain"), **curves}
    normal = "Normal: gain rises once the backbone moves, and what is kept stays above the line."
    return line_chart("Gained and kept", curves, says, normal, levels=[floor], from_zero=True)
