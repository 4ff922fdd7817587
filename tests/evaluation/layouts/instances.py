"""Retrieval sets as published, a table of labels, and pictures without any label."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

from tests.evaluation.layouts.drawing import picture, save


def roxford(root: Path) -> Path:
    names = [f"all_souls_{number:06d}" for number in range(8)]
    queries = ["all_souls_q0", "all_souls_q1"]
    for number, name in enumerate([*names, *queries]):
        save(root / "jpg" / f"{name}.jpg", picture(number % 2, number)[0])
    gnd = [{"bbx": [0, 0, 40, 40], "easy": [kind, kind + 2], "hard": [kind + 4], "junk": [kind + 6]} for kind in (0, 1)]
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({"imlist": names, "qimlist": queries, "gnd": gnd}))
    return root


def amstertime(root: Path) -> Path:
    for number in (0, 1, 3, 7, 12):
        array = picture(number, number)[0]
        save(root / "new" / f"{number:04d}.png", array)
        save(root / "old" / f"{number:04d}.jpg", np.roll(array, 3, axis=1))
    return root


def labelled_csv(root: Path) -> Path:
    lines = ["file,place"]
    for number in range(10):
        save(root / "pictures" / f"{number}.jpg", picture(number % 3, number)[0])
        lines.append(f"pictures/{number}.jpg,place {number % 3}")
    (root / "places_labels.csv").write_text("\n".join(lines) + "\n")
    return root


def any_pictures(root: Path) -> Path:
    for number in range(10):
        save(root / f"{number}.jpg", picture(number % 3, number)[0])
    return root


def met(root: Path) -> Path:
    """Six exhibits of one or two pictures; of both lists of questions two thirds are about exhibits."""
    database = []
    for exhibit in range(6):
        for number in range(1 + exhibit % 2):
            path = f"MET/{10 * exhibit + 7}/{number}.jpg"
            save(root / path, picture(exhibit, number, left=4 * exhibit)[0])
            database.append({"id": 10 * exhibit + 7, "path": path})
    parts: dict[str, list[dict[str, object]]] = {"val": [], "test": []}
    for seed, (part, rows) in enumerate(parts.items()):
        for exhibit in (0, 2, 3, 5):
            path = f"test_met/{part}{exhibit}.jpg"
            save(root / path, picture(exhibit, 40 + seed, left=4 * exhibit)[0])
            rows.append({"path": path, "MET_id": 10 * exhibit + 7})
        for folder in ("test_noart", "test_other"):
            path = f"{folder}/{part}.jpg"
            save(root / path, np.full((48, 48, 3), 90 + 50 * seed, np.uint8))
            rows.append({"path": path})
    (root / "ground_truth").mkdir()
    for name, rows in (("MET_database", database), ("valset", parts["val"]), ("testset", parts["test"])):
        (root / "ground_truth" / f"{name}.json").write_text(json.dumps(rows))
    return root
