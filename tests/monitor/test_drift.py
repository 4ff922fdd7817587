"""The verdict on dense features: sure losses alone are called one, and the best look is named."""

import random

import pytest

from opendino.monitor.drift import judge_drift, stage_change


def look(step, cosine=0.3, patch=0.4, ratio=1.5, miou=None, pictures=None):
    row = {"kind": "drift", "step": step, "cls_patch_cosine": cosine, "patch_cosine": patch, "norm_ratio": ratio}
    return row if miou is None else row | {"miou": miou, "picture_iou": pictures}


def pictures(mean, seed, noise=1.0, count=26):
    """IoU of pictures that differ much from one another and little from look to look."""
    easy, moved = random.Random(0), random.Random(seed)
    return [mean + easy.uniform(-15, 15) + moved.gauss(0, noise) for _ in range(count)]


def test_a_sure_loss_on_masks_names_the_best_step():
    looks = [look(step, miou=m, pictures=pictures(m, step)) for step, m in ((100, 20), (200, 26), (300, 24), (400, 21))]
    found = judge_drift([look(0, miou=40, pictures=pictures(40, 1)), *looks, {"kind": "step", "step": 400}])
    assert found.kind == "degraded" and found.step == 200
    assert "26.0 % at step 200, 21.0 % now" in found.words and "step 200 as its teacher" in found.words


def test_noise_is_not_called_degradation():
    """Runs that stand still: over 200 of them at most a few are accused."""
    accused = 0
    for seed in range(200):
        noise = random.Random(seed)
        looks = []
        for step in range(100, 1100, 100):
            shown = pictures(25, noise.random(), noise=4.0)
            looks.append(look(step, miou=sum(shown) / len(shown), pictures=shown))
        accused += judge_drift(looks).kind == "degraded"
    assert accused <= 10


def test_a_run_at_its_best_is_not_degraded_and_says_so():
    looks = [look(step, miou=m, pictures=pictures(m, step)) for step, m in ((100, 20), (200, 22), (300, 26))]
    found = judge_drift(looks)
    assert found.kind == "none" and found.step == 300 and "no degradation at this scale" in found.words


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"cosine": 0.6}, "become like CLS (mean cosine 0.20 at step 200, 0.60 now)"),
        ({"patch": 0.95}, "become like each other (mean cosine 0.95)"),
        ({"ratio": 8.0}, "grow long (8.0 times the median)"),
    ],
)
def test_signs_are_no_proof_without_masks(last, words):
    found = judge_drift([look(0, cosine=-0.9), look(100), look(200, cosine=0.2), look(300), look(400, **last)])
    assert found.kind == "signs" and found.step == 200
    assert words in found.words and "--watch.masks" in found.words


def test_without_signs_the_newest_is_as_good_as_any():
    found = judge_drift([look(100), look(200, cosine=0.2), look(300)])
    assert found.kind == "none" and found.step == 300 and "no sign of degradation" in found.words


def test_untrained_looks_never_count():
    found = judge_drift([look(0, cosine=-0.9), look(5, cosine=-0.8), look(100), look(200)])
    assert found.kind == "none"


@pytest.mark.parametrize(("rows", "step"), [([], None), ([look(0)], None), ([look(0), look(100)], 100)])
def test_too_few_looks(rows, step):
    found = judge_drift(rows)
    assert found.kind == "unknown" and found.step == step


def test_too_few_pictures_with_masks_leave_the_signs():
    looks = [look(step, miou=m, pictures=pictures(m, 1, count=3)) for step, m in ((100, 30), (200, 20))]
    assert judge_drift(looks).kind == "none"


def test_a_stage_is_judged_against_its_own_start():
    before, after = look(0, miou=20.0, pictures=pictures(20, 1)), look(50, miou=24.0, pictures=pictures(24, 2))
    assert "gained, k-NN segmentation 20.0 -> 24.0 %" in stage_change([before, look(25), after])
    assert "lost, k-NN segmentation 24.0 -> 20.0 %" in stage_change([after | {"step": 0}, before | {"step": 50}])
    assert "no sure change" in stage_change([before, look(50, miou=20.1, pictures=pictures(20, 3))])
    assert "cosine of CLS and patches 0.30 -> 0.10" in stage_change([look(0), look(50, cosine=0.1)])
    assert "too few looks" in stage_change([look(0)])
