"""Drawn pictures: the truth and what was found are at their places, small, and of any kind of picture."""

import numpy as np
import pytest

from opendino.evaluation.examples import (
    FOUND,
    NEAREST_PX,
    SIDE_PX,
    TRUE,
    of_boxes,
    of_classes,
    of_depth,
    of_detections,
    of_neighbours,
    of_objects,
)
from opendino.pages.overlay import class_colour

GREY = np.full((100, 200, 3), 128, np.uint8)


def where(drawing, colour):
    """Rows and columns of the outermost pixels of a colour: top, bottom, left, right."""
    rows, columns = np.nonzero((drawing == colour).all(-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_boxes_are_drawn_where_they_are():
    mask = np.zeros((100, 200), bool)
    mask[20:50, 30:80] = True
    drawn = of_boxes("a", GREY, np.array([[10, 20, 60, 70]]), (30, 20, 80, 50), mask, "found")
    assert where(drawn.truth, TRUE) == (20, 69, 10, 59) and where(drawn.found, FOUND) == (20, 49, 30, 79)
    assert drawn.found[90, 150].mean() < 80 < drawn.found[35, 55].mean(), "outside the part it is darker"
    assert (drawn.id, drawn.says) == ("a", "found")


def test_detections_are_drawn_in_the_colours_of_their_classes():
    boxes, classes = np.array([[10, 20, 60, 70], [80, 10, 120, 40]]), np.array([0, 256])
    drawn = of_detections("a", GREY, (boxes, classes), (boxes[:1], np.array([1])), "")
    first, second, third = (tuple(bytes.fromhex(class_colour(number)[1:])) for number in range(3))
    assert where(drawn.truth, first) == (20, 69, 10, 59) and where(drawn.truth, second) == (10, 39, 80, 119)
    assert where(drawn.found, second) == (20, 69, 10, 59) and not (drawn.found == third).all(-1).any()
    nothing = np.empty((0, 4)), np.empty(0, np.int64)
    assert (of_detections("a", GREY, nothing, nothing, "").found == GREY).all()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_large_pictures_of_any_channels_become_small_rgb(channels):
    picture = np.zeros((900, 1200, channels), np.uint8)
    boxed = of_boxes("a", picture, np.array([[0, 0, 1200, 900]]), (0, 0, 600, 450), np.ones((900, 1200), bool), "")
    assert boxed.truth.shape == boxed.found.shape == (SIDE_PX * 3 // 4, SIDE_PX, 3)
    assert where(boxed.truth, TRUE) == (0, SIDE_PX * 3 // 4 - 1, 0, SIDE_PX - 1)


def test_classes_and_objects_are_told_apart_and_255_is_dark():
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 20:40], truth[:, 40:] = 1, 255
    drawn = of_classes("a", GREY, truth, np.zeros((40, 60), np.int64), "")
    first, second, none = (drawn.truth[20, column].astype(int) for column in (10, 30, 50))
    assert np.abs(first - second).sum() > 100 and none.max() < 60 and (drawn.found[20, 50] == first).all()
    tracked = of_objects("a", GREY, (truth == 1).astype(np.uint8), np.zeros((40, 60), np.uint8), "")
    assert tracked.truth[20, 30].mean() > tracked.truth[20, 10].mean() and (tracked.found == tracked.found[0, 0]).all()


def test_depths_share_the_scale_of_the_truth():
    metres = np.linspace(1, 5, 60)[None].repeat(40, 0)
    valid = np.ones_like(metres, bool)
    valid[:10] = False
    drawn = of_depth("a", metres, valid, metres.copy(), "")
    assert (drawn.truth[:10] == 0).all() and (drawn.truth[20:] == drawn.found[20:]).all()
    assert (of_depth("a", metres, valid, metres + 100, "").found == drawn.found[0, -1]).all()


def test_neighbours_are_framed_by_whether_they_are_right():
    drawn = of_neighbours("a", GREY, [(GREY, True), (GREY[:, :50], False)], "1 of 2 right")
    assert drawn.found.shape == (NEAREST_PX, 2 * NEAREST_PX, 3)
    assert where(drawn.found, TRUE)[3] < NEAREST_PX <= where(drawn.found, FOUND)[2]
