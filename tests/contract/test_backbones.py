"""One list of checks that every backbone passes. A new backbone adds an instance to `BACKBONES`."""

import copy

import pytest
import torch

from opendino.errors import ShapeError, UsageError
from opendino.models.batch_norm import calibrate
from opendino.models.contract import Features
from opendino.models.conv_mini import ConvMiniConfig
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import FAMILY, build_from_config
from opendino.models.vit import ViTConfig

SMALL = {"dim": 32, "depth": 3, "heads": 2, "hidden": 48}
BACKBONES = {
    "vit": ViTConfig(**SMALL, layer_scale=0.5),
    "vit_gated": ViTConfig(**SMALL, swiglu=True, qkv_bias=False, local_cls_norm=True, patch=8, layer_scale=0.5),
    "vit_no_registers": ViTConfig(**SMALL, registers=0, patch=8, drop_path=0.4, layer_scale=0.5),
    "dinov2": Dinov2Config(**SMALL, position_side=4, position_resize="offset", layer_scale=0.5),
    "dinov2_registers": Dinov2Config(**SMALL, registers=4, swiglu=True, position_side=4, layer_scale=0.5),
    "convnext": ConvNeXtConfig(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), drop_path=0.2, layer_scale=0.5),
    "conv_mini": ConvMiniConfig(stem_width=8, width=16, dim=24, inner=12),
    "conv_kmeans": ConvMiniConfig(stem="kmeans", stem_width=16, width=16, dim=32, inner=8, blocks=(1, 2)),
}


@pytest.fixture(params=BACKBONES, name="model")
def _model(request):
    torch.manual_seed(0)
    return build_from_config(BACKBONES[request.param]).eval()


def pictures(model, rows=2, columns=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, rows * model.patch, columns * model.patch, generator=generator)


def same(left: Features, right: Features) -> bool:
    return all(torch.allclose(getattr(left, n), getattr(right, n), atol=1e-5) for n in ("cls", "registers", "patches"))


def test_every_kind_of_the_family_is_here():
    kinds = {type(config) for config in BACKBONES.values()}
    assert {type(spec.config) for spec in FAMILY.values()} <= kinds


def test_attributes(model):
    assert model.config is not None
    assert len(model.strides) == model.num_layers and model.strides[-1] == model.patch
    assert model.dim > 0 and model.num_registers >= 0


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (2, 5), (5, 1)])
def test_shapes_of_any_grid(model, rows, columns):
    features = model(pictures(model, rows, columns))
    assert features.cls.shape == (2, model.dim)
    assert features.registers.shape == (2, model.num_registers, model.dim)
    assert features.patches.shape == (2, rows, columns, model.dim)
    assert features.cls.isfinite().all() and features.patches.isfinite().all()


def test_a_picture_does_not_depend_on_its_neighbours(model):
    x = pictures(model, batch=5)
    whole, alone = model(x), model(x[3:4])
    assert torch.allclose(whole.cls[3], alone.cls[0], atol=1e-5)
    assert torch.allclose(whole.patches[3], alone.patches[0], atol=1e-5)


def test_rows_and_columns_are_not_swapped(model):
    """The change of the last map lies around the changed patch (0, 6); read column by column it would be at (3, 0)."""
    side, last = model.patch, model.num_layers - 1
    x = pictures(model, 4, 8, batch=1)
    changed = x.clone()
    changed[:, :, :side, 6 * side : 7 * side] *= -3
    before, after = (model.intermediate(image, [last], norm=False)[0].patches[0] for image in (x, changed))
    weight = (after - before).square().sum(-1)
    weight = weight / weight.sum()
    row = (weight.sum(1) * torch.arange(4)).sum()
    column = (weight.sum(0) * torch.arange(8)).sum()
    assert row < 1.2 and 5 < column < 7


def test_other_sizes_are_refused_by_name_or_padded_with_zeros(model):
    side = model.patch
    x = torch.randn(1, 3, 2 * side - 3, side + 1)
    with pytest.raises(ShapeError) as caught:
        model(x)
    message = str(caught.value)
    assert f"{2 * side - 3} x {side + 1}" in message and str(side) in message and "pad=True" in message
    by_hand = torch.nn.functional.pad(x, (0, side - 1, 0, 3))
    assert same(model(x, pad=True), model(by_hand))
    assert same(model(by_hand, pad=True), model(by_hand))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32), (0, 3, 32, 32), (1, 3, 0, 32)])
