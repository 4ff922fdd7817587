"""Every odd, scientific and geographic file beside the checkout: golden pixels against an independent reader, or its
typed error. The folder is that of `test_real_data`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms, ImageOps

from opendino.data.images import ImageError, Reading, read
from tests.data.test_real_data import FOLDER, pytestmark  # noqa: F401

ODD, GEO, SCIENCE = FOLDER / "odd_files", FOLDER / "rs_geotiff", FOLDER / "sci_grey"

BROKEN = {
    "pillow_balloon_eciRGBv2_aware.jp2": "truncated",
    "pillow_broken_data_stream.png": "truncated",
    "pillow_crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": "truncated",
    "pillow_crash-1152ec2d1a1a71395b6f2ce6721c38924d025bf3.tif": "truncated",
    "pillow_crash-2020-10-test.tif": "truncated",
    "pillow_crash-338516dbd2f0e83caddb8ce256c22db3bd6dc40f.tif": "truncated",
    "pillow_crash-4f085cc12ece8cde18758d42608bed6a2a2cfb1c.tif": "truncated",
    "pillow_cross_scan_line_truncated.tga": "truncated",
    "pillow_png_decompression_dos.png": "not-an-image",  # 1 x 1 pixel around its bomb of text
    "pillow_truncated_end_chunk.png": "truncated",
    "pillow_truncated_jpeg.jpg": "truncated",
    "pillow_ultrahdr.jpg": "truncated",
    "pillow_unknown_compression_method.png": "truncated",
}


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The oracle of scaling, in float64."""
    return np.rint(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255)


