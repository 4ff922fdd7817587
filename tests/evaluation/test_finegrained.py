"""The twelve small sets: who is in which part with which class, as torchvision reads the same files."""

import numpy as np
import pytest

from opendino.errors import DataError
from opendino.evaluation.datasets.finegrained import READERS, open_finegrained
from opendino.evaluation.protocol import Job
from tests.evaluation.layouts import finegrained as layouts

datasets = pytest.importorskip("torchvision.datasets", exc_type=ImportError)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return layouts.twelve_sets(tmp_path_factory.mktemp("fine"))


def test_every_set_is_found_with_both_parts_and_its_classes(root):
    data = open_finegrained(Job(root))
    assert list(data.sets) == [name for name, *_ in READERS] and len(data.sets) == 12
    for name, one in data.sets.items():
        counts = {"caltech101": (30 + 2, 2 + 1), "cifar10": (10, 3)}.get(name, (8, 4))
        assert (len(one.train), len(one.test)) == counts, name
        assert one.train.classes == one.test.classes
        assert not {one.train.id(i) for i in range(len(one.train))} & {one.test.id(i) for i in range(len(one.test))}
        for part in (one.train, one.test):
            for index in range(len(part)):
                if name != "voc2007":
                    # Class 0 is red, class 1 green.
                    strongest = part.read(index).array.reshape(-1, 3).max(0).argmax()
                    assert strongest == part.label(index) * (2 if name == "caltech101" else 1), (name, part.id(index))


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("food101", lambda root, part: datasets.Food101(root, part)),
        ("cars", lambda root, part: datasets.StanfordCars(root, part)),
        ("pets", lambda root, part: datasets.OxfordIIITPet(root, "trainval" if part == "train" else part)),
        ("aircraft", lambda root, part: datasets.FGVCAircraft(root, "trainval" if part == "train" else part)),
        ("dtd", lambda root, part: datasets.DTD(root, part)),
    ],
)
def test_torchvision_reads_the_same(root, tmp_path, name, build):
    ours = open_finegrained(Job(root)).sets[name]
    if name == "dtd":
        # It wants one more folder around, and keeps train and val apart.
        (tmp_path / "dtd").mkdir()
        (tmp_path / "dtd" / "dtd").symlink_to(root / "dtd")
        root = tmp_path
    for part, source in (("train", ours.train), ("test", ours.test)):
        peers = [build(root, part)] if name != "dtd" or part == "test" else [build(root, p) for p in ("train", "val")]
        files = [
            path
            for peer in peers
            for path in (
                getattr(peer, "_image_files", None) or getattr(peer, "_images", None) or [p for p, _ in peer._samples]
            )
        ]
        labels = [
            label
            for peer in peers
            for label in (getattr(peer, "_labels", None) or [label for _, label in peer._samples])
        ]
        theirs = {str(path).split("/")[-1]: label for path, label in zip(files, labels, strict=True)}
        mine = {source.id(i).split("/")[-1]: source.label(i) for i in range(len(source))}
        assert mine == theirs


def test_tags_of_voc_say_there_not_there_and_not_scored(root):
    _, test = open_finegrained(Job(root)).sets["voc2007"].tags
    cat, dog = 7, 11
    assert test[:, cat].tolist() == [1, 1, 0, 0] and test[:, dog].tolist() == [-1, 0, 1, 1]
    assert (np.delete(test, (cat, dog), 1) == 0).all()


def test_one_set_alone_is_recognised_and_a_missing_picture_is_named(root, tmp_path):
    assert list(open_finegrained(Job(root / "CUB_200_2011")).sets) == ["cub"]
    layouts.pets(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "images" / "Abyssinian_1.jpg").unlink()
    with pytest.raises(
        DataError, match=r"Abyssinian_1\.jpg: is missing, and 0 more pictures; expected: any of food-101"
    ):
        open_finegrained(Job(tmp_path))
    with pytest.raises(DataError, match="holds none of the twelve sets"):
        open_finegrained(Job(tmp_path / "oxford-iiit-pet" / "images"))


def test_a_cifar_batch_that_wants_to_run_something_does_not(tmp_path):
    layouts.cifar10(tmp_path)
    target = tmp_path / "hacked"
    evil = b"cos\nsystem\n(S'touch " + str(target).encode() + b"'\ntR."
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(evil)
    with pytest.raises(DataError, match="data_batch_3: is no batch of CIFAR"):
        open_finegrained(Job(tmp_path))
    assert not target.exists()
