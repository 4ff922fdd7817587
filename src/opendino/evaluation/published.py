"""Numbers that the paper prints, to stand beside ours. Source: arXiv 2508.10104 and the model cards; see `table`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """value in the unit of ours; dinov2: the same for DINOv2 g/14 as the paper ran it, None where it has none."""

    protocol: str
    dataset: str
    metric: str
    model: str
    value: float
    dinov2: float | None
    table: str


TABLE = (
    Published("knn", "imagenet", "top1", "7B/16, 200k steps", 84.6, None, "table 1"),
    Published("linear", "imagenet", "top1", "7B/16", 88.4, 87.3, "table 7"),
    Published("linear-grid", "imagenet", "top1_best_on_val", "7B/16", 88.4, 87.3, "table 7"),
    Published("finegrained", "fine-s", "mean", "7B/16", 93.0, 92.6, "table 22"),
    Published("finegrained", "fine-s", "top1_food101", "7B/16", 96.9, 95.6, "table 22"),
    Published("finegrained", "fine-s", "top1_cifar10", "7B/16", 99.6, 99.5, "table 22"),
    Published("finegrained", "fine-s", "top1_cifar100", "7B/16", 96.0, 94.5, "table 22"),
    Published("finegrained", "fine-s", "top1_sun397", "7B/16", 81.1, 78.9, "table 22"),
    Published("finegrained", "fine-s", "top1_cars", "7B/16", 95.0, 94.6, "table 22"),
    Published("finegrained", "fine-s", "top1_aircraft", "7B/16", 88.2, 88.5, "table 22"),
    Published("finegrained", "fine-s", "top1_dtd", "7B/16", 87.2, 86.8, "table 22"),
    Published("finegrained", "fine-s", "top1_pets", "7B/16", 97.0, 96.8, "table 22"),
    Published("finegrained", "fine-s", "top1_caltech101", "7B/16", 94.8, 95.9, "table 22"),
    Published("finegrained", "fine-s", "top1_flowers", "7B/16", 99.7, 99.7, "table 22"),
    Published("finegrained", "fine-s", "top1_cub", "7B/16", 92.4, 91.6, "table 22"),
    Published("finegrained", "fine-s", "map_voc2007", "7B/16", 88.2, 88.4, "table 22"),
    Published("ood", "imagenet", "top1_v2", "7B/16", 81.4, 79.5, "table 7"),
    Published("ood", "imagenet", "top1_real", "7B/16", 90.4, 89.9, "table 7"),
    Published("ood", "imagenet", "top1_r", "7B/16", 91.1, 81.1, "table 7"),
    Published("ood", "imagenet", "top1_a", "7B/16", 86.9, 81.7, "table 7"),
    Published("ood", "imagenet", "top1_sketch", "7B/16", 71.3, 65.4, "table 7"),
    Published("ood-objectnet", "objectnet", "top1", "7B/16", 79.0, 66.4, "table 7"),
    Published("imagenet-c", "imagenet-c", "mce", "7B/16", 19.6, 24.1, "table 7"),
    Published("seg-linear", "ade20k", "miou", "7B/16", 55.9, 49.5, "table 3"),
    Published("seg-linear", "cityscapes", "miou", "7B/16", 81.1, 75.6, "table 3"),
    Published("seg-linear", "voc2012", "miou", "7B/16", 86.6, 83.1, "table 3"),
    Published("seg-linear", "loveda", "miou", "7B/16, UPerNet", 56.2, None, "table 19"),
    Published("seg-linear", "isaid", "miou", "7B/16, UPerNet", 71.4, None, "table 19"),
    Published("depth-linear", "nyuv2", "rmse", "7B/16", 0.309, 0.372, "table 3"),
    Published("depth-linear", "kitti", "rmse", "7B/16", 2.346, 2.624, "table 3"),
    Published("corr-navi", "navi", "recall", "7B/16", 64.4, 60.1, "table 4"),
    Published("corr-spair", "spair71k", "recall", "7B/16", 58.7, 56.1, "table 4"),
    Published("vos", "davis2017", "jf", "7B/16, L", 83.3, 76.6, "table 5"),
    Published("video", "ucf101", "top1", "7B/16", 93.5, 93.5, "table 6"),
    Published("video", "ssv2", "top1", "7B/16", 70.1, 67.4, "table 6"),
    Published("video", "kinetics400", "top1", "7B/16", 87.8, 84.4, "table 6"),
    Published("discovery", "voc2007", "corloc_best_tau", "7B/16", 66.1, 55.6, "figure 14"),
    Published("discovery", "voc2012", "corloc_best_tau", "7B/16", 69.5, 60.4, "figure 14"),
    Published("discovery", "coco20k", "corloc_best_tau", "7B/16", 55.1, 45.4, "figure 14"),
    Published("retrieval", "roxford5k", "map_medium", "7B/16", 81.1, 78.2, "table 23"),
    Published("retrieval", "roxford5k", "map_hard", "7B/16", 60.7, 58.2, "table 23"),
    Published("retrieval", "rparis6k", "map_medium", "7B/16", 93.3, 92.7, "table 23"),
    Published("retrieval", "rparis6k", "map_hard", "7B/16", 87.1, 84.6, "table 23"),
    Published("retrieval-met", "met", "gap", "7B/16", 55.4, 44.6, "table 23"),
    Published("retrieval-met", "met", "gap_known", "7B/16", 77.7, 73.0, "table 23"),
    Published("retrieval-met", "met", "accuracy", "7B/16", 80.7, 75.2, "table 23"),
    Published("geobench", "geobench", "classification", "7B/16", 81.6, None, "table 18"),
    Published("geobench", "geobench", "segmentation", "7B/16, DPT", 75.9, None, "table 18"),
    Published("retrieval", "amstertime", "map", "7B/16", 56.5, 48.9, "table 23"),
)


def published(protocol: str, dataset: str, metric: str) -> Published | None:
    """The paper's number for the same protocol, set and metric (k-NN: whatever k), or None."""
    wanted = metric.split("_k")[0] if protocol == "knn" and "standardised" not in metric else metric
    for row in TABLE:
        if (row.protocol, row.dataset, row.metric) == (protocol, dataset, wanted):
            return row
    return None
