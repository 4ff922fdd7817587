"""C20: in a wide and in a tall picture the one bright patch is where it was put: rows are rows."""

import pytest
import torch

from opendino.models.family import build_model

ROW, COLUMN = 1, 5


@pytest.mark.parametrize("name", ["vit_tiny", "convnext_tiny", "conv_mini"])
def test_the_bright_patch_is_found_at_its_row_and_column(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    side = 8 if name == "convnext_tiny" else 4  # patches high; a ConvNeXt sees far beyond one patch
    patch = model.patch
    wide = torch.zeros(1, 3, side * patch, 4 * side * patch)
    wide[..., ROW * patch : (ROW + 1) * patch, COLUMN * patch : (COLUMN + 1) * patch] = 3
    for images, place in ((wide, (ROW, COLUMN)), (wide.transpose(2, 3), (COLUMN, ROW))):
        with torch.no_grad():
            patches = model(images).patches[0]
        dark = patches.flatten(0, 1).median(dim=0).values
        far = (patches - dark).norm(dim=-1)
        assert divmod(int(far.argmax()), far.shape[1]) == place
