"""Stereo: what both eyes see, float maps, and errors on feature maps made by hand."""

import numpy as np
import pytest
import torch

from opendino.errors import DataError
from opendino.evaluation.datasets.stereo import open_stereo, read_pfm, seen_by_both
from opendino.evaluation.protocol import Job
from opendino.evaluation.stereo import match_errors
from tests.evaluation import layouts

JOB = {"rows": 6, "layer": -1, "scale": 4.0}


@pytest.mark.parametrize(("build", "known"), [(layouts.middlebury_2003, 0), (layouts.middlebury_2014, 3)])
def test_left_pixels_lie_at_x_minus_d_of_the_right(tmp_path, build, known):
    scene = open_stereo(Job(build(tmp_path), settings=JOB)).scenes[0]
    left, right, disparity, seen = scene.read()
    assert not seen[:known].any() and seen[known:].mean() > 0.7
    rows, columns = np.nonzero(seen)
    there = columns - disparity[rows, columns].astype(int)
    np.testing.assert_array_equal(left.array[rows, columns], right.array[rows, there])
    assert not seen[20, :2].any(), "outside of the right picture"


def test_what_the_other_eye_does_not_see_is_not_asked_for():
    disparity = np.full((1, 10), 1.0)
    disparity[0, 5:] = 4.0
    back = np.full((1, 10), 1.0)
    back[0, 1:6] = 4.0
    # Pixels 2 to 4 of the ground would lie where the right eye sees what is nearer.
    assert seen_by_both(disparity, back).tolist() == [[False, True, *[False] * 3, *[True] * 5]]
    assert seen_by_both(disparity, None).tolist() == [[False, *[True] * 9]]


def test_float_maps_of_both_byte_orders(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for order, kind in (("-1.0", "<f4"), ("1.0", ">f4")):
        (tmp_path / "a.pfm").write_bytes(f"Pf\n3 2\n{order}\n".encode() + values[::-1].astype(kind).tobytes())
        np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)


@pytest.mark.parametrize(
    "data", [b"", b"PF\n3 2\n-1\n", b"Pf\n3 2\n-1\nshort", b"Pf\n-3 2\n-1\n", b"Pf\n9999999 9\n-1\n"]
)
def test_broken_float_maps_are_refused(tmp_path, data):
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(DataError, match="is no grey PFM map"):
        read_pfm(tmp_path / "a.pfm")


def test_a_map_moved_by_two_patches_has_no_error_and_one_moved_wrongly_has_its_own():
    left = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(0))
    disparity = np.full((32, 60), 20.0)  # patches of 8 x 10 px
    seen = np.ones((32, 60), bool)
    seen[:, :20] = False
    errors = match_errors(left, left.roll(-2, 1), disparity, seen)
    assert len(errors.row) == 4 * 4 and errors.anywhere.max() == 0 and errors.along.max() == 0
    errors = match_errors(left, left.roll((-1, 1), (1, 0)), disparity, seen)
    np.testing.assert_allclose(np.sort(errors.anywhere)[:12], np.hypot(1, 1))
