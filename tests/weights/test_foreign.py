"""Checkpoints that other libraries write, from their own random models: everything is used, and outputs are equal."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from opendino.data.transform import Transform
from opendino.errors import WeightsError
from opendino.models.convnext import ConvNeXtConfig
from opendino.models.dinov2 import Dinov2Config
from opendino.models.family import FAMILY, build_from_config
from opendino.models.vit import ViTConfig
from opendino.weights import load, read_passport, write_model, write_official
from tests.models.parity import gap, hf_model, images, randomise

TOLERANCE = 1e-5
VIT = {"dim": 128, "depth": 2, "heads": 2, "hidden": 256}  # heads of 64, which no shape has to tell
SIZES = [(3, 3), (2, 5), (5, 3)]  # patches: square, wide, odd and tall; all are off the table of positions


def dinov2_of_transformers(registers, swiglu):
    import transformers

    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{name}Config")(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        mlp_ratio=4,
        use_swiglu_ffn=swiglu,
        **({"num_register_tokens": 4} if registers else {}),
    )
    return randomise(getattr(transformers, f"{name}Model")(config))


HUGGING_FACE = {
    "vit": lambda: hf_model(ViTConfig(**VIT)),
    "vit_gated": lambda: hf_model(ViTConfig(**VIT, swiglu=True, qkv_bias=False)),
    "convnext": lambda: hf_model(ConvNeXtConfig(depths=(1, 2, 1, 1), dims=(32, 64, 96, 128))),
    "dinov2": lambda: dinov2_of_transformers(False, False),
    "dinov2_gated": lambda: dinov2_of_transformers(False, True),
    "dinov2_registers": lambda: dinov2_of_transformers(True, False),
    "dinov2_registers_gated": lambda: dinov2_of_transformers(True, True),
}


def assert_equal_outputs(ours, last_hidden_state, pooled, x):
    with torch.inference_mode():
        features = ours(x)
    prefix = 1 + ours.num_registers
    assert gap(features.cls, pooled) < TOLERANCE
    assert gap(features.patches.flatten(1, 2), last_hidden_state[:, prefix:]) < TOLERANCE
    if ours.num_registers:
        assert gap(features.registers, last_hidden_state[:, 1:prefix]) < TOLERANCE


def assert_whole(path, layout):
    passport = read_passport(path)
    matched, wanted = passport.coverage.split()[0].split("/")
    assert passport.whole and matched == wanted and passport.coverage.endswith("tensors, 0 unexpected")
    assert passport.layout == layout
    return passport


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_transformers(name, tmp_path):
    theirs = HUGGING_FACE[name]()
    theirs.save_pretrained(tmp_path)
    assert_whole(tmp_path, "transformers")
    ours = load(tmp_path)
    # The names of transformers 5's modules, which nothing renames when a state is saved by hand; no config beside.
    save_file({k: v.clone() for k, v in theirs.state_dict().items()}, tmp_path / "by_hand.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "by_hand.pth")
    for rows, columns in SIZES:
        x = images(rows * ours.patch, columns * ours.patch)
        with torch.inference_mode():
            expected = theirs(x)
        assert_equal_outputs(ours, expected.last_hidden_state, expected.pooler_output, x)
        for file in ("by_hand.safetensors", "by_hand.pth"):
            with torch.inference_mode():
                assert torch.equal(load(tmp_path / file)(x).cls, ours(x).cls)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_transformers_opens_what_we_write_of_its_own_models(name, tmp_path):
    from transformers import AutoModel

    HUGGING_FACE[name]().save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    write_model(
        tmp_path / "ours", ours, Transform(patch=ours.patch, size=ours.patch * 14 if ours.patch < 32 else 224), {}
    )
    left, right = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    again = AutoModel.from_pretrained(tmp_path / "ours").eval()
    x = images(2 * ours.patch, 5 * ours.patch)
    with torch.inference_mode():
        expected = again(x)
    assert_equal_outputs(ours, expected.last_hidden_state, expected.pooler_output, x)


TIMM = {
    "vit": ("vit_small_patch16_dinov3", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "vit_bias": ("vit_small_patch16_dinov3_qkvb", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "vit_gated": ("vit_small_plus_patch16_dinov3", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "vit_gated_bias": ("vit_small_plus_patch16_dinov3_qkvb", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "convnext": ("convnext_tiny.dinov3_lvd1689m", {"depths": (1, 2, 1, 1), "dims": (16, 32, 48, 64)}),
    "dinov2": ("vit_small_patch14_dinov2", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {"depth": 2, "embed_dim": 128, "num_heads": 2}),
    "dinov2_gated": ("vit_giant_patch14_dinov2", {"depth": 2, "embed_dim": 96, "num_heads": 2}),
    "dinov2_gated_registers": ("vit_giant_patch14_reg4_dinov2", {"depth": 2, "embed_dim": 96, "num_heads": 2}),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, tmp_path):
    timm = pytest.importorskip("timm")
    architecture, arguments = TIMM[name]
    free = {"dynamic_img_size": True} if "dinov2" in name else {}
    theirs = randomise(timm.create_model(architecture, pretrained=False, num_classes=0, **arguments, **free))
    folder = tmp_path / "timm"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, folder / "model.safetensors")
    stats = {"mean": [0.43, 0.411, 0.296], "std": [0.213, 0.156, 0.143]}
    described = {"architecture": architecture, "pretrained_cfg": stats, "model_args": {"num_heads": 2}}
    (folder / "config.json").write_text(json.dumps(described))
    assert_whole(folder, "timm")
    ours = load(folder)
    assert ours.transform.mean == (0.43, 0.411, 0.296)
    for rows, columns in SIZES:
        x = images(rows * ours.patch, columns * ours.patch)
        with torch.inference_mode():
            features, expected = ours(x), theirs.forward_features(x)
            if "convnext" in name:
                assert gap(features.cls, theirs.forward_head(expected, pre_logits=True)) < TOLERANCE
                stages = theirs.forward_intermediates(x, intermediates_only=True)[-4:]
                for stage, map_ in zip(ours.intermediate(x, range(4), norm=False), stages, strict=True):
                    assert gap(stage.patches.permute(0, 3, 1, 2), map_) < TOLERANCE
            else:
                assert_equal_outputs(ours, expected, expected[:, 0], x)


def test_heads_that_nothing_tells_are_said_to_be_assumed(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_small_patch16_dinov3", num_classes=0, depth=2, embed_dim=128, num_heads=1)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors").card["ignored"] == [
        "heads: 2 assumed, of 64 features each; --heads N (heads=N) says otherwise"
    ]
    told = load(tmp_path / "w.safetensors", heads=1)
    assert told.config.heads == 1 and told.card["ignored"] == []
    with pytest.raises(WeightsError, match="multiple of 4 x heads"):
        load(tmp_path / "w.safetensors", heads=3)


OFFICIAL = {
    "vit": ViTConfig(**VIT),
    "vit_rounded": ViTConfig(**VIT, rope_rounded=True),
    "vit_gated": ViTConfig(**VIT, swiglu=True, qkv_bias=False, local_cls_norm=True),
    "convnext": ConvNeXtConfig(depths=(1, 2, 1, 1), dims=(16, 32, 48, 64)),
    "dinov2": Dinov2Config(**VIT, position_side=5, position_resize="offset"),
    "dinov2_registers": Dinov2Config(**VIT, position_side=5, registers=4),
    "dinov2_gated": Dinov2Config(**VIT, position_side=5, swiglu=True, position_resize="offset"),
}


def plain_config(config):
    """Fields that only training reads stand in no state dict."""
    return replace(config, layer_scale=1.0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_round_trip_is_exact(name, tmp_path):
    model = randomise(build_from_config(OFFICIAL[name]))
    file = write_official(tmp_path, model, Transform(patch=model.patch, size=model.patch * 7), {"name": "tiny"})
    assert_whole(file, "official")
    again = load(file)
    assert plain_config(again.config) == plain_config(model.config)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    second = write_official(tmp_path / "again", again, again.transform, {"name": "tiny"})
    left, right = (torch.load(path, weights_only=True) for path in (file, second))
    assert list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)
    if name != "vit_rounded":
        write_model(tmp_path / "hf", again, again.transform, again.card)
        back = load(tmp_path / "hf")
        x = images(2 * model.patch, 3 * model.patch)
        with torch.inference_mode():
            assert torch.equal(back(x).patches, model(x).patches)


def test_official_tensor_names_of_the_base_model_are_the_published_ones():
    """188 tensors; the counts of numbers are those of the table of released models."""
    from opendino.weights.keys import shapes_in_file
    from opendino.weights.keys_official import OFFICIAL as LAYOUT
    from opendino.weights.opened import empty_model

    config = FAMILY["vitb16"].config
    state = empty_model(config).state_dict()
    shapes = {}
    for rule in LAYOUT.rules(config, frozenset()):
        shapes |= shapes_in_file(rule, state)
    shapes |= {name: tuple(tensor.shape) for name, tensor in LAYOUT.copies(config, state).items()}
    assert len(shapes) == 188
    assert shapes["storage_tokens"] == (1, 4, 768) and shapes["rope_embed.periods"] == (16,)
    assert shapes["blocks.11.attn.qkv.bias_mask"] == (2304,) and shapes["mask_token"] == (1, 768)


def official_state(config=None):
    config = config or OFFICIAL["vit"]
    from opendino.weights.keys_official import OFFICIAL as LAYOUT
    from opendino.weights.write import _tensors

    model = randomise(build_from_config(config))
    return model, _tensors(LAYOUT, config, model)


PREFIXES = {
    "ddp": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "compiled blocks": lambda state: {k.replace("blocks.1.", "blocks.1._orig_mod."): v for k, v in state.items()},
    "sharded": lambda state: {f"_fsdp_wrapped_module.{k}": v for k, v in state.items()},
    "model key": lambda state: {"model": state, "epoch": 3, "args": {"lr": 0.1}},
    "consolidated": lambda state: {
        "teacher": {
            **{f"backbone.{k}": v for k, v in state.items()},
            "dino_head.mlp.0.weight": torch.zeros(3),
            "ibot_head.last_layer.weight": torch.zeros(3),
        }
    },
    "student and teacher": lambda state: {
        "model": {
            **{f"student.backbone.{k}": v + 1 for k, v in state.items()},
            **{f"teacher.backbone.{k}": v for k, v in state.items()},
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    },
}


@pytest.mark.parametrize("name", PREFIXES)
def test_training_checkpoints_with_prefixes(name, tmp_path):
    model, state = official_state()
    torch.save(PREFIXES[name](state), tmp_path / "checkpoint.pth")
    again = load(tmp_path / "checkpoint.pth")
    assert torch.equal(again(images(32, 48)).cls, model(images(32, 48)).cls)
    assert again.card["coverage"].startswith(f"{len(state)}/{len(state)} tensors, 0 unexpected")
    if name == "student and teacher":
        assert f"{len(state)} of heads or other models left out" in again.card["coverage"]


def test_a_checkpoint_of_our_own_run_opens(tmp_path):
    """The averaged teacher of RUN/checkpoints/step-N; the run's model gives the config."""
    config = FAMILY["vit_tiny"].config
    model, student = randomise(build_from_config(config)), randomise(build_from_config(config), seed=5)
    write_model(tmp_path / "model", student, Transform(patch=8), {"name": "mine"})
    folder = tmp_path / "checkpoints" / "step-00000010"
    folder.mkdir(parents=True)
    tensors = {f"method.teacher.backbone.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"method.student.backbone.{k}": v for k, v in student.state_dict().items()}
    tensors |= {"method.teacher.dino_head.w": torch.zeros(2), "optimizer.exp_avg.backbone.norm.weight": torch.zeros(2)}
    save_file(tensors, folder / "state.safetensors")
    assert torch.equal(load(folder)(images(32, 48)).cls, model(images(32, 48)).cls)


def test_released_checkpoints_with_masks_of_zero_keep_them_and_have_no_bias(tmp_path):
    """The released distilled files hold 0 in the masks and the biases; layouts without masks get the product."""
    model, state = official_state()
    state = {k: torch.zeros_like(v) if k.endswith("bias_mask") else v for k, v in state.items()}
    torch.save(state, tmp_path / "m.pth")
    ours = load(tmp_path / "m.pth")
    written = torch.load(write_official(tmp_path / "o", ours, ours.transform, {"name": "m"}), weights_only=True)
    assert all(torch.equal(written[key], state[key]) for key in state)
    write_model(tmp_path / "hf", ours, ours.transform, ours.card)
    x = images(32, 32)
    assert torch.equal(load(tmp_path / "hf")(x).cls, ours(x).cls)
    assert not torch.equal(ours(x).cls, model(x).cls)


@pytest.mark.parametrize("name", ["vit", "vit_gated", "convnext", "dinov2", "dinov2_gated"])
def test_files_with_strange_names_and_shapes_are_refused_in_one_line(name, tmp_path):
    """Dropped, cut, renamed and renumbered tensors: never another error, never a model that is not whole."""
    _, state = official_state(OFFICIAL[name])
    generator = torch.Generator().manual_seed(0)
    names = sorted(state)
    # Copies of other values; and DINOv2 without its mask token is a whole model under timm's names.
    optional = {"rope_embed.periods", "norms.3.weight", "norms.3.bias", *(["mask_token"] if name == "dinov2" else [])}

    def pick(count):
        return int(torch.randint(count, (1,), generator=generator))

    for _ in range(15):
        broken, victim = dict(state), names[pick(len(names))]
        tensor = broken.pop(victim)
        shapes = [
            tensor[:0],
            tensor[..., :-1],
            tensor.flatten(),
            tensor[None],
            tensor.sum(),
            torch.zeros(2, 3, 4, 5, 6),
        ]
        renamed = [victim + "x", "blocks.150.norm1.weight", "blocks.10000000.norm1.weight", "stages.3.999.gamma"]
        which = pick(11)
        if which < 6:
            broken[victim] = shapes[which].clone()
        elif which < 10:
            broken[renamed[which - 6]] = tensor
        save_file({key: value.contiguous() for key, value in broken.items()}, tmp_path / "w.safetensors")
        if broken[victim].shape == tensor.shape if victim in broken else victim in optional:
            continue
        with pytest.raises(WeightsError) as caught:
            load(tmp_path / "w.safetensors")
        assert "\n" not in str(caught.value)
        with contextlib.suppress(WeightsError):
            load(tmp_path / "w.safetensors", partial=True)


def test_the_preprocessor_of_dinov2_is_understood(tmp_path):
    """Its files ask for bicubic; ours resizes bilinearly, and the rest is taken as it stands."""
    dinov2_of_transformers(False, False).save_pretrained(tmp_path)
    fields = {"crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "resample": 3}
    fields |= {"size": {"shortest_edge": 256}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    transform = load(tmp_path).transform
    assert (transform.size, transform.mode, transform.patch) == (224, "center", 14)
