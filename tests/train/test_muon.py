"""Muon beside AdamW: its update against a loop over singular values, and who takes which."""

import pytest
import torch
from torch import nn

from opendino.models.family import build_model
from opendino.train.muon import COEFFICIENTS, ITERATIONS, MuonAdamW, orthogonalise
from opendino.train.optim import OptimConfig, build_optimizer


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_orthogonalise_acts_on_each_singular_value_alone(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    a, b, c = COEFFICIENTS
    expected = []
    for value in (values / values.norm()).tolist():
        for _ in range(ITERATIONS):
            value = a * value + b * value**3 + c * value**5
        expected.append(value)
    torch.testing.assert_close(
        orthogonalise(matrix), u @ torch.diag(torch.tensor(expected).double()) @ vh, atol=1e-6, rtol=0
    )
    assert all(0.6 < value < 1.3 for value in expected)
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_matrices_take_muon_and_the_rest_is_adamw_to_the_bit():
    def train(kind, groups):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        optimizer = kind(groups(model))
        model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        optimizer.step()
        return model, optimizer

    mixed, optimizer = train(
        MuonAdamW,
        lambda m: [
            {"params": [m[0].weight], "orthogonal": True, "lr": 0.02, "weight_decay": 0.1},
            {"params": [m[0].bias, m[1].bias], "orthogonal": False, "lr": 1e-3},
        ],
    )
    assert set(optimizer.state[mixed[0].weight]) == {"momentum"}
    assert set(optimizer.state[mixed[0].bias]) == {"step", "exp_avg", "exp_avg_sq"}
    plain, _ = train(torch.optim.AdamW, lambda m: [{"params": [m[1].bias], "lr": 1e-3}])
    assert torch.equal(mixed[1].bias, plain[1].bias)


def test_who_takes_which():
    modules = {"backbone": build_model("conv_kmeans"), "dino_head": build_model("vit_tiny")}
    config = OptimConfig(lr=1e-3, muon_lr=0.02)
    groups = build_optimizer(modules, config).param_groups
    orthogonal = {name for group in groups if group["orthogonal"] for name in group["names"]}
    assert "backbone.stages.1.0.0.weight" in orthogonal and "dino_head.blocks.0.mlp.fc1.weight" in orthogonal
    for name in ("backbone.stem.conv.weight", "dino_head.mask_token", "backbone.stem.norm.weight"):
        assert name not in orthogonal
    assert all(group["lr_mult"] == pytest.approx(20.0) for group in groups if group["orthogonal"])
    assert not any(group["orthogonal"] for group in build_optimizer(modules, OptimConfig()).param_groups)
