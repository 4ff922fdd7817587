"""The k-NN probe: fixed pictures, paired gains, resume, classes matched by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opendino.data.transform import Transform
from opendino.errors import UsageError
from opendino.evaluation.metrics.interval import paired_bootstrap
from opendino.evaluation.probes import KnnProbe, baseline_from_rows, knn_row, pack, stratified, unpack
from opendino.monitor.metrics import MetricsLog
from tests.features.sources import ArraySource, MeanColour

TRANSFORM = Transform(size=16, patch=4)


def coloured(count, classes=("blue", "green", "red"), seed=0, noise=20):
    """Pictures whose class is their colour."""
    generator = np.random.default_rng(seed)
    tints = {"blue": (40, 40, 220), "green": (40, 220, 40), "red": (220, 40, 40), "grey": (120, 120, 120)}
    labels = [i % len(classes) for i in range(count)]
    pictures = [
        np.clip(np.array(tints[classes[label]]) + generator.normal(0, noise, (16, 16, 3)), 0, 255).astype(np.uint8)
        for label in labels
    ]
    return ArraySource(pictures, labels, classes)


class Blind(MeanColour):
    """Features that tell nothing: the same noise for every call."""

    def forward(self, images):
        features = super().forward(images)
        generator = torch.Generator().manual_seed(len(self.batches))
        return type(features)(
            torch.randn(features.cls.shape, generator=generator), features.registers, features.patches
        )


def test_a_backbone_that_sees_colour_scores_full_and_says_its_setting():
    probe = KnnProbe(coloured(30), coloured(21, seed=1), TRANSFORM, ks=(1, 5), dataset="colours")
    one, five = probe(MeanColour())
    assert one.value == five.value == 100 and one.interval == (100, 100)
    assert (one.protocol, one.dataset, one.n, one.metric, one.config["k"]) == ("knn", "colours", 21, "top1", 1)
    assert one.config["chance"] == pytest.approx(100 / 3) and one.config["readout"] == "standardised"
    assert one.split_hash == five.split_hash != ""


def test_gain_is_paired_with_the_first_call():
    probe = KnnProbe(coloured(30), coloured(60, seed=1), TRANSFORM)
    (blind,) = probe(Blind())
    assert blind.value < 70 and blind.config["gain"] == 0
    (seeing,) = probe(MeanColour())
    expected = paired_bootstrap(100.0 * unpack(blind.config["correct"]), np.full(60, 100.0))
    assert seeing.config["gain"] == pytest.approx(100 - blind.value)
    assert (seeing.config["gain_low"], seeing.config["gain_high"]) == (expected.low, expected.high)
    assert expected.low > 0


def test_a_resumed_run_pairs_with_the_first_row_of_its_log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    first = KnnProbe(coloured(30), coloured(60, seed=1), TRANSFORM, ks=(3, 10))
    for result in first(Blind()):
        log.append("knn", 0, **knn_row(result))
    unbroken = [r.config["gain"] for r in first(MeanColour())]
    again = KnnProbe(coloured(30), coloured(60, seed=1), TRANSFORM, ks=(3, 10), baseline=baseline_from_rows(log.rows()))
    assert [r.config["gain"] for r in again(MeanColour())] == unbroken
    row = log.rows()[0]
    assert {"value", "low", "high", "n", "k", "chance", "gain", "gain_low", "gain_high"} <= row.keys()


def test_a_query_that_became_unreadable_leaves_an_unpaired_gain():
    queries = coloured(60, seed=1)
    probe = KnnProbe(coloured(30), queries, TRANSFORM, cache_mb=0)
    (blind,) = probe(Blind())
    queries.pictures[7] = None
    (seeing,) = probe(MeanColour())
    assert seeing.n == 59 and seeing.config["paired"] is False
    assert seeing.config["gain"] == pytest.approx(100 - blind.value)
    assert 0 < seeing.config["gain_low"] < seeing.config["gain"] < seeing.config["gain_high"]
    assert blind.config["paired"] is True


def test_pictures_are_read_once_when_they_fit_and_each_time_when_not():
    for cache_mb, reads in [(512, 30), (0, 60)]:
        bank = coloured(30)
        probe = KnnProbe(bank, coloured(9, seed=1), TRANSFORM, cache_mb=cache_mb)
        first, second = probe(MeanColour()), probe(MeanColour())
        assert bank.reads == reads
        assert first[0].value == second[0].value


def test_classes_are_matched_by_name_not_number():
    queries = coloured(20, classes=("green", "red"), seed=1)
    (result,) = KnnProbe(coloured(30), queries, TRANSFORM)(MeanColour())
    assert result.value == 100


def test_a_class_that_the_bank_lacks_counts_as_wrong():
    queries = coloured(20, classes=("red", "grey"), seed=1)
    (result,) = KnnProbe(coloured(30), queries, TRANSFORM)(MeanColour())
    assert result.value == 50


def test_unlabelled_pictures_are_left_out_and_unreadable_ones_counted():
    bank, queries = coloured(30), coloured(12, seed=1)
    bank.labels[0] = -1
    queries.pictures[3] = None
    (result,) = KnnProbe(bank, queries, TRANSFORM)(MeanColour())
    assert (result.config["bank"], result.n, result.config["skipped"]) == (29, 11, 1)


def test_no_labels_or_no_class_in_common_is_refused():
    plain = ArraySource(coloured(6).pictures)
    with pytest.raises(UsageError, match="one folder per class"):
        KnnProbe(plain, coloured(6), TRANSFORM)
    with pytest.raises(UsageError, match="no class name"):
        KnnProbe(coloured(6, classes=("red",)), coloured(6, classes=("blue",)), TRANSFORM)


def test_limits_take_a_fixed_even_subset():
    probe = KnnProbe(coloured(90), coloured(60, seed=1), TRANSFORM, bank_limit=10, query_limit=6)
    assert len(probe.bank) == 10 and len(probe.queries) == 6
    again = KnnProbe(coloured(90), coloured(60, seed=1), TRANSFORM, bank_limit=10, query_limit=6)
    assert again.split_hash == probe.split_hash
    labels = [probe.bank.label(i) for i in range(10)]
    assert sorted(np.bincount(labels).tolist()) == [3, 3, 4]


@given(st.lists(st.integers(-1, 4), max_size=40), st.integers(0, 45), st.integers(0, 5))
def test_stratified_is_even_whole_and_ascending(labels, limit, seed):
    labels = np.array(labels, np.int64)
    chosen = stratified(labels, limit, seed)
    assert len(chosen) == min(limit, (labels >= 0).sum()) and (np.diff(chosen) > 0).all()
    assert (labels[chosen] >= 0).all()
    taken, there = (np.bincount(x[x >= 0], minlength=5) for x in (labels[chosen], labels))
    unfinished = taken[taken < there]
    # A class may only have more than an unfinished one by the one picture of the last turn.
    assert not len(unfinished) or taken.max() - unfinished.min() <= 1
    np.testing.assert_array_equal(chosen, stratified(labels, limit, seed))


@given(st.lists(st.booleans(), max_size=50))
def test_pack_round_trip(answers):
    correct = np.array(answers, bool)
    np.testing.assert_array_equal(unpack(pack(correct)), correct)
