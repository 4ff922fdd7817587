"""Segmentation sets as published, and a plain folder of images and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.evaluation.layouts.drawing import picture, save


def ade20k(root: Path) -> Path:
    base = root / "ADEChallengeData2016"
    for part, short, count in (("training", "train", 6), ("validation", "val", 4)):
        for number in range(1, count + 1):
            array, mask = picture(number % 2, number, left=8 * (number % 4))
            labels = np.where(mask, 1 + number % 2, 3).astype(np.uint8)
            labels[:2] = 0
            name = f"ADE_{short}_{number:08d}"
            save(base / "images" / part / f"{name}.jpg", array)
            save(base / "annotations" / part / f"{name}.png", labels)
    return root


def cityscapes(root: Path) -> Path:
    for part, city, count in (("train", "aachen", 6), ("val", "frankfurt", 4)):
        for number in range(count):
            array, mask = picture(number % 2, number, left=8 * (number % 4))
            labels = np.where(mask, (26, 24)[number % 2], 7).astype(np.uint8)
            labels[:2] = 1
            stem = f"{city}_000000_{number:06d}"
            save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", array)
            save(root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png", labels)
    return root


def loveda(root: Path) -> Path:
    for part, count in (("Train", 3), ("Val", 2)):
        for place in ("Urban", "Rural"):
            for number in range(count):
                array, mask = picture(number % 2, number, left=8 * (number % 4))
                labels = np.where(mask, 2 + number % 2, 7).astype(np.uint8)
                labels[:2] = 0
                save(root / part / place / "images_png" / f"{number}.png", array)
                save(root / part / place / "masks_png" / f"{number}.png", labels)
    return root


def isaid(root: Path) -> Path:
    """Tiles of two large pictures; pieces of their names tell where they were cut."""
    for part, name, count in (("train", "P0001", 6), ("val", "P0003", 4)):
        for number in range(count):
            array, mask = picture(number % 2, number, left=8 * (number % 4))
            labels = np.where(mask, 1 + 13 * (number % 2), 0).astype(np.uint8)
            labels[:2] = 255
            stem = f"{name}_0_48_{48 * number}_{48 * number + 48}"
            save(root / "iSAID" / "img_dir" / part / f"{stem}.png", array)
            save(root / "iSAID" / "ann_dir" / part / f"{stem}_instance_color_RGB.png", labels, "P")
    return root


def voc_segmentation(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    for part, count, first in (("train", 6, 0), ("val", 4, 6)):
        names = [f"2007_{first + number:06d}" for number in range(count)]
        for number, name in enumerate(names):
            array, mask = picture(number % 2, number, left=8 * (number % 4))
            labels = np.where(mask, 15 - number % 2, 0).astype(np.uint8)
            labels[15, :] = 255
            save(base / "JPEGImages" / f"{name}.jpg", array)
            save(base / "SegmentationClass" / f"{name}.png", labels, "P")
        listing = base / "ImageSets" / "Segmentation" / f"{part}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n")
    return root


def plain_masks(root: Path) -> Path:
    for part, count in (("train", 6), ("val", 4)):
        for number in range(count):
            array, mask = picture(0, number, left=8 * (number % 4))
            labels = np.where(mask, 1, 0).astype(np.uint8)
            labels[0] = 11
            save(root / part / "images" / f"{number:03d}.jpg", array)
            save(root / part / "masks" / f"{number:03d}.png", labels)
    return root
