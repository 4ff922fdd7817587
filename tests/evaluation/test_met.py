"""The Met: whitening, confidence against the formula and where fp32 overflows, and who counts in which score."""

import numpy as np
import pytest
import torch

from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.datasets.met import open_met
from opendino.evaluation.met import KS, TEMPERATURES, Neighbours, evaluate_met, find_neighbours, fit_whitening, log_odds
from opendino.evaluation.protocol import Job, Subject
from opendino.features.extract import Bank
from tests.evaluation import layouts


def test_whitened_features_have_unit_covariance_in_all_directions_that_vary():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 5] = x[:, 4]
    whitening = fit_whitening(x)
    unit = torch.nn.functional.normalize(x, dim=1)
    white = (unit - whitening.mean) @ whitening.projection
    assert white.shape == (200, 5)
    torch.testing.assert_close(torch.cov(white.T, correction=0), torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(whitening.apply(x).norm(dim=1), torch.ones(200))


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.1, 5.0, 25.0])
def test_log_odds_are_those_of_the_published_confidence(k, temperature):
    similarity = np.array([[0.9, 0.8, 0.7, 0.7, 0.1], [0.5, 0.5, 0.4, -0.2, -0.3]])
    classes = np.array([[4, 4, 1, 9, 1], [2, 3, 2, 0, 0]])
    found = log_odds(Neighbours(similarity, classes), k, temperature, 12)
    for row in range(2):
        best = {}
        for s, name in zip(similarity[row, :k], classes[row, :k], strict=True):
            best[name] = max(best.get(name, -np.inf), s)
        total = sum(np.exp(temperature * s) for s in best.values()) + (12 - len(best))
        confidence = np.exp(temperature * similarity[row, 0]) / total
        assert found[row] == pytest.approx(np.log(confidence / (1 - confidence)))


@pytest.mark.oracle
def test_confidences_that_round_to_1_still_have_an_order():
    classes = np.array([[0, 1], [0, 1]])
    found = log_odds(Neighbours(np.array([[0.9, 0.1], [0.95, 0.1]]), classes), 2, 500.0, 2)
    assert (1 / (1 + np.exp(-found)) == 1).all() and found[1] > found[0] and np.isfinite(found).all()


def test_neighbours_of_equal_similarity_come_in_order():
    bank = torch.tensor([[0.0, 1], [1, 0], [1, 0], [0, 1]])
    found = find_neighbours(bank, torch.tensor([5, 6, 7, 8]), torch.tensor([[1.0, 0]]), 4)
    assert found.classes.tolist() == [[6, 7, 5, 8]]


def test_distractors_lower_gap_alone(tmp_path, monkeypatch):
    """Four questions about exhibits, answered right, right, wrong, right; two distractors."""
    data = open_met(Job(layouts.met(tmp_path)))
    assert len(data.exhibits) == 9 and data.test.exhibits.tolist() == [7, 27, 37, 57, -1, -1]
    axes = torch.eye(6)
    order = {name: number for number, name in enumerate(["7", "17", "27", "37", "47", "57"])}

    def features(subject, source, job, what):
        ids = tuple(source.id(index) for index in range(len(source)))
        labels = torch.tensor([-1 if (label := source.label(i)) is None else label for i in range(len(source))])
        if what == "exhibits":
            cls = torch.stack([axes[order[name.split("/")[1]]] for name in ids])
        else:
            # The third is taken for exhibit 0, the distractors lie between all.
            cls = torch.stack([axes[0], axes[2], axes[0], axes[5], *[axes.mean(0) + 0.01 * axes[1]] * 2])
        return Bank(cls, torch.zeros(len(ids), 1), labels, ids, ())

    monkeypatch.setattr("opendino.evaluation.met.features", features)
    outcome = evaluate_met(Subject(None, Transform(size=48, patch=16), "oracle", "0"), data, Job(tmp_path))
    scores = {score.metric: score for score in outcome.scores}
    assert scores["accuracy"].estimate.value == 75 and scores["accuracy"].n == scores["gap_known"].n == 4
    assert scores["gap"].n == 6 and scores["gap"].estimate.value <= scores["gap_known"].estimate.value <= 75
    choice = scores["gap"].choice
    assert choice.values["k"] in KS and choice.values["temperature"] in TEMPERATURES and choice.on == "val"
    assert len(choice.points) == len(choice.scores) == len(KS) * len(TEMPERATURES)


def test_what_is_missing_is_named(tmp_path):
    layouts.met(tmp_path)
    (tmp_path / "MET" / "27" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"27/0\.jpg: is missing, and 0 more pictures; expected: MET/ID"):
        open_met(Job(tmp_path))
    (tmp_path / "ground_truth" / "testset.json").unlink()
    with pytest.raises(DataError, match=r"testset\.json: is missing"):
        open_met(Job(tmp_path))


def test_lists_cannot_name_pictures_elsewhere(tmp_path):
    layouts.met(tmp_path)
    (tmp_path / "ground_truth" / "valset.json").write_text('[{"path": "../secret.jpg", "MET_id": 7}]')
    with pytest.raises(DataError, match=r"names \.\./secret\.jpg, which lies outside of it"):
        open_met(Job(tmp_path))
