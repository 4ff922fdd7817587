"""Retrieval sets as published, a table of labels, and pictures without any label."""

from __future__ import annotations

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
