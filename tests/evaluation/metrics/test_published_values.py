"""Every metric against values worked out by hand or given by its official code; libraries as second witnesses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from opendino.errors import DataError, ShapeError
from opendino.evaluation.metrics.boxes import box_iou, is_localised
from opendino.evaluation.metrics.canopy import (
    block_r2,
    cover_iou,
    mean_absolute_error,
    r2,
    relative_error,
)
from opendino.evaluation.metrics.correspondence import (
    NAVI_THRESHOLDS_M,
    keypoints_right,
    pck_by_pair,
    pck_per_point,
    recall_below,
)
from opendino.evaluation.metrics.depth import (
    eigen_crop_kitti,
    eigen_crop_nyu,
    fit_scale_shift,
    garg_crop,
    kb_crop,
    score_depth,
    valid_depth,
)
from opendino.evaluation.metrics.geometry import normal_scores, pose_auc_by_degrees, pose_auc_by_trapezoids
from opendino.evaluation.metrics.interval import bootstrap, set_bootstrap
from opendino.evaluation.metrics.retrieval import (
    average_precision,
    global_ap,
    hit_ranks,
    recall_at,
    revisited_aps,
    trapezoid_ap,
)
from opendino.evaluation.metrics.robustness import (
    ALEXNET_ERROR,
    mapped_correct,
    mean_corruption_error,
    real_correct,
)
from opendino.evaluation.metrics.segmentation import (
    class_counts,
    class_iou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
)
from opendino.evaluation.metrics.video import (
    boundary_f,
    frame_decay,
    frame_recall,
    region_similarity,
    score_sequence,
)

TRUTH = np.array([[0, 0, 1], [1, 255, 0]])
PREDICTED = np.array([[0, 1, 1], [1, 2, 0]])


@pytest.mark.oracle
def test_miou_drops_ignored_pixels_and_absent_classes():
    counts = class_counts(TRUTH, PREDICTED, 4)
    np.testing.assert_allclose(class_iou(counts), [2 / 3, 2 / 3, np.nan, np.nan])
    assert mean_iou(counts) == pytest.approx(2 / 3)
    assert pixel_accuracy(counts) == pytest.approx(4 / 5)
    assert mean_accuracy(counts) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.oracle
def test_miou_pools_pixels_over_the_set():
    images = [([[0, 0, 0, 0]], [[0, 0, 0, 1]]), ([[1, 1, 0, 0]], [[1, 0, 0, 0]])]
    counts = np.stack([class_counts(np.array(truth), np.array(guess), 2) for truth, guess in images])
    assert mean_iou(counts.sum(0)) == pytest.approx(0.523810, abs=1e-6)
    assert mean_iou(counts).mean() == pytest.approx(0.479167, abs=1e-6), "the mean of images is another number"


def test_miou_agrees_with_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_jaccard_index

    generator = np.random.default_rng(0)
    truth, guess = generator.integers(0, 5, (20, 30)), generator.integers(0, 5, (20, 30))
    truth[generator.random(truth.shape) < 0.1] = 255
    peer = multiclass_jaccard_index(torch.tensor(guess), torch.tensor(truth), 5, average="none", ignore_index=255)
    np.testing.assert_allclose(class_iou(class_counts(truth, guess, 5)), peer.numpy(), rtol=1e-6)


def test_miou_refuses_labels_that_are_no_class():
    with pytest.raises(DataError, match="0 to 3"):
        class_counts(np.array([[4]]), np.array([[0]]), 4)
    with pytest.raises(ShapeError):
        class_counts(np.zeros((2, 2), int), np.zeros((2, 3), int), 4)


def square(left: int) -> np.ndarray:
    mask = np.zeros((48, 85), bool)
    mask[20:30, left : left + 10] = True
    return mask


@pytest.mark.oracle
@pytest.mark.parametrize(("shift", "j", "f"), [(0, 1, 1), (1, 0.818182, 1), (2, 0.666667, 0.55), (4, 0.428571, 0.45)])
def test_j_and_f_of_a_moved_square(shift, j, f):
    assert region_similarity(square(30), square(30 + shift)) == pytest.approx(j, abs=1e-6)
    assert boundary_f(square(30), square(30 + shift)) == pytest.approx(f, abs=1e-6)


def test_j_and_f_of_empty_masks():
    empty = np.zeros((48, 85), bool)
    assert region_similarity(empty, empty) == boundary_f(empty, empty) == 1
    assert region_similarity(empty, square(3)) == boundary_f(empty, square(3)) == 0


def test_sequence_leaves_out_first_and_last_frame_void_and_late_objects():
    truth = np.zeros((4, 48, 85), np.uint8)
    truth[:, square(30)] = 1
    truth[1, :4] = 255
    truth[2:, square(60)] = 2
    guess = truth.copy()
    guess[1, :4] = 0
    guess[0], guess[3] = 0, 0
    (score,) = score_sequence(truth, guess)
    assert score.jf == 1 and len(score.j) == 2


@pytest.mark.oracle
def test_recall_and_decay_over_frames():
    values = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert np.mean(values) == pytest.approx(0.65)
    assert frame_recall(values) == pytest.approx(0.625) and frame_decay(values) == pytest.approx(0.5)
    assert frame_decay(np.linspace(1, 0, 400)) > 0.7, "long videos do not wrap"


@pytest.mark.oracle
def test_a_box_of_exactly_half_overlap_is_a_hit():
    assert box_iou((0, 0, 10, 10), [(0, 0, 10, 20), (20, 20, 30, 30)]).tolist() == [0.5, 0]
    assert is_localised((0, 0, 10, 10), [(50, 50, 60, 60), (0, 0, 10, 20)])
    assert not is_localised((0, 0, 10, 10), [(0, 0, 10, 20.1)]) and not is_localised((0, 0, 10, 10), [])


def test_overlaps_of_boxes_are_those_of_faster_coco_eval():
    """Average precision is the library's own (test_detection.py); CorLoc stands on our overlap."""
    mask = pytest.importorskip("faster_coco_eval.core.mask")
    corners = np.random.default_rng(0).uniform(0, 40, (60, 2, 2)).round(1)
    boxes = np.concatenate([corners.min(1), corners.max(1) + 0.1], 1)
    theirs = mask.iou(
        *(np.hstack([part[:, :2], part[:, 2:] - part[:, :2]]) for part in (boxes[:20], boxes[20:])), [0] * 40
    )
    np.testing.assert_allclose([box_iou(box, boxes[20:]) for box in boxes[:20]], theirs, atol=1e-12)


