"""Linear depth: bins and loss at their published values, patch means, and files that hold no metres."""

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.errors import DataError
from opendino.evaluation.datasets.depths import open_depths, read_depth_16
from opendino.evaluation.depth import patch_depth
from opendino.evaluation.protocol import Job
from opendino.losses.scale_invariant import scale_invariant_loss
from opendino.models.depth_bins import depth_of_bins
from tests.evaluation import layouts


@pytest.mark.oracle
def test_depth_of_bins():
    logits = torch.zeros(256, dtype=torch.float64)
    assert float(depth_of_bins(logits, 1e-3, 10)) == pytest.approx(5.0005, abs=1e-6)
    logits[-1] = 10
    assert float(depth_of_bins(logits, 1e-3, 10)) == pytest.approx(6.404853, abs=1e-6)
    assert depth_of_bins(torch.zeros(3, 256, device="meta"), 1e-3, 10).device.type == "meta", "bins follow the logits"


@pytest.mark.oracle
def test_scale_invariant_loss():
    truth = torch.tensor([2.0, 2, 2], dtype=torch.float64)
    assert float(scale_invariant_loss(torch.tensor([1.0, 2, 4]).double(), truth)) == pytest.approx(0.692772, abs=1e-6)
    assert float(scale_invariant_loss(2 * truth, truth)) == pytest.approx(0.268358, abs=1e-6)
    depths = torch.tensor([1.0, 3, 7], dtype=torch.float64)
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
        read_depth_16(tmp_path / "eight.png")


def test_kitti_is_cut_read_in_256ths_and_scored_where_garg_did(tmp_path):
    data = open_depths(Job(layouts.kitti(tmp_path)))
    assert (data.name, len(data.train), len(data.val), data.high_m) == ("kitti", 3, 2, 80.0)  # "None" is left out
    pair = data.val[1]
    picture, (depth, valid) = data.picture(pair), data.read(pair)
    assert picture.array.shape == (352, 1216, 3) and depth.shape == valid.shape == (352, 1216)
    # Row 200 and column 400 of the frame are row 177 and column 387 of the cut.
    assert depth[178, 387] == 10 and picture.array[178, 387, 0] > 200 and depth[178, 386] == 40
    assert not valid[177].any() and valid[178, 43:1172].all() and not valid[178, :43].any()
    assert not valid[:143].any() and not valid[349:].any()


def test_frames_of_another_size_are_no_kitti(tmp_path):
    data = open_depths(Job(layouts.kitti(tmp_path)))
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(data.val[0].image)
    with pytest.raises(DataError, match="200 x 100 px"):
        data.picture(data.val[0])


def test_a_split_list_that_names_no_truth_is_refused(tmp_path):
    layouts.kitti(tmp_path)
    (tmp_path / "eigen_test_files_with_gt.txt").write_text("2011_09_26/x/image_02/data/1.png\n")
    with pytest.raises(DataError, match="line 1 names no truth"):
        open_depths(Job(tmp_path))
