"""Linear depth: bins and loss at their published values, patch means, and files that hold no metres."""

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.errors import DataError
from opendino.evaluation.datasets.depths import open_depths, read_depth_mm
from opendino.evaluation.depth import depth_of_bins, patch_depth
from opendino.evaluation.protocol import Job
from opendino.losses.scale_invariant import scale_invariant_loss
from tests.evaluation import layouts


def test_depth_of_bins():
    logits = torch.zeros(256, dtype=torch.float64)
    assert float(depth_of_bins(logits, 1e-3, 10)) == pytest.approx(5.0005, abs=1e-6)
    logits[-1] = 10
    assert float(depth_of_bins(logits, 1e-3, 10)) == pytest.approx(6.404853, abs=1e-6)


def test_scale_invariant_loss():
    truth = torch.tensor([2.0, 2, 2], dtype=torch.float64)
    assert float(scale_invariant_loss(torch.tensor([1.0, 2, 4]).double(), truth)) == pytest.approx(0.692772, abs=1e-6)
    depths = torch.tensor([1.0, 3, 7], dtype=torch.float64)
    assert float(scale_invariant_loss(2 * depths, depths)) == pytest.approx(0.268358, abs=3e-4)
    perfect = depths.clone().requires_grad_()
    scale_invariant_loss(perfect, depths).backward()
    assert torch.isfinite(perfect.grad).all()


def test_patch_depth_is_the_mean_of_valid_pixels():
    depth = np.array([[1.0, 3, 5, 5], [9, 1, 5, 5]])
    valid = np.array([[True, True, False, False], [False, True, False, False]])
    np.testing.assert_allclose(patch_depth(depth, valid, 1, 2), [[5 / 3, 0]], rtol=1e-6)


def test_depth_is_read_in_16_bits_and_nothing_else(tmp_path):
    data = open_depths(Job(layouts.nyu(tmp_path / "nyu")))
    depth, valid = data.read(data.val[0])
    assert data.name == "nyuv2" and set(np.unique(depth)) == {0, 1.5, 4} and not valid[:3].any() and valid[3:].all()
    Image.fromarray(np.full((9, 9), 200, np.uint8)).save(tmp_path / "eight.png")
    with pytest.raises(DataError, match="16-bit"):
        read_depth_mm(tmp_path / "eight.png")
