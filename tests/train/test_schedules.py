"""Schedules against the golden values of the published scheduler, and the properties of lengths."""

import pytest

from opendino.errors import UsageError
from opendino.train.optim import OptimConfig
from opendino.train.schedules import Schedule, constant, rising, to_steps


def values(schedule, total):
    return [schedule.at(step, total) for step in range(total)]


def test_warmup_then_cosine():
    expected = [0, 0.333333, 0.666667, 1, 0.868198, 0.55, 0.231802, 0.1]
    assert values(Schedule(0, 1, 0.1, warmup=3), 8) == pytest.approx(expected, abs=1e-6)


def test_late_switch():
    assert values(Schedule(0, 0, 2, warmup=10, cosine=3), 16) == pytest.approx([0] * 11 + [1, 2, 2, 2, 2])


def test_constant_with_warmup():
    assert values(constant(4e-4, start=0, warmup=2), 5) == pytest.approx([0, 2e-4, 4e-4, 4e-4, 4e-4])
    assert values(constant(0.04), 3) == [0.04] * 3


def test_hold_and_line():
    held = values(Schedule(0, 1, 0, warmup=2, hold=2, cosine=3), 8)
    assert held == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0, 0])
    assert values(rising(0.04, 0.2, "line"), 4) == pytest.approx([0.04, 0.08, 0.12, 0.16])
    assert values(rising(0.04, 0.2, "cosine"), 3) == pytest.approx([0.04, 0.12, 0.2])


def test_a_rate_that_rises_along_a_cosine():
    schedule = OptimConfig(lr=2.0, schedule="cosine rise", warmup=3).lr_schedule
    assert values(schedule, 5) == pytest.approx([0, 1, 2, 2, 2])


def test_fractions_are_of_the_run():
    assert values(Schedule(0, 1, 0.1, warmup=3 / 8), 8) == values(Schedule(0, 1, 0.1, warmup=3), 8)
    assert to_steps(0.5, 10) == 5 and to_steps(7, 10) == 7 and to_steps(1.0, 10) == 10


@pytest.mark.parametrize("length", [-1, 1.5, -0.1])
def test_lengths_out_of_range_are_refused(length):
    with pytest.raises(UsageError, match="length"):
        to_steps(length, 10)


def test_published_learning_rates():
    # 1e-3 * 4 * sqrt(2048 / 1024), as the ImageNet recipe states it.
    from opendino.recipes import find_recipe
    from opendino.recipes.situation import Situation

    config = find_recipe("vitl16_imagenet")(Situation(1_281_167, 400, 0, "cuda"))
    assert config.optim.lr == pytest.approx(5.65685e-3, rel=1e-5)
    assert config.steps == 125_000
    assert config.optim.lr_schedule.at(12_500, config.steps) == pytest.approx(config.optim.lr)


def test_cosine_ends_at_its_final_value():
    schedule = OptimConfig(lr=1.0, lr_final=0.01, warmup=0.1).lr_schedule
    assert schedule.at(99, 100) == pytest.approx(0.01)
