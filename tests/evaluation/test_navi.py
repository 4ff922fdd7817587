"""NAVI: depth and poses as they are stored, pairs, and errors in space on features made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.evaluation.datasets.navi import open_navi
from opendino.evaluation.metrics.correspondence import NAVI_THRESHOLDS_M, recall_below
from opendino.evaluation.metrics.geometry import rotation_angle, rotation_of_quaternion
from opendino.evaluation.navi import evaluate_navi, match, object_square
from opendino.evaluation.protocol import Job, Subject
from opendino.models.family import build_model
from tests.evaluation import layouts


def test_quaternions_turn_as_scipy_has_it():
    from scipy.spatial.transform import Rotation

    for w, x, y, z in np.random.default_rng(0).normal(size=(5, 4)):
        np.testing.assert_allclose(
            rotation_of_quaternion([w, x, y, z]), Rotation.from_quat([x, y, z, w]).as_matrix(), atol=1e-12
        )
    quarter = rotation_of_quaternion([1, 0, 0, 1])
    assert rotation_angle(quarter, np.eye(3)) == pytest.approx(90)
    assert rotation_angle(quarter @ quarter, np.eye(3)) == pytest.approx(180)
    with pytest.raises(ValueError, match="no quaternion"):
        rotation_of_quaternion([0, 0, 0, 0])


def test_every_fourth_view_has_one_partner_of_its_object_within_120_degrees(tmp_path):
    data = open_navi(Job(layouts.navi(tmp_path)))
    assert [pair.source.id for pair in data.pairs] == [
        "3d_dollhouse_sink/000",
        "3d_dollhouse_sink/004",
        "keywest_showpiece/003",
    ]
    for pair in data.pairs:
        assert pair.target.id.startswith(pair.object) and pair.angle_deg == pytest.approx(90)
    again = open_navi(Job(layouts.navi(tmp_path)))
    assert [pair.id for pair in again.pairs] == [pair.id for pair in data.pairs]
    assert len({open_navi(Job(tmp_path, seed=seed)).split_hash for seed in range(8)}) > 1


def test_a_point_of_the_object_is_the_same_place_in_both_views(tmp_path):
    """The second picture is the first one turned, so the same pixels must meet in space after the pose."""
    for pair in open_navi(Job(layouts.navi(tmp_path))).pairs:
        (_, near), (_, far) = pair.source.read(), pair.target.read()
        rows, columns = np.nonzero(near)
        turns = (int(pair.target.image.stem) - int(pair.source.image.stem)) % 4
        place = np.arange(near.size).reshape(near.shape)
        there = np.argsort(np.rot90(place, turns).ravel())[place[rows, columns]]
        moved = pair.move(pair.source.points(near, rows, columns))
        expected = pair.target.points(far, there // far.shape[1], there % far.shape[1])
        np.testing.assert_allclose(moved, expected, atol=1e-9)
        assert near[near > 0].min() == pytest.approx(0.5, rel=1e-3) and near.max() == pytest.approx(0.6, rel=1e-3)


@pytest.mark.oracle
def test_errors_are_counted_below_each_threshold():
    recalls = recall_below([0.005, 0.015, 0.03, 0.2], NAVI_THRESHOLDS_M)
    assert recalls == [0.25, 0.5, 0.75] and np.mean(recalls) == 0.5


def test_the_same_picture_twice_matches_itself_and_the_best_matches_are_kept():
    units = F.normalize(torch.randn(1500, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    one, other = match(units, units)
    assert len(one) == 1000 and np.array_equal(one, other)
    noisy = units.clone()
    noisy[:700] = F.normalize(torch.randn(700, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    one, other = match(noisy, units, kept=800)
    assert set(one.tolist()) == set(range(700, 1500)), "Probe3D's other branch keeps the worst ones"


@pytest.mark.oracle
def test_one_view_beside_itself_is_found_whole(tmp_path):
    data = open_navi(Job(layouts.navi(tmp_path)))
    twice = [replace(pair, target=pair.source, angle_deg=1.0) for pair in data.pairs]
    model = build_model("vit_tiny", depth=1).eval()
    subject = Subject(model, Transform(size=48, patch=8), "random", "")
    outcome = evaluate_navi(subject, replace(data, pairs=twice), Job(tmp_path, settings={"rows": 6, "layer": -1}))
    assert [score.estimate.value for score in outcome.scores] == [100] * 5
    assert outcome.scores[0].groups == ("3d_dollhouse_sink", "3d_dollhouse_sink", "keywest_showpiece")


def test_ties_go_to_the_first():
    one, other = match(torch.ones(3, 1), torch.ones(4, 1), kept=2)
    assert one.tolist() == [0, 1] and other.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [((2, 5, 3, 9), (1, 3, 6)), ((0, 3, 8, 10), (0, 8, 3)), ((1, 11, 2, 20), (0, 5, 12))],
)
def test_the_square_about_an_object_lies_in_the_picture(box, expected):
    depth = np.zeros((12, 20))
    depth[box[0] : box[1], box[2] : box[3]] = 1
    top, left, side = object_square(depth)
    assert (top, left, side) == expected
    assert top + side <= 12 and left + side <= 20


def test_damage_is_one_line(tmp_path):
    root = layouts.navi(tmp_path)
    scene = root / "navi_v1" / "3d_dollhouse_sink" / "wild_set"
    Image.new("I;16", (10, 10)).save(scene / "depth" / "000.png")
    (pair, *_) = open_navi(Job(root)).pairs
    with pytest.raises(DataError, match="differ in size"):
        pair.source.read()
    (scene / "depth" / "000.png").unlink()
    with pytest.raises(DataError, match=r"000\.png.*is missing"):
        open_navi(Job(root))
    rows = json.loads((scene / "annotations.json").read_text())
    del rows[0]["camera"]["q"]
    (scene / "annotations.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="no annotation of NAVI"):
        open_navi(Job(root))
    with pytest.raises(DataError, match="no pair of views"):
        open_navi(Job(tmp_path / "navi_v1" / "3d_dollhouse_sink"))
