"""Oracles of the dense protocols: what they must answer on features that were made by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from opendino.evaluation.datasets.masks import open_masks
from opendino.evaluation.dense import slide_starts
from opendino.evaluation.discovery import chosen_on_all, chosen_on_other_half, second_eigenvector, token_cut
from opendino.evaluation.health import (
    cls_patch_cosine,
    gram_drift,
    norm_outliers,
    participation_ratio,
    rank_me,
)
from opendino.evaluation.protocol import Job
from opendino.evaluation.segmentation import class_shares, knn_shares, shares_loss
from opendino.evaluation.vos import propagate
from tests.evaluation import layouts
from tests.oracles.token_cut import slow_token_cut


def object_map() -> torch.Tensor:
    """4 x 6 patches; rows 1-2 of columns 2-3 are orthogonal to the rest."""
    patches = torch.zeros(4, 6, 2)
    patches[..., 0] = 1
    patches[1:3, 2:4] = torch.tensor([0.0, 1.0])
    return patches


@pytest.mark.oracle
def test_token_cut_boxes_the_object_with_the_known_eigenvalue():
    cut = token_cut(object_map(), 0.2)
    assert tuple(16 * side for side in cut.box) == (32, 16, 64, 48)
    # The 20 ground patches and the 4 of the object: 20 * 4 weak edges over each side's volume.
    exact = 80e-5 / (4 * 4 + 80e-5) + 80e-5 / (20 * 20 + 80e-5)
    assert cut.eigenvalue == pytest.approx(exact, rel=1e-6) == pytest.approx(5.19975e-5, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_token_cut_equals_its_slow_form(seed):
    """Noisy pictures of a ground, an object and a lone patch, at thresholds where the cut is no matter of rounding."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(4, 8, 2)
    kind = np.zeros((height, width), int)
    top, left = generator.integers(0, (height - 2, width - 2))
    kind[top : top + 2, left : left + 3] = 1
    kind[generator.integers(height), generator.integers(width)] = 2
    patches = generator.normal(size=(3, 8))[kind] + 0.35 * generator.normal(size=(height, width, 8))
    for tau in (0.2, 0.4):
        box, value, mask = slow_token_cut(patches.tolist(), tau)
        cut = token_cut(torch.from_numpy(patches), tau)
        assert cut.box == box and np.array_equal(cut.mask, mask) and cut.eigenvalue == pytest.approx(value, abs=1e-9)


def test_lanczos_and_the_dense_solver_agree(monkeypatch):
    units = F.normalize(torch.randn(90, 8, generator=torch.Generator().manual_seed(0)).double(), dim=1).numpy()
    graph = np.where(units @ units.T > 0.1, 1.0, 1e-5)
    dense_value, dense_vector = second_eigenvector(graph)
    monkeypatch.setattr("opendino.evaluation.discovery.DENSE_TOKENS", 10)
    value, vector = second_eigenvector(graph)
    assert value == pytest.approx(dense_value, rel=1e-8)
    assert abs(F.cosine_similarity(torch.tensor(vector), torch.tensor(dense_vector), dim=0)) > 1 - 1e-8


def test_patches_that_are_all_unlike_are_still_cut():
    """All eigenvalues but one are equal then, and LAPACK found none when asked for two of them."""
    left, top, right, bottom = token_cut(torch.eye(96).reshape(8, 12, 96), 0.8).box
    assert 0 <= left < right <= 12 and 0 <= top < bottom <= 8


@pytest.mark.oracle
def test_a_picture_of_equal_patches_has_no_cut():
    assert token_cut(torch.ones(3, 5, 4), 0.2).box == (0, 0, 5, 3)


def test_only_the_component_that_holds_the_seed_is_boxed():
    patches = object_map()
    patches[3, 5] = torch.tensor([0.0, 1.0])  # alike, but not connected
    assert token_cut(patches, 0.2).box in ((2, 1, 4, 3), (5, 3, 6, 4))


def test_no_picture_decides_on_its_own_threshold():
    """The even pictures are right at the first threshold alone, the odd ones at the second: each half misleads."""
    hits, ids = np.array([[100.0, 0.0], [0.0, 100.0]] * 3), [str(number) for number in range(6)]
    assert chosen_on_all(hits, [0.2, 0.4], ids).estimate.value == 50
    apart = chosen_on_other_half(hits, [0.2, 0.4], ids)
    assert apart.estimate.value == 0 and apart.choice.values == {"tau": [0.4, 0.2]}
    alike = chosen_on_other_half(np.array([[0.0, 100.0]] * 6), [0.2, 0.4], ids)
    assert alike.estimate.value == 100 and alike.choice.values == {"tau": [0.4, 0.4]}


@pytest.mark.oracle
@pytest.mark.parametrize(("length", "starts"), [(683, [0, 171]), (512, [0]), (300, [0]), (1024, [0, 341, 512])])
def test_slide_windows(length, starts):
    assert slide_starts(length, 512, 341) == starts


@pytest.mark.oracle
def test_slide_windows_of_the_large_crop():
    assert slide_starts(1120, 896, 596) == [0, 224]


