"""Linear detection: what patches are told to say, boxes from what they say, and the data sets."""

import numpy as np
import pytest
import torch
from PIL import Image

from opendino.errors import DataError
from opendino.evaluation.datasets.boxes import open_boxes
from opendino.evaluation.datasets.detections import open_detections
from opendino.evaluation.datasets.objects import read_coco, read_voc, require_placed
from opendino.evaluation.metrics.detection import Truth, match, mean_ap
from opendino.evaluation.patch_objects import SeenObjects, patch_targets, patches_loss, to_detections
from opendino.evaluation.protocol import Job
from tests.evaluation import layouts

GRID, PX = (6, 8), (16.0, 10.0)
"""Patches of 16 pixels across and 10 down."""


def seen(boxes, classes=None, unclear=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    count = len(boxes)
    truth = Truth(
        boxes,
        np.zeros(count, np.int64) if classes is None else np.array(classes),
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
        np.zeros(count, bool) if unclear is None else np.array(unclear),
    )
    return SeenObjects(None, torch.zeros(*GRID, 5), (60, 128), truth)


def shown(one, classes=2):
    """Class of each patch [h, w], -1 for none, and which count [h, w]."""
    targets, known = patch_targets(one, classes)
    wanted = targets[:, :-4]
    return torch.where(wanted.any(1), wanted.argmax(1), -1).unflatten(0, GRID), known.unflatten(0, GRID)


def test_patches_about_the_middle_of_an_object_show_it():
    classes, known = shown(seen([(0, 0, 128, 60)], [1]))
    # The middle is a corner of four patches; the next ones are 1.5 patches away, which is too far.
    assert (classes[1:5, 2:6][1:3, 1:3] == 1).all() and known.all()
    assert int((classes == 1).sum()) == 4 and classes[0, 0] == -1


def test_a_small_object_is_shown_by_the_nearest_patch_and_wins_over_a_large_one():
    classes, _ = shown(seen([(33, 21, 36, 23), (0, 0, 128, 60)], [0, 1]))
    assert classes[2, 2] == 0 and int((classes == 0).sum()) == 1
    inside, _ = shown(seen([(66, 31, 69, 33), (0, 0, 128, 60)], [0, 1]))
    assert inside[3, 4] == 0 and int((inside == 1).sum()) == 3


def test_patches_of_a_crowd_count_for_nothing_but_objects_in_it_do():
    classes, known = shown(seen([(0, 0, 64, 60), (17, 11, 31, 19)], [0, 1], [True, False]))
    assert not known[:, :4][classes[:, :4] < 0].any() and known[:, 4:].all() and known[1, 1] and classes[1, 1] == 1
    assert not (classes == 0).any()


def test_boxes_without_area_teach_nothing():
    one = seen([(5, 5, 5, 9), (40, 20, 80, 40)], [1, 0])
    classes, known = shown(one)
    assert not (classes == 1).any() and (classes == 0).any() and known.all()
    assert torch.isfinite(patch_targets(one, 2)[0]).all()


def outputs_of(one, classes=2):
    targets, _ = patch_targets(one, classes)
    return torch.cat([12 * targets[:, :-4] - 6, targets[:, -4:]], 1)


def test_right_answers_of_patches_are_the_objects_each_once():
    one = seen([(3, 4, 60, 50), (70, 8, 120, 40), (33, 21, 36, 23)], [0, 1, 1])
    found = to_detections(outputs_of(one), one)
    order = np.lexsort((found.boxes[:, 0],))
    np.testing.assert_allclose(found.boxes[order], [(3, 4, 60, 50), (33, 21, 36, 23), (70, 8, 120, 40)], atol=1e-3)
    assert found.classes[order].tolist() == [0, 1, 1] and (found.scores > 0.99).all()
    assert mean_ap(match([one.truth], [found], 2).by_class()) == 1


def test_equal_boxes_of_two_classes_are_both_kept_and_wild_ones_stay_in_the_picture():
    one = seen([(3, 4, 60, 50)])
    outputs = torch.full((48, 6), -20.0)
    outputs[20, :2] = 3
    outputs[20, 2:] = torch.tensor([0, 0, 30.0, 30.0])
    outputs[0, 0], outputs[0, 2:] = 3, torch.tensor([-900.0, 0, 0, 0])
    found = to_detections(outputs, one)
    assert sorted(found.classes.tolist()) == [0, 1]
    np.testing.assert_array_equal(found.boxes, [(0, 0, 128, 60)] * 2)
    assert len(to_detections(torch.full((48, 6), -20.0), one).boxes) == 0


def targets():
    codes = torch.tensor([[0.2, -0.1, 1.0, 1.5], [0, 0, 0, 0], [0.4, 0.4, 0.1, 0.2]])
    return torch.cat([torch.tensor([[0.0, 1], [0, 0], [1, 0]]), codes], 1)


def test_the_loss_is_0_for_the_right_answer_and_counts_boxes_of_objects_alone():
    wanted = targets()
    right = torch.cat([40 * wanted[:, :2] - 20, wanted[:, 2:]], 1)
    assert float(patches_loss(right, wanted)) == pytest.approx(0, abs=1e-6)
    nowhere = right.clone()
    nowhere[1, 2:] = 5.0
    assert float(patches_loss(nowhere, wanted)) == pytest.approx(0, abs=1e-6)
    for row, column in ((0, 1), (1, 0), (0, 2), (2, 5)):
        wrong = right.clone()
        wrong[row, column] += -25 if row == 0 and column == 1 else 25 if column < 2 else 1
        assert float(patches_loss(wrong, wanted)) > 0.1


def test_crowds_and_difficult_objects_are_unclear_and_classes_keep_their_names(tmp_path):
    data = open_detections(Job(layouts.coco_parts(tmp_path / "coco")))
    assert data.class_names == ["green", "red"] and (len(data.train), len(data.val)) == (10, 10), "in order of ids"
    first, last = (data.truth(data.val[number], 48, 48) for number in (0, 9))
    assert first.classes.tolist() == [1] and first.boxes.tolist() == [[0, 16, 16, 32]] and first.areas.tolist() == [256]
    assert last.unclear.tolist() == [True] and not first.unclear.any()
    assert first.boxes.shape == (1, 4) and data.val[0].image.is_file()
    one = open_detections(Job(tmp_path / "coco", settings={"agnostic": True}))
    assert one.class_names == ["object"] and {int(one.truth(each, 48, 48).classes[0]) for each in one.val} == {0}
    voc = open_detections(Job(layouts.voc_parts(tmp_path / "voc")))
    assert (voc.name, voc.split, len(voc.train), len(voc.val)) == ("voc2007", "test", 6, 4)
    assert [voc.truth(one, 48, 48).unclear.tolist() for one in voc.train[2:5]] == [[False], [True], [False]]
    assert len(voc.truth(voc.val[3], 48, 48).boxes) == 0, (
        "a picture without objects is scored: what is found there is false"
    )
    newer = open_detections(Job(layouts.voc_2012_parts(tmp_path / "newer"), limit=3))
    assert (newer.name, newer.split, len(newer.train), len(newer.val)) == ("voc2012", "val", 3, 3)


def test_text_files_say_shares_of_the_picture_and_outlines_their_box(tmp_path):
    data = open_detections(Job(layouts.yolo(tmp_path)))
    assert data.class_names == ["red", "green"] and len(data.val) == 10 and not data.skipped
    square, outline, nothing = (data.truth(data.val[number], 96, 48) for number in (1, 4, 9))
    np.testing.assert_allclose(square.boxes, [(8, 32, 24, 64)])
    assert square.classes.tolist() == [1] and square.areas.tolist() == [pytest.approx(16 * 32)]
    np.testing.assert_allclose(outline.boxes, [(0, 32, 16, 64)])
    assert len(nothing.boxes) == 0, "a picture without a file shows nothing"
    (tmp_path / "classes.txt").rename(tmp_path / "train" / "labels" / "classes.txt")
    assert open_detections(Job(tmp_path)).class_names == ["red", "green"], "as tools that draw boxes leave it"
    (tmp_path / "train" / "labels" / "classes.txt").unlink()
    assert open_detections(Job(tmp_path)).class_names == ["0", "1"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0 0.5 0.5 0.1", "line 1 has 3 numbers after its class"),
        ("0 0.5 0.5 0.1 0.1\n\n1 0.5 0.5 0.1 0.1 0.9", "line 3 has 5 numbers after its class"),
        ("0 a b c d", "line 1 is no class number and numbers"),
        ("cat 0.5 0.5 0.1 0.1", "line 1 is no class number and numbers"),
        ("-1 0.5 0.5 0.1 0.1", "line 1 is of class -1, classes.txt names 2"),
        ("2 0.5 0.5 0.1 0.1", "line 1 is of class 2, classes.txt names 2"),
        ("0 24 24 8 8", "no shares of the picture's sides"),
        ("0 nan 0.5 0.1 0.1", "no shares of the picture's sides"),
        ("0 0.5 0.5 0 0.1", "holds a box without area"),
        ("0 0.5 0.5 -0.04 0.1", "holds a box without area"),
    ],
)
def test_rows_that_are_no_objects_of_yolo_are_told_by_their_line(rows, said, tmp_path):
    root = layouts.yolo(tmp_path)
    (root / "val" / "labels" / "000000000001.txt").write_text(rows)
    with pytest.raises(DataError, match=f"000000000001.txt.*{said}"):
        open_detections(Job(root))


