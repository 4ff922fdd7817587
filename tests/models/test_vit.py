"""What the ViT does beside equalling other implementations: crops, masks, drop path, attention, start."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from opendino.errors import ShapeError, UsageError
from opendino.models.layers import QkvLinear, swiglu_hidden
from opendino.models.stochastic_depth import Part, add_branch, draw_kept
from opendino.models.vit import ViT, ViTConfig
from tests.models.parity import gap, images, randomise

TINY = ViTConfig(dim=32, depth=3, heads=2, hidden=64, patch=8, registers=2, layer_scale=0.5, rope_rescale=None)


def tiny(**changes):
    torch.manual_seed(0)
    return randomise(ViT(replace(TINY, **changes)))


def test_swiglu_rounding():
    assert swiglu_hidden(4096, 3, 64) == 8192
    assert swiglu_hidden(1280, 6) == 5120
    assert swiglu_hidden(384, 6) == 1536
    assert swiglu_hidden(100, 4, 8) == 272  # 266 rounded up


def test_start_statistics():
    torch.manual_seed(0)
    model = ViT(ViTConfig(dim=192, depth=2, heads=3, hidden=768))
    state = model.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())
    mask = state["blocks.0.attn.qkv.bias_mask"].view(3, 192)
    assert mask.eq(torch.tensor([1.0, 0.0, 1.0])[:, None]).all()
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight", "cls_token", "registers"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.15), name
    bound = 1 / (3 * 16 * 16) ** 0.5
    for name in ("patch_embed.weight", "patch_embed.bias"):
        assert bound * 0.95 < state[name].abs().max() <= bound
    assert state["mask_token"].eq(0).all() and state["blocks.1.mlp.fc2.bias"].eq(0).all()
    assert state["blocks.0.ls1.gamma"].eq(1e-5).all()
    assert state["norm.weight"].eq(1).all() and state["norm.bias"].eq(0).all()


def test_the_key_bias_never_acts():
    linear = QkvLinear(8, bias=True, mask_k=True)
    torch.nn.init.normal_(linear.bias)
    q, k, v = linear(torch.zeros(1, 8)).chunk(3, -1)
    assert q.abs().min() > 0 and v.abs().min() > 0 and k.eq(0).all()


def test_shown_attention_is_the_one_that_is_used():
    model = tiny()
    x, grid, rotation = model._embed(images(32, 40), None, pad=False)
    block = model.blocks[0]
    inner = block.norm1(x)
    weights = block.attn.weights(inner, rotation)
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    _, _, v = block.attn.project(inner, rotation)
    explicit = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    assert gap(explicit, block.attn(inner, rotation)) < 1e-5
    assert torch.allclose(block.attn.weights(inner, rotation, queries=1), weights[:, :, :1], atol=1e-6)
    for layer in range(3):
        x_layer = x
        for other in model.blocks[:layer]:
            x_layer = other(x_layer, rotation)
        block = model.blocks[layer]
        shown = model.attention(images(32, 40), layer)
        assert shown.shape == (2, 2, *grid)
        expected = block.attn.weights(block.norm1(x_layer), rotation)[:, :, 0, 3:]
        assert torch.allclose(shown.flatten(2), expected, atol=1e-6)


def test_crop_groups_equal_separate_runs_in_eval():
    model = tiny(local_cls_norm=True)
    groups = [images(32, 32, 3), images(16, 16, 5)]
    mask = torch.rand(3, 4, 4) < 0.5
    together = model.forward_crops(groups, [mask, None])
    for found, alone in zip(together, [model(groups[0], mask=mask), model(groups[1])], strict=True):
        for name in ("cls", "registers", "patches"):
            assert torch.equal(getattr(found, name), getattr(alone, name))


def test_the_local_norm_acts_in_training_on_cls_and_registers_of_local_groups_alone():
    model = tiny(local_cls_norm=True).train()
    groups = [images(16, 16, 2), images(16, 16, 2)]
    first, second = model.forward_crops(groups, [None, None])
    assert torch.equal(first.patches, second.patches)
    before = model.norm
    for name in ("cls", "registers"):
        assert not torch.allclose(getattr(first, name), getattr(second, name))
        plain = (getattr(first, name) - before.bias) / before.weight
        expected = plain * model.local_cls_norm.weight + model.local_cls_norm.bias
        assert torch.allclose(getattr(second, name), expected, atol=1e-4)
    assert torch.equal(model(groups[0]).cls, first.cls)


def slow_add_branch(x, branch, rate, views=1):
    """Row by row, from the words: of 16 pictures' rows, n = max(int(m(1-p)), 1) random ones get branch * m / n."""
    pictures = len(x) // views
    out = x.clone()
    starts = [s for s in range(0, pictures, 16) if s == 0 or pictures - s >= 16]
    for start, stop in zip(starts, [*starts[1:], pictures], strict=True):
        rows = [view * pictures + picture for view in range(views) for picture in range(start, stop)]
        n = max(int(len(rows) * (1 - rate)), 1)
        for place in torch.randperm(len(rows))[:n].tolist():
            out[rows[place]] += branch(x[rows[place]][None])[0] * len(rows) / n
    return out


