"""GEO-Bench: bands by their statistics, labels of three kinds out of pickles that are not run, and damage."""

import json
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch

from opendino.errors import DataError, UsageError
from opendino.evaluation.datasets.geobench import open_geobench
from opendino.evaluation.datasets.pickles import read_array, read_stubbed_pickle
from opendino.evaluation.protocol import Job
from tests.evaluation import layouts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return layouts.geobench(tmp_path_factory.mktemp("earth"))


def test_tasks_say_what_their_labels_are(root):
    data = open_geobench(Job(root))
    assert {task.name: (task.kind, task.num_classes) for task in data.tasks} == {
        "m-bigearthnet": ("tags", 5),
        "m-eurosat": ("class", 10),
        "m-pv4ger": ("class", 2),
        "m-cashew-plant": ("mask", 7),
    }
    assert "4 of 12 tasks" in data.words() and "m-eurosat 4" in data.words()
    (one,) = open_geobench(Job(root / "classification_v1.0" / "m-eurosat", limit=2)).tasks
    assert one.name == "m-eurosat" and [len(names) for names in one.parts.values()] == [2, 2, 2]


def test_bands_have_their_mean_and_deviation_taken_out_and_truths_their_shape(root):
    tasks = {task.name: task for task in open_geobench(Job(root)).tasks}
    names = [name for part in tasks["m-eurosat"].parts.values() for name in part]
    bands = torch.stack([tasks["m-eurosat"].read_bands(name) for name in names])
    assert bands.shape == (14, 3, 48, 48)
    torch.testing.assert_close(bands.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(bands.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert [int(tasks["m-eurosat"].read_truth(name)) for name in names[:4]] == [3, 4, 3, 4]
    assert tasks["m-bigearthnet"].read_truth("test_1").tolist() == [1, 1, 0, 0, 0]
    mask = tasks["m-cashew-plant"].read_truth("valid_0")
    assert mask[0, 0] == 4 and mask[20, 4] == 1
    # Of two dates the first: the later one is all zeros.
    assert tasks["m-cashew-plant"].read_bands("valid_0").std() > 0.1


def test_numbers_of_numpy_are_read_from_any_pickle_and_nothing_else():
    for value in (np.arange(6).reshape(2, 3), np.array([1.5, 2], ">f4"), np.asfortranarray(np.ones((2, 3), np.uint8))):
        stub = read_stubbed_pickle(pickle.dumps(value, protocol=4), "here")
        np.testing.assert_array_equal(read_array(stub, "here"), value)
    assert read_array(read_stubbed_pickle(pickle.dumps(np.int64(7), protocol=4), "here"), "here") == 7
    for value in (np.array([{}, None], object), np.array(["a"])):
        with pytest.raises(DataError, match="array of numbers"):
            read_array(read_stubbed_pickle(pickle.dumps(value, protocol=4), "here"), "here")


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("hacked",)


def test_a_label_that_wants_to_run_something_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = layouts.geobench(tmp_path / "data") / "classification_v1.0" / "m-eurosat"
    (task,) = open_geobench(Job(folder)).tasks
    for bad in (str(pickle.dumps({"label": Evil()})), "__import__('os').mkdir('hacked')", "b'\\x80'", "x" * 2_000_000):
        with h5py.File(folder / "test_0.hdf5", "a") as file:
            if len(bad) > 60_000:  # attributes hold no more; a data set of the name is no label
                del file.attrs["pickle"]
            else:
                file.attrs["pickle"] = bad
        with pytest.raises(DataError, match=r"test_0\.hdf5"):
            task.read_truth("test_0")
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="what the labels are"):
        open_geobench(Job(folder))
    assert not (tmp_path / "hacked").exists()


def test_damage_is_one_line(tmp_path):
    folder = layouts.geobench(tmp_path) / "classification_v1.0" / "m-pv4ger"
    (task,) = open_geobench(Job(folder)).tasks
    with h5py.File(folder / "test_1.hdf5", "a") as file:
        del file["Red"]
    (folder / "test_2.hdf5").write_bytes(b"damaged")
    with pytest.raises(DataError, match="no band 'Red'"):
        task.read_bands("test_1")
    with pytest.raises(DataError, match="cannot be read as a picture of GEO-Bench"):
        task.read_bands("test_2")
    (folder / "test_3.hdf5").unlink()
    with pytest.raises(DataError, match=r"test_3\.hdf5.*is missing"):
        open_geobench(Job(folder))
    (folder / "default_partition.json").write_text(json.dumps({"train": ["../x"], "valid": ["a"], "test": ["b"]}))
    with pytest.raises(DataError, match="lies outside"):
        open_geobench(Job(folder))
    with pytest.raises(DataError, match="holds no task of GEO-Bench"):
        open_geobench(Job(tmp_path / "classification_v1.0" / "nothing"))


def test_without_h5py_the_way_to_it_is_told(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"needs h5py.*opendino\[geo\]"):
        open_geobench(Job(root))
