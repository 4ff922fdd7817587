"""Large TIFFs in parts: equal to the same parts of the whole, in bounded memory, or refused in words."""

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from opendino.data.images import Reading, TooLarge, Unsupported, large, open_large, picture, read

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: large TIFFs not tried")
pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: large TIFFs not tried")

SIDES = (203, 170)
NOISE = np.random.default_rng(0)
SMOOTH = np.add.outer(np.arange(SIDES[0]), np.arange(SIDES[1]))
COLOUR = np.stack([SMOOTH % 256, SMOOTH * 2 % 256, NOISE.integers(0, 256, SIDES)], 2).astype(np.uint8)
ALPHA = np.where(SMOOTH % 50 < 5, 0, 255).astype(np.uint8)
TWELVE = NOISE.integers(0, 4000, SIDES).astype(np.uint16)
FLOATS = NOISE.normal(0, 50, SIDES).astype(np.float32)
FLOATS[:30, :40] = np.nan
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
TILES, STRIPS = {"tile": (48, 64)}, {"rowsperstrip": 7}
KINDS = {
    "tiles": (COLOUR, {**TILES, "compression": "deflate"}, {}),
    "strips": (COLOUR, {**STRIPS, "compression": "lzw"}, {}),
    "planar": (COLOUR.transpose(2, 0, 1), {**TILES, "planarconfig": "separate", "photometric": "rgb"}, {}),
    "big": (COLOUR, {**TILES, "bigtiff": True}, {}),
    "alpha": (np.dstack([COLOUR, ALPHA]), {**TILES, "photometric": "rgb", "extrasamples": ["unassalpha"]}, {}),
    "grey": (COLOUR[..., 0], TILES, {}),
    "white is zero": (COLOUR[..., 0], {**TILES, "photometric": "miniswhite"}, {}),
    "1 bit": (SMOOTH % 7 < 3, STRIPS, {}),
    "12 of 16 bits": (TWELVE, TILES, {}),
    "16 bits, no data": (np.where(TWELVE < 200, 65535, TWELVE).astype(np.uint16), TILES, {"nodata": 65535}),
    "float, declared": (FLOATS, STRIPS, {"value_range": (-80, 80)}),
    "profile": (COLOUR, {**TILES, "iccprofile": PROFILE}, {}),
    "bands": (
        np.dstack([COLOUR, COLOUR]),
        {**TILES, "photometric": "minisblack", "planarconfig": "contig"},
        {"bands": (4, 1, 0)},
    ),
}


def stored(array, **options):
    file = BytesIO()
    tifffile.imwrite(file, array, **options)
    return file


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(large, "_BAND_PIXELS", 5000)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_parts_of_the_whole_and_the_reduced_is_its_mean(kind, monkeypatch):
    array, options, declared = KINDS[kind]
    file, reading = stored(array, **options), Reading(**declared)
    whole = read(file, reading=reading)
    assert whole.array.std() > 10
    monkeypatch.setattr(large, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(large, "_BAND_PIXELS", 5000)
    with open_large(file, reading, "x") as opened:
        assert (opened.height, opened.width) == SIDES
        for top, left, height, width in ((0, 0, *SIDES), (48, 64, 48, 64), (190, 1, 100, 100), (0, 169, 203, 1)):
            part = whole.array[top : top + height, left : left + width]
            np.testing.assert_array_equal(opened.window(top, left, height, width), part)
        again = opened.reading
    with open_large(file, again, "x") as opened:
        np.testing.assert_array_equal(opened.window(10, 20, 30, 40), whole.array[10:40, 20:60])
    reduced = read(file, reading=Reading(**declared, at_least=40))
    assert reduced.full_size == SIDES and reduced.array.shape == (51, 43, 3)
    for y, x in ((0, 0), (12, 30), (50, 42)):  # the last one is cut by the border
        mean = whole.array[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean((0, 1))
        np.testing.assert_allclose(reduced.array[y, x], mean, atol=0.5)
    for name in ("range", "range_rule"):
        if name in whole.meta:
            assert reduced.meta[name] == whole.meta[name]
    same = read(file, reading=Reading(**declared, at_least=150))
    np.testing.assert_array_equal(same.array, whole.array)
    assert same.full_size == SIDES


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (COLOUR[..., 0], {"photometric": "palette", "colormap": NOISE.integers(0, 2**16, (3, 256), np.uint16)}),
        (np.dstack([COLOUR, ALPHA]), {"photometric": "separated"}),
        (FLOATS, {}),
        (COLOUR, {"extratags": [(274, "H", 1, 6, True)]}),
    ],
)
def test_what_pillow_alone_turns_into_rgb_or_needs_all_numbers_is_decoded_whole(array, options, small_is_large):
    file = stored(array, **options)
    with open_large(file, Reading(), "x") as opened:
        assert opened is None
    np.testing.assert_array_equal(read(file, reading=Reading(at_least=40)).array, read(file).array)


def test_refusals_say_what_to_declare(small_is_large, monkeypatch):
    with pytest.raises(Unsupported, match="has 6 bands; say which"):
        read(
            stored(np.dstack([COLOUR, COLOUR]), photometric="minisblack", planarconfig="contig"),
            reading=Reading(at_least=40),
        )
    monkeypatch.setattr(large, "MAX_PIXELS", 2000)
    with pytest.raises(TooLarge, match=r"not known before all are read; declare it: --value-range"):
        read(stored(FLOATS), reading=Reading(at_least=40))
    with pytest.raises(Unsupported, match="no measured pixel"):
        read(stored(np.zeros(SIDES, np.uint16)), reading=Reading(at_least=40, nodata=0))


def test_a_picture_beyond_what_is_decoded_at_once_is_read_in_the_memory_of_a_band(monkeypatch):
    monkeypatch.setattr(large, "_BAND_PIXELS", 2**19)
    row = np.arange(6000, dtype=np.uint32).astype(np.uint8)
    file = BytesIO()
    tile = np.stack([row[:256]] * 3, 1)[None].repeat(256, 0)
    tiles = (tile for _ in range(24 * 24))
    tifffile.imwrite(file, tiles, shape=(6000, 6000, 3), dtype=np.uint8, tile=(256, 256), compression="deflate")
    monkeypatch.setattr(picture, "MAX_PIXELS", 2**24)
    with pytest.raises(TooLarge):
        read(file, reading=Reading())
    tracemalloc.start()
    try:
        image = read(file, reading=Reading(at_least=448))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert image.array.shape == (750, 750, 3) and image.full_size == (6000, 6000)
    assert peak < 50e6, f"{peak / 1e6:.0f} MB for a picture of 108 MB"


def test_eight_bit_pictures_follow_a_declared_range_and_number():
    file = stored(COLOUR // 2)
    png = BytesIO()
    PillowImage.fromarray(COLOUR // 2).save(png, "PNG")
    reading = Reading(value_range=(0, 127), nodata=200)
    for data in (file, png.getvalue(), file.getvalue()):
        image = read(data, reading=reading)
        expected = np.rint((COLOUR // 2) * (255 / 127))
        np.testing.assert_allclose(image.array.astype(float), expected, atol=0.51)
        assert image.valid is None
    grey = np.repeat(COLOUR[..., :1], 3, 2)
    image = read(stored(grey), reading=Reading(nodata=255))
    assert (image.array[grey[..., 0] == 255] == 0).all() and not image.valid[grey[..., 0] == 255].any()
    assert image.meta["missing"] == pytest.approx((grey[..., 0] == 255).mean(), abs=1e-5)
