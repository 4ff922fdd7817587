"""Our ConvNeXt against transformers' and timm's on random weights."""

from dataclasses import replace

import pytest
import torch

from opendino.models.convnext import ConvNeXt, ConvNeXtConfig
from opendino.models.family import FAMILY
from tests.models.parity import gap, hf_model, images, ours_from_hf, randomise

CONFIGS = {
    "convnext_tiny": replace(FAMILY["convnext_tiny"].config, dims=(32, 64, 128, 256)),
    "convnext_small": replace(FAMILY["convnext_small"].config, dims=(16, 32, 64, 128)),
    "convnext_base": replace(FAMILY["convnext_base"].config, depths=(1, 1, 3, 1), dims=(32, 64, 128, 256)),
    "convnext_large": replace(FAMILY["convnext_large"].config, depths=(1, 2, 3, 1), dims=(48, 96, 192, 384)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_transformers(name):
    theirs = hf_model(CONFIGS[name])
    ours = ours_from_hf(CONFIGS[name], theirs)
    for height, width in [(64, 64), (32, 96)]:
        x = images(height, width)
        with torch.inference_mode():
            features, expected = ours(x), theirs(x, output_hidden_states=True)
            assert gap(features.cls, expected.pooler_output) < 1e-5
            assert gap(features.patches.flatten(1, 2), expected.last_hidden_state[:, 1:]) < 1e-5
            stages = ours.intermediate(x, [0, 1, 2, 3], norm=False)
            for stage, map_ in zip(stages, expected.hidden_states[-4:], strict=True):
                assert gap(stage.patches.permute(0, 3, 1, 2), map_) < 1e-5


def test_equals_timm():
    timm = pytest.importorskip("timm")
    config = ConvNeXtConfig(depths=(1, 2, 3, 1), dims=(24, 48, 96, 192))
    ours = randomise(ConvNeXt(config), seed=2)
    theirs = timm.create_model("convnext_tiny", num_classes=0, depths=config.depths, dims=config.dims).eval()
    state = {}
    for name, tensor in ours.state_dict().items():
        if name.startswith("downsample_layers.0"):
            name = name.replace("downsample_layers.0", "stem")
        elif name.startswith("downsample_layers."):
            _, stage, rest = name.split(".", 2)
            name = f"stages.{stage}.downsample.{rest}"
        elif name.startswith("stages."):
            _, stage, block, rest = name.split(".", 3)
            rest = rest.replace("dwconv", "conv_dw").replace("pwconv1", "mlp.fc1").replace("pwconv2", "mlp.fc2")
            name = f"stages.{stage}.blocks.{block}.{rest}"
        else:
            name = f"head.{name}"
        state[name] = tensor
    theirs.load_state_dict(state, strict=True)
    x = images(64, 96)
    with torch.inference_mode():
        last = theirs.forward_features(x)
        assert gap(ours(x).cls, theirs.forward_head(last, pre_logits=True)) < 1e-5
        maps = theirs.forward_intermediates(x, intermediates_only=True)[-4:]
        for stage, map_ in zip(ours.intermediate(x, range(4), norm=False), maps, strict=True):
            assert gap(stage.patches.permute(0, 3, 1, 2), map_) < 1e-5
