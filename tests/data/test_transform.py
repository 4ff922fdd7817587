"""The inference transform against transformers' DINOv3 image processor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from transformers import BitImageProcessor, DINOv3ViTImageProcessorFast

from opendino.data.images import Image
from opendino.data.transform import Transform
from opendino.errors import DataError, UsageError, WeightsError
from tests.data.drawing import photo


def picture(height: int, width: int) -> Image:
    return Image(photo(height, height, width), "RGB", 8)


@pytest.mark.parametrize("size", [(480, 640), (64, 64), (301, 97), (224, 224), (90, 131)])
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


@pytest.mark.parametrize("mode", ["square", "center", "whole", "padded"])
@pytest.mark.parametrize("more", [{}, {"filter": "bicubic"}, {"stride": 4}, {"mean": (0.5,) * 4, "std": (0.2,) * 4}])
def test_fields_round_trip(mode: str, more: dict[str, object]) -> None:
    transform = Transform(**{"size": 256, "mode": mode, "mean": (0.1, 0.2, 0.3), "patch": 8, **more})  # type: ignore
    assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


def test_other_writers_fields_are_read() -> None:
    theirs = DINOv3ViTImageProcessorFast(size={"height": 512, "width": 512}).to_dict()
    assert Transform.from_dict(theirs) == Transform(size=512)
    assert Transform.from_dict({}) == Transform()
    assert Transform.from_dict({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}) == Transform(
        mode="center"
    )
    with pytest.raises(WeightsError, match="neither bilinear"):
        Transform.from_dict({"resample": 1})
    with pytest.raises(WeightsError, match="not one side"):
        Transform.from_dict({"size": {"height": 224, "width": 448}})


@pytest.mark.parametrize("size", [(480, 640), (90, 131), (301, 97)])
@pytest.mark.parametrize(
    "transform",
    [
        Transform(filter="bicubic", mode="center", patch=14),
        Transform(filter="bicubic", mode="center", size=256, share=1.0),
        Transform(filter="bicubic", size=64),
    ],
)
def test_bicubic_equals_dinov2s_processor(size: tuple[int, int], transform: Transform) -> None:
    image = picture(*size)
    processor = BitImageProcessor(**transform.to_dict())
    expected = processor(PillowImage.fromarray(image.array), return_tensors="pt")["pixel_values"][0]
    assert (transform.apply(image) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(480, 640), (90, 131), (301, 97)])
@pytest.mark.parametrize(("side", "share"), [(256, 1.0), (224, 0.875)])
def test_bicubic_equals_timms_transform_but_for_pillows_rounding(
    size: tuple[int, int], side: int, share: float
) -> None:
    timm_data = pytest.importorskip("timm.data")
    image, ours = picture(*size), Transform(filter="bicubic", mode="center", size=side, share=share)
    options = {"mean": ours.mean, "std": ours.std, "interpolation": "bicubic", "crop_pct": share}
    theirs = timm_data.create_transform(input_size=(3, side, side), is_training=False, **options)
    std = torch.tensor(ours.std)[:, None, None]
    steps = (ours.apply(image) - theirs(PillowImage.fromarray(image.array))).abs() * std * 255
    # torchvision's cut lies half a pixel beside ours where an odd number is cut away; these sizes avoid that.
    # Pillow rounds its weights otherwise: one step of 255, in few pixels two.
    assert steps.max() < 2.01 and (steps > 0.01).float().mean() < 0.02 and (steps > 1.01).float().mean() < 1e-4


def test_a_short_side_that_is_stated_is_kept() -> None:
    fields = {"size": {"shortest_edge": 518}, "crop_size": {"height": 518, "width": 518}, "do_center_crop": True}
    read = Transform.from_dict({**fields, "resample": 3}, patch=14)
    assert read == Transform(size=518, mode="center", patch=14, filter="bicubic", share=1.0)
    assert Transform.from_dict(read.to_dict()) == read
    assert replace(read, size=1036).short_side == 1036 and replace(read, size=28).short_side == 28


@pytest.mark.parametrize("stride", [4, 6, 8, 16, None])
@pytest.mark.parametrize("sides", [(64, 96), (40, 50), (17, 64)])
def test_overlapping_patches_cover_the_picture_and_half_covered_ones_are_marked(
    stride: int | None, sides: tuple[int, int]
) -> None:
    transform = Transform(size=32, mode="padded", stride=stride)
    prepared = transform.prepare(picture(*sides))
    step = stride or 16
    for axis, inside in enumerate((prepared.height, prepared.width)):
        count = prepared.valid.shape[axis]
        assert prepared.pixels.shape[axis + 1] == 16 + (count - 1) * step >= inside > 16 + (count - 2) * step
        centres = np.arange(count) * step + 8
        # At least half of a patch lies inside where its middle does.
        assert prepared.valid.any(1 - axis).tolist() == [bool(centre <= inside) for centre in centres]
    assert transform.grid(*sides) == tuple(prepared.valid.shape)


def test_pictures_and_models_of_other_channels() -> None:
    five = Image(np.arange(5, dtype=np.uint8).repeat(32 * 32).reshape(5, 32, 32).transpose(1, 2, 0) * 50, "u1", 8)
    transform = Transform(size=32, mean=(0.0,) * 5, std=(1.0,) * 5)
    assert transform.apply(five)[:, 0, 0].mul(255).round().tolist() == [0, 50, 100, 150, 200]
    with pytest.raises(
        DataError, match=r"has 3 channels, the model takes 5 .--channels 3 changes that.; or .*0, 1, 2, 3, 4"
    ):
        transform.apply(picture(32, 32))
    one = Transform(size=32, mean=(0.0,), std=(1.0,)).apply(picture(32, 32))
    assert torch.allclose(one[0], Transform(size=32, mean=(0.0,) * 3, std=(1.0,) * 3).apply(picture(32, 32)).mean(0))


def test_wrong_values_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of the patch side 16, got 100; the nearest is 96"):
        Transform(size=100)
    with pytest.raises(UsageError, match="square, center, whole, padded, got crop"):
        Transform(mode="crop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="std"):
        Transform(std=(0.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="patch"):
        Transform(patch=0)
