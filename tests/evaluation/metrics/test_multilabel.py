"""Average precision and F1 of several labels a picture: the sheet's values, and scikit-learn as a second witness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from opendino.evaluation.metrics.multilabel import eleven_point_ap, f1_counts, macro_f1, micro_f1, weighted_ap


@pytest.mark.oracle
def test_all_points_and_eleven_points_differ():
    scores, truth = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]
    assert weighted_ap(scores, truth) == pytest.approx(0.833333, abs=1e-6)
    assert eleven_point_ap(scores, truth) == pytest.approx(0.848485, abs=1e-6)
    assert np.isnan(weighted_ap(scores, [0] * 4)) and np.isnan(eleven_point_ap(scores, [0] * 4))


rows = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25)


@settings(deadline=None)
@given(rows.filter(lambda rows: any(truth and weight for _, truth, weight in rows)))
def test_weighted_ap_agrees_with_scikit_learn_also_at_ties(rows):
    scores, truth, weights = zip(*rows, strict=True)
    peer = average_precision_score(truth, scores, sample_weight=weights)
    assert weighted_ap(scores, truth, weights) == pytest.approx(peer)


@settings(deadline=None)
@given(rows.filter(lambda rows: any(truth and weight for _, truth, weight in rows)))
def test_a_weight_is_a_repetition(rows):
    repeated = [(score, truth) for score, truth, weight in rows for _ in range(weight)]
    scores, truth, weights = zip(*rows, strict=True)
    again = eleven_point_ap(*zip(*repeated, strict=True))
    assert eleven_point_ap(scores, truth, weights) == pytest.approx(again)


@pytest.mark.oracle
def test_f1_of_all_classes_together_and_of_each():
    truth, guess = [[1, 0, 1], [0, 1, 0], [1, 1, 0]], [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    counts = f1_counts(truth, guess).sum(0)
    assert micro_f1(counts) == pytest.approx(0.666667, abs=1e-6) == f1_score(truth, guess, average="micro")
    assert macro_f1(counts) == pytest.approx(0.555556, abs=1e-6) == f1_score(truth, guess, average="macro")
