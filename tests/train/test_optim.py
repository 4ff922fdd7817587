"""Parameter groups, multipliers and clipping against the published numbers and slow loops."""

import pytest
import torch
from torch import nn

from opendino.errors import UsageError
from opendino.models.family import build_model
from opendino.train.optim import (
    OptimConfig,
    Rate,
    build_optimizer,
    clip_gradients,
    lr_multiplier,
    set_hyperparameters,
)


def test_layer_decay_equals_the_published_values():
    config = OptimConfig(layer_decay=0.98, patch_embed_lr=0.2)
    assert lr_multiplier("cls_token", 40, config) == pytest.approx(0.43679, abs=1e-5)
    assert lr_multiplier("patch_embed.proj.weight", 40, config) == pytest.approx(0.087357, abs=1e-6)
    assert lr_multiplier("blocks.0.attn.qkv.weight", 40, config) == pytest.approx(0.44570, abs=1e-5)
    assert lr_multiplier("blocks.39.mlp.fc1.bias", 40, config) == pytest.approx(0.98)
    assert lr_multiplier("norm.weight", 40, config) == 1.0


def test_groups_cover_every_parameter_once_and_spare_norms_biases_and_scales():
    modules = {"backbone": build_model("vit_tiny"), "dino_head": nn.ModuleDict({"last_layer": nn.Linear(3, 4)})}
    optimizer = build_optimizer(modules, OptimConfig(layer_decay=0.9))
    names = [name for group in optimizer.param_groups for name in group["names"]]
    assert sorted(names) == sorted(f"{m}.{n}" for m, module in modules.items() for n, _ in module.named_parameters())
    for group in optimizer.param_groups:
        for name in group["names"]:
            spared = name.endswith("bias") or "norm" in name or "gamma" in name
            assert group["wd_mult"] == (0.0 if spared else 1.0), name


def test_last_layer_stands_still_then_moves():
    modules = {"dino_head": nn.ModuleDict({"last_layer": nn.Linear(3, 4, bias=False), "mlp": nn.Linear(3, 3)})}
    config = OptimConfig(lr=1.0, schedule="constant", warmup=0, freeze_last_layer=2)
    optimizer = build_optimizer(modules, config)
    lrs = []
    for step in range(3):
        set_hyperparameters(optimizer, config, step, 10)
        lrs.append({group["last_layer"]: group["lr"] for group in optimizer.param_groups})
    assert [entry[True] for entry in lrs] == [0.0, 0.0, 1.0]
    assert [entry[False] for entry in lrs] == [1.0, 1.0, 1.0]


def test_modules_are_clipped_each_on_its_own():
    modules = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}
    for scale, module in zip((100.0, 0.1), modules.values(), strict=True):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    total = clip_gradients(modules, 3.0)
    norms = [torch.cat([p.grad.flatten() for p in m.parameters()]).norm().item() for m in modules.values()]
    assert norms[0] == pytest.approx(3.0, rel=1e-4)
    assert norms[1] == pytest.approx(0.1 * 6**0.5, rel=1e-4)  # below the limit: untouched by its large neighbour
    assert total == pytest.approx(((100**2 + 0.1**2) * 6) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_single_parameters_may_have_rates_of_their_own(kind):
    config = OptimConfig(kind=kind, lr=2.0, schedule="constant", warmup=0, weight_decay=1.0, weight_decay_final=1.0)
    optimizer = build_optimizer({"heads": nn.Linear(3, 2)}, config, {"heads.bias": Rate(0.5, 0.25)})
    set_hyperparameters(optimizer, config, 0, 10)
    found = {name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["names"]}
    assert found == {"heads.weight": (2.0, 1.0), "heads.bias": (1.0, 0.25)}


def test_muon_is_refused_beside_sgd():
    with pytest.raises(UsageError, match="goes with adamw alone"):
        OptimConfig(kind="sgd", muon_lr=0.02)


def test_a_frozen_backbone_asks_for_no_gradient_then_its_rate_rises():
    modules = {"backbone": build_model("vit_tiny", dim=16, depth=1, heads=1), "dino_head": nn.Linear(3, 4)}
    config = OptimConfig(lr=1.0, schedule="constant", warmup=0, backbone_lr=0.5, freeze_backbone=2)
    optimizer = build_optimizer(modules, config)
    shares, asked = [], []
    for step in range(5):
        set_hyperparameters(optimizer, config, step, 10)
        lrs = {group["backbone"]: group["lr"] for group in optimizer.param_groups}
        shares.append((lrs[True], lrs[False]))
        asked.append({p.requires_grad for p in modules["backbone"].parameters()})
    assert shares == [(0.0, 1.0), (0.0, 1.0), (0.25, 1.0), (0.5, 1.0), (0.5, 1.0)]
    assert asked == [{False}, {False}, {True}, {True}, {True}]


def test_what_needs_no_gradient_at_the_start_is_left_out_for_good():
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    config = OptimConfig(lr=1.0, freeze_backbone=1)
    optimizer = build_optimizer({"backbone": module}, config)
    assert [name for group in optimizer.param_groups for name in group["names"]] == ["backbone.weight"]
    set_hyperparameters(optimizer, config, 5, 10)
    assert not module.bias.requires_grad
