"""Going on from a trained backbone: heads first, held by its anchor, exact when resumed, and a low-rank way."""

import copy
import dataclasses
import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
import torch

from opendino.data.loader import Loader
from opendino.data.sources import open_source
from opendino.errors import UsageError
from opendino.losses.match import match_loss
from opendino.models.contract import Features
from opendino.models.family import build_model
from opendino.train.loop import train
from opendino.train.methods.adaptation import Adaptation, AdaptConfig
from opendino.train.run import open_run
from tests.oracles.losses import gram_loop, match_loop
from tests.train.runs import draw_pictures, tiny_config
from tests.train.test_resume import assert_equal, rows, state

GOLDEN = Path(__file__).parents[1] / "assets" / "golden_adapt.json"


def start_model():
    torch.manual_seed(7)
    return build_model("vit_tiny", dim=64, depth=2, heads=1, hidden=128, registers=2, drop_path=0.3).eval()


def config_of(pictures, steps=10, freeze=3, **adapt):
    config = tiny_config(pictures, steps=steps)
    optim = dataclasses.replace(config.optim, freeze_backbone=freeze, backbone_lr=0.5)
    return dataclasses.replace(
        config, optim=optim, adapt=AdaptConfig(**{"cls_weight": 1.0, "gram_weight": 1.0} | adapt)
    )


def build(config):
    torch.manual_seed(config.seed)
    method = Adaptation(start_model(), config.method, config.adapt, config.steps)
    return method, Loader(open_source(Path(config.data.path)), config.data, method.export().patch, "cpu")


def run_to(config, out, **kwargs):
    method, loader = build(config)
    with open_run(out) as run:
        train(config, method, loader, run, **kwargs)
    return method


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=10)


def test_the_anchor_equals_its_loops_on_the_unmasked_crops():
    config = config_of(Path("nowhere"), cls_weight=2.0, gram_weight=0.5)
    method = Adaptation(start_model(), config.method, config.adapt, 10)
    crops, held = torch.randn(4, 3, 32, 32), start_model()
    with torch.no_grad():
        anchor = held(crops)
    features = Features(torch.randn(4, 64, requires_grad=True), torch.zeros(4, 2, 64), torch.randn(4, 4, 4, 64))
    terms = method.further_terms(features, crops)
    cls, gram = terms["anchor"], terms["gram"]
    assert (cls[1], gram[1]) == (2.0, 0.5)
    assert cls[0].item() == pytest.approx(match_loop(features.cls.tolist(), anchor.cls.tolist()), rel=1e-4)
    expected = gram_loop(features.patches.tolist(), anchor.patches.tolist())
    assert gram[0].item() == pytest.approx(expected, rel=1e-4)
    cls[0].backward()
    assert all(parameter.grad is None for parameter in method.anchor.parameters())


def test_heads_learn_first_while_the_backbone_stands_still(pictures, tmp_path):
    start, seen = start_model().state_dict(), {}

    def note(step, result, speed):
        method = seen["method"]
        now = {k: v.clone() for k, v in method.student["backbone"].state_dict().items()}
        seen[step] = (all(torch.equal(now[k], start[k]) for k in now), set(result.values))

    config = config_of(pictures, steps=5)
    method, loader = build(config)
    seen["method"] = method
    head = copy.deepcopy(method.student["dino_head"].state_dict())
    with open_run(tmp_path) as run:
        train(config, method, loader, run, on_step=note)
    assert [seen[step][0] for step in (1, 2, 3, 4, 5)] == [True, True, True, False, False]
    assert all({"anchor", "gram"} & seen[step][1] == set() for step in (1, 2, 3))
    assert all({"anchor", "gram"} <= seen[step][1] for step in (4, 5))
    assert any(not torch.equal(head[k], v) for k, v in method.student["dino_head"].state_dict().items())
    assert all(torch.equal(start[k], v) for k, v in method.anchor.state_dict().items())


