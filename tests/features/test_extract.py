"""Extraction: right rows for right pictures, nothing lost in silence, the model left as it was."""

import weakref
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from opendino.data.transform import Transform
from opendino.errors import DataError
from opendino.features.codec import PatchCodec
from opendino.features.encode import Encoder, load_picture
from opendino.features.extract import extract, read_inputs
from opendino.features.info import StoreInfo
from opendino.features.lattice import Tiling
from opendino.models.contract import Features
from opendino.models.family import build_model
from tests.features.sources import ArraySource, MeanColour, noise

TRANSFORM = Transform(size=16, patch=4)


def test_rows_are_those_of_single_pictures_in_order():
    torch.manual_seed(0)
    model = build_model("conv_mini")
    transform = Transform(size=4 * model.patch, patch=model.patch)
    source = ArraySource(noise(7, 40, 30), labels=[0, 1, 2, -1, 1, 0, 2], classes="abc")
    bank = extract(model, source, transform, batch_size=3)
    assert bank.ids == tuple(f"picture {i}" for i in range(7)) and bank.skipped == ()
    assert bank.labels.tolist() == [0, 1, 2, -1, 1, 0, 2] and bank.labels.dtype == torch.int64
    model.eval()
    for index in range(7):
        with torch.no_grad():
            features = model(transform.apply(source.read(index))[None])
        torch.testing.assert_close(bank.cls[index], features.cls[0], rtol=1e-4, atol=1e-5)


def test_pooled_is_the_mean_of_each_cell_row_by_row():
    source = ArraySource(noise(2, 24, 24))
    bank = extract(MeanColour(), source, Transform(size=24, patch=4, mean=(0, 0, 0), std=(1, 1, 1)), pool=3)
    pixels = np.stack(source.pictures) / 255 / np.sqrt(1 + 1e-5)
    slow = [pixels[0, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean(axis=(0, 1)) for y in range(3) for x in range(3)]
    assert bank.pooled.shape == (2, 27)
    np.testing.assert_allclose(bank.pooled[0].numpy(), np.concatenate(slow), rtol=1e-5)


def test_pooling_a_map_smaller_than_the_grid_repeats_it():
    bank = extract(MeanColour(), ArraySource(noise(2, 8, 8)), Transform(size=8, patch=4), pool=3)
    assert bank.pooled.shape == (2, 27) and bank.pooled.isfinite().all()


def test_unreadable_pictures_are_named_and_leave_no_row():
    pictures = noise(5)
    pictures[0] = pictures[3] = None
    bank = extract(MeanColour(), ArraySource(pictures, labels=[0, 1, 2, 3, 4]), TRANSFORM, batch_size=2)
    assert bank.ids == ("picture 1", "picture 2", "picture 4") and bank.labels.tolist() == [1, 2, 4]
    assert [(s.id, s.reason) for s in bank.skipped] == [("picture 0", "truncated"), ("picture 3", "truncated")]


def test_failures_after_the_last_picture_are_named_too():
    bank = extract(MeanColour(), ArraySource([*noise(2), None]), TRANSFORM, batch_size=2)
    assert len(bank.ids) == 2 and bank.skipped[0].id == "picture 2"


@pytest.mark.parametrize("pictures", [[], [None, None]])
def test_nothing_readable_is_an_error(pictures):
    with pytest.raises(DataError):
        extract(MeanColour(), ArraySource(pictures), TRANSFORM)


@pytest.mark.parametrize("training", [True, False])
def test_model_and_its_buffers_come_back_as_they_were(training):
    model = MeanColour().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extract(model, ArraySource(noise(4)), TRANSFORM)
    assert model.training is training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_mode_comes_back_after_an_error():
    model = MeanColour().train()
    with pytest.raises(DataError):
        extract(model, ArraySource([None]), TRANSFORM)
    assert model.training


def test_limit_and_progress():
    source, seen = ArraySource(noise(9)), []
    model = MeanColour()
    bank = extract(model, source, TRANSFORM, batch_size=2, limit=5, progress=seen.append)
    assert len(bank.ids) == 5 and source.reads == 5 and model.batches == [2, 2, 1] and seen == [2, 4, 5]


def test_no_batch_stays_in_memory_behind_its_rows():
    model, alive = MeanColour(), []
    alone = model.forward

    def forward(images):  # as a ViT does: every part of its features is a view of all its tokens
        features = alone(images)
        tokens = np.concatenate([features.cls[:, None].numpy(), features.patches.flatten(1, 2).numpy()], 1)
        alive.append(weakref.ref(tokens))
        views = torch.from_numpy(tokens)
        return Features(views[:, 0], features.registers, views[:, 1:].unflatten(1, features.patches.shape[1:3]))

    model.forward = forward
    kept = []
    bank = extract(model, ArraySource(noise(8)), TRANSFORM, batch_size=2, progress=lambda _: kept.append(count(alive)))
    assert max(kept) == 1 and bank.cls.shape == (8, 3)
    info = StoreInfo("x", "x", 3, 4, "", {}, TRANSFORM, "", "fp32", tile=(16, 12))
    encoder = Encoder(model, info, PatchCodec("none"), "cpu")
    source, tiling = ArraySource(noise(3, 16, 100)), Tiling(4, 3)
    reading = [Future() for _ in range(3)]
    for index, one in enumerate(reading):
        one.set_result(load_picture(source, index, TRANSFORM, tiling))
    alive.clear()
    made = encoder.encode(reading)
    assert len(made.rows) == 3 * (1 + 8) and count(alive) == 0


def count(references):
    return sum(one() is not None for one in references)


def test_a_change_of_size_starts_a_new_batch():
    source = ArraySource([*noise(2, 16, 16), *noise(2, 16, 32), *noise(1, 16, 16)])
    shapes = [tuple(batch.images.shape) for batch in read_inputs(source, Transform(size=16, mode="whole", patch=4))]
    assert shapes == [(2, 3, 16, 16), (2, 3, 16, 32), (1, 3, 16, 16)]
    assert len(extract(MeanColour(), source, Transform(size=16, mode="whole", patch=4)).ids) == 5
