"""The verdict on synthetic runs of every kind; above all, a dead run is never called learning."""

import dataclasses
import itertools
import math

import pytest

from opendino.monitor.verdict import judge, verdict
from tests.monitor.test_health import HEALTHY, sick

LN_K = math.log(256)


def steps(losses, every=10):
    return [
        {"kind": "step", "step": every * (i + 1), "loss": loss, "losses": {"dino": loss}}
        for i, loss in enumerate(losses)
    ]


def health(*values, every=100):
    return [{"kind": "health", "step": every * i, **dataclasses.asdict(value)} for i, value in enumerate(values)]


def knn(*values, every=100, half=1.0, gains=None, k=10):
    fixed = {"kind": "knn", "n": 2000, "chance": 1, "k": k}
    rows = [{**fixed, "step": every * i, "value": v, "low": v - half, "high": v + half} for i, v in enumerate(values)]
    for row, (gain, low, high) in zip(rows, gains or [], strict=False):
        row.update(gain=gain, gain_low=low, gain_high=high)
    return rows


FALLING = [5.4 - 0.01 * i for i in range(60)]
DEAD = [LN_K + 0.005 * (-1) ** i for i in range(60)]
ALIVE = health(sick(information=0.01), *[HEALTHY] * 6)


def test_learning_says_from_where_to_where_with_the_paired_interval():
    rows = steps(FALLING) + ALIVE + knn(9.0, 10.5, 12.4, gains=[(0, 0, 0), (1.5, 0.3, 2.7), (3.4, 2.1, 4.7)])
    result = judge(rows, 1000)
    assert result.kind == "learning"
    assert result.words == ("learning: k-NN 9.0 -> 12.4 % (+3.4 [2.1, 4.7], paired), chance 1.0 % (step 600 of 1,000)")
    assert verdict(rows, 600).startswith("learned: k-NN 9.0 -> 12.4 %")


def test_without_pairs_the_interval_is_wider_and_says_so():
    rows = steps(FALLING) + ALIVE + knn(9.0, 12.4)
    assert "+3.4 [2.0, 4.8], unpaired" in verdict(rows, 1000)
    assert judge(steps(FALLING) + ALIVE + knn(9.0, 10.2), 1000).kind == "no gain"
    said_so = knn(9.0, 12.4, gains=[(0, 0, 0), (3.4, 2.0, 4.8)])
    said_so[1]["paired"] = False
    assert "unpaired" in verdict(steps(FALLING) + ALIVE + said_so, 1000)


def test_early():
    rows = steps(FALLING[:4]) + health(sick(information=0.01)) + knn(9.0)
    assert verdict(rows, 1000) == "too early (step 40 of 1,000)"
    # Never longer than 2,000 steps, however long the run.
    assert judge(steps(DEAD, every=100) + health(*[sick(teacher_entropy=5.5)] * 3, every=2000), 10**6).kind == "uniform"


def test_no_gain_when_the_loss_falls_but_knn_does_not():
    rows = steps(FALLING) + ALIVE + knn(9.0, 9.2, gains=[(0, 0, 0), (0.2, -1.0, 1.4)])
    assert verdict(rows, 1000).startswith("no gain yet: k-NN 9.0 -> 9.2 % (+0.2 [-1.0, 1.4], paired)")
    assert "while the loss fell" in verdict(rows, 600) and verdict(rows, 600).startswith("no gain:")


def test_fall_after_a_peak_points_at_the_best_weights():
    gains = [(0, 0, 0), (4, 3, 5), (2, 1, 3)]
    words = verdict(steps(FALLING) + ALIVE + knn(9.0, 13.0, 11.0, gains=gains), 1000)
    assert words.startswith("past its best: k-NN fell after step 100, 9.0 -> 13.0 -> 11.0 % while the loss fell")
    assert "model-best/" in words


