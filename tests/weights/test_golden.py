"""The released models on the published picture give the published numbers; runs where the weights are at hand.

The picture is number 39769 of COCO's val2017, given by OPENDINO_GOLDEN_PICTURE; weights are looked for where
`opendino.load` looks. Numbers: those that transformers' conversion scripts check, first five of CLS and first patch.
"""

import os
from pathlib import Path

import pytest
import torch

from opendino.data.images import read
from opendino.data.transform import Transform
from opendino.models.family import FAMILY
from opendino.weights import load
from opendino.weights.where import candidates

GOLDEN = {
    "vits16": (
        (0.463561, -0.415609, 0.408236, -0.126613, -0.286636),
        (-0.038754, -0.250895, -0.016392, -0.455473, 0.571582),
    ),
    "vits16plus": (
        (-0.471349, -1.365778, -0.317983, 0.377219, -0.769085),
        (0.144551, -0.388117, -0.393433, -0.157695, -0.600380),
    ),
    "vitb16": (
        (1.034643, -0.180609, -0.341018, -0.066376, -0.011383),
        (-0.082523, -0.456272, -0.728029, -0.430680, -0.152880),
    ),
    "vitl16": (
        (0.484527, -0.582214, 0.480636, 0.592040, 0.945166),
        (-0.211367, -0.490863, -0.257131, 0.101763, 0.154511),
    ),
    "vith16plus": (
        (-0.064575, -0.148866, -0.621524, 0.634878, 0.152695),
        (-0.093817, 0.287407, -0.050036, 0.428043, 0.094561),
    ),
    "vit7b16": (
        (0.275439, -0.261353, 0.067772, 0.049936, -0.158747),
        (0.044442, -0.052542, 0.070777, -0.065111, -0.026546),
    ),
    "vitl16_sat": (
        (-0.33235, 0.34052, -0.22087, 0.21434, 0.09003),
        (0.18488, 0.30309, -0.20689, 0.12848, 0.06207),
    ),
    "vit7b16_sat": (
        (-0.19779, 0.11819, -0.00581, -0.21055, -0.03971),
        (-0.12423, 0.07879, -0.10057, 0.02835, -0.11727),
    ),
    "convnext_tiny": (
        (-6.372119, 1.300791, 2.074303, -0.079975, 0.607205),
        (0.490530, -3.713466, 1.848513, -1.040319, -1.090818),
    ),
    "convnext_small": (
        (-0.903914, 1.412183, 0.287465, 0.175296, -2.397940),
        (-1.081114, 0.637362, 3.748765, 0.170179, 1.445153),
    ),
    "convnext_base": (
        (0.155366, -0.378771, -0.735157, -2.818718, 0.015095),
        (3.039118, 0.778155, -1.961322, -1.607147, -2.411941),
    ),
    "convnext_large": (
        (-2.219094, -0.594451, -2.300294, -0.957415, -0.520473),
        (-1.477349, -0.217038, -3.128137, 0.418962, 0.334949),
    ),
}
SLOW = {"vitl16", "vith16plus", "vit7b16", "vitl16_sat", "vit7b16_sat"}  # gigabytes


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in GOLDEN]
)
def test_released_weights_give_the_published_numbers(name, _callers_home):
    picture = os.environ.get("OPENDINO_GOLDEN_PICTURE")
    if not any(candidates(FAMILY[name])):
        pytest.skip(f"the weights of {name} are not at hand: the golden values were NOT checked")
    if not picture:
        pytest.skip("OPENDINO_GOLDEN_PICTURE names no picture: the golden values were NOT checked")
    model = load(name)
    # ImageNet's statistics for all, the satellite models too: so the numbers were made.
    tensor = Transform(size=224, patch=model.patch).apply(read(Path(picture)))
    with torch.inference_mode():
        features = model(tensor[None])
    cls, patch = GOLDEN[name]
    # The released files' rounded periods, against exact ones behind the numbers, move them by about 1e-3.
    assert torch.allclose(features.cls[0, :5], torch.tensor(cls), atol=2e-3, rtol=1e-3)
    assert torch.allclose(features.patches[0, 0, 0, :5], torch.tensor(patch), atol=2e-3, rtol=1e-3)