@pytest.mark.oracle
def test_revisited_map():
    aps = revisited_aps([7, 0, 5, 1, 9, 2, 3], easy={0, 2}, hard={1}, junk={7})
    assert aps == pytest.approx({"easy": 0.708333, "medium": 0.711111, "hard": 0.25}, abs=1e-6)
    ranks = hit_ranks([7, 0, 5, 1, 9, 2, 3], {0, 1, 2}, {7})
    assert average_precision(ranks, 3) == pytest.approx(0.755556, abs=1e-6)
    assert np.isnan(trapezoid_ap([], 0)), "a query without positives is not scored"


@pytest.mark.oracle
def test_one_positive_scores_its_reciprocal_rank():
    ranks = ([0], [1], [3])
    assert np.mean([average_precision(rank, 1) for rank in ranks]) == pytest.approx(0.583333, abs=1e-6)
    assert [recall_at([2], k) for k in (1, 2, 3)] == [0, 0, 1]


@given(st.lists(st.booleans(), min_size=2, max_size=30).filter(any))
def test_plain_ap_agrees_with_scikit_learn(hits):
    scores = -np.arange(len(hits))
    assert average_precision(np.flatnonzero(hits), sum(hits)) == pytest.approx(average_precision_score(hits, scores))


@pytest.mark.oracle
def test_gap_counts_distractors_against_it():
    truth, guess = np.array([10, -1, 12, 99]), np.array([10, 11, 12, 13])
    confidence, known = np.array([0.9, 0.8, 0.7, 0.6]), truth >= 0
    correct = guess == truth
    assert global_ap(confidence, correct, 3) == pytest.approx(0.555556, abs=1e-6)
    assert global_ap(confidence[known], correct[known], 3) == pytest.approx(2 / 3)


@given(arrays.arrays(np.int64, 6, elements=st.integers(0, 3)).filter(lambda w: w[[0, 2]].any()))
def test_weighted_gap_is_gap_of_the_repeated_queries(weights):
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), np.array([1, 0, 1, 0, 0, 0], bool)
    repeated = np.repeat(np.arange(6), weights)
    assert global_ap(confidence, correct, 7, weights) == pytest.approx(
        global_ap(confidence[repeated], correct[repeated], 7)
    )


@pytest.mark.oracle
def test_mce_is_the_mean_of_ratios():
    assert mean_corruption_error({name: [0.2] * 5 for name in ALEXNET_ERROR}) == pytest.approx(25.8690, abs=1e-4)
    with pytest.raises(DataError, match="fog"):
        mean_corruption_error({name: [0.2] for name in ALEXNET_ERROR if name != "fog"})


@pytest.mark.oracle
def test_real_and_objectnet():
    assert real_correct(np.array([1, 3, 0, 0]), [[1], [2, 3], [], [4]]).mean() == pytest.approx(2 / 3)
    logits, objects = np.array([[0.1, 0.9, 0.5, 0.3]]), np.array([0])
    assert not mapped_correct(logits, [{0, 2}, {3}], objects, masked=False)[0]
    assert mapped_correct(logits, [{0, 2}, {3}], objects, masked=True)[0]