def test_fall_below_the_start_is_not_learning():
    words = verdict(steps(FALLING) + ALIVE + knn(27.5, 26.0, 25.6, gains=[(0, 0, 0)] * 3), 1000)
    assert words.startswith("not learning: k-NN fell from 27.5 % at step 0 to 25.6 %")


def test_collapse():
    for gone in (sick(prototype_usage=1 / 64, information=0.05), sick(rank=1.0)):
        assert judge(steps(FALLING) + health(HEALTHY, HEALTHY, gone, gone), 1000).kind == "collapsed"


def test_equal_features_are_said_even_early_and_narrow_ones_are_not():
    early = steps(FALLING[:4])
    assert judge(early + health(HEALTHY, *[sick(rank=1.0)] * 2, every=20), 1000).kind == "collapsed"
    narrow = sick(rank=3.0, prototype_usage=1 / 64, information=0.01)
    assert judge(early + health(narrow, narrow, narrow, every=20), 1000).kind == "early"


def test_one_bad_measurement_is_no_collapse():
    rows = steps(FALLING) + health(HEALTHY, HEALTHY, sick(rank=1.0), HEALTHY)
    assert judge(rows, 1000).kind == "unlabelled"


def test_broken_loss():
    assert verdict(steps([None] * 6), 1000).startswith("broken: the loss is not a finite number")


def test_without_labels_only_life_is_claimed():
    words = verdict(steps(FALLING) + ALIVE, 1000)
    assert words.startswith("outputs are alive: predictions tell 0.80 nats (0.01 at the start)")
    assert "only labels can tell" in words and "learning" not in words


def test_loss_alone_and_nothing_at_all():
    assert judge(steps(FALLING), 600).kind == "unknown"
    assert judge([], 600).kind == "early"
    assert judge(steps(FALLING) + knn(9.0), 600).kind == "early"


@pytest.mark.parametrize("total", [600, 1000, 5000])
@pytest.mark.parametrize(
    "gauges",
    [
        [],
        health(*[sick(teacher_entropy=5.53, information=0.0)] * 7),
        health(*[sick(information=0.01)] * 7),  # targets spread by force, student uniform
        health(*[HEALTHY] * 7),  # gauges fooled: the loss at ln K must do
        health(*[sick(rank=1.0)] * 7),
        health(*[sick(teacher_entropy=math.nan, information=0.0, patch_cosine=math.nan)] * 7),
    ],
)
@pytest.mark.parametrize(
    "scores",
    [
        [],
        knn(9.0, 9.1),
        knn(9.0, 11.5, gains=[(0, 0, 0), (2.5, 0.1, 4.9)]),  # one of many looks above 0 by chance
        knn(9.0, 8.0, 20.0, gains=[(0, 0, 0), (-1, -2, 0), (11, 8, 14)]),
    ],
)
def test_a_dead_run_is_never_called_learning(gauges, scores, total):
    result = judge(steps(DEAD) + gauges + scores, total)
    assert result.kind not in ("learning", "past best", "unlabelled")
    assert not result.words.startswith(("learn", "outputs are alive"))


def test_every_sentence_is_one_line_and_every_failure_names_a_key():
    gauges = [[], ALIVE, health(*[sick(teacher_entropy=5.5)] * 5), health(*[sick(rank=1.0)] * 5)]
    scores = [[], knn(9.0, 12.0), knn(12.0, 9.0), knn(9.0, 13.0, 10.0)]
    for losses, g, s in itertools.product([FALLING, DEAD, [None] * 6], gauges, scores):
        result = judge(steps(losses) + g + s, 600)
        assert "\n" not in result.words and len(result.words) < 300
        if result.kind in ("broken", "collapsed", "uniform"):
            assert "optim." in result.words or "method." in result.words


def test_null_gauges_from_a_file_are_understood():
    row = health(HEALTHY, HEALTHY)[1] | {"patch_cosine": None, "teacher_entropy": None}
    assert judge([*steps(FALLING), *health(HEALTHY), row], 1000).kind == "unlabelled"
