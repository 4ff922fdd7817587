"""Similarity and attention maps, on formulas and on a tiny fake backbone."""

import numpy as np
import pytest
import torch

from opendino.errors import UsageError
from opendino.pages.attention import attention_maps, attention_sheet
from opendino.pages.similarity import SCALE, mark, paint, similarity_maps, similarity_sheet


def test_similarity_is_the_cosine_with_the_chosen_patch():
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randn(3, 5, 8, generator=generator), torch.randn(4, 4, 8, generator=generator)]
    maps = similarity_maps(pictures, (1, 2))
    assert [tuple(one.shape) for one in maps] == [(3, 5), (4, 4)]
    assert float(maps[0][1, 2]) == pytest.approx(1)
    expected = torch.nn.functional.cosine_similarity(pictures[0][1, 2], pictures[1][3, 0], dim=0)
    assert float(maps[1][3, 0]) == pytest.approx(float(expected), abs=1e-6)


def test_the_middle_is_the_default_and_outside_is_refused():
    picture = torch.eye(9).reshape(3, 3, 9)
    assert int(similarity_maps([picture])[0].argmax()) == 4
    with pytest.raises(UsageError, match="3 x 3 grid"):
        similarity_maps([picture], (3, 0))


def test_paint_runs_from_dark_to_bright():
    ramp = paint(torch.linspace(-0.5, 1.5, 9)[None], 0.0, 1.0)[0].astype(int)
    assert ramp[0].tolist() == SCALE[0].tolist() and ramp[-1].tolist() == SCALE[-1].tolist()
    light = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) >= 0).all()
    assert paint(torch.full((2, 2), torch.nan), 0, 0).shape == (2, 2, 3)


def test_the_point_is_marked_on_photo_and_map():
    photo = np.full((64, 64, 3), 128, np.uint8)
    assert (mark(photo, 0.5, 0.5)[32 - 6 : 32 + 7, 32 - 6 : 32 + 7] == 255).any() and (photo == 128).all()
    maps = similarity_maps([torch.randn(4, 4, 8), torch.randn(4, 4, 8)], (1, 1))
    sheet = similarity_sheet([photo, photo], maps, (1, 1), cell_px=64)
    marked = np.asarray(sheet)[:64, -131:-67]
    unmarked = np.asarray(sheet)[:64, -64:]
    assert (marked == 255).any() and (unmarked == 128).all()


class FakeViT(torch.nn.Module):
    num_layers = 3

    def attention(self, images: torch.Tensor, layer: int) -> torch.Tensor:
        height, width = images.shape[-2] // 4, images.shape[-1] // 4
        return torch.full((1, 2, height, width), (layer + 1) / 100)


class FakeConvNet(torch.nn.Module):
    num_layers = 4

    def attention(self, images: torch.Tensor, layer: int) -> torch.Tensor:
        raise UsageError("attention", "convolutions have none", "use similarity")


def test_attention_takes_layers_from_both_ends():
    image = torch.zeros(3, 8, 12)
    assert attention_maps(FakeViT(), image).shape == (2, 2, 3)
    assert float(attention_maps(FakeViT(), image, -1)[0, 0, 0]) == pytest.approx(0.03)
    assert float(attention_maps(FakeViT(), image, 0)[0, 0, 0]) == pytest.approx(0.01)
    with pytest.raises(UsageError, match="3 layers"):
        attention_maps(FakeViT(), image, 3)


def test_a_model_without_attention_says_so():
    with pytest.raises(UsageError, match="have none"):
        attention_maps(FakeConvNet(), torch.zeros(3, 8, 8))


def test_attention_sheet_has_photo_mean_and_heads():
    photo = np.full((32, 48, 3), 128, np.uint8)
    sheet = attention_sheet([photo], [torch.rand(3, 4, 6)], cell_px=44)
    assert sheet.height == 5 * 44 + 4 * 2
