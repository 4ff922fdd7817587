"""The suite table against the specification: every protocol and set of the paper is a row, built or with its reason."""

import pytest

from opendino.data.sources import open_source, split_stratified, subset
from opendino.errors import DataError
from opendino.evaluation.planning import open_data
from opendino.evaluation.protocol import Job
from opendino.evaluation.suite import ENTRIES, PROTOCOLS
from tests.data.drawing import write_photos
from tests.evaluation import layouts

SPECIFIED = {
    "3.1": {"knn": "ImageNet"},
    "3.2": {"linear": "ImageNet", "linear-grid": "ImageNet"},
    "3.3": {"logreg": "ImageNet", "few-shot": "ImageNet"},
    "3.4": {"ood": "V2, ReaL, R, A, Sketch", "imagenet-c": "ImageNet-C", "ood-objectnet": "ObjectNet"},
    "3.5 large": {"linear": "Places205, iNaturalist 2018, iNaturalist 2021"},
    "3.5 small": {"finegrained": "Food, CIFAR, SUN, Cars, Aircraft, VOC 2007, DTD, Pets, Caltech, Flowers, CUB"},
    "3.5 text": {"ocr": "GTSRB, Logo-2K+"},
    "4.2": {"seg-linear": "ADE20k, Cityscapes, VOC 2012, any images"},
    "4.3": {"seg-knn": "any images"},
    "5.1": {"depth-linear": "NYUv2, KITTI"},
    "5.2": {"normals": "NYUv2"},
    "5.3": {"corr-navi": "NAVI"},
    "5.4": {"corr-spair": "SPair-71k"},
    "6.1": {"discovery": "VOC 2007, 2012, COCO-20k"},
    "6.2": {"vos": "DAVIS 2017, YouTube-VOS, MOSE"},
    "6.3": {"video": "UCF101, SSv2, Kinetics-400"},
    "7.1, 7.3, 7.4": {"retrieval": "Oxford, Paris, AmsterTime, labels.csv"},
    "7.2": {"retrieval-met": "Met"},
    "8.1": {"det": "COCO, COCO-O"},
    "8.2": {"seg-m2f": "ADE20k, COCO-Stuff, Cityscapes, VOC 2012"},
    "8.3": {"depth-dpt": "NYUv2, KITTI, ETH3D, ScanNet, DIODE"},
    "8.4": {"3d": "Re10K, CO3Dv2, DTU, ScanNet"},
    "9": {"zs-class": "ImageNet, ObjectNet", "zs-retrieval": "COCO", "zs-seg": "ADE20k, Cityscapes"},
    "10.1": {"geobench": "GEO-Bench"},
    "10.2": {"canopy": "SatLidar, Open-Canopy"},
    "10.3": {"seg-linear": "LoveDA, iSAID", "det-dior": "DIOR"},
    "11": {"fairness": "Dollar Street"},
    "12": {"health": "any pictures"},
    "13": {"invariance": "any pictures"},
}
"""Section of the specification -> its rows, each with sets that it must name."""
OURS = {"corr-stereo", "det-linear"}
"""Rows beyond it."""


def test_the_table_has_every_protocol_and_set_of_the_specification():
    for section, rows in SPECIFIED.items():
        for name, sets in rows.items():
            assert name in PROTOCOLS, section
            assert [one for one in sets.split(", ") if one not in PROTOCOLS[name].datasets] == [], (section, name)
    assert {name for rows in SPECIFIED.values() for name in rows} | OURS == PROTOCOLS.keys()
    for entry in ENTRIES:
        assert (entry.score is None) == (entry.open is None) == bool(entry.not_built)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.score is not None], ids=lambda one: one.id)
def test_missing_data_are_one_line_with_the_layout_and_where_to_get_it(entry, tmp_path):
    assert entry.layout and entry.source
    job = Job(tmp_path, settings=entry.settings)
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as caught:
            open_data(entry, root, job)
        words = str(caught.value)
        assert "\n" not in words and words.count("expected: ") == 1 and "get it: " in words, words
        assert entry.layout.split("{")[0].split(":")[0][:12] in words


def test_pictures_with_masks_are_no_classes_no_videos_and_their_masks_no_pictures(tmp_path):
    root = layouts.plain_masks(tmp_path)
    for name, cause in (("knn", "no classes"), ("vos", "parts of a data set and no videos")):
        with pytest.raises(DataError, match=cause):
            open_data(PROTOCOLS[name], root, Job(root, settings=PROTOCOLS[name].settings))
    boxes = layouts.plain_boxes(tmp_path / "boxes")
    with pytest.raises(DataError, match="holds no video"):
        open_data(PROTOCOLS["video"], boxes, Job(boxes, settings=PROTOCOLS["video"].settings))
    pictures = open_data(PROTOCOLS["health"], root, Job(root, settings=PROTOCOLS["health"].settings))
    assert len(pictures.data.source) == len(list((root / "val" / "images").iterdir()))


def test_a_folder_of_class_folders_is_scored_on_the_fifth_that_is_held_out_while_training(tmp_path):
    for name in ("cat", "dog"):
        write_photos(tmp_path / name, 10)
    entry = PROTOCOLS["knn"]
    found = open_data(entry, tmp_path, Job(tmp_path, settings=entry.settings)).data
    whole = open_source(tmp_path)
    bank, queries = (subset(whole, part) for part in split_stratified(whole, 0.2, seed=0))
    assert (found.split, len(found.train), len(found.val)) == ("held-out fifth", 16, 4)
    assert (found.train.fingerprint, found.val.fingerprint) == (bank.fingerprint, queries.fingerprint)
    (tmp_path / "dog" / "masks").mkdir()
    with pytest.raises(DataError, match="has no train"):
        open_data(entry, tmp_path, Job(tmp_path, settings=entry.settings))