@pytest.mark.oracle
def test_depth_scores_valid_pixels_only():
    truth = np.array([[2.0, 4, 0, 10, 12]])
    guess = np.array([[2.5, 3, 7, 10, 1]])
    valid = valid_depth(truth, 1e-3, 10)
    assert valid.tolist() == [[True, True, False, False, False]]
    score = score_depth(truth, guess, valid)
    assert score is not None and score.pixels == 2
    assert (score.rmse, score.arel) == pytest.approx((0.790569, 0.25), abs=1e-6)
    assert score.delta1 == 0, "a ratio of exactly 1.25 fails"
    assert score_depth(truth, guess, np.zeros_like(valid)) is None


@pytest.mark.oracle
def test_rmse_is_a_mean_over_images_and_not_over_all_pixels():
    truth = np.full((1, 4), 5.0)
    scores = [score_depth(truth, truth + error, np.ones_like(truth, bool)) for error in (1, 2)]
    assert np.mean([score.rmse for score in scores]) == 1.5
    assert np.sqrt(np.mean([score.rmse**2 for score in scores])) == pytest.approx(1.581139, abs=1e-6)


@pytest.mark.oracle
def test_depth_crops():
    assert eigen_crop_nyu((480, 640)).sum() == 426 * 560
    assert garg_crop().sum() == 206 * 1129 and eigen_crop_kitti().sum() == 204 * 1129
    frame = np.arange(375 * 1242).reshape(375, 1242)
    assert kb_crop(frame).shape == (352, 1216) and kb_crop(frame)[0, 0] == frame[23, 13]


@pytest.mark.oracle
def test_scale_and_shift():
    truth = np.array([[1.0, 2, 4, 8]])
    valid = np.ones_like(truth, bool)
    assert fit_scale_shift(3 * truth + 1, truth, valid) == pytest.approx((1 / 3, -1 / 3))
    disparity = 0.5 / truth + 0.1
    assert fit_scale_shift(disparity, 1 / truth, valid) == pytest.approx((2, -0.2))
    scale, shift = fit_scale_shift(disparity, truth, valid)
    aligned = (scale * disparity + shift).clip(1e-3, 10)
    score = score_depth(truth, aligned, valid)
    assert score is not None and score.arel == pytest.approx(0.538043, abs=1e-6)


@pytest.mark.oracle
def test_correspondence():
    assert recall_below([0.005, 0.015, 0.03, 0.2], NAVI_THRESHOLDS_M) == [0.25, 0.5, 0.75]
    points, truth = [(10, 10), (50, 50), (90, 20)], [(12, 10), (50, 60), (90, 45)]
    assert keypoints_right(points, truth, 100, inclusive=False).mean() == pytest.approx(1 / 3)
    assert keypoints_right(points, truth, 100).mean() == pytest.approx(2 / 3)
    assert pck_by_pair([1, 4], [2, 4]).mean() == 0.75
    assert pck_per_point([1, 4], [2, 4]) == pytest.approx(0.8333, abs=1e-4)
    assert pck_per_point([1, 4], [2, 4], [2, 0]) == 0.5


@pytest.mark.oracle
def test_angles_and_poses():
    scores = normal_scores([10, 20, 40])
    assert [scores[key] for key in ("mean", "median", "rmse")] == pytest.approx([23.3333, 20, 26.4575], abs=1e-4)
    assert [scores[f"below_{t}"] for t in ("11.25", "22.5", "30")] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert pose_auc_by_degrees([0.5, 3.2, 40]) == pytest.approx(0.633333, abs=1e-6)
    assert [pose_auc_by_trapezoids([1, 4, 8, 20], limit) for limit in (5, 10)] == pytest.approx([0.35, 0.525])


@pytest.mark.oracle
def test_canopy():
    truth, guess = [0, 1.9, 2, 5, 10], [0.5, 2.1, 1.9, 6, 9]
    assert mean_absolute_error(truth, guess) == pytest.approx(0.56)
    assert relative_error(truth, guess) == pytest.approx(0.09697, abs=1e-5) and cover_iou(truth, guess) == 0.5
    heights = np.arange(16.0).reshape(4, 4)
    checker = heights + np.where(np.arange(4) % 2, -1, 1)
    assert r2(heights, checker) == pytest.approx(0.952941, abs=1e-6)
    assert block_r2([(heights, np.maximum(checker, -9))], 2, border_px=0) == pytest.approx(1)
    assert r2([1, 2, 3, 4], [1, 2, 3, 8]) == pytest.approx(-2.2)
    assert r2([1, 2, 3, 8], [1, 2, 3, 4]) == pytest.approx(0.448, abs=1e-3)


def test_set_bootstrap_of_a_mean_is_the_bootstrap():
    values = np.random.default_rng(1).random(40)
    ours, peer = set_bootstrap(lambda counts: counts @ values / 40, 40), bootstrap(values)
    assert ours.value == pytest.approx(peer.value)
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high), abs=0.01)
    with pytest.raises(ShapeError):
        set_bootstrap(lambda counts: 0.0, 0)
