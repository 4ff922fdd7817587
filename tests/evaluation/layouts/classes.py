"""Class sets as published: ImageNet, its variants and its corruptions."""

from __future__ import annotations

import json
from pathlib import Path

from opendino.evaluation.metrics.robustness import ALEXNET_ERROR
from tests.evaluation.layouts.drawing import picture, save


def imagenet(root: Path) -> Path:
    for part, count, base in (("train", 4, 0), ("val", 2, 100)):
        for kind, wnid in enumerate(("n01440764", "n01443537")):
            for number in range(count):
                save(root / part / wnid / f"{wnid}_{number}.JPEG", picture(kind, base + 10 * kind + number)[0])
    return root


def class_folders(root: Path) -> Path:
    return imagenet(root) / "val"


WNIDS = [f"n{1440764 + 100 * number:08d}" for number in range(11)]


def imagenet_variants(root: Path) -> Path:
    """Eleven classes, so that a sort of V2's folders as text ("10" before "2") would give wrong numbers."""
    for number, wnid in enumerate(WNIDS):
        for copy in range(2):
            save(root / "train" / wnid / f"{wnid}_{copy}.JPEG", picture(number, copy)[0])
        save(root / "imagenetv2-matched-frequency-format-val" / str(number) / "a.jpeg", picture(number, 5)[0])
        save(root / "sketch" / wnid / "sketch_0.JPEG", picture(number, 6)[0])
        save(root / "val" / wnid / f"ILSVRC2012_val_{11 - number:08d}.JPEG", picture(number, 7)[0])
        if number % 2:
            save(root / "imagenet-r" / wnid / "art_0.jpg", picture(number, 8)[0])
            save(root / "imagenet-a" / wnid / "0.jpg", picture(number, 9)[0])
    # In the order of file names: the last class comes first.
    (root / "real.json").write_text(json.dumps([[10 - index] if index else [] for index in range(11)]))
    return root


def imagenet_c(root: Path) -> Path:
    imagenet(root)
    for corruption in ALEXNET_ERROR:
        for severity in range(1, 6):
            for kind, wnid in enumerate(("n01440764", "n01443537")):
                folder = root / "imagenet-c" / corruption / str(severity) / wnid
                save(folder / "ILSVRC2012_val_00000001.JPEG", picture(kind, severity)[0])
    return root
