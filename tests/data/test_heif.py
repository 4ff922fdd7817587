"""HEIC and AVIF: golden pixels of small files, exact pixels of lossless ones, turning, several pictures, damage."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from opendino.data.images import ImageError, Reading, TooLarge, Truncated, Unsupported, find_kind, limited_time, read
from tests.data.drawing import encoded, photo

GOLDEN = {
    # Four squares of 8 px, as the encoders of libheif (x265) and Pillow (libaom) wrote them.
    "HEIC": (
        "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAX5tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJp"
        "bG9jAAAAAERAAAEAAQAAAAABogABAAAAAAAAAOsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAAB"
        "AAAA/mlwcnAAAADeaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNgAAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQAB"
        "ACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VXTXNwENBgQAAADAZAAAAMAEIBiAAEACEQBwXMYMBiQAAAAE2NvbHJuY2x4AAEADQAGgAAA"
        "ABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAAAQAAAAAQAAABAAAAAB////0AAAAAL////QAAAAAgAAABBwaXhpAAAAAAMICAgAAAAY"
        "aXBtYQAAAAAAAAABAAEFgQIDBYQAAADzbWRhdAAAAOcoAa8Gsh7y8ZBm1hsd/CYf//T1vIeS8C1PtYvf9FH/+S+pHTNdN/vef/93TPK4"
        "FRie0DWOUjkJIp4/Zb3LJ21zuwTiJKm6+5RqmZ6qE9fD1FQySyx9KUfB2FLX4bXNUwNiC0v50BMWKqh9sQtRls7P2yx3G4XFbYujo90e"
        "tT7IDnKD7rujunVUlRCDz5hn9fWZ2D0jNGKegFh1C9ZyRi3b9u1c+8qff5pcXRT0gdOtKiVP8KkUglTbWgA5GvEkhGpHJe0IWgAfgZ+G"
        "5/QD8ZnnsdHdEVCphgF39XM5Y7AJv5bDUwRTgYA="
    ),
    "avif": (
        "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAA"
        "AAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAKAAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFD"
        "b2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAEAAAABAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBIAAAAAAAE2NvbHJu"
        "Y2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAMG1kYXQSAAoIOAz/2EBDQaQyGkQAAKx5mKXvCE6gzelVkiZ89QFzYnj8"
        "TPkg"
    ),
}
SQUARES = np.array([[(200, 30, 40), (20, 180, 60)], [(30, 60, 220), (128, 128, 128)]]).repeat(8, 0).repeat(8, 1)


def heic(*pictures: np.ndarray, **options: Any) -> bytes:
    """A lossless file of one or several pictures."""
    library = pytest.importorskip("pillow_heif")
    file = library.from_pillow(PillowImage.fromarray(pictures[0]))
    for one in pictures[1:]:
        file.add_from_pillow(PillowImage.fromarray(one))
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_pixels(kind: str) -> None:
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    image = read(base64.b64decode(GOLDEN[kind]))
    assert image.meta["kind"] == kind and image.array.shape == (16, 16, 3)
    assert np.abs(image.array.astype(int) - SQUARES).max() <= 4  # 8-bit YCbCr rounds, and both compress


def test_a_lossless_heic_is_exact() -> None:
    assert np.array_equal(read(heic(photo(3))).array, photo(3))


def test_avif_of_all_colours_is_near() -> None:
    ramp = np.stack(np.meshgrid(np.arange(0, 256, 2), np.arange(0, 256, 2)), -1).astype(np.uint8)
    ramp = np.dstack([ramp, ramp[::-1, :, 0]])
    image = read(encoded(ramp, "AVIF", quality=100, subsampling="4:4:4"))
    assert np.abs(image.array.astype(int) - ramp).max() <= 3


def test_a_turned_heic_is_turned_once() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    turned = read(heic(photo(3), exif=exif.tobytes())).array
    assert np.array_equal(turned, np.rot90(photo(3), -1))


def test_the_primary_picture_comes_first_and_others_by_number() -> None:
    data = heic(photo(1), photo(2, 40, 80), primary_index=1)
    assert np.array_equal(read(data).array, photo(2, 40, 80)) and read(data).meta["frames"] == 2
    first = read(data, reading=Reading(frame=0)).array
    assert np.abs(first.astype(int) - photo(1)).max() <= 2  # the encoder takes the exact colours for the primary alone
    with pytest.raises(Unsupported, match="has 2 frames"):
        read(data, reading=Reading(frame=2))


def test_transparency_lies_on_white() -> None:
    alpha = np.zeros((48, 64, 1), np.uint8)
    alpha[:, 32:] = 255
    array = read(heic(np.dstack([photo(1), alpha]))).array
    assert (array[:, :32] == 255).all() and np.array_equal(array[:, 32:], photo(1)[:, 32:])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_cut_files_are_typed(share: float) -> None:
    for data in (heic(photo(1)), encoded(photo(1), "AVIF")):
        with pytest.raises(Truncated):
            read(data[: int(share * len(data))])


def test_a_header_of_many_pixels_is_refused_before_any() -> None:
    data = heic(photo(1))
    place = data.index(b"ispe") + 8  # width and height
    with pytest.raises(ImageError) as caught:
        read(data[:place] + (60_000).to_bytes(4, "big") * 2 + data[place + 8 :])
    assert isinstance(caught.value, TooLarge | Truncated)


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        (b"heic\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1avif", "avif"),
        (b"avif\0\0\0\0avifmif1", "avif"),
        (b"isom\0\0\0\0avc1mp41", "mp4"),
    ],
)
def test_brands_tell_the_codec(brands: bytes, name: str) -> None:
    kind = find_kind((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08meta")
    assert kind is not None and kind.name == name


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with limited_time(60), pytest.raises(Unsupported, match=r"HEIC needs pillow_heif; pip install 'opendino\[heic\]'"):
        read(base64.b64decode(GOLDEN["HEIC"]))
    monkeypatch.setattr("opendino.data.images.pillow_kinds.features.check", lambda name: False)
    with limited_time(60), pytest.raises(Unsupported, match="built without avif"):
        read(base64.b64decode(GOLDEN["avif"]))
