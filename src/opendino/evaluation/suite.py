"""The suite table: a row for every protocol of the paper, built or not; the command, the docs and the tests read it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from opendino.errors import UsageError
from opendino.evaluation import (
    actions,
    classification,
    depth,
    detection,
    discovery,
    finegrained,
    geobench,
    health,
    invariance,
    keypoints,
    logistic,
    met,
    navi,
    retrieval,
    segmentation,
    shifts,
    stereo,
    vos,
)
from opendino.evaluation.datasets import actions as actions_sets
from opendino.evaluation.datasets import (
    boxes,
    classes,
    depths,
    detections,
    instances,
    masks,
    objectnet,
    variants,
    videos,
)
from opendino.evaluation.datasets import finegrained as finegrained_sets
from opendino.evaluation.datasets import geobench as geobench_sets
from opendino.evaluation.datasets import keypoints as keypoint_sets
from opendino.evaluation.datasets import met as met_set
from opendino.evaluation.datasets import navi as navi_set
from opendino.evaluation.datasets import stereo as stereo_sets
from opendino.evaluation.protocol import Entry

BOTH = ("fast", "full")
IMAGENET = "image-net.org (register, research only), or your own pictures in class folders"
SEGMENTATION = (
    "sceneparsing.csail.mit.edu (ADE20k), cityscapes-dataset.com (register), host.robots.ox.ac.uk/pascal/VOC, "
    "github.com/Junjue-Wang/LoveDA, captain-whu.github.io/iSAID (tiles: mmsegmentation's script)"
)

NOT_BUILT = tuple(
    Entry(name, about, sets, layout="", suites=(), not_built=reason)
    for name, about, sets, reason in (
        (
            "ocr",
            "six sets where text counts",
            "GTSRB, Logo-2K+, ...",
            "their files are not read; `logreg` takes class folders",
        ),
        ("normals", "surface normals", "NYUv2", "needs a DPT head; the metric is there"),
        (
            "det",
            "detection",
            "COCO, COCO-O",
            "the Plain-DETR head is not built yet; `det-linear` reads frozen patches",
        ),
        (
            "seg-m2f",
            "segmentation with Mask2Former",
            "ADE20k, COCO-Stuff, Cityscapes, VOC 2012",
            "its head is not built yet",
        ),
        (
            "depth-dpt",
            "zero-shot depth",
            "NYUv2, KITTI, ETH3D, ScanNet, DIODE",
            "the DPT head is not built yet",
        ),
        ("canopy", "canopy height", "SatLidar, Open-Canopy", "the metrics are there, readers and the DPT head are not"),
        ("det-dior", "detection in aerial pictures", "DIOR", "the detection head is not built yet"),
        ("3d", "cameras and points by VGGT", "Re10K, CO3Dv2, DTU, ScanNet", "fine-tunes the backbone on a cluster"),
        ("zs-class", "classes by their names", "ImageNet, ObjectNet", "the text tower is not built yet"),
        ("zs-retrieval", "pictures by captions and back", "COCO", "the text tower is not built yet"),
        ("zs-seg", "segmentation by class names", "ADE20k, Cityscapes", "the text tower is not built yet"),
        ("fairness", "accuracy by income and region", "Dollar Street", "needs a classifier of ImageNet-22k"),
    )
)

ENTRIES = (
    Entry(
        "knn",
        "class by the nearest pictures, no training",
        "ImageNet, any class folders",
        classes.LAYOUT,
        suites=BOTH,
        open=classes.open_classes,
        score=classification.evaluate_knn,
        settings={"k": (10, 20)},
        source=IMAGENET,
    ),
    Entry(
        "linear",
        "a linear classifier on CLS, its penalty chosen on held-out train",
        "ImageNet, iNaturalist 2018, any class folders (Places205, iNaturalist 2021 are such)",
        classes.LAYOUT,
        suites=BOTH,
        open=classes.open_classes,
        score=classification.evaluate_linear,
        source=IMAGENET,
    ),
    Entry(
        "linear-grid",
        "the paper's 30 SGD heads on CLS in one pass, the head chosen on held-out train, and as the paper does",
        "ImageNet, iNaturalist 2018, any class folders (Places205, iNaturalist 2021 are such)",
        classes.LAYOUT,
        open=classes.open_classes,
        score=classification.evaluate_linear_grid,
        settings={"epochs": 10.0, "batch": 1024},
        source=IMAGENET,
    ),
    Entry(
        "logreg",
        "logistic regression by L-BFGS on CLS, its C chosen on a held-out tenth of train",
        "ImageNet, any class folders",
        classes.LAYOUT,
        open=classes.open_classes,
        score=logistic.evaluate_logreg,
        settings={"grid": 45},
        source=IMAGENET,
    ),
    Entry(
        "few-shot",
        "logistic regression from 1 to 16 pictures a class",
        "ImageNet, any class folders",
        classes.LAYOUT,
        open=classes.open_classes,
        score=logistic.evaluate_few_shot,
        settings={"shots": (1, 2, 4, 8, 16), "tries": 5, "C": 1.0},
        source=IMAGENET,
    ),
    Entry(
        "finegrained",
        "logistic regression on CLS on up to twelve small sets, and their mean",
        "Fine-S: Food, CIFAR, SUN, Cars, Aircraft, VOC 2007, DTD, Pets, Caltech, Flowers, CUB",
        finegrained_sets.LAYOUT,
        open=finegrained_sets.open_finegrained,
        score=finegrained.evaluate_finegrained,
        settings={"grid": 45},
        source="torchvision.datasets downloads most of the twelve, the others have pages of their own",
    ),
    Entry(
        "ood",
        "a classifier fitted on ImageNet, applied unchanged to its variants",
        "ImageNet V2, ReaL, R, A, Sketch",
        variants.LAYOUT,
        open=variants.open_variants,
        score=shifts.evaluate_ood,
        source=IMAGENET
        + "; github.com/modestyachts/ImageNetV2, google-research/reassessed-imagenet, hendrycks/imagenet-r, "
        "hendrycks/natural-adv-examples, HaohanWang/ImageNet-Sketch",
    ),
    Entry(
        "ood-objectnet",
        "the same classifier on objects in odd places and views",
        "ObjectNet",
        objectnet.LAYOUT,
        open=objectnet.open_objectnet,
        score=shifts.evaluate_objectnet,
        shown={"crop": f"{objectnet.BORDER_PX} pixels off each side, then as the transform says"},
        source=IMAGENET + "; objectnet.dev",
    ),
    Entry(
        "imagenet-c",
        "the same classifier on 15 corruptions of 5 strengths: mCE",
        "ImageNet-C",
        variants.LAYOUT_C,
        open=variants.open_corrupted,
        score=shifts.evaluate_corruptions,
        source=IMAGENET + "; zenodo.org/records/2235448",
    ),
    Entry(
        "seg-linear",
        "a linear map from every patch to its class, fitted on whole pictures",
        "ADE20k, Cityscapes, VOC 2012, LoveDA, iSAID, any images and masks",
        masks.LAYOUT,
        suites=BOTH,
        open=masks.open_masks,
        score=segmentation.evaluate_linear_segmentation,
        settings={"rows": 32, "layer": -1, "steps": 1000, "batch": 2048, "ignore": masks.IGNORE},
        reads="patches",
        source=SEGMENTATION,
    ),
    Entry(
        "seg-knn",
        "every patch takes the classes of the nearest training patches (not of the paper)",
        "ADE20k, Cityscapes, VOC 2012, LoveDA, iSAID, any images and masks",
        masks.LAYOUT,
        open=masks.open_masks,
        score=segmentation.evaluate_knn_segmentation,
        settings={"rows": 32, "layer": -1, "k": 30, "bank": 200_000, "ignore": masks.IGNORE},
        reads="patches",
        source=SEGMENTATION,
    ),
    Entry(
        "det-linear",
        "a linear map from every patch to the class and the box of what it shows (not of the paper): AP of COCO",
        "COCO 2017, VOC 2007 and 2012, any pictures beside VOC's XML or YOLO's text files",
        detections.LAYOUT,
        open=detections.open_detections,
        score=detection.evaluate_linear_detection,
        settings={"rows": 32, "layer": -1, "steps": 2000, "batch": 2048, "agnostic": False},
        reads="patches",
        source="cocodataset.org, host.robots.ox.ac.uk/pascal/VOC",
    ),
    Entry(
        "depth-linear",
        "a linear map from every patch to metres, fitted on whole pictures",
        "NYUv2, KITTI Eigen, any images and 16-bit depth",
        depths.LAYOUT,
        open=depths.open_depths,
        score=depth.evaluate_linear_depth,
        settings={"rows": 30, "layer": -1, "steps": 1000, "batch": 1024, "high_m": 10.0},
        reads="patches",
        source="github.com/cleinc/bts (NYUv2 as read here, lists of KITTI), cvlibs.net/datasets/kitti (register)",
    ),
    Entry(
        "corr-navi",
        "points of an object found again in another view of it, by the nearest feature, scored in space",
        "NAVI",
        navi_set.LAYOUT,
        open=navi_set.open_navi,
        score=navi.evaluate_navi,
        settings={"rows": 32, "layer": -1},
        reads="patches",
        shown={"resize": "both sides to size", "crop": "square about the object", "final_norm": "with and without"},
        source="navidataset.github.io",
    ),
    Entry(
        "corr-spair",
        "keypoints found again in another picture, by the nearest patch",
        "SPair-71k, any keypoints.csv",
        keypoint_sets.LAYOUT,
        open=keypoint_sets.open_keypoints,
        score=keypoints.evaluate_keypoints,
        settings={"rows": 32, "layer": -1},
        reads="patches",
        shown={"resize": "padded with white to a square, both sides to size"},
        source="cvlab.postech.ac.kr/research/SPair-71k",
    ),
    Entry(
        "corr-stereo",
        "patches of the left eye found again by the right one (not of the paper)",
        "Middlebury 2003 and 2014",
        stereo_sets.LAYOUT,
        open=stereo_sets.open_stereo,
        score=stereo.evaluate_stereo,
        settings={"rows": 32, "layer": -1, "scale": 4.0},
        reads="patches",
        source="vision.middlebury.edu/stereo/data",
    ),
    Entry(
        "discovery",
        "one object a picture by TokenCut, no training: CorLoc",
        "VOC 2007 and 2012 trainval, COCO-20k, any COCO",
        boxes.LAYOUT,
        suites=BOTH,
        open=boxes.open_boxes,
        score=discovery.evaluate_discovery,
        settings={"tau": 0.2, "taus": discovery.TAUS, "rows": 0, "layer": -1},
        reads="patches",
        source="host.robots.ox.ac.uk/pascal/VOC, cocodataset.org; the list of COCO-20k: github.com/valeoai/LOST",
    ),
    Entry(
        "vos",
        "the first frame's mask carried through a video: J&F",
        "DAVIS 2017, YouTube-VOS, MOSE, videos with a mask a frame",
        videos.LAYOUT,
        suites=BOTH,
        open=videos.open_videos,
        score=vos.evaluate_vos,
        settings={"rows": 30, "layer": -1, "context": 7, "window": 12, "k": 5, "temperature": 0.2},
        reads="patches",
        source="davischallenge.org, youtube-vos.org, henghuiding.github.io/MOSE",
    ),
    Entry(
        "video",
        "action recognition by 18 attentive heads on patches of a few frames",
        "UCF101, SSv2, Kinetics-400, any class folders of videos",
        actions_sets.LAYOUT,
        open=actions_sets.open_actions,
        score=actions.evaluate_actions,
        settings={"frames": 16, "rows": 16, "grid": 4, "width": 192, "depth": 4, "epochs": 20.0, "batch": 64},
        reads="patches, pooled to a grid",
        shown={"crop": "middle square"},
        source="crcv.ucf.edu/data/UCF101.php, Qualcomm's page of Something-Something, "
        "github.com/cvdfoundation/kinetics-dataset",
    ),
    Entry(
        "retrieval",
        "the same place or thing among many pictures, by cosine: mAP",
        "revisited Oxford and Paris, AmsterTime, labels.csv, any class folders",
        instances.LAYOUT,
        suites=BOTH,
        open=instances.open_instances,
        score=retrieval.evaluate_retrieval,
        source="cmp.felk.cvut.cz/revisitop, github.com/seyrankhademi/AmsterTime, or your own pictures",
    ),
    Entry(
        "retrieval-met",
        "which exhibit of a museum it is, or none: GAP",
        "Met",
        met_set.LAYOUT,
        open=met_set.open_met,
        score=met.evaluate_met,
        source="cmp.felk.cvut.cz/met",
    ),
    Entry(
        "geobench",
        "classes and masks of the Earth's surface, six tasks each, and their means",
        "GEO-Bench 1.0",
        geobench_sets.LAYOUT,
        open=geobench_sets.open_geobench,
        score=geobench.evaluate_geobench,
        settings={"rows": 14, "steps": 2400, "batch": 32, "mask_steps": 1000, "mask_batch": 2048},
        reads="CLS; patches for masks",
        shown={
            "resize": "both sides to size",
            "interpolation": "bilinear",
            "mean": "band_stats.json",
            "std": "band_stats.json",
        },
        source="pip install geo-benchmark, then geobench-download (57 GB)",
    ),
    Entry(
        "health",
        "drift, outliers, rank and locality of features, no labels",
        "any pictures",
        health.LAYOUT,
        suites=BOTH,
        open=health.open_pictures,
        score=health.evaluate_health,
        settings={"pictures": 64, "rows": 14},
        reads="CLS and patches",
        source="any pictures of your own",
    ),
    Entry(
        "invariance",
        "how CLS and the patch map change with exposure, shadow, blur, JPEG, scale and more",
        "any pictures",
        health.LAYOUT,
        open=health.open_pictures,
        score=invariance.evaluate_invariance,
        settings={"pictures": 64},
        reads="CLS and patches",
        source="any pictures of your own",
    ),
    *NOT_BUILT,
)
PROTOCOLS: Mapping[str, Entry] = {entry.id: entry for entry in ENTRIES}


def find(ids: str) -> list[Entry]:
    """Protocols from "knn,linear", or of a suite from "fast" and "full". Raises UsageError, with the nearest name."""
    found: list[Entry] = []
    for name in filter(None, (part.strip() for part in ids.split(","))):
        if name in BOTH:
            found += [entry for entry in ENTRIES if name in entry.suites and entry.score is not None]
            continue
        if name not in PROTOCOLS:
            near = difflib.get_close_matches(name.lower(), [*PROTOCOLS, *BOTH], n=1)
            built = ", ".join(entry.id for entry in ENTRIES if entry.score is not None)
            raise UsageError(name, "no such protocol", f"did you mean {near[0]}?" if near else f"built: {built}")
        if PROTOCOLS[name].score is None:
            raise UsageError(name, f"is not built: {PROTOCOLS[name].not_built}", "see opendino evaluate --list")
        found.append(PROTOCOLS[name])
    if not found:
        raise UsageError(ids, "names no protocol", "opendino evaluate --list shows them")
    return list({entry.id: entry for entry in found}.values())