@pytest.mark.oracle
def test_class_shares_of_a_patch():
    mask = np.array([[0, 0], [1, 255]], np.uint8)
    assert class_shares(mask, 1, 1, 2).flatten().tolist() == [0.5, 0.25]
    known = class_shares(np.array([[0, 0], [1, 255]], np.uint8), 1, 1, 2)[0, 0]
    torch.testing.assert_close(known / known.sum(), torch.tensor([2 / 3, 1 / 3]))
    # A patch border through the middle of a pixel: three columns in two patches.
    halves = class_shares(np.array([[0, 1, 1]], np.uint8), 1, 2, 2)[0]
    torch.testing.assert_close(halves, torch.tensor([[2 / 3, 1 / 3], [0.0, 1.0]]))


@pytest.mark.oracle
def test_a_training_patch_asked_with_k_1_gets_its_own_shares():
    bank = F.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    shares = torch.rand(20, 3).softmax(1)
    torch.testing.assert_close(knn_shares(bank, shares, bank * 3, 1), shares)


def test_shares_loss_is_the_mean_cross_entropy_of_pixels():
    logits = torch.randn(4, 3)
    labels = torch.tensor([[0, 1], [1, 1], [2, 0], [2, 2]])
    shares = F.one_hot(labels, 3).float().mean(1)
    slow = torch.stack([F.cross_entropy(logits, labels[:, pixel]) for pixel in range(2)]).mean()
    torch.testing.assert_close(shares_loss(logits, shares), slow)


def noise_frames(count=1, height=5, width=7):
    return torch.randn(count, height, width, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.oracle
def test_propagation_follows_features_that_move():
    (start,) = noise_frames()
    first = F.one_hot(torch.arange(35).reshape(5, 7) % 4, 4).float()
    moved = [start] + [start.roll(shift, 1) for shift in (1, 2, 3)]
    for shift, soft in enumerate(propagate(moved, first, window=-1, k=5, temperature=0.01), 1):
        torch.testing.assert_close(soft, first.roll(shift, 1), atol=1e-4, rtol=0)


@pytest.mark.oracle
def test_propagation_with_window_0_and_k_1_copies_the_mask():
    first = F.one_hot(torch.arange(35).reshape(5, 7) % 4, 4).float()
    for soft in propagate(noise_frames(4), first, window=0, k=1):
        assert torch.equal(soft, first)


def test_propagation_takes_the_best_of_all_context_together():
    """Against a loop over frames, patches and neighbours."""
    frames, k, temperature, window, context = noise_frames(4, 3, 4), 3, 0.2, 1, 2
    first = F.one_hot(torch.arange(12).reshape(3, 4) % 3, 3).float()
    found = list(propagate(frames, first, context=context, window=window, k=k, temperature=temperature))
    units, labels = F.normalize(frames, dim=-1), [first]
    for now in range(1, 4):
        answer = torch.zeros(3, 4, 3)
        for y in range(3):
            for x in range(4):
                near = [
                    (float(units[now, y, x] @ units[then, v, u]), labels[then][v, u])
                    for then in sorted({0, *range(max(0, now - context), now)})
                    for v in range(3)
                    for u in range(4)
                    if abs(v - y) <= window and abs(u - x) <= window
                ]
                near = sorted(near, key=lambda pair: -pair[0])[:k]
                weights = (torch.tensor([s for s, _ in near]) / temperature).softmax(0)
                answer[y, x] = sum(w * label for w, (_, label) in zip(weights, near, strict=True))
        labels.append(answer)
        torch.testing.assert_close(found[now - 1], answer, atol=1e-5, rtol=1e-4)


@pytest.mark.oracle
def test_health_oracles():
    patches = torch.tensor([[[1.0, 0], [0, 1], [-1, 0], [1, 1]]])
    assert float(cls_patch_cosine(torch.tensor([[1.0, 0]]), patches)) == pytest.approx(0.176777, abs=1e-6)
    share, peak = norm_outliers(torch.tensor([10, 10.5, 9.5, 10, 10.2, 60]))
    assert (share, peak) == pytest.approx((1 / 6, 5.9406), abs=1e-4)
    assert rank_me(torch.diag(torch.tensor([3.0, 1]))) == pytest.approx(1.754765, abs=1e-5)
    assert rank_me(torch.eye(9)[:, :5]) == pytest.approx(5, abs=1e-4)
    assert participation_ratio(torch.tensor([9.0, 1])) == pytest.approx(1.219512, abs=1e-6)


@pytest.mark.oracle
def test_gram_drift_does_not_see_rotations():
    patches = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    assert gram_drift(patches, patches) == 0 and gram_drift(patches, patches @ rotation) < 1e-12
    assert gram_drift(patches, patches.roll(1, 0)) > 0.01


def test_loveda_joins_town_and_country_and_leaves_no_data_out(tmp_path):
    data = open_masks(Job(layouts.loveda(tmp_path)))
    assert (data.name, len(data.train), len(data.val), data.num_classes) == ("loveda", 6, 4, 7)
    assert len({pair.id for pair in data.train}) == 6  # numbers begin anew in each place
    mask = data.read(data.val[0])
    assert (mask[:2] == 255).all() and mask[40, 0] == 6 and mask[20, 4] == 1


def test_isaid_counts_its_background_as_a_class(tmp_path):
    data = open_masks(Job(layouts.isaid(tmp_path)))
    assert (data.name, len(data.train), len(data.val), data.num_classes) == ("isaid", 6, 4, 16)
    mask = data.read(data.val[0])
    assert data.val[0].id == "P0003_0_48_0_48"
    assert (mask[:2] == 255).all() and mask[40, 0] == 0 and mask[20, 4] == 1 and data.table[16] == 255
