"""Our ViT against transformers' and timm's on random weights."""

from dataclasses import replace

import pytest
import torch

from opendino.models.family import FAMILY
from tests.models.parity import gap, hf_model, images, ours_from_hf, randomise

TOLERANCE = 1e-5


def thin(name, **changes):
    return replace(FAMILY[name].config, **changes)


CONFIGS = {
    "vits16": thin("vits16"),
    "vits16plus": thin("vits16plus", depth=4),
    "vitb16": thin("vitb16", depth=2),
    "vitl16": thin("vitl16", depth=2, dim=256, heads=4, hidden=1024),
    "vith16plus": thin("vith16plus", depth=3, dim=320, heads=5, hidden=1280),
    "vit7b16": thin("vit7b16", depth=3, dim=256, heads=2, hidden=512, local_cls_norm=False),
    "vit_tiny": thin("vit_tiny"),
    "no_registers": thin("vit_tiny", depth=2, registers=0),
}
SIZES = [(64, 64), (32, 96), (80, 48)]  # square, wide, a grid of odd sides


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_transformers(name):
    config = CONFIGS[name]
    theirs = hf_model(config)
    ours = ours_from_hf(config, theirs)
    prefix = 1 + config.registers
    for height, width in SIZES:
        x = images(height, width)
        mask = torch.rand(2, height // config.patch, width // config.patch) < 0.3
        with torch.inference_mode():
            features = ours(x)
            expected = theirs(x, output_hidden_states=True)
            last = expected.last_hidden_state
            assert gap(features.cls, expected.pooler_output) < TOLERANCE
            assert gap(features.patches.flatten(1, 2), last[:, prefix:]) < TOLERANCE
            if config.registers:
                assert gap(features.registers, last[:, 1:prefix]) < TOLERANCE
            # Theirs are not normed and begin with the embeddings.
            layers = sorted({0, config.depth // 2, config.depth - 1})
            for layer, found in zip(layers, ours.intermediate(x, layers, norm=False), strict=True):
                assert gap(found.patches.flatten(1, 2), expected.hidden_states[layer + 1][:, prefix:]) < TOLERANCE
                assert gap(found.cls, expected.hidden_states[layer + 1][:, 0]) < TOLERANCE
            masked = theirs(x, bool_masked_pos=mask.flatten(1)).last_hidden_state
            assert gap(ours(x, mask=mask).patches.flatten(1, 2), masked[:, prefix:]) < TOLERANCE
            assert gap(ours(x).patches, ours(x, mask=mask).patches) > 1e-2  # the mask does something


def timm_state(model):
    """Our state under timm's names; it fuses q and v biases apart and has no mask token."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("mask_token", "local_cls_norm")) or name.endswith("bias_mask"):
            continue
        if name.endswith("qkv.bias"):
            q, _, v = tensor.chunk(3)
            state[name.replace("qkv.bias", "q_bias")], state[name.replace("qkv.bias", "v_bias")] = q, v
            continue
        for ours, theirs in (
            ("registers", "reg_token"),
            ("patch_embed.", "patch_embed.proj."),
            ("ls1.gamma", "gamma_1"),
            ("ls2.gamma", "gamma_2"),
            ("mlp.w1", "mlp.fc1_g"),
            ("mlp.w2", "mlp.fc1_x"),
            ("mlp.w3", "mlp.fc2"),
        ):
            name = name.replace(ours, theirs)
        state[name] = tensor
    return state


TIMM = {
    "vits16": "vit_small_patch16_dinov3_qkvb",
    "vits16plus": "vit_small_plus_patch16_dinov3_qkvb",
    "vitb16": "vit_base_patch16_dinov3_qkvb",
    "vitl16": "vit_large_patch16_dinov3_qkvb",
    "vith16plus": "vit_huge_plus_patch16_dinov3_qkvb",
    "vit7b16": "vit_7b_patch16_dinov3",
}


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm(name):
    timm = pytest.importorskip("timm")
    from opendino.models.vit import ViT

    config = CONFIGS[name]
    ours = randomise(ViT(config), seed=3)
    theirs = timm.create_model(
        TIMM[name],
        pretrained=False,
        num_classes=0,
        depth=config.depth,
        embed_dim=config.dim,
        num_heads=config.heads,
        mlp_ratio=config.hidden / config.dim,
    ).eval()
    left_out = theirs.load_state_dict(timm_state(ours), strict=False)
    assert not left_out.unexpected_keys and all("bias" in key for key in left_out.missing_keys)
    prefix = 1 + config.registers
    for height, width in SIZES:
        x = images(height, width)
        with torch.inference_mode():
            features, expected = ours(x), theirs.forward_features(x)
            assert gap(features.cls, expected[:, 0]) < TOLERANCE
            assert gap(features.registers, expected[:, 1:prefix]) < TOLERANCE
            assert gap(features.patches.flatten(1, 2), expected[:, prefix:]) < TOLERANCE
            for norm in (True, False):
                layers = [0, config.depth - 1]
                maps = theirs.forward_intermediates(x, layers, norm=norm, intermediates_only=True)
                for found, want in zip(ours.intermediate(x, layers, norm), maps, strict=True):
                    assert gap(found.patches.permute(0, 3, 1, 2), want) < TOLERANCE
