"""Logistic regression by its optimality condition and known values; few-shot draws; the invariance card."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendino.evaluation.invariance import CHANGES, exposure, occlusion, shadow
from opendino.evaluation.logistic import choose_and_fit, few_shot_rows, fit_logistic

LINE = np.arange(4.0)[:, None]


@pytest.mark.oracle
def test_known_solution_and_its_gradient():
    labels = np.array([0, 0, 1, 1])
    model, converged = fit_logistic(LINE, labels, 1.0)
    w, b = float(model.coef_[0, 0]), float(model.intercept_[0])
    assert converged and (w, b) == pytest.approx((0.958286, -1.437429), abs=1e-5)
    p = 1 / (1 + np.exp(-(w * LINE[:, 0] + b)))
    assert w + ((p - labels) * LINE[:, 0]).sum() == pytest.approx(0, abs=1e-5)


@pytest.mark.oracle
def test_c_multiplies_the_sum_of_losses():
    labels = np.array([0, 0, 1, 1])
    once, _ = fit_logistic(LINE, labels, 1.0)
    twice, _ = fit_logistic(np.repeat(LINE, 2, 0), np.repeat(labels, 2), 0.5)
    np.testing.assert_allclose(once.coef_, twice.coef_, atol=1e-7)


def test_c_is_chosen_on_pictures_that_were_held_out():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 40)) + 4 * np.eye(3, 40)[labels]
    fit = choose_and_fit(features, labels, (1e-6, 1e-3, 1.0), 0)
    assert fit.held_out[fit.C] == max(fit.held_out.values()) and set(fit.held_out) == {1e-6, 1e-3, 1.0}
    one_each = choose_and_fit(features[:3], labels[:3], (0.1, 1.0, 10.0), 0)
    assert one_each.C == 1.0 and not one_each.held_out


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 3))
def test_few_shot_draws_the_same_number_of_every_class(shots, seed):
    labels = np.repeat(np.arange(4), [9, 12, 30, 2])
    rows = few_shot_rows(labels, shots, seed)
    assert np.bincount(labels[rows], minlength=4).tolist() == [shots, shots, shots, min(shots, 2)]
    assert rows.tolist() == few_shot_rows(labels, shots, seed).tolist() == sorted(set(rows.tolist()))


@pytest.mark.oracle
@pytest.mark.parametrize("name", CHANGES)
def test_strength_0_changes_nothing_and_others_something(name):
    change, strengths = CHANGES[name]
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    assert np.array_equal(change(pixels, 0.0), pixels)
    for strength in strengths:
        changed = change(pixels, strength)
        assert changed.shape == pixels.shape and changed.dtype == np.uint8 and not np.array_equal(changed, pixels)


def test_what_some_changes_do():
    pixels = np.full((20, 20, 3), 100, np.uint8)
    assert exposure(pixels, 1.0)[0, 0, 0] == round(100 * 2 ** (1 / 2.2))
    dark = shadow(pixels, 0.5)
    assert dark[0, 0, 0] == 50 and dark[0, -1, 0] == 100
    assert (occlusion(pixels, 0.25) == 128).mean() == 0.25
