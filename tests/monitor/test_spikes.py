"""Jumps are told from noise and from single wild steps."""

import random

from opendino.monitor.spikes import IN_A_ROW, Spikes


def feed(values):
    spikes = Spikes("loss")
    return [index for index, value in enumerate(values) if spikes.push(value)]


def noise(count, level=5.0):
    generator = random.Random(0)
    return [level + generator.gauss(0, 0.05) for _ in range(count)]


def test_noise_falling_loss_and_single_wild_steps_are_no_alarm():
    assert feed(noise(2000)) == []
    assert feed([5 - 0.002 * step + wobble - 5 for step, wobble in enumerate(noise(1000))]) == []
    values = noise(300)
    values[100] = values[200] = values[201] = 50.0
    assert feed(values) == []


def test_a_jump_is_said_once_at_its_third_step():
    assert feed(noise(100) + [9.0] * 20) == [100 + IN_A_ROW - 1]


def test_not_finite_and_early_steps_say_nothing():
    assert feed([1.0, 100.0, 100.0, 100.0, float("nan")]) == []
    assert feed(noise(100) + [float("inf")] * 10) == []


def test_a_constant_has_no_spread_and_still_can_jump():
    assert feed([1.0] * 100) == []
    assert feed([1.0] * 100 + [1.1] * 3) == [102]