@pytest.mark.parametrize(
    ("pictures", "views", "rate"),
    [(8, 1, 0.3), (8, 2, 0.5), (1, 1, 0.9), (5, 1, 0.99), (4, 1, 0.1), (32, 2, 0.4), (39, 1, 0.4)],
)
def test_drop_path_equals_a_slow_loop(pictures, views, rate):
    x, layer = torch.randn(views * pictures, 3, 6), torch.nn.Linear(6, 6)
    torch.manual_seed(5)
    (kept,) = draw_kept([rate], len(x), Part(0, pictures, pictures), x.device)
    fast = add_branch(x, layer, kept)
    torch.manual_seed(5)
    assert torch.allclose(fast, slow_add_branch(x, layer, rate, views), atol=1e-5)


@pytest.mark.parametrize("size", [16, 7])
def test_parts_of_a_batch_drop_what_the_whole_batch_drops(size):
    x, layer, batch = torch.randn(3, 48, 2, 6), torch.nn.Linear(6, 6), 48

    def run(part):
        torch.manual_seed(5)
        here = x[:, part.start : part.stop].flatten(0, 1)
        kept = draw_kept([0.4, 0.4], len(here), part, x.device)
        for one in kept:
            here = add_branch(here, layer, one)
        return here.unflatten(0, (3, -1)), [len(one.rows) for one in kept]

    whole, _ = run(Part(0, batch, batch))
    parts = [run(Part(start, min(start + size, batch), batch)) for start in range(0, batch, size)]
    torch.testing.assert_close(torch.cat([found for found, _ in parts], dim=1), whole)
    if size == 16:  # whole groups keep equally many rows
        assert all(counts == [28, 28] for _, counts in parts)


def test_drop_path_draws_for_each_branch_and_group_and_only_in_training():
    model = tiny(drop_path=0.5, depth=1)
    x = images(16, 16, 6)
    quiet = model(x)
    assert torch.equal(quiet.cls, tiny(depth=1)(x).cls)
    model.train()
    torch.manual_seed(2)
    found = model.forward_crops([x, x], [None, None])
    torch.manual_seed(2)
    block, norm = model.blocks[0], model.norm
    for group in found:
        tokens, _, rotation = model._embed(x, None, pad=False)
        tokens = slow_add_branch(tokens, lambda u, r=rotation: block.ls1(block.attn(block.norm1(u), r)), 0.5)
        tokens = slow_add_branch(tokens, lambda u: block.ls2(block.mlp(block.norm2(u))), 0.5)
        assert torch.allclose(group.cls, norm(tokens)[:, 0], atol=1e-4)
    assert not torch.equal(found[0].cls, found[1].cls)


def test_coordinates_change_in_training_alone():
    model = tiny(rope_rescale=2.0)
    x = images(32, 32)
    assert torch.equal(model(x).cls, model(x).cls)
    model.train()
    torch.manual_seed(0)
    first, second = model(x).cls, model(x).cls
    assert not torch.allclose(first, second)
    torch.manual_seed(0)
    assert torch.equal(model(x).cls, first)


def test_rounded_periods_change_the_output_a_little():
    exact, rounded = tiny(), tiny(rope_rounded=True)
    difference = gap(rounded(images(64, 64)).patches, exact(images(64, 64)).patches)
    assert 1e-5 < difference < 0.1


def test_bf16_autocast_on_the_cpu_attends_in_fp32(monkeypatch):
    seen = []
    fused = F.scaled_dot_product_attention

    def spy(q, k, v):
        seen.append({q.dtype, k.dtype, v.dtype})
        return fused(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    model = tiny()
    plain = model(images(32, 32)).cls
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(images(32, 32)).cls
    assert seen == [{torch.float32}] * 3
    assert F.cosine_similarity(plain, half.float()).min() > 0.995


def test_the_path_of_other_devices_keeps_the_dtype_of_the_model():
    """On the meta device, which runs the lines that accelerators run, without their numbers."""
    model = tiny().to("meta").bfloat16()
    features = model(torch.empty(2, 3, 16, 24, device="meta", dtype=torch.bfloat16))
    assert features.patches.shape == (2, 2, 3, 32) and features.cls.dtype == torch.bfloat16


def test_a_copy_is_independent():
    model = tiny()
    model(images(16, 16))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.cls_token.add_(1)
    assert not torch.equal(twin(images(16, 16)).cls, model(images(16, 16)).cls)


def test_gradients_reach_everything():
    model = tiny(local_cls_norm=True).train()
    groups = [images(16, 16), images(16, 16)]
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    found = model.forward_crops(groups, [mask, None])
    sum(f.cls.square().sum() + f.registers.sum() + f.patches.square().sum() for f in found).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    bias = model.blocks[0].attn.qkv.bias.grad.view(3, -1)
    assert bias[1].eq(0).all() and bias[0].abs().sum() > 0


@pytest.mark.parametrize("changes", [{"dim": 30}, {"depth": 0}, {"drop_path": 1.0}, {"heads": 3}, {"registers": -1}])
def test_impossible_configs_are_refused(changes):
    with pytest.raises(UsageError):
        replace(TINY, **changes)


def test_a_wrong_mask_is_refused():
    for mask in (torch.zeros(2, 4, 5, dtype=torch.bool), torch.zeros(2, 4, 4)):
        with pytest.raises(ShapeError, match="mask"):
            tiny()(images(32, 32), mask=mask)