def test_the_anchor_holds(pictures, tmp_path):
    """A heavy anchor keeps features nearer to the start than none, on pictures that were trained on."""
    images = torch.randn(6, 3, 32, 32)
    moved = []
    for weight in (0.0, 100.0):
        config = config_of(pictures, steps=15, freeze=0, cls_weight=weight, gram_weight=weight)
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, backbone_lr=1.0))
        method = run_to(config, tmp_path / str(weight))
        with torch.no_grad():
            moved.append(match_loss(method.student["backbone"].eval()(images).cls, start_model()(images).cls).item())
    assert moved[1] < 0.5 * moved[0]


def test_kill_9_then_resume_equals_an_unbroken_run(pictures, tmp_path):
    config = config_of(pictures)
    whole = run_to(config, tmp_path / "whole")

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:8=SIGKILL"
        run_to(config, tmp_path / "cut")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert_equal(state(run_to(config, tmp_path / "cut")), state(whole))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize("name", ["cls_weight", "max_loss", "lora", "patience"])
def test_negative_settings_are_refused(name):
    with pytest.raises(UsageError, match=f"adapt.{name}: must be at least 0"):
        AdaptConfig(**{name: -1})


def hundred_steps(folder):
    results = []
    config = config_of(draw_pictures(folder / "pictures", count=10), steps=100, freeze=0.1)
    run_to(config, folder / "run", on_step=lambda step, result, speed: results.append(result))
    return [{"loss": r.loss, "grad_norm": r.grad_norm, **r.values} for r in results]


def test_a_hundred_steps_equal_the_committed_ones(tmp_path):
    found, golden = hundred_steps(tmp_path), json.loads(GOLDEN.read_text())
    assert len(found) == len(golden) == 100
    for step, (row, expected) in enumerate(zip(found, golden, strict=True)):
        assert row == pytest.approx(expected, rel=2e-3, abs=1e-5), f"step {step}"


# --- low-rank changes ---


def lora_method():
    config = tiny_config(Path("nowhere"))
    torch.manual_seed(0)
    return Adaptation(start_model(), config.method, AdaptConfig(lora=4), 10)


def test_low_rank_changes_start_at_nothing_and_are_all_that_is_trained():
    pytest.importorskip("peft")
    method, images = lora_method(), torch.randn(2, 3, 32, 32)
    backbone = method.student["backbone"].eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images).cls, start_model()(images).cls, rtol=0, atol=1e-6)
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not any("lora_" in name for name in method.anchor.state_dict())


def test_what_is_exported_is_the_plain_model_with_the_changes_in_it():
    pytest.importorskip("peft")
    method, images = lora_method(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name, parameter in method.teacher["backbone"].named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
        unmerged = method.teacher["backbone"].eval()(images)
        plain = method.export()
        assert set(plain.state_dict()) == set(start_model().state_dict())
        assert not torch.allclose(unmerged.cls, start_model()(images).cls, atol=0.1)
        torch.testing.assert_close(plain(images).cls, unmerged.cls, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(plain(images).patches, unmerged.patches, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(method.teacher["backbone"](images).cls, unmerged.cls, rtol=0, atol=0)


def test_low_rank_training_resumes_exactly(pictures, tmp_path):
    pytest.importorskip("peft")
    config = config_of(pictures, steps=6, lora=2)
    config = dataclasses.replace(config, save=dataclasses.replace(config.save, steps=3))
    whole = run_to(config, tmp_path / "whole")
    moved = [n for n, p in whole.student["backbone"].named_parameters() if "lora_B" in n and p.abs().max() > 0]
    assert moved
    base = start_model().state_dict()
    assert torch.equal(whole.student["backbone"].cls_token, base["cls_token"])

    def child():
        os.environ["OPENDINO_FAULT"] = "loop.after_step:5=SIGKILL"
        run_to(config, tmp_path / "cut")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert_equal(state(run_to(config, tmp_path / "cut")), state(whole))


def test_convolutions_have_no_blocks_for_low_rank_changes():
    pytest.importorskip("peft")
    config = tiny_config(Path("nowhere"))
    with pytest.raises(UsageError, match="no transformer blocks"):
        Adaptation(build_model("conv_mini"), config.method, AdaptConfig(lora=4), 10)


if __name__ == "__main__":  # renews the golden curve; say why in the commit
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(hundred_steps(Path(folder)), indent=1) + "\n")
