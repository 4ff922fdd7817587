"""Keypoints on feature maps made by hand: where a point must be found, and whose rule counts it."""

import numpy as np
import torch

from opendino.data.images import Image
from opendino.evaluation.datasets.keypoints import open_keypoints
from opendino.evaluation.keypoints import match_points, square_picture
from opendino.evaluation.protocol import Job
from tests.evaluation import layouts


def test_a_shifted_map_is_found_shifted():
    source = torch.randn(6, 8, 16, generator=torch.Generator().manual_seed(0))
    centres = np.array([[(x + 0.5) / 8, (y + 0.5) / 6] for x in range(7) for y in range(5)])
    found = match_points(source, source.roll((1, 1), (0, 1)), centres)
    expected = np.array([[x + 1, y + 1] for x in range(7) for y in range(5)])
    np.testing.assert_array_equal(found, expected)


def test_points_between_patches_are_interpolated():
    source = torch.zeros(1, 2, 2)
    source[0, 0, 0], source[0, 1, 1] = 1, 1
    target = torch.tensor([[[1.0, 0], [1, 1], [0, 1]]])
    assert match_points(source, target, np.array([[0.5, 0.5]])).tolist() == [[1, 0]]


def test_pictures_are_padded_at_right_and_bottom_with_white():
    picture = square_picture(Image(np.zeros((4, 6, 3), np.uint8), "RGB", 8))
    assert picture.array.shape == (6, 6, 3) and (picture.array[:4] == 0).all() and (picture.array[4:] == 255).all()


def test_layouts_give_the_points_of_both_pictures(tmp_path):
    data = open_keypoints(Job(layouts.spair(tmp_path / "a")))
    assert len(data.pairs) == 8 and {pair.group for pair in data.pairs} == {"cat", "dog"}
    first = data.pairs[0]
    np.testing.assert_array_equal(first.target_points - first.source_points, [[4, 0]] * 3)
    assert first.box_side == 16
    table = open_keypoints(Job(layouts.keypoint_table(tmp_path / "b")))
    assert [len(pair.source_points) for pair in table.pairs] == [3, 3, 2, 2, 3, 3, 3, 3, 3], (
        "hidden points are left out"
    )
