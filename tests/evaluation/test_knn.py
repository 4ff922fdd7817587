"""k-NN against a slow loop, scikit-learn, and hand-computed votes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from opendino.errors import ShapeError, UsageError
from opendino.evaluation.knn import READOUTS, TEMPERATURE, nearest, read_out, score_knn


def slow_knn(bank, bank_labels, queries, k, temperature=0.07):
    """The definition, one query at a time, in plain Python: all classes that have a vote, most votes first."""
    answers = []
    for query in queries:
        similarity = [
            sum(a * b for a, b in zip(query, row, strict=True)) / math.hypot(*query) / math.hypot(*row) for row in bank
        ]
        order = sorted(range(len(bank)), key=lambda i: (-similarity[i], i))[:k]
        votes: dict[int, float] = {}
        for i in order:
            votes[bank_labels[i]] = votes.get(bank_labels[i], 0) + math.exp(similarity[i] / temperature)
        answers.append(sorted(votes, key=lambda label: (-votes[label], label)))
    return answers


def sample(n=60, q=25, dim=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator)
    labels = torch.randint(classes, (n + q,), generator=generator)
    features = centres[labels] + torch.randn(n + q, dim, generator=generator) + 3
    return features[:n], labels[:n], features[n:], labels[n:]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_the_slow_loop_for_each_read_out(k):
    bank, bank_labels, queries, query_labels = sample(classes=9)
    mean, std = bank.mean(0), bank.std(0, correction=0)
    views = {
        "raw": (bank, queries),
        "centred": (bank - mean, queries - mean),
        "standardised": ((bank - mean) / std, (queries - mean) / std),
    }
    for score in score_knn(bank, bank_labels, queries, query_labels, ks=(k,), readouts=READOUTS):
        b, q = views[score.readout]
        expected = slow_knn(b.double().tolist(), bank_labels.tolist(), q.double().tolist(), k)
        assert score.predictions.tolist() == [ranked[0] for ranked in expected]
        assert score.correct.tolist() == [ranked[0] == int(t) for ranked, t in zip(expected, query_labels, strict=True)]
        five = [int(t) in ranked[:5] for ranked, t in zip(expected, query_labels, strict=True)]
        assert score.among_five.tolist() == five and (k == 1) == (sum(five) == sum(score.correct))
        assert score.percent == pytest.approx(100 * np.mean(score.correct))


def test_equals_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, bank_labels, queries, query_labels = sample(n=200, q=80, classes=7)
    oracle = neighbors.KNeighborsClassifier(
        15, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(bank.double().numpy(), bank_labels.numpy())
    (score,) = score_knn(bank, bank_labels, queries, query_labels, ks=(15,), readouts=("raw",))
    np.testing.assert_array_equal(score.predictions, oracle.predict(queries.double().numpy()))


@pytest.mark.oracle
def test_one_near_neighbour_loses_to_three_that_are_a_little_farther():
    # Cosines .90 for class 0 and .88 three times for class 1.
    angle = [math.acos(0.9)] + [math.acos(0.88)] * 3
    bank = torch.tensor([[math.cos(a), math.sin(a)] for a in angle])
    labels, query = torch.tensor([0, 1, 1, 1]), torch.tensor([[1.0, 0.0]])
    one, four = score_knn(bank, labels, query, torch.tensor([1]), ks=(1, 4), readouts=("raw",))
    assert (one.predictions.item(), four.predictions.item()) == (0, 1)
    assert not one.correct.item() and four.correct.item()


@pytest.mark.oracle
def test_votes_are_softmax_shares_of_the_nearest():
    bank, labels = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 1, 1, 2])
    similarity, index = nearest(bank, torch.tensor([[1.0, 0.0]]), 3, "raw")
    shares = torch.zeros(3).scatter_add_(0, labels[index[0]], (similarity[0] / TEMPERATURE).softmax(0))
    torch.testing.assert_close(shares, torch.tensor([0.942746, 0.057254, 0.0]), atol=1e-6, rtol=0)
    near = torch.tensor([0.90, 0.88, 0.88, 0.88])
    shares = (near / TEMPERATURE).softmax(0)
    assert [float(shares[0]), float(shares[1:].sum())] == pytest.approx([0.307273, 0.692727], abs=1e-6)


def test_ties_go_to_the_lower_index_and_the_lower_class():
    bank = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    query = torch.tensor([[1.0, 0]])
    for labels, k, expected in [([2, 1, 1, 0], 1, 2), ([2, 1, 0, 0], 2, 1), ([2, 0, 1, 1], 3, 0)]:
        (score,) = score_knn(bank, torch.tensor(labels), query, torch.tensor([0]), ks=(k,), readouts=("raw",))
        assert score.predictions.item() == expected


def test_duplicates_at_the_edge_of_k_are_taken_by_index():
    bank = torch.tensor([[0.0, 1]] * 30 + [[1.0, 0.1]] * 30)
    labels = torch.arange(60)
    (score,) = score_knn(bank, labels, torch.tensor([[1.0, 0.1]]), torch.tensor([30]), ks=(1,), readouts=("raw",))
    assert score.predictions.item() == 30


@pytest.mark.oracle
def test_chunks_permutation_and_scale_change_nothing():
    bank, bank_labels, queries, query_labels = sample(n=90)
    (base,) = score_knn(bank, bank_labels, queries, query_labels, ks=(7,))
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    for b, y, chunk in [(bank, bank_labels, 4), (bank[order], bank_labels[order], 512), (bank * 8, bank_labels, 512)]:
        scaled = queries * 8 if b is not bank and y is bank_labels else queries
        (again,) = score_knn(b, y, scaled, query_labels, ks=(7,), chunk=chunk)
        np.testing.assert_array_equal(again.predictions, base.predictions)


def test_statistics_come_from_the_bank_alone():
    bank, _, queries, _ = sample()
    for readout in READOUTS:
        _, all_queries = read_out(bank, queries, readout)
        _, one_query = read_out(bank, queries[:1], readout)
        torch.testing.assert_close(all_queries[:1], one_query)
    moved, _ = read_out(bank, queries, "standardised")
    centred = (bank - bank.mean(0)) / bank.std(0, correction=0)
    torch.testing.assert_close(moved, F.normalize(centred, dim=1))


def test_a_constant_dimension_does_not_matter():
    bank, bank_labels, queries, query_labels = sample()
    extra = lambda x: torch.cat([x, torch.full((len(x), 1), 0.1)], 1)  # noqa: E731
    (base,) = score_knn(bank, bank_labels, queries, query_labels)
    (more,) = score_knn(extra(bank), bank_labels, extra(queries) + 1e-9, query_labels)
    np.testing.assert_array_equal(base.predictions, more.predictions)


def test_k_beyond_the_bank_and_classes_that_the_bank_lacks():
    bank, bank_labels, queries, _ = sample(n=6)
    (score,) = score_knn(bank, bank_labels, queries, torch.full((25,), 9), ks=(50,))
    assert score.k == 50 and not score.correct.any() and not score.among_five.any()


def test_large_similarities_do_not_overflow():
    bank = torch.ones(10, 4, dtype=torch.float16) * 1e3
    (score,) = score_knn(bank, torch.zeros(10).long(), bank[:2], torch.zeros(2).long(), readouts=("raw",))
    assert score.correct.all()


def test_wrong_input_is_refused():
    bank, bank_labels, queries, query_labels = sample()
    with pytest.raises(ShapeError):
        score_knn(bank, bank_labels, queries[:, :3], query_labels)
    with pytest.raises(ShapeError):
        score_knn(bank, bank_labels[:5], queries, query_labels)
    with pytest.raises(UsageError, match="without a label"):
        score_knn(bank, bank_labels - 1, queries, query_labels)
    with pytest.raises(UsageError, match="at least 1"):
        score_knn(bank, bank_labels, queries, query_labels, ks=(0,))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 4), st.integers(0, 10**6))
def test_small_integer_features_full_of_ties(n, k, classes, seed):
    generator = np.random.default_rng(seed)
    bank = generator.integers(0, 2, (n, 2)).astype(np.float32)
    bank[:, 0] += 1  # no zero vectors: their cosine is a matter of taste
    labels = generator.integers(0, classes, n)
    queries = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    (score,) = score_knn(
        torch.from_numpy(bank),
        torch.from_numpy(labels),
        torch.from_numpy(queries),
        torch.zeros(2).long(),
        ks=(k,),
        readouts=("raw",),
    )
    # Rows are (1,0), (1,1), (2,0), (2,1): equal directions give bit-equal cosines here.
    unit = torch.nn.functional.normalize(torch.from_numpy(bank), dim=1)
    unit_queries = torch.nn.functional.normalize(torch.from_numpy(queries), dim=1)
    for query, prediction in zip(unit_queries, score.predictions, strict=True):
        similarity = (unit @ query).tolist()
        order = sorted(range(n), key=lambda i: (-similarity[i], i))[:k]
        votes = np.zeros(classes)
        for i in order:
            votes[labels[i]] += math.exp((similarity[i] - similarity[order[0]]) / 0.07)
        assert votes[prediction] == pytest.approx(votes.max(), rel=1e-9)


@pytest.mark.oracle
def test_the_bank_may_be_read_in_parts_of_any_size():
    generator = torch.Generator().manual_seed(5)
    bank, queries = torch.randn(300, 8, generator=generator).half(), torch.randn(17, 8, generator=generator)
    for readout in READOUTS:
        whole = nearest(bank, queries, 20, readout)
        parts = nearest(bank, queries, 20, readout, chunk=4, bank_chunk=7)
        torch.testing.assert_close(parts[0], whole[0], rtol=0, atol=1e-6)
        assert torch.equal(parts[1], whole[1])
    # Axes have exact products: equal similarities come in order of rows whatever the parts.
    axes = torch.eye(4).repeat(30, 1)
    for bank_chunk in (3, 7, 1000):
        _, index = nearest(axes, torch.eye(4), 9, "raw", bank_chunk=bank_chunk)
        assert torch.equal(index, torch.arange(4)[:, None] + 4 * torch.arange(9))
