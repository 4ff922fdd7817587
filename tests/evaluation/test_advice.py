"""The rule that says frozen, adapt or pretrain, on answers that are known."""

import numpy as np
import pytest

from opendino.errors import ShapeError
from opendino.evaluation.advice import Course, advise_from


def answers(share, n=400, seed=0):
    return np.random.default_rng(seed).random(n) < share


def more(base, share, seed=1):
    """The same answers with a share of the wrong ones made right."""
    return base | (np.random.default_rng(seed).random(len(base)) < share)


def course(way, end, halfway=None, steps=100, budget=400):
    return Course(way, halfway, end, steps, 0.5, budget)


FROZEN = answers(0.5)


def test_the_one_that_is_surely_better_is_taken():
    found = advise_from(FROZEN, [course("adapt", more(FROZEN, 0.2)), course("pretrain", answers(0.2, seed=3))])
    assert (found.way, found.sure) == ("adapt", True) and found.words.startswith("adapt: expected gain +")
    found = advise_from(FROZEN, [course("adapt", FROZEN), course("pretrain", more(FROZEN, 0.4))])
    assert found.way == "pretrain"


def test_training_anew_must_be_surely_above_adapting():
    adapted = more(FROZEN, 0.3)
    level = advise_from(FROZEN, [course("adapt", adapted), course("pretrain", more(FROZEN, 0.3, seed=9))])
    assert level.way == "adapt"
    above = advise_from(FROZEN, [course("adapt", adapted), course("pretrain", more(adapted, 0.5))])
    assert above.way == "pretrain"


def test_overlapping_intervals_say_cannot_tell_and_the_cheapest():
    flipped = FROZEN.copy()
    flipped[:4] = ~flipped[:4]
    found = advise_from(FROZEN, [course("adapt", flipped), course("pretrain", answers(0.2, seed=3))])
    assert (found.way, found.sure) == ("frozen", False) and found.words.startswith("cannot tell: the interval of adapt")


def test_when_all_is_worse_frozen_is_sure():
    low = answers(0.1, seed=5)
    found = advise_from(FROZEN, [course("adapt", low), course("pretrain", low)])
    assert (found.way, found.sure) == ("frozen", True)


def test_curves_are_carried_on_by_half_their_gain_for_two_doublings_at_most():
    halfway = answers(0.5)
    end = more(halfway, 0.2)
    rise = 100 * (end.mean() - halfway.mean())
    for budget, doublings in ((100, 0.0), (200, 1.0), (400, 2.0), (6400, 2.0), (10, 0.0)):
        one = course("adapt", end, halfway, steps=100, budget=budget)
        assert one.doublings == doublings
        assert one.expected().mean() == pytest.approx(100 * end.mean() + 0.5 * doublings * rise)
    assert course("adapt", end, None, budget=6400).expected().mean() == pytest.approx(100 * end.mean())


def test_carrying_on_widens_the_interval():
    halfway, end = answers(0.5), answers(0.55, seed=4)
    spans = []
    for budget in (100, 400):
        gain = advise_from(halfway, [course("adapt", end, halfway, budget=budget)]).options[1].gain
        spans.append(gain.high - gain.low)
    assert spans[1] > 1.3 * spans[0]


def test_hours_follow_from_the_pace():
    option = advise_from(FROZEN, [course("adapt", FROZEN, budget=7200)]).options[1]
    assert option.hours == pytest.approx(1.0) and option.steps == 7200


def test_other_pictures_are_refused():
    with pytest.raises(ShapeError, match="different numbers of pictures"):
        advise_from(FROZEN, [course("adapt", FROZEN[:10])])
