"""Wrong values are refused with the field's name, what is allowed and what was given."""

from __future__ import annotations

import dataclasses

import pytest

from opendino.data.config import ColorConfig, CropConfig, CropSizes, DataConfig, MaskConfig
from opendino.errors import UsageError


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (CropConfig, "global_px", 0),
        (CropConfig, "local_px", -16),
        (CropConfig, "num_locals", -1),
        (CropConfig, "global_scale", (0.5, 0.2)),
        (CropConfig, "local_scale", (0.0, 0.3)),
        (CropConfig, "ratio", (0.75, float("inf"))),
        (CropConfig, "flip", 1.5),
        (ColorConfig, "jitter_prob", -0.1),
        (ColorConfig, "hue", 0.6),
        (ColorConfig, "brightness", float("nan")),
        (ColorConfig, "blur_prob", (0.5, 0.5)),
        (ColorConfig, "blur_sigma", (0.0, 2.0)),
        (ColorConfig, "solarise_prob", (0.0, 2.0, 0.0)),
        (MaskConfig, "probability", 1.1),
        (MaskConfig, "ratio", (0.6, 0.1)),
        (MaskConfig, "min_patches", 0),
        (MaskConfig, "aspect", 0.0),
        (DataConfig, "batch_size", 0),
        (DataConfig, "seed", -1),
        (DataConfig, "workers", -2),
        (DataConfig, "cache_mb", -1),
        (DataConfig, "max_bad", 2.0),
        (DataConfig, "std", (0.2, 0.0, 0.2)),
        (DataConfig, "mean", (0.2, 0.2)),
    ],
)
def test_wrong_values_are_named(config: type, field: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        config(**{field: value})
    line = str(caught.value)
    assert line.startswith("data.") and f"{field}: must be" in line and "got " in line


def test_defaults_are_valid_and_frozen() -> None:
    config = DataConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 3  # type: ignore[misc]
    assert config.crops.num_views == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gram_px": 208}, r"crops.gram_px: must be 0, or at least as large as the global crops of 224 px, got 208"),
        ({"mix": "64/32:0.5 64-32"}, r"crops.mix: must be sides and shares .* got '64-32'"),
        ({"mix": "64/32/48:1"}, r"at least as large as the global crops of 64 px, got 48"),
        ({"mix": "64/32:0"}, r"shares above 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CropConfig(**changes)  # type: ignore[arg-type]


def test_a_mix_stands_in_the_place_of_the_three_sides() -> None:
    crops = CropConfig(mix="512/112/768:.3, 768/336/1152:0.05")
    assert crops.sizes == (CropSizes(512, 112, 768, 0.3), CropSizes(768, 336, 1152, 0.05))
    alone = crops.with_sizes(crops.sizes[1])
    assert (alone.global_px, alone.local_px, alone.gram_px, alone.mix) == (768, 336, 1152, "")
    assert CropConfig().sizes == (CropSizes(224, 96, 0, 1.0),)


def test_the_published_168_px_is_no_multiple_of_16() -> None:
    with pytest.raises(UsageError, match=r"crops.mix: must be a positive multiple of the patch side 16, got 168"):
        CropConfig(mix="768/168/1152:1").check_patch(16)
    CropConfig(mix="768/160/1152:1").check_patch(16)


def test_crop_sides_must_fit_the_patch() -> None:
    CropConfig(global_px=224, local_px=96).check_patch(16)
    with pytest.raises(UsageError, match=r"data.crops.local_px.*multiple of the patch side 14, got 96.*local_px 98"):
        CropConfig(global_px=224, local_px=96).check_patch(14)
