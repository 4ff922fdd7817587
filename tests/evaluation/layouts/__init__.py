"""About ten small pictures a protocol in the *published* directory and file layout, with something in them to find.

Each builder writes into a folder and returns it. Pictures show a bright textured square on a dark ground; its place is
the truth of masks, boxes and videos, its texture that of classes. `CASES` holds every layout that a protocol reads.
"""

from __future__ import annotations

from tests.evaluation.layouts.boxes import (
    coco,
    coco_20k,
    coco_parts,
    plain_boxes,
    voc_2012_parts,
    voc_boxes,
    voc_parts,
    yolo,
)
from tests.evaluation.layouts.classes import (
    class_folders,
    imagenet,
    imagenet_c,
    imagenet_variants,
    inaturalist,
    objectnet,
)
from tests.evaluation.layouts.earth import geobench
from tests.evaluation.layouts.finegrained import twelve_sets
from tests.evaluation.layouts.geometry import (
    keypoint_table,
    kitti,
    middlebury_2003,
    middlebury_2014,
    navi,
    nyu,
    plain_depth,
    spair,
)
from tests.evaluation.layouts.instances import amstertime, any_pictures, labelled_csv, met, roxford
from tests.evaluation.layouts.masks import ade20k, cityscapes, isaid, loveda, plain_masks, voc_segmentation
from tests.evaluation.layouts.videos import action_frames, davis, kinetics, plain_videos, ssv2, ucf101

VIDEO = {"frames": 3, "rows": 6, "grid": 2, "width": 48, "depth": 1, "epochs": 20}

CASES = [
    ("knn", imagenet, {}),
    ("linear", imagenet, {}),
    ("linear", inaturalist, {}),
    ("linear-grid", imagenet, {"epochs": 3}),
    ("finegrained", twelve_sets, {"grid": 2}),
    ("ood", imagenet_variants, {}),
    ("ood-objectnet", objectnet, {}),
    ("imagenet-c", imagenet_c, {}),
    ("logreg", imagenet, {"grid": 3}),
    ("few-shot", imagenet, {"shots": "1,2", "tries": 2}),
    ("seg-linear", ade20k, {"rows": 6, "steps": 60}),
    ("seg-linear", cityscapes, {"rows": 6, "steps": 60}),
    ("seg-linear", loveda, {"rows": 6, "steps": 60}),
    ("seg-linear", isaid, {"rows": 6, "steps": 60}),
    ("seg-linear", voc_segmentation, {"rows": 6, "steps": 60}),
    ("seg-linear", plain_masks, {"rows": 6, "steps": 60, "ignore": 11}),
    ("seg-knn", ade20k, {"rows": 6}),
    ("depth-linear", nyu, {"rows": 6, "steps": 60}),
    ("depth-linear", kitti, {"rows": 6, "steps": 60}),
    ("depth-linear", plain_depth, {"rows": 6, "steps": 60, "high_m": 20}),
    ("corr-navi", navi, {"rows": 6}),
    ("corr-spair", spair, {"rows": 6}),
    ("corr-spair", keypoint_table, {"rows": 6}),
    ("corr-stereo", middlebury_2003, {"rows": 6}),
    ("corr-stereo", middlebury_2014, {"rows": 6}),
    ("discovery", voc_boxes, {}),
    ("discovery", plain_boxes, {"rows": 6}),
    ("discovery", coco_20k, {"rows": 6}),
    ("discovery", coco, {"taus": "0.2", "rows": 6}),
    ("det-linear", coco_parts, {"rows": 6, "steps": 60}),
    ("det-linear", voc_parts, {"rows": 6, "steps": 60}),
    ("det-linear", voc_2012_parts, {"rows": 6, "steps": 60}),
    ("det-linear", plain_boxes, {"rows": 6, "steps": 60}),
    ("det-linear", yolo, {"rows": 6, "steps": 60}),
    ("vos", davis, {"rows": 6}),
    ("vos", plain_videos, {"rows": 6}),
    ("video", ucf101, VIDEO),
    ("video", ssv2, VIDEO),
    ("video", kinetics, VIDEO),
    ("video", action_frames, VIDEO),
    ("retrieval", roxford, {}),
    ("retrieval", amstertime, {}),
    ("retrieval", labelled_csv, {}),
    ("retrieval", class_folders, {}),
    ("retrieval-met", met, {}),
    ("geobench", geobench, {"rows": 6, "steps": 60, "mask_steps": 60}),
    ("health", any_pictures, {"rows": 6}),
    ("invariance", any_pictures, {"pictures": 5}),
]
"""Protocol, builder, settings."""
