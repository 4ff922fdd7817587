"""The projection head: parts, norms, start."""

import pytest
import torch
import torch.nn.functional as F

from opendino.errors import ShapeError, UsageError
from opendino.models.heads import ProjectionHead


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        for (dim, hidden, bottleneck, prototypes), count in {
            (4096, 8192, 512, 262_144): 239_092_224,
            (4096, 4096, 384, 98_304): 72_884_608,
            (1024, 2048, 256, 65_536): 23_597_312,
        }.items():
            head = ProjectionHead(dim, hidden, bottleneck, prototypes)
            assert sum(parameter.numel() for parameter in head.parameters()) == count


def test_forward_is_mlp_normalise_linear():
    torch.manual_seed(0)
    head = ProjectionHead(6, 10, 4, 7)
    x = torch.randn(5, 6)
    first, _, second, _, third = head.mlp
    hidden = F.gelu(F.linear(x, first.weight, first.bias))
    hidden = F.gelu(F.linear(hidden, second.weight, second.bias))
    z = F.linear(hidden, third.weight, third.bias)
    z = z / z.norm(dim=-1, keepdim=True)
    assert torch.allclose(head.bottleneck(x), z, atol=1e-6)
    assert torch.allclose(head(x), z @ head.last_layer.weight.T, atol=1e-6)
    assert torch.equal(head(x), head.bottleneck(x) @ head.prototypes().T)
    assert [name for name, _ in head.named_parameters()][-1] == "last_layer.weight"


def test_start_statistics():
    torch.manual_seed(0)
    head = ProjectionHead(256, 256, 64, 512)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)


def test_batch_norm_uses_the_batch_in_eval_too():
    torch.manual_seed(0)
    head = ProjectionHead(6, 10, 4, 7, batch_norm=True)
    x = torch.randn(8, 6)
    training = head.train()(x)
    assert torch.equal(head.eval()(x), training)
    assert torch.allclose(head(3 * x + 5), training, atol=1e-3)  # the input is normalised too
    assert not [name for name, _ in head.named_buffers()]
    with pytest.raises(ShapeError, match="at least 2 rows"):
        head(x[:1])
    ProjectionHead(6, 10, 4, 7)(x[:1])


def test_unit_prototypes_bound_the_logits():
    torch.manual_seed(0)
    head = ProjectionHead(6, 10, 4, 7, unit_prototypes=True)
    with torch.no_grad():
        head.last_layer.weight.mul_(100)
    assert head(torch.randn(50, 6)).abs().max() <= 1 + 1e-5


def test_the_bottleneck_is_normalised_in_fp32_under_autocast():
    head = ProjectionHead(6, 10, 4, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head.bottleneck(torch.randn(3, 6))
    assert z.dtype == torch.float32
    assert torch.allclose(z.norm(dim=-1), torch.ones(3), atol=1e-6)


def test_one_layer_and_none():
    assert len(ProjectionHead(6, 10, 4, 7, num_layers=1).mlp) == 1
    with pytest.raises(UsageError):
        ProjectionHead(6, 10, 4, 7, num_layers=0)
