"""The guard's rule: which look is kept, when a run ends, and what is said."""

import pytest

from opendino.monitor.guard import Limits, change_lines, changes, decide, guard_verdict, looks_of, pair_in_words

LIMITS = Limits(max_loss=2.0, least_agreement=0.3, patience=3, settled=10)


def own(step, value, start=50.0, half=3.0):
    gain = value - start
    row = {"kind": "knn", "step": step, "value": value, "n": 200}
    return row | {"gain": gain, "gain_low": gain - half, "gain_high": gain + half}


def kept(step, gain, half=1.0):
    row = {"kind": "retention", "step": step, "measure": "knn", "value": 30.0 + gain, "n": 600}
    return row | {"gain": gain, "gain_low": gain - half, "gain_high": gain + half}


def agreement(step, percent):
    return {"kind": "retention", "step": step, "measure": "neighbours", "value": percent, "n": 90, "cka": 0.9}


def run(*pairs):
    """(own k-NN or None, gain of what is kept) every 10 steps."""
    rows = []
    for index, (value, gain) in enumerate(pairs):
        rows += ([] if value is None else [own(10 * index, value)]) + [kept(10 * index, gain)]
    return looks_of(rows)


def test_the_best_look_is_the_highest_that_holds_and_the_first_of_equals():
    looks = run((50, 0), (53, -1), (58, -2.5), (54, -1.9), (54, 0))
    assert decide(looks, LIMITS).best.step == 30
    assert decide(run((50, 0), (48, 0), (50, 0)), LIMITS).best.step == 0


@pytest.mark.parametrize("count", range(1, 6))
def test_it_ends_when_two_looks_in_a_row_forget(count):
    looks = run((50, 0), (53, -3), (58, 0), (59, -2.1), (60, -2.5))[:count]
    ended = decide(looks, LIMITS).ended
    assert ended == (
        "it forgets: k-NN on what was to be kept fell by 2.5 points, more than 2, in 2 looks in a row" * (count == 5)
    )


def test_it_ends_when_two_looks_in_a_row_are_surely_below_the_start():
    looks = run((50, 0), (46, 0), (46.5, 0))
    assert "below the start's" in decide(looks, LIMITS).ended
    assert decide(run((50, 0), (46, 0), (48, 0)), LIMITS).ended == ""


def test_patience_counts_looks_after_the_backbone_moves_at_full_rate():
    still = [(50, 0)] * 4
    assert decide(run(*still), LIMITS).ended == ""  # looks at 20 and 30 count, that at 10 does not
    assert decide(run(*still, (50, 0)), LIMITS).ended == "no new best in 3 looks"
    assert decide(run(*still, (51, 0)), LIMITS).ended == ""
    patient = Limits(2.0, 0.3, 0, 10)
    assert decide(run(*[(50, 0)] * 30), patient).ended == ""


def test_without_labels_the_last_look_that_holds_is_kept_and_patience_is_not_tried():
    looks = run(*[(None, 0)] * 7, (None, -9))
    found = decide(looks, LIMITS)
    assert found.best.step == 60 and found.ended == ""
    assert "gain not known" in pair_in_words(looks[-1])


def test_without_pictures_to_keep_neighbours_count():
    looks = looks_of([agreement(0, 100.0), agreement(10, 70.0), agreement(20, 29.0), agreement(30, 11.0)])
    found = decide(looks, LIMITS)
    assert found.best.step == 10 and "11 % of the start's neighbours are left, fewer than 30 %" in found.ended
    assert [change.after for change in changes(looks, found.best)] == [70.0, 0.9]


def test_a_decision_depends_on_the_looks_alone():
    """As a resumed run must decide: the looks up to any moment give what was decided then."""
    looks = run((50, 0), (53, -1), (51, -2.5), (54, -1.9), (54, 0), (53, 0), (52, 0))
    assert [decide(looks[: n + 1], LIMITS).best.step for n in range(7)] == [0, 10, 10, 30, 30, 30, 30]


def test_what_norms_alone_give_is_told_apart():
    looks = run((50, 0), (58, -1))
    norms = {**own(0, 55), "kind": "norms"}
    found = decide(looks, LIMITS)
    assert "of this +5.0 by setting its norms to your pictures, without training" in guard_verdict(
        looks, found, "", [norms]
    )
    table = changes(looks, found.best, [norms])
    assert [(row.name, row.after) for row in table[:2]] == [
        ("your pictures, k-NN", 58),
        ("the same by new norms alone", 55),
    ]


def test_verdicts_say_what_is_known():
    looks = run((50, 0), (58, -1))
    found = decide(looks, LIMITS)
    assert guard_verdict(looks, found, "").startswith("gained: +8.0 [5.0, 11.0] points of k-NN")
    looks = run((50, 0), (52, -1), (51, 0))
    assert "no sure gain: +2.0 [-1.0, 5.0]" in guard_verdict(looks, decide(looks, LIMITS), "")
    assert "best of 2 looks" in guard_verdict(looks, decide(looks, LIMITS), "")
    looks = run((50, 0), (40, -9))
    said = guard_verdict(looks, decide(looks, LIMITS), "it forgets")
    assert (
        said == "nothing gained that holds: none of 1 looks beat the start, so keep the model that you had; "
        "it ended early: it forgets"
    )
    assert guard_verdict(looks[:1], decide(looks[:1], LIMITS), "").startswith("too few steps")
    assert "+0.0 [0.0, 0.0]" in change_lines(changes(looks, looks[0]))[0]
