"""Bootstrap intervals: known standard error, coverage, pairing, and the same answer twice."""

import numpy as np
import pytest

from opendino.errors import ShapeError
from opendino.evaluation.metrics.interval import bootstrap, cluster_bootstrap, paired_bootstrap, set_bootstrap


def test_width_is_that_of_the_normal_approximation():
    correct = np.arange(1000) < 200
    estimate = bootstrap(100 * correct)
    half = 1.96 * 100 * np.sqrt(0.2 * 0.8 / 1000)
    assert estimate.value == 20
    assert estimate.low == pytest.approx(20 - half, abs=0.3) and estimate.high == pytest.approx(20 + half, abs=0.3)


def test_equals_the_plain_resampling_loop():
    scores = np.random.default_rng(0).normal(size=200)
    generator = np.random.default_rng(1)
    means = [generator.choice(scores, 200).mean() for _ in range(4000)]
    estimate = bootstrap(scores, resamples=4000)
    np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_holds_the_truth_about_95_times_in_100():
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        estimate = bootstrap(generator.random(250) < 0.3, resamples=500, seed=trial)
        inside += estimate.low <= 0.3 <= estimate.high
    assert 0.90 <= inside / 300 <= 0.985


def test_pairs_are_narrower_than_two_intervals():
    generator = np.random.default_rng(0)
    before = generator.random(1000) < 0.5
    after = before.copy()
    after[np.flatnonzero(~before)[:40]] = True
    difference = paired_bootstrap(100.0 * before, 100.0 * after)
    assert difference.value == pytest.approx(4.0)
    assert difference.low > 2.5 and difference.high < 5.5
    apart = bootstrap(100 * before)
    assert apart.high - apart.low > 2 * (difference.high - difference.low)


def test_no_change_has_an_interval_of_zero_width():
    same = np.ones(10)
    assert paired_bootstrap(same, same) == bootstrap(np.zeros(10))


def test_seeded_and_independent_of_order():
    scores = np.random.default_rng(0).random(50)
    assert bootstrap(scores) == bootstrap(scores[::-1])
    assert bootstrap(scores, seed=1) != bootstrap(scores)


def test_chunks_do_not_matter(monkeypatch):
    scores = np.random.default_rng(0).random(300)
    whole = bootstrap(scores)
    monkeypatch.setattr("opendino.evaluation.metrics.interval.CHUNK", 1000)
    assert bootstrap(scores) == whole


@pytest.mark.oracle
def test_frames_of_one_video_are_no_independent_trials():
    """Ten videos of ten equal frames, eight of them right: the standard error is 0.126, not the 0.040 of frames."""
    right, videos = np.repeat([1.0] * 8 + [0.0] * 2, 10), np.repeat([f"video-{n}" for n in range(10)], 10).tolist()
    for clusters, error in ((True, 0.126), (False, 0.0)):
        drawn = []
        set_bootstrap(lambda times, drawn=drawn: drawn.append(times @ right / 100) or 0.0, [10] * 10, clusters=clusters)
        assert np.std(drawn) == pytest.approx(error, abs=0.005)
    by_video, by_frame = cluster_bootstrap(right, videos), bootstrap(right)
    assert by_video.value == by_frame.value == 0.8
    assert (by_frame.high - by_frame.low) / (2 * 1.96) == pytest.approx(0.040, abs=0.004)
    assert by_video.high - by_video.low > 2 * (by_frame.high - by_frame.low)
    mixed = np.random.default_rng(0).permutation(100)
    assert cluster_bootstrap(right[mixed], np.array(videos)[mixed].tolist()) == by_video
    assert paired_bootstrap(0 * right, right, groups=videos) == by_video


@pytest.mark.parametrize("wrong", [[], [[1.0]], [float("nan")]])
def test_wrong_scores_are_refused(wrong):
    with pytest.raises(ShapeError):
        bootstrap(wrong)
    with pytest.raises(ShapeError):
        paired_bootstrap([1.0], [1.0, 2.0])
