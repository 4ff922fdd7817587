"""Variants of ImageNet: which class each picture has, told by a backbone whose CLS is the picture's true class."""

import json

import numpy as np
import pytest
import torch

from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.classification import GRID
from opendino.evaluation.datasets.objectnet import open_objectnet
from opendino.evaluation.datasets.variants import open_corrupted, open_variants
from opendino.evaluation.protocol import Job, Subject
from opendino.evaluation.shifts import evaluate_corruptions, evaluate_objectnet, evaluate_ood
from opendino.features.extract import Bank
from tests.evaluation import layouts
from tests.evaluation.layouts.classes import WNIDS

SUBJECT = Subject(None, Transform(size=48, patch=16), "oracle", "0")


def bank_of(numbers, source):
    return Bank(
        torch.nn.functional.one_hot(torch.tensor(numbers), 11).float(),
        torch.zeros(len(source), 1),
        torch.tensor([-1 if (label := source.label(index)) is None else label for index in range(len(source))]),
        tuple(source.id(index) for index in range(len(source))),
        (),
    )


def test_every_variant_names_its_classes_by_its_own_rule(tmp_path, monkeypatch):
    """Features that hold the true class: any other reading of folders or lists would score below 100."""
    data = open_variants(Job(layouts.imagenet_variants(tmp_path)))

    def features(subject, source, job, what):
        folders = [source.id(index).split("/")[0] for index in range(len(source))]
        return bank_of([int(name) if len(name) < 3 else WNIDS.index(name) for name in folders], source)

    monkeypatch.setattr("opendino.evaluation.shifts.features", features)
    scores = {score.metric: score for score in evaluate_ood(SUBJECT, data, Job(tmp_path)).scores}
    assert {name: score.estimate.value for name, score in scores.items()} == {
        f"top1_{name}": 100 for name in ("v2", "r", "a", "sketch", "real")
    }
    assert scores["top1_real"].n == 10, "the picture with an empty list leaves the denominator"
    assert scores["top1_r"].config["columns"] == [1, 3, 5, 7, 9]


def test_objectnet_maps_folders_over_names_and_lines_to_outputs(tmp_path, monkeypatch):
    data = open_objectnet(Job(layouts.objectnet(tmp_path)))
    assert data.pictures.classes == ("alarm_clock", "chair") and data.outputs == [{3, 9}, {5}]
    assert data.pictures.read(0).array.shape == (44, 44, 3)
    assert not (data.pictures.read(0).array == (255, 0, 0)).all(2).any(), "no red border is left"
    # Alarm clocks answered as 9, 3, 1 (no object of ObjectNet's) and 5; chairs as 5.
    answers = [9, 3, 1, 5, 5, 5, 5, 5]

    def features(subject, source, job, what):
        return bank_of([number // 2 for number in range(22)] if what == "train" else answers, source)

    monkeypatch.setattr("opendino.evaluation.shifts.features", features)
    top1, masked = evaluate_objectnet(SUBJECT, data, Job(tmp_path)).scores
    assert top1.estimate.value == pytest.approx(100 * 6 / 8) and masked.estimate.value >= top1.estimate.value


def test_copies_of_objectnet_that_count_lines_from_1_are_read_alike(tmp_path):
    layouts.objectnet(tmp_path)
    file = tmp_path / "objectnet-1.0" / "mappings" / "pytorch_to_imagenet_2012_id.json"
    file.write_text(json.dumps({output: line + 1 for output, line in json.loads(file.read_text()).items()}))
    assert open_objectnet(Job(tmp_path)).outputs == [{3, 9}, {5}]
    file.unlink()
    with pytest.raises(DataError, match=r"pytorch_to_imagenet_2012_id\.json: is missing; expected: train/WNID"):
        open_objectnet(Job(tmp_path))


def test_mce_of_a_constant_answer(tmp_path, monkeypatch):
    data = open_corrupted(Job(layouts.imagenet_c(tmp_path)))

    def features(subject, source, job, what):
        count = len(source)
        return bank_of([index % 2 for index in range(count)] if what == "train" else [0] * count, source)

    monkeypatch.setattr("opendino.evaluation.shifts.features", features)
    monkeypatch.setattr(
        "opendino.evaluation.linear.LinearModel.predict", lambda self, x: torch.zeros(len(x), dtype=torch.int64)
    )
    (score,) = evaluate_corruptions(SUBJECT, data, Job(tmp_path)).scores
    assert score.estimate.value == pytest.approx(25.8690 * 0.5 / 0.2, abs=1e-3) and not score.high_is_good


def test_a_missing_corruption_is_named(tmp_path):
    root = layouts.imagenet_c(tmp_path)
    for file in sorted((root / "imagenet-c" / "fog" / "3").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (root / "imagenet-c" / "fog" / "3").rmdir()
    with pytest.raises(DataError, match=r"fog.3.*is missing"):
        open_corrupted(Job(root))


def test_the_grid_is_the_papers():
    rates = sorted({setting.lr for setting in GRID})
    assert len(GRID) == 30 and len(rates) == 15
    np.testing.assert_allclose(rates, [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
