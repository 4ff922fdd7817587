"""Neighbours in common and CKA against slow loops and what their formulas promise."""

import math

import pytest
import torch

from opendino.data.sources import open_source
from opendino.data.transform import Transform
from opendino.errors import ShapeError
from opendino.evaluation.agreement import AgreementProbe, linear_cka, neighbour_agreement
from opendino.models.family import build_model
from tests.train.runs import draw_pictures


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def neighbours_loop(features, k):
    n, d = len(features), len(features[0])
    mean = [sum(row[j] for row in features) / n for j in range(d)]
    x = [[row[j] - mean[j] for j in range(d)] for row in features]

    def cosine(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))

    return [set(sorted((j for j in range(n) if j != i), key=lambda j: -cosine(x[i], x[j]))[:k]) for i in range(n)]


def cka_loop(a, b):
    n = len(a)

    def centred_likeness(x):
        mean = [sum(row[j] for row in x) / n for j in range(len(x[0]))]
        x = [[v - m for v, m in zip(row, mean, strict=True)] for row in x]
        return [[sum(p * q for p, q in zip(r, s, strict=True)) for s in x] for r in x]

    k, m = centred_likeness(a), centred_likeness(b)

    def inner(p, q):
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n))

    return inner(k, m) / math.sqrt(inner(k, k) * inner(m, m))


def test_agreement_equals_loop():
    before, after = rand(12, 5), rand(12, 5) + 0.7 * rand(12, 5, seed=1)
    pairs = zip(neighbours_loop(before.tolist(), 4), neighbours_loop(after.tolist(), 4), strict=True)
    expected = [len(a & b) / 4 for a, b in pairs]
    assert neighbour_agreement(before, after, k=4).tolist() == pytest.approx(expected)


def test_cka_equals_loop():
    before, after = rand(9, 4), rand(9, 6, seed=1)
    assert linear_cka(before, after) == pytest.approx(cka_loop(before.tolist(), after.tolist()), rel=1e-6)


def test_a_turned_scaled_and_shifted_copy_agrees_fully():
    before = rand(30, 6)
    turn = torch.linalg.qr(rand(6, 6, seed=2)).Q
    after = 3 * before @ turn + 5
    assert linear_cka(before, after) == pytest.approx(1, abs=1e-6)
    assert neighbour_agreement(before, after).mean() == 1


def test_collapsed_features_agree_by_chance_alone():
    before = rand(200, 16)
    assert linear_cka(before, torch.ones(200, 16)) == 0
    assert neighbour_agreement(before, torch.ones(200, 16)).mean() < 0.15
    assert neighbour_agreement(before, rand(200, 16, seed=3)).mean() < 0.1


def test_other_pictures_are_refused():
    with pytest.raises(ShapeError, match="the same 2 or more pictures"):
        neighbour_agreement(rand(3, 2), rand(4, 2))


def test_the_probe_of_the_start_itself_is_full(tmp_path):
    pictures = open_source(draw_pictures(tmp_path, 12, px=24))
    start, other = (build_model("vit_tiny", dim=32, depth=1, heads=1, hidden=32) for _ in range(2))
    probe = AgreementProbe(start, pictures, Transform(size=16, patch=8))
    same, changed = probe(start), probe(other)
    assert same.value == 100 and same.config["cka"] == pytest.approx(1)
    assert changed.value < 100 and changed.n == 12 and changed.interval[0] <= changed.value <= changed.interval[1]
