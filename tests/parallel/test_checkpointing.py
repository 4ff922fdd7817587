"""Checkpointed blocks: less memory in the backward pass, the same numbers to the bit."""

import copy

import pytest
import torch

from opendino.errors import UsageError
from opendino.models.family import build_model
from opendino.parallel import checkpoint_blocks, compile_blocks


def build(name):
    torch.manual_seed(0)
    small = {
        "vit_tiny": {"dim": 64, "depth": 3, "heads": 1, "hidden": 64, "drop_path": 0.4, "layer_scale": 0.5},
        "convnext_tiny": {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16), "drop_path": 0.4, "layer_scale": 0.5},
    }
    return build_model(name, **small[name]).train()


def gradients(model, px):
    torch.manual_seed(1)
    groups = [torch.randn(8, 3, px, px), torch.randn(8, 3, px // 2, px // 2)]
    torch.manual_seed(2)
    found = model.forward_crops(groups, [None, None])
    loss = sum(one.cls.square().sum() + one.patches.sin().sum() for one in found)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("name", "px"), [("vit_tiny", 32), ("convnext_tiny", 64)])
def test_loss_and_gradients_are_equal_to_the_bit_with_drop_path_on(name, px):
    plain = build(name)
    checkpointed = copy.deepcopy(plain)
    assert checkpoint_blocks(checkpointed) == len(plain.blocks if name == "vit_tiny" else plain.stages)
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    loss, expected = gradients(plain, px)
    again, found = gradients(checkpointed, px)
    assert torch.equal(loss, again)
    for key, grad in expected.items():
        assert (grad is None) == (found[key] is None)
        assert grad is None or torch.equal(grad, found[key]), key


def test_blocks_keep_their_input_alone():
    def saved_bytes(model):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(4, 3, 64, 64))
        return total

    plain, checkpointed = build("vit_tiny"), build("vit_tiny")
    checkpoint_blocks(checkpointed)
    assert saved_bytes(checkpointed) < saved_bytes(plain) / 4


def test_batch_norm_is_refused():
    with pytest.raises(UsageError, match="batch norm"):
        checkpoint_blocks(build_model("conv_mini"))


@pytest.mark.slow
def test_compiled_checkpointed_blocks_give_the_same_gradients():
    plain = build("vit_tiny")
    both = copy.deepcopy(plain)
    checkpoint_blocks(both)
    compile_blocks(both)
    loss, expected = gradients(plain, 32)
    again, found = gradients(both, 32)
    torch.testing.assert_close(loss, again, rtol=1e-4, atol=1e-4)
    for key, grad in expected.items():
        if grad is not None:
            torch.testing.assert_close(grad, found[key], rtol=1e-3, atol=1e-3)
