"""Number types and the padded transform: what is chosen, what counts as padding, and the script for clusters."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from opendino.data.images import Image
from opendino.data.transform import Transform, valid_patches
from opendino.errors import UsageError
from opendino.features.precision import find_dtype, good_dtype, is_faster, mean_of_valid
from opendino.models.contract import Features
from tests.features.child import save_vit


def test_auto_follows_what_the_processor_has(monkeypatch):
    cpu = torch.device("cpu")
    for known, chosen in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert good_dtype(cpu) == find_dtype("auto", cpu) == chosen
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert good_dtype(torch.device("cuda")) == "fp16"
    assert find_dtype("fp16", cpu) == "fp16"
    with pytest.raises(UsageError, match="auto, fp32, bf16, fp16"):
        find_dtype("int4", cpu)


class Slow(torch.nn.Module):
    """Needs six times as long in one type, by a clock of the test."""

    def __init__(self, slow_in, clock):
        super().__init__()
        self.slow_in, self.clock = slow_in, clock

    def forward(self, images):
        self.clock.append(self.clock[-1] + (6.0 if images.dtype == self.slow_in else 1.0))
        return Features(images[:, :, 0, 0], images[:, :0, 0], images.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("slow_in", "pays"), [(torch.float32, True), (torch.bfloat16, False), (None, False)])
def test_whether_a_smaller_type_pays_is_measured(slow_in, pays, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("opendino.features.precision.time.process_time", lambda: clock[-1])
    model = Slow(slow_in, clock)
    assert is_faster(model, model, "bf16", torch.zeros(2, 3, 8, 8)) is pays


@pytest.mark.parametrize(("height", "width"), [(341, 255), (17, 900), (16, 16), (300, 300), (255, 341)])
def test_padded_keeps_the_whole_picture_and_its_shape(height, width):
    """cases.md C19: (ceil H, ceil W) maps with an exact pixel map, nothing cropped."""
    generator = np.random.default_rng(0)
    image = Image(generator.integers(0, 256, (height, width, 3), np.uint8), "RGB", 8)
    transform = Transform(size=32, mode="padded")
    one = transform.prepare(image)
    scale = 32 / min(height, width)
    assert (one.height, one.width) == (round(height * scale), round(width * scale))
    assert tuple(one.valid.shape) == (-(-one.height // 16), -(-one.width // 16))
    assert tuple(one.pixels.shape[1:]) == tuple(16 * side for side in one.valid.shape)
    alone = torch.nn.functional.interpolate(
        torch.from_numpy(image.array).permute(2, 0, 1)[None].float() / 255,
        size=(one.height, one.width),
        mode="bilinear",
        antialias=True,
    )[0]
    mean, std = (torch.tensor(part)[:, None, None] for part in (transform.mean, transform.std))
    torch.testing.assert_close(one.pixels[:, : one.height, : one.width], (alone - mean) / std)
    # What stands beyond the picture is the picture mirrored at its last column.
    beyond = one.pixels[:, :, one.width :]
    torch.testing.assert_close(beyond, one.pixels[:, :, one.width - 1 - beyond.shape[2] : one.width - 1].flip(2))


def test_a_patch_is_valid_when_half_of_each_side_is_picture():
    for height in range(1, 70):
        slow = [min(height, 16 * (row + 1)) - 16 * row >= 8 for row in range(-(-height // 16))]
        slow[0] = True
        assert valid_patches(height, 16, 16)[:, 0].tolist() == slow


def test_the_mean_leaves_padding_out():
    patches, valid = torch.randn(3, 4, 5), torch.zeros(3, 4, dtype=torch.bool)
    valid[:2, :3] = True
    slow = sum(patches[row, column] for row in range(2) for column in range(3)) / 6
    torch.testing.assert_close(mean_of_valid(patches, valid), slow)


def test_the_script_for_clusters_makes_the_rows_of_the_command(tmp_path, monkeypatch):
    pytest.importorskip("lance", reason="pylance is not installed: stores not tried")
    from opendino.cli.embed import embed
    from opendino.features.store import open_store

    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    path = Path(__file__).parents[2] / "examples" / "ray_features.py"
    spec = importlib.util.spec_from_file_location("ray_features", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ray_features", script)
    spec.loader.exec_module(script)
    (tmp_path / "p").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 66, 3), np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "p" / "a.png")
    model = save_vit(tmp_path / "model")
    embed(tmp_path / "p", model, tmp_path / "s", dtype="fp32")
    row = open_store(tmp_path / "s").row("a.png")
    worker = script.Embed(str(model))
    made = worker({"path": "a.png", "bytes": (tmp_path / "p" / "a.png").read_bytes()})
    np.testing.assert_allclose(made["cls"], row.cls, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made["mean"], row.mean, rtol=1e-5, atol=1e-6)
    info = open_store(tmp_path / "s").info
    assert (made["model_hash"], made["transform_hash"], made["skipped"]) == (info.model_hash, info.transform_hash, "")
    broken = worker({"path": "b.png", "bytes": b"\x89PNG\r\n\x1a\n broken"})
    assert "b.png" in broken["skipped"] and np.isnan(broken["cls"]).all()
