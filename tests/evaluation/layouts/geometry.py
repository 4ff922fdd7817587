"""Depth and correspondence sets as published, and plain folders of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.evaluation.layouts.drawing import picture, save


def _depth(mask: np.ndarray) -> np.ndarray:
    """Millimetres: the square 1.5 m, the ground 4 m, the first rows not measured."""
    depth = np.where(mask, 1500, 4000).astype(np.uint16)
    depth[:3] = 0
    return depth


def nyu(root: Path) -> Path:
    for part, scene, count in (("train", "kitchen_0028", 6), ("test", "bathroom", 4)):
        for number in range(count):
            array, mask = picture(0, number, left=8 * (number % 4))
            save(root / part / scene / f"rgb_{number:05d}.jpg", array)
            save(root / part / scene / f"sync_depth_{number:05d}.png", _depth(mask))
    return root


def kitti(root: Path) -> Path:
    """Frames of KITTI's size: a bright square 10 m away, 40 m around it; one frame without truth."""
    for part, count in (("train", 3), ("test", 2)):
        lines = []
        for number in range(count):
            array = np.full((375, 1242, 3), 40, np.uint8)
            depth = np.full((375, 1242), 40 * 256, np.uint16)
            top, left = 200, 300 + 100 * number
            array[top : top + 120, left : left + 200] = 220
            depth[top : top + 120, left : left + 200] = 10 * 256
            depth[::2] = 0  # a laser sees some rows alone
            drive = f"2011_09_26_drive_000{number}_sync"
            picture_path = f"2011_09_26/{drive}/image_02/data/0000000005.png"
            truth = f"{drive}/proj_depth/groundtruth/image_02/0000000005.png"
            save(root / picture_path, array)
            save(root / truth, depth)
            lines.append(f"{picture_path} {truth} 721.5377")
        lines.append("2011_09_26/drive/image_02/data/0000000009.png None 721.5377")
        (root / f"eigen_{part}_files_with_gt.txt").write_text("\n".join(lines) + "\n")
    return root


def plain_depth(root: Path) -> Path:
    for part, count in (("train", 6), ("val", 4)):
        for number in range(count):
            array, mask = picture(0, number, left=8 * (number % 4))
            save(root / part / "images" / f"{number}.jpg", array)
            save(root / part / "depth" / f"{number}.png", _depth(mask))
    return root


def spair(root: Path) -> Path:
    base = root / "SPair-71k"
    for kind, category in enumerate(("cat", "dog")):
        for number in range(5):
            save(base / "JPEGImages" / category / f"2008_{number:06d}.jpg", picture(kind, number, left=4 * number)[0])
        for number in range(4):
            corners = [[[x + 4 * shift, y] for x, y in ((0, 16), (15, 16), (15, 31))] for shift in (number, number + 1)]
            left = 4 * (number + 1)
            pair = {
                "category": category,
                "src_imname": f"2008_{number:06d}.jpg",
                "trg_imname": f"2008_{number + 1:06d}.jpg",
                "src_kps": corners[0],
                "trg_kps": corners[1],
                "trg_bndbox": [left, 16, left + 16, 32],
            }
            # The published names hold a colon.
            file = base / "PairAnnotation" / "test" / f"{number:06d}-2008_{number}-2008_{number + 1}:{category}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(pair))
    return root


def navi(root: Path) -> Path:
    """Two objects, five views each, between which the camera turns by a quarter about its axis.

    The object's frame lies 30, -20 and 450 mm before the first camera. A multiview scene lies beside and is not read.
    """
    for kind, thing in enumerate(("3d_dollhouse_sink", "keywest_showpiece")):
        scene = root / "navi_v1" / thing / "wild_set"
        rows = []
        for number in range(5):
            array, mask = picture(kind, kind, top=10, left=20)
            metres = 0.5 + 0.1 * (np.indices(mask.shape)[1] > 27)
            depth = np.where(mask, 655.35 / metres, 0)
            save(scene / "images" / f"{number:03d}.jpg", np.rot90(array, number))
            save(scene / "depth" / f"{number:03d}.png", np.rot90(depth, number).round().astype(np.uint16))
            half = -np.pi / 4 * number
            x, y = ((30, -20), (-20, -30), (-30, 20), (20, 30))[number % 4]
            camera = {
                "q": [np.cos(half), 0, 0, np.sin(half)],
                "t": [x, y, 450],
                "focal_length": 60.0 * 10,
                "camera_model": "pixel_5",
            }
            rows.append({"filename": f"{number:03d}.jpg", "camera": camera, "image_size": [480, 480], "split": "train"})
        for folder in (scene, scene.parent / "multiview_00_pixel_5"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "annotations.json").write_text(json.dumps(rows[::-1]))
    return root


def keypoint_table(root: Path) -> Path:
    lines = ["image,nose_x,nose_y,tail_x,tail_y,ear_x,ear_y"]
    for number in range(10):
        save(root / "images" / f"{number:03d}.jpg", picture(0, number, left=2 * number)[0])
        left = 2 * number
        hidden = "," if number == 3 else f"{left + 15},16"
        lines.append(f"{number:03d}.jpg,{left},16,{left + 15},31,{hidden}")
    (root / "keypoints.csv").write_text("\n".join(lines) + "\n")
    return root


def _stereo_scene(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left, right, and the disparities of both: a square 8 px nearer than a ground that is 2 px off."""
    right, mask = picture(0, number, left=16)
    ground = np.random.default_rng(number).integers(0, 40, (48, 48, 3), np.uint8)
    left, square = np.roll(ground, 2, axis=1), np.roll(mask, 8, axis=1)
    right = np.where(mask[..., None], right, ground)
    left = np.where(square[..., None], np.roll(right, 8, axis=1), left)
    return left, right, np.where(square, 8, 2), np.where(mask, 8, 2)


def middlebury_2003(root: Path) -> Path:
    for number, scene in enumerate(("cones", "teddy")):
        left, right, disparity, back = _stereo_scene(number)
        for name, array in (("im2", left), ("im6", right)):
            save(root / scene / f"{name}.png", array)
        for name, values in (("disp2", disparity), ("disp6", back)):
            save(root / scene / f"{name}.png", (4 * values).astype(np.uint8))
    return root


def middlebury_2014(root: Path) -> Path:
    """Known from row 3 on; the rest is infinite, as published."""
    left, right, disparity, back = _stereo_scene(5)
    save(root / "Motorcycle-perfect" / "im0.png", left)
    save(root / "Motorcycle-perfect" / "im1.png", right)
    for name, values in (("disp0", disparity), ("disp1", back)):
        stored = values.astype("<f4")
        stored[:3] = np.inf
        header = b"Pf\n48 48\n-0.003922\n"
        (root / "Motorcycle-perfect" / f"{name}.pfm").write_bytes(header + stored[::-1].tobytes())
    (root / "Motorcycle-perfect" / "calib.txt").write_text("baseline=193.001\n")
    return root
