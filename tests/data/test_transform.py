"""The inference transform against transformers' DINOv3 image processor."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from transformers import DINOv3ViTImageProcessorFast

from opendino.data.images import Image
from opendino.data.transform import Transform
from opendino.errors import UsageError, WeightsError
from tests.data.drawing import photo


def picture(height: int, width: int) -> Image:
    return Image(photo(height, height, width), "RGB", 8)


@pytest.mark.parametrize("size", [(480, 640), (64, 64), (301, 97), (224, 224)])
@pytest.mark.parametrize(
    "transform",
    [Transform(), Transform(size=256), Transform(size=64), Transform(mode="center"), Transform(mean=(0.5,) * 3)],
)
def test_it_equals_the_reference_processor(size: tuple[int, int], transform: Transform) -> None:
    image = picture(*size)
    processor = DINOv3ViTImageProcessorFast(**transform.to_dict())
    expected = processor(PillowImage.fromarray(image.array), return_tensors="pt")["pixel_values"][0]
    result = transform.apply(image)
    assert result.shape == (3, transform.size, transform.size) and result.dtype == torch.float32
    assert (result - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("size", "shape"), [((100, 300), (64, 192)), ((300, 100), (192, 64)), ((100, 331), (64, 208))])
def test_whole_pictures_keep_their_shape(size: tuple[int, int], shape: tuple[int, int]) -> None:
    result = Transform(size=64, mode="whole").apply(picture(*size))
    assert result.shape == (3, *shape)


def test_even_grey_stays_even() -> None:
    grey = Image(np.full((50, 70, 3), 128, np.uint8), "RGB", 8)
    for mode in ("square", "center", "whole"):
        result = Transform(size=32, mode=mode, mean=(0.5,) * 3, std=(0.5,) * 3).apply(grey)
        assert torch.allclose(result, torch.tensor(1 / 255), atol=1e-6)


def test_the_picture_is_left_alone() -> None:
    image = picture(40, 60)
    before = image.array.copy()
    Transform(size=32).apply(image)
    assert np.array_equal(image.array, before)


@pytest.mark.parametrize("mode", ["square", "center", "whole"])
def test_fields_round_trip(mode: str) -> None:
    transform = Transform(size=256, mode=mode, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), patch=8)
    assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


def test_other_writers_fields_are_read() -> None:
    theirs = DINOv3ViTImageProcessorFast(size={"height": 512, "width": 512}).to_dict()
    assert Transform.from_dict(theirs) == Transform(size=512)
    assert Transform.from_dict({}) == Transform()
    assert Transform.from_dict({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}) == Transform(
        mode="center"
    )
    with pytest.raises(WeightsError, match="bilinear"):
        Transform.from_dict({"resample": 3})
    with pytest.raises(WeightsError, match="not one side"):
        Transform.from_dict({"size": {"height": 224, "width": 448}})


def test_wrong_values_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of the patch side 16, got 100; the nearest is 96"):
        Transform(size=100)
    with pytest.raises(UsageError, match="square, center, whole, padded, got crop"):
        Transform(mode="crop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="std"):
        Transform(std=(0.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="patch"):
        Transform(patch=0)
