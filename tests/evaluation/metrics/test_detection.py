"""Average precision: the values of the specification, the library's own way from COCO's files, and draws of images."""

import json

import numpy as np
import pytest

from opendino.errors import ShapeError
from opendino.evaluation.metrics.detection import AREAS, IOUS, Detections, Truth, match, mean_ap


def truth(boxes, classes=None, crowd=None):
    """Boxes x, y, width, height, as the specification and COCO write them."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    areas = boxes[:, 2] * boxes[:, 3]
    boxes[:, 2:] += boxes[:, :2]
    count = len(boxes)
    return Truth(
        boxes,
        np.zeros(count, np.int64) if classes is None else np.array(classes, np.int64),
        areas,
        np.zeros(count, bool) if crowd is None else np.array(crowd, bool),
    )


def detections(boxes, scores, classes=None):
    seen = truth(boxes, classes)
    return Detections(seen.boxes, seen.classes, np.array(scores, np.float64))


OBJECTS = [(0, 0, 100, 100), (100, 100, 100, 100)]
FOUND = detections([(0, 0, 100, 100), (150, 0, 20, 20), (100, 100, 100, 62)], [0.9, 0.8, 0.7])


@pytest.mark.oracle
def test_ap_of_one_exact_one_false_and_one_loose_box():
    each = match([truth(OBJECTS)], [FOUND], 1).by_class()
    assert mean_ap(each) == pytest.approx(0.603960, abs=1e-6)
    assert mean_ap(each[IOUS.index(0.5)]) == pytest.approx(0.834983, abs=1e-6)
    assert mean_ap(each[IOUS.index(0.75)]) == pytest.approx(0.504950, abs=1e-6)


@pytest.mark.oracle
def test_a_crowd_takes_what_would_be_false():
    each = match([truth([*OBJECTS, (140, 0, 60, 60)], crowd=[0, 0, 1])], [FOUND], 1).by_class()
    assert (mean_ap(each), mean_ap(each[0])) == pytest.approx((0.653465, 1), abs=1e-6)


def test_the_second_box_of_an_object_is_false_and_the_order_is_that_of_scores():
    twice = [detections([OBJECTS[0], OBJECTS[0], OBJECTS[1]], scores) for scores in ([0.9, 0.8, 0.7], [0.9, 0.1, 0.7])]
    late, early = (mean_ap(match([truth(OBJECTS)], [one], 1).by_class()) for one in twice)
    # 51 of the 101 recalls at precision 1, the others at 2 of 3.
    assert late == pytest.approx((51 + 50 * 2 / 3) / 101) and early == 1


def made(seed, images=12, classes=4, digits=2):
    """Truth with crowds and all sizes, and detections near it, far from it and of other classes, some scores equal."""
    generator = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(generator.integers(0, 6))
        size = np.exp(generator.uniform(np.log(8), np.log(250), (count, 2)))
        boxes = np.hstack([generator.uniform(0, 300, (count, 2)), size])
        # The last class has no object anywhere.
        labels = generator.integers(0, classes - 1, count)
        truths.append(truth(boxes, labels, generator.uniform(size=count) < 0.15))
        near = np.repeat(boxes, 2, 0)
        near += generator.normal(0, 0.08, near.shape) * np.tile(near[:, 2:], 2)
        far = np.hstack([generator.uniform(0, 300, (7, 2)), generator.uniform(5, 100, (7, 2))])
        others = np.concatenate([np.repeat(labels, 2), generator.integers(0, classes, 7)])
        found.append(detections(np.vstack([near, far]), generator.uniform(size=len(others)).round(digits), others))
    return truths, found


def library_stats(truths, found, classes, folder):
    """Summary of faster-coco-eval as its users call it: files in COCO's form, ids with gaps, all areas."""
    from faster_coco_eval import COCO, COCOeval_faster

    ids = [1000 + 7 * number for number in range(len(truths))]

    def rows(sides, extra):
        return [
            {
                "image_id": image,
                "category_id": 10 + 3 * int(label),
                "bbox": [*map(float, box[:2]), float(box[2] - box[0]), float(box[3] - box[1])],
                **extra(one, place),
            }
            for image, one in zip(ids, sides, strict=True)
            for place, (box, label) in enumerate(zip(one.boxes, one.classes, strict=True))
        ]

    objects = rows(truths, lambda one, at: {"area": float(one.areas[at]), "iscrowd": int(one.unclear[at])})
    files = folder / "truth.json", folder / "found.json"
    files[0].write_text(
        json.dumps(
            {
                "images": [{"id": one, "width": 500, "height": 500} for one in ids],
                "categories": [{"id": 10 + 3 * one, "name": f"class {one}"} for one in range(classes)],
                "annotations": [{"id": number, **one} for number, one in enumerate(objects, 1)],
            }
        )
    )
    files[1].write_text(json.dumps(rows(found, lambda one, at: {"score": float(one.scores[at])})))
    loaded = COCO(str(files[0]))
    library = COCOeval_faster(loaded, loaded.loadRes(str(files[1])), "bbox", print_function=lambda *_: None)
    library.run()
    return library.stats_as_dict


@pytest.mark.parametrize("seed", range(4))
def test_ap_is_that_of_faster_coco_eval(seed, tmp_path):
    truths, found = made(seed)
    wanted = library_stats(truths, found, 4, tmp_path)
    each = match(truths, found, 4).by_class()
    assert np.isnan(each[:, 3]).all() and 0.05 < wanted["AP_all"] < 0.95
    ours = [mean_ap(each), mean_ap(each[0]), mean_ap(each[IOUS.index(0.75)])]
    ours += [mean_ap(match(truths, found, 4, area).by_class()) for area in AREAS.values()]
    assert ours == pytest.approx([wanted[f"AP_{name}"] for name in ("all", "50", "75", "small", "medium", "large")])


def test_a_draw_counts_images_as_often_as_it_says():
    truths, found = made(7)
    times = np.random.default_rng(0).multinomial(len(truths), np.full(len(truths), 1 / len(truths)))
    assert 0 in times and times.max() > 1
    repeated = [np.repeat(np.arange(len(truths)), times).tolist()] * 2
    again = match(*([side[at] for at in places] for side, places in zip((truths, found), repeated, strict=True)), 4)
    matched = match(truths, found, 4)
    np.testing.assert_array_equal(matched.by_class(times), again.by_class())
    np.testing.assert_array_equal(matched.by_class(), matched.by_class(np.ones(len(truths), np.int64)))
    with pytest.raises(ShapeError, match="as many images"):
        matched.by_class(times + 1)


def test_the_order_of_images_changes_nothing():
    truths, found = made(3, digits=9)
    backwards = match(truths[::-1], found[::-1], 4).by_class()
    np.testing.assert_array_equal(backwards, match(truths, found, 4).by_class())


def test_nothing_found_is_0_and_nothing_to_find_is_no_number():
    nothing = detections([], [])
    assert mean_ap(match([truth(OBJECTS)], [nothing], 2).by_class()) == 0
    assert np.isnan(mean_ap(match([truth([])], [FOUND], 1).by_class()))
    assert np.isnan(mean_ap(match([truth([])], [nothing], 1).by_class()))
    for truths, found in (([], []), ([truth([])], [])):
        with pytest.raises(ShapeError, match="one of each an image"):
            match(truths, found, 1)
