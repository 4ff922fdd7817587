"""PCA maps against scikit-learn, their scaling, their colours over time, and the sheet."""

import numpy as np
import pytest
import torch

from opendino.errors import ShapeError
from opendino.pages.pca import Basis, colour, fit, pca_maps, picture_sheet
from opendino.pages.sheet import save_training_pictures


def scene(seed: int = 0, batch: int = 2, grid: int = 12, dim: int = 24) -> torch.Tensor:
    """Patches of three strengths of structure plus a little noise, so that components are well apart."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(dim, 3, generator=generator)).Q.T
    y, x = torch.meshgrid(torch.linspace(-1, 1, grid), torch.linspace(-1, 1, grid), indexing="ij")
    shapes = torch.stack([2.0 * x, 1.2 * torch.sin(5 * y), 0.7 * torch.cos(7 * x * y)], dim=-1)
    noise = 0.02 * torch.randn(batch, grid, grid, dim, generator=generator)
    return shapes @ directions + 3 * torch.ones(dim) / dim**0.5 + noise


def test_components_are_those_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    patches = scene()
    basis = fit(list(patches))
    tokens = torch.nn.functional.normalize(patches, dim=-1).flatten(0, 2).numpy()
    theirs = decomposition.PCA(3, svd_solver="full").fit(tokens).components_
    agreement = np.abs((basis.components.numpy() * theirs).sum(1))
    np.testing.assert_allclose(agreement, 1, atol=1e-4)


def test_fewer_patches_than_dimensions_gives_the_same_directions():
    patches = scene(dim=24, grid=4, batch=1)  # 16 patches in 24 dimensions: the small-side decomposition
    wide = fit(list(patches))
    tokens = torch.nn.functional.normalize(patches, dim=-1).flatten(0, 2)
    directions = torch.linalg.svd((tokens - tokens.mean(0)).double(), full_matrices=False).Vh[:3].float()
    torch.testing.assert_close((wide.components * directions).sum(1).abs(), torch.ones(3), atol=1e-4, rtol=0)


def test_shape_type_and_full_range():
    maps, basis = pca_maps(scene(batch=3))
    assert maps.shape == (3, 12, 12, 3) and maps.dtype == np.uint8
    assert maps.reshape(-1, 3).min(0).tolist() == [0, 0, 0] and maps.reshape(-1, 3).max(0).tolist() == [255] * 3
    assert basis.components.shape == (3, 24)


def test_one_basis_for_all_pictures():
    patches = scene(batch=2)
    together, basis = pca_maps(patches)
    assert (together[0] == colour(patches[0], basis)).all() and (together[1] == colour(patches[1], basis)).all()
    alone, _ = pca_maps(patches[:1] * torch.linspace(1, 2, 24))
    assert (alone[0] != together[0]).any()


def test_length_of_patches_does_not_matter_and_outliers_do_not_wash_out():
    patches = scene()
    patches_long = patches * torch.rand(2, 12, 12, 1).add(0.5)
    np.testing.assert_array_equal(pca_maps(patches)[0], pca_maps(patches_long)[0])
    patches[0, 0, 0] = -40 * patches[0, 0, 0]
    maps, _ = pca_maps(patches)
    assert maps.reshape(-1, 3).std(0).min() > 40


def test_colours_survive_sign_flips_and_swapped_components():
    patches = scene(dim=24)
    first, basis = pca_maps(patches)
    centred = patches - patches.mean((0, 1, 2))
    # The same scene in a space that was turned and mirrored at random: other directions, same structure.
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(3))).Q
    later, _ = pca_maps((centred + patches.mean((0, 1, 2))) @ turn, basis)
    np.testing.assert_allclose(later.astype(int), first.astype(int), atol=3)
    mirrored = Basis(
        basis.mean, basis.components[[2, 0, 1]] * -1, basis.low, basis.high, basis.scores[:, [2, 0, 1]] * -1
    )
    _, followed = pca_maps(patches, mirrored)
    torch.testing.assert_close(followed.components, mirrored.components, atol=1e-5, rtol=0)


def test_a_basis_of_other_pictures_still_gives_the_signs():
    basis = fit(list(scene(batch=2)))
    turned = Basis(basis.mean, -basis.components, basis.low, basis.high, -basis.scores)
    fitted = fit(list(scene(batch=3)), turned)
    assert ((fitted.components * turned.components).sum(1) > 0.9).all()


@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
def test_collapsed_and_broken_features_draw_flat_grey(value):
    noise = 1e-6 * torch.rand(2, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    maps, _ = pca_maps(torch.full((2, 4, 4, 8), value) + noise)
    assert maps.std() < 2 and abs(maps.mean() - 127.5) < 3


def test_a_single_patch_of_two_dimensions_has_colours():
    maps, basis = pca_maps(torch.ones(1, 1, 1, 2), foreground=True)
    assert maps.shape == (1, 1, 1, 3) and (basis.high > basis.low).all()


def test_foreground_is_the_disc_and_the_background_is_black():
    y, x = np.mgrid[0:16, 0:16]
    disc = torch.from_numpy((y - 8) ** 2 + (x - 8) ** 2 < 16)
    generator = torch.Generator().manual_seed(0)
    texture = 0.15 * torch.randn(2, 16, 16, 12, generator=generator)
    for sign in (1, -1):
        patches = torch.ones(12) + sign * disc[None, ..., None] * torch.linspace(-1, 1, 12) + texture
        maps, basis = pca_maps(patches, foreground=True)
        black = (maps == 0).all(-1)
        assert black[:, ~disc.numpy()].mean() > 0.98 and black[:, disc.numpy()].mean() < 0.05
        assert (colour(patches[0], Basis.from_dict(basis.to_dict())) == maps[0]).all()


def test_a_basis_goes_through_json():
    import json

    patches = scene()
    maps, basis = pca_maps(patches)
    again = Basis.from_dict(json.loads(json.dumps(basis.to_dict())))
    np.testing.assert_array_equal(colour(patches[1], again), maps[1])
    np.testing.assert_array_equal(pca_maps(patches, again)[0], maps)


def test_wrong_shape_is_named():
    with pytest.raises(ShapeError, match="B, h, w, D"):
        pca_maps(torch.ones(2, 16, 8))


def test_no_random_numbers_are_drawn():
    before = torch.get_rng_state()
    pca_maps(scene(), foreground=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_sheet_has_a_row_a_step_and_keeps_shapes():
    photos = [np.full((60, 90, 3), 200, np.uint8), np.full((60, 60, 3), 90, np.uint8)]
    maps = [np.full((4, 6, 3), 10, np.uint8), np.full((4, 4, 3), 20, np.uint8)]
    sheet = picture_sheet(photos, {"": maps}, cell_px=40)
    gap = 2
    assert sheet.size == (60 + gap + 40, 40 + gap + 40)
    assert sheet.getpixel((30, 20)) == (200, 200, 200) and sheet.getpixel((80, 20)) == (90, 90, 90)
    assert sheet.getpixel((30, 62)) == (10, 10, 10) and sheet.getpixel((80, 62)) == (20, 20, 20)
    labelled = picture_sheet(photos, {"step 0": maps, "step 1,000": maps}, cell_px=40)
    assert labelled.width > sheet.width and labelled.height == 3 * 40 + 2 * gap
    assert picture_sheet(photos, {"": maps}, cell_px=40, max_columns=1).height > 2 * sheet.height
    assert picture_sheet(photos, {"": maps}, background=None).mode == "RGBA"


def test_sheet_refuses_a_row_of_another_length():
    photos = [np.zeros((8, 8, 3), np.uint8)] * 2
    with pytest.raises(ShapeError, match=r"step 4.*1 pictures for 2 columns"):
        picture_sheet(photos, {"step 4": photos[:1]})
    with pytest.raises(ShapeError):
        picture_sheet([], {})


def test_training_pictures_share_their_columns(tmp_path):
    from PIL import Image

    photos = [np.zeros((64, 96, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)]
    maps = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)]
    path = save_training_pictures(tmp_path / "pictures", 40, photos, maps)
    assert path.name == "pca-00000040.png"
    strip, above = Image.open(path), Image.open(path.parent / "photos.png")
    assert abs(strip.width / strip.height - above.width / above.height) < 0.02
