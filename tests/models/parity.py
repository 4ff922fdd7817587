"""Independent implementations of the same networks, with random values in every parameter, and how far ours are."""

import torch

from opendino.models.family import build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights.config_hf import config_to_json
from opendino.weights.keys_hf import TRANSFORMERS
from opendino.weights.load import fill
from opendino.weights.recognise import plain_names


@torch.no_grad()
def randomise(module, seed=0):
    """Every parameter gets noise, also those that start at 0 or 1: a part left out must show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if not parameter.numel():
            continue
        scale = 0.5 if parameter.ndim < 2 or "token" in name else 1.5 * parameter[0].numel() ** -0.5
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(start + scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def gap(ours, theirs):
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0.1
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def hf_model(config, seed=0):
    import transformers

    fields = config_to_json(config, 224)
    kind = "ViT" if isinstance(config, ViTConfig) else "ConvNext"
    hf_config = getattr(transformers, f"DINOv3{kind}Config")(
        **{key: value for key, value in fields.items() if key not in ("architectures", "model_type", "dtype")}
    )
    return randomise(getattr(transformers, f"DINOv3{kind}Model")(hf_config), seed)


def ours_from_hf(config, theirs):
    with torch.device("meta"):
        model = build_from_config(config)
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    fill(model, plain_names(state, "transformers").tensors, TRANSFORMERS, "transformers")
    return model.eval()


def images(height, width, batch=2, seed=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
