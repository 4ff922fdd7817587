"""The guard of an adaptation: which model to keep, and when to stop, from looks at gain and retention.

The rule in words. A look *holds* when what was to be kept lost at most so many points (`max_loss`), or, without such
pictures, when enough of the start's neighbours are still neighbours. The best model is the look that holds with the
highest k-NN on the user's pictures, the start among them; without labels there, the last look that holds. The run ends
when two looks in a row do not hold, when two in a row are surely below the start on the user's pictures, or when so
many looks (`patience`) after the backbone began to move brought no new best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IN_A_ROW = 2
FEW = 50
"""Pictures, or neighbours of as many, that say nothing of a loss of two points."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """max_loss: points of k-NN; least_agreement: share of neighbours; patience: looks, 0 for no end; settled: the step
    from which the backbone moves at its full rate, before which looks do not try one's patience.
    """

    max_loss: float
    least_agreement: float
    patience: int
    settled: int


@dataclass(frozen=True)
class Look:
    """The rows of one step: `own`, k-NN on the user's pictures, None without labels; `kept`, what was retained."""

    step: int
    own: Row | None
    kept: Row

    @property
    def harmed(self) -> bool:
        """k-NN on the user's pictures is below the start's, with its whole interval."""
        return self.own is not None and self.step > 0 and self.own["gain_high"] < 0

    def holds(self, limits: Limits) -> bool:
        """Whether what was to be kept is."""
        if self.kept["measure"] == "knn":
            return bool(self.kept["gain"] >= -limits.max_loss)
        return bool(self.kept["value"] >= 100 * limits.least_agreement)


@dataclass(frozen=True)
class Decision:
    """best: the look whose model is kept; ended: why the run ends now, "" while it goes on."""

    best: Look
    ended: str


def looks_of(rows: Sequence[Row]) -> list[Look]:
    """The looks of a metrics log: rows of kinds "knn" and "retention", paired by step."""
    own = {row["step"]: row for row in rows if row["kind"] == "knn"}
    return [Look(row["step"], own.get(row["step"]), row) for row in rows if row["kind"] == "retention"]


def decide(looks: Sequence[Look], limits: Limits) -> Decision:
    """Apply the rule to the looks so far, the start's first.

    A pure function of them, so that a resumed run decides as the unbroken one did.
    """
    best = looks[0]
    for look in looks[1:]:
        if look.holds(limits) and (look.own is None or best.own is None or look.own["value"] > best.own["value"]):
            best = look
    recent = looks[1:][-IN_A_ROW:]
    enough = len(recent) == IN_A_ROW
    if enough and not any(look.holds(limits) for look in recent):
        return Decision(best, f"it forgets: {_loss_words(recent[-1], limits)}, in {IN_A_ROW} looks in a row")
    if enough and all(look.harmed for look in recent):
        return Decision(best, f"k-NN on your pictures is below the start's in {IN_A_ROW} looks in a row")
    waited = sum(look.step > max(best.step, limits.settled) for look in looks)
    if limits.patience and looks[-1].own is not None and waited >= limits.patience:
        return Decision(best, f"no new best in {waited} looks")
    return Decision(best, "")


@dataclass(frozen=True)
class Change:
    """A row of the table of before and after. unit: "%", or "" for CKA; gain, low, high: difference with its 95 %
    interval, None where it has none.
    """

    name: str
    n: int
    unit: str
    before: float
    after: float
    gain: float | None = None
    low: float | None = None
    high: float | None = None


def changes(looks: Sequence[Look], best: Look, rows: Sequence[Row] = ()) -> list[Change]:
    """From the start to the model that is kept, and what BatchNorm statistics of the user's pictures alone give, where
    `rows` say it.
    """
    start, found = looks[0], list[Change]()
    if best.own is not None and start.own is not None:
        found.append(_change("your pictures, k-NN", start.own, best.own))
        found += [_change("the same by new norms alone", start.own, row) for row in rows if row["kind"] == "norms"]
    if best.kept["measure"] == "knn":
        found.append(_change("what is to be kept, k-NN", start.kept, best.kept))
    else:
        kept = best.kept
        words = "the start's neighbours on your pictures"
        found.append(Change(words, kept["n"], "%", 100.0, kept["value"], kept["value"] - 100))
        found.append(Change("likeness to the start (CKA)", kept["n"], "", 1.0, kept["cka"]))
    return found


