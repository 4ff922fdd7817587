"""Wrong values are refused with the field's name, what is allowed and what was given."""

from __future__ import annotations

import dataclasses

import pytest

from opendino.data.config import ColorConfig, CropConfig, DataConfig, MaskConfig
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


def test_crop_sides_must_fit_the_patch() -> None:
    CropConfig(global_px=224, local_px=96).check_patch(16)
    with pytest.raises(UsageError, match=r"data.crops.local_px.*multiple of the patch side 14, got 96.*local_px 98"):
        CropConfig(global_px=224, local_px=96).check_patch(14)
