"""Overlapping patches and other numbers of input channels."""

from dataclasses import replace

import pytest
import torch

from opendino.data.transform import Transform
from opendino.errors import ShapeError, UsageError, WeightsError
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import build_from_config
from opendino.models.rope import patch_centres
from opendino.models.stem import adapt_stem
from opendino.models.vit import ViTConfig
from opendino.weights import load, write_model
from tests.models.parity import gap, images, randomise

SMALL = {"dim": 32, "depth": 2, "heads": 2, "hidden": 64}
VITS = {"rotary": ViTConfig(**SMALL), "table": Dinov2Config(**SMALL, patch=16, position_side=4)}


def twins(config, **changes):
    model, other = randomise(build_from_config(config)), build_from_config(replace(config, **changes)).eval()
    other.load_state_dict(model.state_dict())
    return model, other


@pytest.mark.parametrize("kind", VITS)
def test_a_stride_of_the_patch_is_bit_equal(kind):
    model, other = twins(VITS[kind], stride=16)
    x = images(48, 80)
    with torch.inference_mode():
        left, right = model(x), other(x)
    assert torch.equal(left.cls, right.cls) and torch.equal(left.patches, right.patches)


@pytest.mark.parametrize("kind", VITS)
@pytest.mark.parametrize("stride", [8, 4, 5])
def test_overlapping_patches_see_what_lies_under_them(kind, stride):
    """Without attention a patch's token depends on its own pixels and place alone: each equals a cut-out's."""
    config = VITS[kind]
    model, other = twins(config, stride=stride)
    height, width = 16 + 3 * stride, 16 + 5 * stride
    x = images(height, width)
    with torch.inference_mode():
        found = other(x)
        assert found.patches.shape == (2, 4, 6, 32) and other.strides == (stride,) * 2
        tokens = other.patch_embed(x)
        for row, column in [(0, 0), (2, 3), (3, 5)]:
            top, left = row * stride, column * stride
            alone = model.patch_embed(x[:, :, top : top + 16, left : left + 16])[:, :, 0, 0]
            assert gap(tokens[:, :, row, column], alone) < 1e-5
        with pytest.raises(ShapeError, match=f"multiple of {stride}"):
            other(images(height + 1, width))
        assert other(images(height + 1, width), pad=True).patches.shape[1] == 5


def test_rotary_positions_are_the_true_centres_of_overlapping_patches():
    """Every second centre of a half-stride grid is a centre of the plain grid of the same image."""
    plain, fine = patch_centres(4, 6), patch_centres(7, 11, spacing=0.5)
    assert torch.allclose(fine.view(7, 11, 2)[::2, ::2].reshape(-1, 2), plain, atol=1e-6)
    pixels = (torch.arange(7) * 8 + 8) / 64 * 2 - 1
    assert torch.allclose(fine.view(7, 11, 2)[:, 0, 0], pixels, atol=1e-6)


@pytest.mark.parametrize("stride", [0, 17, -4])
def test_strides_that_leave_gaps_are_refused(stride):
    with pytest.raises(UsageError, match="stride"):
        ViTConfig(**SMALL, stride=stride)


@pytest.mark.parametrize("channels", [1, 2, 4, 7, 13])
def test_a_grey_picture_gets_the_response_it_had_as_rgb(channels):
    weight = torch.randn(8, 3, 4, 4)
    grey = torch.randn(2, 1, 12, 12)
    conv = torch.nn.functional.conv2d
    as_rgb = conv(grey.expand(-1, 3, -1, -1), weight, stride=4)
    adapted = adapt_stem(weight, channels)
    assert adapted.shape == (8, channels, 4, 4)
    assert gap(conv(grey.expand(-1, channels, -1, -1), adapted, stride=4), as_rgb) < 1e-5
    assert adapt_stem(weight, 3) is weight


@pytest.mark.parametrize(
    "config", [*VITS.values(), ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))], ids=["rope", "table", "conv"]
)
def test_load_with_channels_and_stride(config, tmp_path):
    model = randomise(build_from_config(config))
    transform = Transform(size=2 * model.patch, patch=model.patch, mean=(0.3, 0.4, 0.5), std=(0.2, 0.2, 0.5))
    write_model(tmp_path / "rgb", model, transform, {"name": "m"})
    grey = images(2 * model.patch, 2 * model.patch)[:, :1]
    for channels in (1, 5):
        other = load(tmp_path / "rgb", channels=channels)
        with torch.inference_mode():
            features = other(grey.expand(-1, channels, -1, -1))
            assert gap(features.cls, model(grey.expand(-1, 3, -1, -1)).cls) < 1e-4
        assert other.transform.mean == pytest.approx((0.4,) * channels)
        assert other.transform.std == pytest.approx((0.3,) * channels)
        write_model(tmp_path / "more", other, other.transform, other.card)
        again = load(tmp_path / "more")
        assert again.config == other.config and again.transform.mean == other.transform.mean
    if not isinstance(config, ConvNeXtConfig):
        fine = load(tmp_path / "rgb", stride=8)
        write_model(tmp_path / "fine", fine, fine.transform, fine.card)
        again = load(tmp_path / "fine")
        assert again.stride == 8 and again.card["note"]
        x = images(32, 32)
        with torch.inference_mode():
            assert torch.equal(again(x).patches, fine(x).patches)
    with pytest.raises(WeightsError, match="changes the shape"):
        load(tmp_path / "rgb", **({"dims": (8, 16, 24, 64)} if isinstance(config, ConvNeXtConfig) else {"dim": 64}))
    with pytest.raises(UsageError, match="no field"):
        load(tmp_path / "rgb", strid=8)
