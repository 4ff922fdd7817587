"""About ten small pictures a protocol in the *published* directory and file layout, with something in them to find.

Each builder writes into a folder and returns it. Pictures show a bright textured square on a dark ground; its place is
the truth of masks, boxes and videos, its texture that of classes.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from opendino.evaluation.metrics.robustness import ALEXNET_ERROR

SIDE = 48


def picture(kind: int, seed: int, top: int = 16, left: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [48, 48, 3] and the square's mask [48, 48] bool; `kind` is its colour and stripes."""
    generator = np.random.default_rng(seed)
    array = generator.integers(0, 40, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + 16, left : left + 16] = True
    rows, columns = np.indices((SIDE, SIDE))
    stripes = ((rows if kind % 2 else columns) // 2 % 2 * 60 + 190).astype(np.uint8)
    array[mask, kind % 3] = stripes[mask]
    return array, mask


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(array)
    if mode == "P":
        made = Image.fromarray(array, "L").convert("P")
        made.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
        made.putdata(array.ravel().tolist())
    made.save(path)


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


XML = """<annotation><filename>{name}.jpg</filename><size><width>48</width><height>48</height></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>17</ymin><xmax>{xmax}</xmax><ymax>32</ymax></bndbox></object></annotation>"""


def voc_boxes(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2007"
    names = [f"{number:06d}" for number in range(10)]
    for number, name in enumerate(names):
        left = 8 * (number % 4)
        save(base / "JPEGImages" / f"{name}.jpg", picture(0, number, left=left)[0])
        text = XML.format(name=name, xmin=left + 1, xmax=left + 16)
        if number == 9:
            text = "<annotation></annotation>"
        file = base / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    listing = base / "ImageSets" / "Main" / "trainval.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(names))
    return root


def coco(root: Path) -> Path:
    images, annotations = [], []
    for number in range(10):
        name = f"{number:012d}.jpg"
        save(root / "val2017" / name, picture(0, number, left=8 * (number % 4))[0])
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        box = [8.0 * (number % 4), 16.0, 16.0, 16.0]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": int(number == 9)}
        )
    file = root / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    categories = [{"id": 1, "name": "square"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


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


def keypoint_table(root: Path) -> Path:
    lines = ["image,nose_x,nose_y,tail_x,tail_y,ear_x,ear_y"]
    for number in range(10):
        save(root / "images" / f"{number:03d}.jpg", picture(0, number, left=2 * number)[0])
        left = 2 * number
        hidden = "," if number == 3 else f"{left + 15},16"
        lines.append(f"{number:03d}.jpg,{left},16,{left + 15},31,{hidden}")
    (root / "keypoints.csv").write_text("\n".join(lines) + "\n")
    return root


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


def film(path: Path, kind: int, seed: int, frames: int = 5) -> None:
    """A square that wanders, as a lossless video."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "bgr0"
        for index in range(frames):
            array = picture(kind, seed, top=8, left=4 + 4 * index)[0]
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


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


def action_frames(root: Path) -> Path:
    for part, count in (("train", 3), ("val", 2)):
        for kind, name in enumerate(("run", "sit")):
            for clip in range(count):
                for index in range(3):
                    array = picture(kind, clip + 50 * (part == "val"), left=4 + 4 * index)[0]
                    save(root / part / name / f"clip{clip}" / f"{index}.png", array)
    return root


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


VIDEO = {"frames": 3, "rows": 6, "grid": 2, "width": 48, "depth": 1, "epochs": 20}

CASES = [
    ("knn", imagenet, {}),
    ("linear", imagenet, {}),
    ("linear-grid", imagenet, {"epochs": 3}),
    ("ood", imagenet_variants, {}),
    ("imagenet-c", imagenet_c, {}),
    ("logreg", imagenet, {"grid": 3}),
    ("few-shot", imagenet, {"shots": "1,2", "tries": 2}),
    ("seg-linear", ade20k, {"rows": 6, "steps": 60}),
    ("seg-linear", cityscapes, {"rows": 6, "steps": 60}),
    ("seg-linear", loveda, {"rows": 6, "steps": 60}),
    ("seg-linear", voc_segmentation, {"rows": 6, "steps": 60}),
    ("seg-linear", plain_masks, {"rows": 6, "steps": 60, "ignore": 11}),
    ("seg-knn", ade20k, {"rows": 6}),
    ("depth-linear", nyu, {"rows": 6, "steps": 60}),
    ("depth-linear", kitti, {"rows": 6, "steps": 60}),
    ("depth-linear", plain_depth, {"rows": 6, "steps": 60, "high_m": 20}),
    ("corr-spair", spair, {"rows": 6}),
    ("corr-spair", keypoint_table, {"rows": 6}),
    ("discovery", voc_boxes, {}),
    ("discovery", coco, {"sweep": "false", "rows": 6}),
    ("vos", davis, {"rows": 6}),
    ("vos", plain_videos, {"rows": 6}),
    ("video", ucf101, VIDEO),
    ("video", ssv2, VIDEO),
    ("video", action_frames, VIDEO),
    ("retrieval", roxford, {}),
    ("retrieval", amstertime, {}),
    ("retrieval", labelled_csv, {}),
    ("retrieval", class_folders, {}),
    ("health", any_pictures, {"rows": 6}),
    ("invariance", any_pictures, {"pictures": 5}),
]
"""Protocol, builder, settings: every layout that a built protocol reads."""
