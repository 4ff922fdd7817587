"""Video sets as published, and plain folders of frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.evaluation.layouts.drawing import film, picture, save


def davis(root: Path) -> Path:
    names = ["bear", "camel"]
    for shift, name in enumerate(names):
        for frame in range(5):
            array, mask = picture(shift, 7, left=4 + 2 * frame)
            save(root / "DAVIS" / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg", array)
            save(root / "DAVIS" / "Annotations" / "480p" / name / f"{frame:05d}.png", mask.astype(np.uint8), "P")
    listing = root / "DAVIS" / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("\n".join(names))
    return root


def plain_videos(root: Path) -> Path:
    for frame in range(10):
        array, mask = picture(0, 7, left=4 + 2 * frame)
        save(root / "square" / "images" / f"{frame:05d}.jpg", array)
        save(root / "square" / "masks" / f"{frame:05d}.png", mask.astype(np.uint8) * 255)
    return root


def ucf101(root: Path) -> Path:
    lists = {"trainlist01.txt": [], "testlist01.txt": []}
    names = ("ApplyEyeMakeup", "Archery")
    for kind, name in enumerate(names):
        for group in range(1, 6):
            stem = f"{name}/v_{name}_g{group:02d}_c01.avi"
            film(root / "UCF-101" / stem, kind, 10 * kind + group)
            held = group < 3
            lists["testlist01.txt" if held else "trainlist01.txt"].append(stem if held else f"{stem} {kind + 1}")
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    for listing, lines in lists.items():
        (folder / listing).write_text("\n".join(lines) + "\n")
    (folder / "classInd.txt").write_text("".join(f"{kind + 1} {name}\n" for kind, name in enumerate(names)))
    return root


def ssv2(root: Path) -> Path:
    templates = ("Pushing [something] left", "Holding [something]")
    (root / "labels").mkdir(parents=True)
    for part, first in (("train", 1), ("validation", 11)):
        rows = [{"id": str(first + number), "template": templates[number % 2]} for number in range(5)]
        (root / "labels" / f"{part}.json").write_text(json.dumps(rows))
        for number, row in enumerate(rows):
            film(root / "made.avi", number % 2, first + number)
            (root / "made.avi").rename(root / f"{row['id']}.webm")  # the kind follows from the content
    (root / "labels" / "labels.json").write_text(
        json.dumps({name.replace("[", "").replace("]", ""): str(number) for number, name in enumerate(templates)})
    )
    return root


def kinetics(root: Path) -> Path:
    """One listed video a part has vanished; those of train lie in folders of classes, those of val do not."""
    (root / "annotations").mkdir(parents=True)
    for part, first in (("train", 10), ("val", 20)):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for number in range(6):
            label, name = ("abseiling", "air drumming")[number % 2], f"-id_{first + number}"
            lines.append(f"{label},{name},{number},{number + 10},{part}")
            if number < 5:
                folder = root / part / label if part == "train" else root / part
                film(root / "made.avi", number % 2, first + number)
                folder.mkdir(parents=True, exist_ok=True)
                (root / "made.avi").rename(folder / f"{name}_{number:06d}_{number + 10:06d}.mp4")
        (root / "annotations" / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return root


def action_frames(root: Path) -> Path:
    for part, count in (("train", 3), ("val", 2)):
        for kind, name in enumerate(("run", "sit")):
            for clip in range(count):
                for index in range(3):
                    array = picture(kind, clip + 50 * (part == "val"), left=4 + 4 * index)[0]
                    save(root / part / name / f"clip{clip}" / f"{index}.png", array)
    return root