def test_what_is_no_batch_of_pictures_is_refused(model, shape):
    with pytest.raises(ShapeError, match="must be"):
        model(torch.zeros(shape))


def test_a_mask_hides_and_keeps_the_rest_of_the_batch(model):
    x = pictures(model, 3, 3)
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert same(model(x, mask=mask), model(x))
    mask[0, 1, 2] = True
    plain, hidden = model(x), model(x, mask=mask)
    assert not torch.allclose(plain.patches[0, 1, 2], hidden.patches[0, 1, 2], atol=1e-3)
    assert torch.allclose(plain.patches[1], hidden.patches[1], atol=1e-5)
    with pytest.raises(ShapeError, match="mask"):
        model(x, mask=mask[:, :2])
    with pytest.raises(ShapeError, match="mask"):
        model(x, mask=mask.float())


def test_crop_groups_come_back_in_order_and_equal_single_runs(model):
    groups = [pictures(model, 3, 3), pictures(model, 2, 2, batch=6), pictures(model, 1, 2)]
    mask = torch.rand(2, 3, 3) < 0.4
    found = model.forward_crops(groups, [mask, None, None])
    for one, group, hidden in zip(found, groups, [mask, None, None], strict=True):
        assert same(one, model(group, mask=hidden))
    with pytest.raises(ValueError):
        model.forward_crops(groups, [None])


def test_training_reaches_every_parameter_and_depends_on_the_seed_alone(model):
    model.train()
    groups = [pictures(model, 2, 2, batch=4), pictures(model, 1, 2, batch=8)]
    mask = torch.rand(4, 2, 2) < 0.5
    mask[0, 0, 0] = True

    def run(seed, module):
        torch.manual_seed(seed)
        return module.forward_crops(groups, [mask, None])

    twin = copy.deepcopy(model)
    found = run(0, model)
    assert all(same(left, right) for left, right in zip(found, run(0, twin), strict=True))
    sum(f.cls.square().sum() + f.registers.sum() + f.patches.sin().sum() for f in found).backward()
    for name, parameter in model.named_parameters():
        assert parameter.numel() == 0 or parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_intermediate_layers_ascend_and_end_at_the_output(model):
    x = pictures(model)
    last = model.num_layers - 1
    calibrate(model, [pictures(model, batch=16, seed=1)])  # fresh BatchNorm statistics make the norm do nothing
    found = model.intermediate(x, [last, 0])
    assert len(found) == 2
    assert same(found[1], model(x))
    assert same(found[0], model.intermediate(x, [0])[0])
    for layer in range(model.num_layers):
        (one,) = model.intermediate(x, [layer], norm=False)
        stride = model.strides[layer]
        assert one.patches.shape[1:3] == (x.shape[2] // stride, x.shape[3] // stride)
        assert one.cls.shape == (2, one.patches.shape[-1])
    assert not same(model.intermediate(x, [last], norm=False)[0], model(x))
    assert model.intermediate(x, []) == []
    for layer in (-1, model.num_layers):
        with pytest.raises(UsageError, match=f"layer {layer}"):
            model.intermediate(x, [layer])


def test_attention_is_a_map_or_one_line(model):
    x = pictures(model)
    try:
        found = model.attention(x, model.num_layers - 1)
    except UsageError as error:
        assert "none" in str(error) and "\n" not in str(error)
        return
    assert found.shape[0] == 2 and found.shape[2:] == (2, 3)
    assert found.min() >= 0 and found.sum((2, 3)).max() <= 1 + 1e-5
    with pytest.raises(UsageError, match=f"layer {model.num_layers}"):
        model.attention(x, model.num_layers)


def test_bf16_autocast_stays_near(model):
    x = pictures(model, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    assert torch.nn.functional.cosine_similarity(half.cls.float(), model(x).cls).min() > 0.98


def test_the_start_is_finite_and_follows_the_seed(model):
    torch.manual_seed(0)
    twin = build_from_config(model.config)
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, twin.state_dict()[name]), name