def assert_close(array: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the rounding of a number that lies half way between two levels."""
    assert array.shape == expected.shape
    assert np.abs(array.astype(float) - expected).max() <= 1 and (array != expected).mean() < 0.01


def pillow_upright(path: Path) -> np.ndarray:
    """Turned, on white, to sRGB: Pillow's own functions throughout."""
    with PillowImage.open(path) as opened:
        profile = opened.info.get("icc_profile")
        image = opened if opened.format == "TIFF" else ImageOps.exif_transpose(opened)
        image.load()
        if "transparency" in image.info or image.mode in ("RGBA", "LA"):
            colour = image.convert("RGBA")
            image = PillowImage.alpha_composite(PillowImage.new("RGBA", colour.size, "white"), colour)
        elif profile and image.mode == "RGB":
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            name = ImageCms.getProfileDescription(source)
            if "srgb" not in name.lower():
                intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
                image = ImageCms.profileToProfile(image, source, target, renderingIntent=intent)
        return np.asarray(image.convert("RGB"))


def odd_rows() -> list[dict[str, str]]:
    path = ODD / "index.tsv"
    return list(csv.DictReader(path.open(), delimiter="\t")) if path.exists() else []


@pytest.mark.parametrize("row", odd_rows(), ids=lambda row: row["file"])
def test_an_odd_file_is_right_or_its_typed_error(row: dict[str, str]) -> None:
    path = ODD / row["file"]
    if row["file"] in BROKEN:
        with pytest.raises(ImageError) as caught:
            read(path)
        assert caught.value.reason == BROKEN[row["file"]] and "\n" not in str(caught.value)
        return
    image = read(path)
    if row["file"] == "pillow_hopper_webp.tif":
        tifffile = pytest.importorskip("tifffile")
        assert np.array_equal(image.array, tifffile.imread(path))
    elif image.bits <= 8:
        assert np.array_equal(image.array, pillow_upright(path))
    else:
        with PillowImage.open(path) as opened:
            stored = np.asarray(opened)
        low, high = image.meta["range"]
        assert image.meta["range_rule"]
        expected = to_bytes(stored, low, high)
        if image.valid is not None:
            expected[~image.valid] = 0
        assert_close(image.array, np.repeat(expected[:, :, None], 3, axis=2))
    orientation = int(row["exif_orientation"] or 1)
    assert image.meta.get("orientation", 1) == max(orientation, 1) or row["why"] == "exif_invalid"


def test_broken_exif_is_noted_and_positions_are_not_kept() -> None:
    assert "orientation" not in read(ODD / "exifsamples_image00971.jpg").meta
    assert "GPS" not in str(read(ODD / "exifsamples_DSCN0010.jpg").meta)


def test_the_pages_of_a_tiff_are_counted_and_read_by_number() -> None:
    tifffile = pytest.importorskip("tifffile")
    path = ODD / "pillow_g4-multi.tiff"
    for frame in range(3):
        image = read(path, reading=Reading(frame=frame))
        page = tifffile.imread(path, key=frame)
        assert image.meta["frames"] == 3
        assert np.array_equal(image.array[:, :, 0] > 0, ~page), frame  # 0 is white in this file, to tifffile


# GeoTIFF


GEO_CASES = {
    # file: bands, the numbers for "not measured"
    "geotiff_nt_20201024_f18_nrt_s.tif": (None, (-3.4e38,)),
    "geotiff_wind_direction.tif": (None, (-32767.0,)),
    "rasterio_float_raster_with_nodata.tif": (None, (-3.4e38,)),
    "rasterio_goes.tif": (None, ()),
    "riotiler_cog_fullearth.tif": (None, (-1.2676506002282294e30,)),
    "riotiler_cog_hirise_mars.tif": (None, ()),
    "riotiler_cog_scale.tif": ((1,), (0,)),
    "riotiler_red.tif": (None, (0,)),
    "riotiler_rgb.tif": (None, (0,)),
}


# GDAL's own JPEG library smooths chroma another way than libjpeg-turbo.
JPEG_INSIDE = ("rasterio_goes.tif", "riotiler_cog_hirise_mars.tif")


@pytest.mark.parametrize("name", GEO_CASES)
def test_geotiffs_equal_rasterio(name: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("tifffile")
    bands, missing = GEO_CASES[name]
    image = read(GEO / name, reading=Reading(bands=bands))
    with rasterio.open(GEO / name) as opened:
        stored = opened.read().transpose(1, 2, 0)
    stored = stored if bands is None else stored[:, :, list(bands)]
    valid = np.ones(stored.shape[:2], bool)
    for number in missing:
        valid &= ~np.isclose(stored, number, rtol=1e-2 if abs(number) > 1e20 else 0).all(axis=2)
    assert np.array_equal(np.ones_like(valid) if image.valid is None else image.valid, valid)
    low, high = image.meta.get("range", (0, 255))
    if "measured" in image.meta.get("range_rule", ""):
        assert np.allclose((low, high), np.percentile(stored[valid].astype(np.float64), [0.1, 99.9]), rtol=1e-5)
    expected = np.broadcast_to(to_bytes(stored, low, high), image.array.shape).copy()
    expected[~valid] = 0
    if name in JPEG_INSIDE:
        assert np.abs(image.array - expected).max() <= 16 and (image.array != expected).mean() < 0.06
    else:
        assert_close(image.array, expected)
    assert 5 < image.array[valid].mean() < 250  # neither white nor black


def test_a_16_bit_picture_with_a_mask_is_composited() -> None:
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("tifffile")
    path = GEO / "rasterio_RGBA.uint16.tif"
    image = read(path)
    with rasterio.open(path) as opened:
        stored = opened.read().transpose(1, 2, 0)
    assert (image.array[stored[:, :, 3] == 0] == 255).all()
    assert (image.array[stored[:, :, 3] > 0] == round(10000 * 255 / 16383)).all()
    assert np.array_equal(image.valid, stored[:, :, 3] > 0)
    assert image.meta["geo"]["ProjectedCSTypeGeoKey"] == 32612
    swapped = read(path, reading=Reading(bands=(2, 1, 0), value_range=(0, 10000), alpha="mask"))
    assert (swapped.array[stored[:, :, 3] > 0] == 255).all() and not swapped.array[stored[:, :, 3] == 0].any()


def test_an_8_bit_mask_is_composited() -> None:
    rasterio = pytest.importorskip("rasterio")
    path = GEO / "riotiler_cog_rgba.tif"
    with rasterio.open(path) as opened:
        stored = opened.read().transpose(1, 2, 0)
    image = read(path)
    opaque = stored[:, :, 3] == 255
    assert np.array_equal(image.array[opaque], stored[opaque][:, :3]) and (image.array[~opaque] == 255).all()


@pytest.mark.parametrize("name", ["riotiler_cog_scale.tif", "riotiler_rgb.tif", "riotiler_cog_hirise_mars.tif"])
@pytest.mark.parametrize("window", [(0, 0, 64, 64), (100, 37, 90, 121), (191, 190, 65, 60)])
def test_windows_equal_rasterio(name: str, window: tuple[int, int, int, int]) -> None:
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("tifffile")
    top, left, rows, columns = window
    bands = (0, 1, 2) if "scale" not in name else (0,)
    reading = Reading(window=window, bands=bands, value_range=(0, 20000) if "mars" not in name else (0, 255))
    image = read(GEO / name, reading=reading)
    with rasterio.open(GEO / name) as opened:
        area = rasterio.windows.Window(left, top, columns, rows)
        stored = opened.read([band + 1 for band in bands], window=area).transpose(1, 2, 0)
    expected = np.broadcast_to(to_bytes(stored, *reading.value_range), image.array.shape).copy()
    if image.valid is not None:
        expected[~image.valid] = 0
    if name in JPEG_INSIDE:
        whole = read(GEO / name).array[top : top + rows, left : left + columns]
        assert np.array_equal(image.array, whole)
    else:
        assert_close(image.array, expected)


def test_two_bands_must_be_named() -> None:
    pytest.importorskip("tifffile")
    with pytest.raises(ImageError, match="has 2 bands; say which"):
        read(GEO / "riotiler_cog_scale.tif")


# Science


@pytest.mark.parametrize("name", ["speckles_u16.tif", "worms_u16.tif", "colocalization_u16.png"])
def test_16_bit_microscopy_is_neither_white_nor_black(name: str) -> None:
    path = SCIENCE / "microscopy" / name
    image = read(path)
    with PillowImage.open(path) as opened:
        stored = np.asarray(opened)
    bits = next(bits for bits in (8, 10, 12, 14, 16) if np.percentile(stored, 99.9, method="higher") < 2**bits)
    assert image.meta["range"] == (0, 2**bits - 1)
    assert_close(image.array[:, :, 0], to_bytes(stored, 0, 2**bits - 1))
    assert 20 < image.array.mean() < 200 and len(np.unique(image.array)) > 60


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"])
def test_dicom_equals_pydicom(name: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.pixels import apply_modality_lut

    path = SCIENCE / "dicom" / name
    image = read(path)
    dataset = pydicom.dcmread(path)
    stored = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), np.float64)
    low, high = image.meta["range"]
    if name.startswith("MR"):
        assert (low, high) == (600 - 0.5 - 1599 / 2, 600 - 0.5 + 1599 / 2)
    else:
        assert np.allclose((low, high), np.percentile(stored, [0.1, 99.9]))
    assert_close(image.array[:, :, 0], to_bytes(stored, low, high))
    assert image.bits == 16 and not {"PatientName", str(dataset.PatientName)} & set(str(image.meta).split("'"))
    brain = read(path, reading=Reading(value_range=(-160, 240)))
    assert_close(brain.array[:, :, 0], to_bytes(stored, -160, 240))


def test_12_bit_jpeg_in_dicom_decodes() -> None:
    """No other reader at hand decodes it (pydicom's plugins refuse it), so only its sums are held."""
    pytest.importorskip("pydicom")
    pytest.importorskip("imagecodecs")
    image = read(SCIENCE / "dicom/JPEG-lossy.dcm", reading=Reading(value_range=(0, 264)))
    assert image.array.shape == (1024, 256, 3) and image.meta["peak"] == 264 and 5 < image.array.mean() < 50


def test_the_rest_of_the_science_is_pillows_picture() -> None:
    seen = 0
    for path in sorted([*(SCIENCE / "xray").iterdir(), *(SCIENCE / "microscopy").iterdir()]):
        if "u16" not in path.name:
            assert np.array_equal(read(path).array, pillow_upright(path)), path.name
            seen += 1
    assert seen == 63