def _change(name: str, before: Row, after: Row) -> Change:
    gains = (after["gain"], after["gain_low"], after["gain_high"]) if after is not before else (0.0, 0.0, 0.0)
    return Change(name, after["n"], "%", before["value"], after["value"], *gains)


def guard_verdict(looks: Sequence[Look], decision: Decision, ended: str, rows: Sequence[Row] = ()) -> str:
    """The sentence about an adaptation that is over. ended: why it ended early, "" when it did not; rows: of the log,
    for what new norms give without training.
    """
    best, count = decision.best, len(looks) - 1
    early = f"; it ended early: {ended}" if ended else ""
    if count < 1:
        return "too few steps to tell: no look was taken after the start"
    if best.step == 0:
        return f"nothing gained that holds: none of {count} looks beat the start, so keep the model that you had{early}"
    kept = _kept_words(best.kept)
    if best.own is None:
        return f"{kept}; whether it gained only labels can tell: put pictures into one folder per class{early}"
    own = best.own
    numbers = f"{own['gain']:+.1f} [{own['gain_low']:.1f}, {own['gain_high']:.1f}] points of k-NN on your pictures"
    state = "gained" if own["gain_low"] > 0 else "no sure gain"
    chosen = f"best of {count} looks on the same pictures, which flatters it a little" if count > 1 else "one look"
    free = next((row for row in rows if row["kind"] == "norms"), None)
    norms = f"; of this {free['gain']:+.1f} by setting its norms to your pictures, without training" if free else ""
    return f"{state}: {numbers} at step {best.step:,} ({chosen}){norms}; {kept}{early}"


def _kept_words(kept: Row) -> str:
    if kept["n"] < FEW:
        return f"{kept['n']} pictures are too few to tell what was kept"
    return "what was to be kept is kept" if kept["measure"] == "knn" else "the start's neighbours hold"


def change_lines(found: Sequence[Change]) -> list[str]:
    """The table of before and after in letters of one width."""
    lines = []
    for one in found:
        digits = 1 if one.unit else 2
        values = f"{one.before:.{digits}f} -> {one.after:.{digits}f}{' ' + one.unit if one.unit else ''}"
        span = "" if one.low is None else f" [{one.low:.1f}, {one.high:.1f}]"
        gain = "" if one.gain is None else f"{one.gain:+.1f}{span}"
        lines.append(f"  {one.name:<42} n {one.n:<6,} {values:<20} {gain}".rstrip())
    return lines


def pair_in_words(look: Look) -> str:
    """The live pair: gain on the user's pictures, and what was kept."""
    if look.own is None:
        gain = "gain not known (no classes to score by)"
    elif look.step:
        own = look.own
        gain = f"gain {own['gain']:+.1f} [{own['gain_low']:.1f}, {own['gain_high']:.1f}] (k-NN {own['value']:.1f} %)"
    else:
        gain = f"k-NN {look.own['value']:.1f} %"
    kept = look.kept
    if kept["measure"] != "knn":
        return f"{gain}; kept: {kept['value']:.0f} % of the start's neighbours, CKA {kept['cka']:.2f}"
    if not look.step:
        return f"{gain}; to be kept: k-NN {kept['value']:.1f} %"
    span = f"{kept['gain']:+.1f} [{kept['gain_low']:.1f}, {kept['gain_high']:.1f}]"
    return f"{gain}; kept {span} (k-NN {kept['value']:.1f} %)"


def _loss_words(look: Look, limits: Limits) -> str:
    if look.kept["measure"] == "knn":
        return f"k-NN on what was to be kept fell by {-look.kept['gain']:.1f} points, more than {limits.max_loss:g}"
    floor = 100 * limits.least_agreement
    return f"{look.kept['value']:.0f} % of the start's neighbours are left, fewer than {floor:.0f} %"
