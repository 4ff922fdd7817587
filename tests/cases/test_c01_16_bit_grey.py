"""C01 (python-pillow/Pillow 3011, 2574): 16-bit grey keeps its ramp instead of turning white."""

from __future__ import annotations

import numpy as np

from opendino.data.images import read
from tests.data.drawing import encoded


def test_a_16_bit_ramp_stays_a_ramp() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    array = read(encoded(ramp, "PNG")).array[:, :, 0]
    assert len(np.unique(array)) == 256
    assert abs(array.mean() / 255 - 0.5) < 0.01
    assert (np.diff(array.ravel().astype(int)) >= 0).all()
