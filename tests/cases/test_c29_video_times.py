"""C29: the frame that was asked for is the one that comes, and its time is that of its stamp, at a varying rate."""

from fractions import Fraction

import numpy as np
import pytest

from opendino.data.images import Reading, read
from opendino.data.images.video import read_frames

av = pytest.importorskip("av", reason="PyAV is not installed: videos not tried")

GAPS_MS = [50] * 20 + [100] * 20 + [33] * 20
TIMES_MS = [sum(GAPS_MS[:number]) for number in range(len(GAPS_MS))]


def drawn(number: int) -> np.ndarray:
    """The number in ten black or white boxes."""
    picture = np.full((48, 160, 3), 128, np.uint8)
    for bit in range(10):
        picture[8:40, bit * 16 : bit * 16 + 16] = 255 * (number >> bit & 1)
    return picture


def shown(picture: np.ndarray) -> int:
    return sum(int(picture[24, bit * 16 + 8].mean() > 127) << bit for bit in range(10))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 160, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(TIMES_MS):
            frame = av.VideoFrame.from_ndarray(drawn(number), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("number", [0, 1, 19, 20, 37, 40, 59])
def test_the_frame_asked_for_is_the_one_shown(film, number):
    image = read(film, reading=Reading(frame=number))
    assert shown(image.array) == number
    assert abs(1000 * image.meta["time_s"] - TIMES_MS[number]) <= 1


def test_all_frames_come_in_order_with_their_times(film):
    images = list(read_frames(film))
    assert [shown(image.array) for image in images] == list(range(60))
    assert np.abs(np.array([1000 * image.meta["time_s"] for image in images]) - TIMES_MS).max() <= 1