def test_folders_of_yolo_by_their_other_names_are_read_and_doubtful_ones_refused(tmp_path):
    root = layouts.yolo(tmp_path)
    usual = open_detections(Job(root))
    for kind in ("images", "labels"):
        (root / kind).mkdir()
        for part, name in (("train", "train"), ("val", "valid")):
            (root / part / kind).rename(root / kind / name)
    for part in ("train", "val"):
        (root / part).rmdir()
    other = open_detections(Job(root))
    assert [one.image.name for one in other.val] == [one.image.name for one in usual.val]
    assert "2 without objects" in other.words()
    (root / "labels" / "valid" / "typo.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"typo.txt: has no picture in images/valid/"):
        open_detections(Job(root))
    (root / "labels" / "valid" / "typo.txt").unlink()
    (root / "classes.txt").write_text("red\ngreen", encoding="utf-8-sig")
    assert open_detections(Job(root)).class_names == ["red", "green"], "a mark of byte order is no part of a name"
    for names, said in (("red\nred", "names red twice"), ("red\n\ngreen", "has an empty line")):
        (root / "classes.txt").write_text(names)
        with pytest.raises(DataError, match=said):
            open_detections(Job(root))
    (root / "classes.txt").write_bytes("gr\xfcn".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as text"):
        open_detections(Job(root))
    (root / "annotations").mkdir()
    for part in ("train", "valid"):
        (root / "annotations" / part).mkdir()
    with pytest.raises(DataError, match="has annotations/ and labels/"):
        open_detections(Job(root))


def test_pictures_that_are_not_those_that_were_marked_are_left_out_by_name(tmp_path):
    data = open_detections(Job(layouts.plain_boxes(tmp_path)))
    assert len(data.truth(data.val[0], 48, 48).boxes) == 1
    for size in ((24, 24), (48, 24)):
        with pytest.raises(DataError, match=f"was marked at 48x48 pixels, upright it has {size[1]}x{size[0]}"):
            data.truth(data.val[0], *size)
    boxed = open_boxes(Job(tmp_path)).pictures[0]
    assert boxed.read().array.shape == (48, 48, 3)
    Image.open(boxed.image).resize((24, 24)).save(boxed.image)
    with pytest.raises(DataError, match="was marked at 48x48"):
        boxed.read()
    require_placed(np.array([[-5.0, 0, 3, 3]]), (10, 10), 10, 10)
    for outside in ((10.5, 0, 12, 3), (-4, -4, -1, 3)):
        with pytest.raises(DataError, match="outside the picture"):
            require_placed(np.array([outside]), None, 10, 10)


def test_classes_that_nothing_teaches_are_named(tmp_path):
    root = layouts.yolo(tmp_path)
    assert not open_detections(Job(root)).warnings()
    for file in (root / "train" / "labels").iterdir():
        file.write_text(file.read_text().replace("1 0", "0 0", 1))
    (said,) = open_detections(Job(root)).warnings()
    assert said == "1 of 2 scored classes are in no train picture and count as 0: green"
    assert not open_detections(Job(root, settings={"agnostic": True})).warnings()


def test_parts_of_objects_are_no_objects(tmp_path):
    root = layouts.voc_boxes(tmp_path)
    objects = read_voc(root / "VOCdevkit" / "VOC2007" / "Annotations" / "000001.xml")
    assert objects.boxes.tolist() == [[8, 16, 24, 32]] and objects.names == ("cat",)
    assert len(open_boxes(Job(root)).pictures[1].boxes) == 1


def test_a_picture_without_annotation_is_left_out_by_name(tmp_path):
    data = open_detections(Job(layouts.plain_boxes(tmp_path)))
    assert [(one.id, one.reason) for one in data.skipped] == [("val/images/000001.jpg", "no annotation")]
    assert len(data.train) == 5 and len(data.val) == 4 and data.class_names == ["cat"]
    (tmp_path / "val" / "images" / "000003.jpg").unlink()
    with pytest.raises(DataError, match="has no picture"):
        open_detections(Job(tmp_path))


def test_files_that_are_no_annotations_say_so(tmp_path):
    broken = tmp_path / "a.json"
    for text in ('{"images": []}', '{"images": [], "annotations": 3, "categories": []}', "[]"):
        broken.write_text(text)
        with pytest.raises(DataError, match="no COCO instances file"):
            read_coco(broken)
    square = '{"image_id": 1, "category_id": 5, "bbox": [0, 0, 4, 4]}'
    broken.write_text(f'{{"images": [{{"id": 1, "file_name": "a.jpg"}}], "annotations": [{square}], "categories": []}}')
    with pytest.raises(DataError, match="is of category 5, not listed"):
        read_coco(broken)
    for box in ("[0, 0, -4, 4]", "[0, 0, NaN, 4]"):
        broken.write_text(
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 5, "name": "a"}], '
            f'"annotations": [{{"id": 8, "image_id": 1, "category_id": 5, "bbox": {box}}}]}}'
        )
        with pytest.raises(DataError, match="annotation 8 has the box"):
            read_coco(broken)
    broken.write_text(broken.read_text().replace("NaN", "0").replace('"image_id": 1', '"image_id": 3'))
    assert read_coco(broken)[2] == 1, "annotations of pictures that are not listed are counted"
    twice = '{"id": 1, "file_name": "a.jpg"}'
    broken.write_text(f'{{"images": [{twice}, {twice}], "annotations": [], "categories": []}}')
    with pytest.raises(DataError, match="lists an id of images twice"):
        read_coco(broken)
    image, category = '{"id": 1, "file_name": "a.jpg", "height": 0, "width": 0}', '{"id": 5, "name": "a"}'
    mark = '{"id": 8, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4], "area": null}'
    broken.write_text(f'{{"images": [{image}], "categories": [{category}], "annotations": [{mark}]}}')
    ((_, objects),) = read_coco(broken)[1]
    assert objects.areas.tolist() == [12] and objects.size is None
    xml = tmp_path / "a.xml"
    box = "<xmin>{}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    for left in ("12", "x"):
        xml.write_text(f"<annotation><object><bndbox>{box.format(left)}</bndbox></object></annotation>")
        with pytest.raises(DataError, match=r"without area|cannot be read"):
            read_voc(xml)


def test_sets_without_boxes_on_one_side_are_refused(tmp_path):
    root = layouts.plain_boxes(tmp_path)
    for file in (root / "val" / "annotations").iterdir():
        file.write_text("<annotation></annotation>")
    with pytest.raises(DataError, match="has no val picture with a clear object"):
        open_detections(Job(root))
    unnamed = layouts.plain_boxes(tmp_path / "unnamed")
    for file in (unnamed / "val" / "annotations").iterdir():
        file.write_text(file.read_text().replace("<name>cat</name>", ""))
    with pytest.raises(DataError, match="has an object without a name"):
        open_detections(Job(unnamed))
