"""A frozen backbone keeps its numbers and its mode, whatever is done to what holds it."""

import copy

import torch
from torch import nn

from opendino.models.family import build_model
from opendino.models.frozen import Frozen


def tiny():
    torch.manual_seed(0)
    return build_model("conv_mini", stem_width=8, width=8, dim=16, inner=8)


def test_it_gives_what_the_backbone_gives_without_gradient_and_changes_nothing():
    backbone, images = tiny(), torch.randn(3, 3, 16, 16)
    expected = copy.deepcopy(backbone).eval()(images)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    holder = nn.ModuleDict({"backbone": Frozen(backbone)}).train()
    whole, local = holder["backbone"].forward_crops([images, images[..., :8, :8]], [None, None])
    assert torch.equal(whole.cls, expected.cls) and local.patches.shape == (3, 1, 1, 16)
    assert not whole.cls.requires_grad and not backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_copies_share_it_and_nothing_of_it_is_trained_or_saved():
    frozen = Frozen(tiny())
    assert copy.deepcopy(nn.ModuleDict({"backbone": frozen}))["backbone"] is frozen
    assert not list(frozen.parameters()) and not frozen.state_dict() and not list(frozen.buffers())
    assert (frozen.dim, frozen.patch, frozen.num_layers) == (16, 8, 2)


def test_masks_reach_it():
    frozen, images = Frozen(tiny()), torch.randn(2, 3, 16, 16)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[0, 0, 0] = True
    seen, hidden = frozen(images), frozen(images, mask=mask)
    assert not torch.equal(seen.cls[0], hidden.cls[0]) and torch.equal(seen.cls[1], hidden.cls[1])
