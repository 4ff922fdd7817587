"""The rarer families of pictures, each file made here by the format's own library and read back by it as the oracle."""

from __future__ import annotations

import builtins
import gzip
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from opendino.data.images import (
    ImageError,
    NotAnImage,
    Reading,
    TooLarge,
    TooSlow,
    Truncated,
    Unsupported,
    jpeg,
    limited_time,
    read,
    tone,
)
from opendino.errors import UsageError
from tests.data.drawing import encoded, photo

P = photo(5)


def tiff(array: np.ndarray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255)


# The way to 8 bits


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(256).astype(np.uint8), (0, 255, "8 bits")),
        (np.array([0, 900], np.uint16), (0, 1023, "10 of 16 bits")),
        (np.array([0, 4000], np.uint16), (0, 4095, "12 of 16 bits")),
        (np.array([0, 17000], np.uint16), (0, 65535, "full 16 bits")),
        (np.array([0.1, 0.9], np.float32), (0, 1, "float from 0 to 1")),
        (np.array([True, False]), (0, 1, "1 bit")),
    ],
)
def test_the_rule_of_ranges(values: np.ndarray, expected: tuple) -> None:
    low, high, rule = tone.find_range(values, None)
    assert (low, high) == expected[:2] and rule.startswith(expected[2])


def test_a_hot_pixel_does_not_make_a_picture_black() -> None:
    array = np.full((100, 100), 1000, np.uint16)
    array[::2] = 200
    array[0, 0] = 65535
    image = read(encoded(array, "PNG"))
    assert image.meta["range"] == (0, 1023) and image.array.max() == 255 and image.array[1, 0, 0] == 249


@pytest.mark.parametrize("seed", range(5))
def test_the_fill_value_is_found_and_only_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(20, 5, 5000).astype(np.float32)
    assert tone.find_fill(values) is None
    for fill in (-9999, 1e20):
        filled = values.copy()
        filled[:100] = fill
        assert tone.find_fill(filled) == np.float32(fill)
        assert tone.find_fill(filled[99:]) is None  # one pixel of 4,901 is no fill
    assert tone.find_fill(generator.integers(0, 2, 1000)) is None


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
def test_a_declared_range_is_the_formula(dtype: type) -> None:
    values = np.linspace(0, 3000, 64 * 64).reshape(64, 64).astype(dtype)
    image = read(tiff(values), reading=Reading(value_range=(500, 2500)))
    assert np.abs(image.array[:, :, 0] - scaled(values, 500, 2500)).max() <= 1
    assert image.meta["range"] == (500, 2500) and image.meta["range_rule"] == "declared"
    assert image.bits == np.dtype(dtype).itemsize * 8


def test_nan_and_infinity_are_masked() -> None:
    values = np.linspace(0, 10, 400, dtype=np.float32).reshape(20, 20)
    values[0, :5], values[1, :3], values[2, :2] = np.nan, np.inf, -np.inf
    image = read(tiff(values))
    assert np.array_equal(image.valid, np.isfinite(values)) and not image.array[~image.valid].any()
    assert image.array[19, 19, 0] == 255 and image.meta["missing"] == round(10 / 400, 6)
    with pytest.raises(Unsupported, match="no measured pixel"):
        read(tiff(np.full((20, 20), np.nan, np.float32)))


# TIFF


@pytest.mark.parametrize("bands", [2, 4, 6])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (32, 16)])
def test_bands_must_be_named_and_are_those(bands: int, planar: str, tile: tuple[int, int] | None) -> None:
    """C17: L and RGBA by rule; 4 and 6 bands need names."""
    values = np.random.default_rng(bands).integers(0, 256, (50, 41, bands), dtype=np.uint8)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    options = {"photometric": "minisblack", "planarconfig": planar, "tile": tile, "compression": "zlib"}
    data = tiff(stored, extrasamples=["unspecified"] * (bands - 1), **options)
    with pytest.raises(Unsupported, match=rf"has {bands} bands; say which of 0 to {bands - 1}"):
        read(data)
    chosen = (1, 0, bands - 1)
    assert np.array_equal(read(data, reading=Reading(bands=chosen)).array, values[:, :, chosen])
    assert np.array_equal(read(data, reading=Reading(bands=(1,))).array, np.repeat(values[:, :, 1:2], 3, axis=2))
    window = read(data, reading=Reading(bands=(0, 1), window=(7, 5, 40, 30)))
    assert np.array_equal(window.array, values[7:47, 5:35, :2])
    with pytest.raises(Unsupported, match="band 9 was asked for"):
        read(data, reading=Reading(bands=(9,)))


def test_16_bit_colour_tiff_is_exact() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (30, 40, 3), dtype=np.uint16)
    assert np.array_equal(read(tiff(values, photometric="rgb")).array, np.round(values / 257).astype(np.uint8))


def test_a_huge_tiff_is_refused_whole_and_read_by_window() -> None:
    data = _huge_header()
    with pytest.raises(TooLarge, match="more than 178956970 pixels"):
        read(data)
    with pytest.raises(Truncated, match="1 tiles or strips, 3750 are needed"):
        read(data, reading=Reading(window=(0, 0, 16, 16)))

    tile = np.random.default_rng(1).integers(0, 256, (1024, 1024), dtype=np.uint8)
    tiles = (tile if number == 15 else np.zeros_like(tile) for number in range(14 * 14))
    options = {"shape": (14_336, 14_336), "dtype": np.uint8, "tile": (1024, 1024), "photometric": "minisblack"}
    mosaic = tiff(tiles, compression="zlib", **options)
    with pytest.raises(TooLarge):
        read(mosaic)
    window = read(mosaic, reading=Reading(window=(1000, 1000, 100, 50))).array
    assert np.array_equal(window[24:, 24:, 0], tile[:76, :26]) and not window[:24].any() and not window[:, :24].any()


@pytest.mark.parametrize("tile", [(512, 512), None])
def test_windows_of_a_file_of_gigabytes_read_only_their_part(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    """Tiles and strips of a sparse picture of 5 * 10^9 pixels, in a process that may use 300 MB."""
    pytest.importorskip("tifffile")
    path = tmp_path / "mosaic.tif"
    height, width = tile or (8, 64_000)
    down, across = -(-80_000 // height), -(-64_000 // width)
    part = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    place = (down - 20) * across + across // 2
    _write_sparse(path, (80_000, 64_000), tile, down * across, place, part)
    row, column = place // across * height, place % across * width
    with pytest.raises(TooLarge, match="read it by window"):
        read(path)
    code = (
        "import resource, sys, numpy as np; import tifffile, opendino.data.images as i;"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 300 * 10**6,) * 2);"
        f"found = i.read({str(path)!r}, reading=i.Reading(window=({row}, {column}, 64, 400), value_range=(0, 255)));"
        "sys.stdout.buffer.write(found.array[:, :, 0].tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found = np.frombuffer(done.stdout, np.uint8).reshape(64, 400)
    assert np.array_equal(found[:8], part[:8, :400]) and (tile is None or np.array_equal(found, part[:64, :400]))


def _write_sparse(
    path: Path, sides: tuple[int, int], tile: tuple[int, int] | None, count: int, place: int, part: np.ndarray
) -> None:
    """A BigTIFF of `count` tiles or strips of 8 rows, all left out but one, which lies beyond 5 * 10^9 bytes."""
    offsets, counts = np.zeros((2, count), np.uint64)
    offsets[place], counts[place] = 5 * 10**9, part.size
    tags = [(256, 1, sides[1]), (257, 1, sides[0]), (258, 1, 8), (259, 1, 1), (262, 1, 1), (277, 1, 1)]
    if tile:
        tags += [(322, 1, tile[1]), (323, 1, tile[0]), (324, count, 1000), (325, count, 1000 + 8 * count)]
    else:
        tags += [(273, count, 1000), (278, 1, 8), (279, count, 1000 + 8 * count)]
    entries = b"".join(struct.pack("<HHQQ", tag, 16, number, value) for tag, number, value in sorted(tags))
    with open(path, "wb") as file:
        file.write(struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags)) + entries + bytes(8))
        file.seek(1000)
        file.write(offsets.tobytes() + counts.tobytes())
        file.seek(5 * 10**9)
        file.write(part.tobytes())


def _huge_header() -> bytes:
    """A small TIFF whose header claims 60,000 x 60,000 pixels."""
    data = bytearray(tiff(np.zeros((16, 16), np.uint8)))
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for name in ("ImageWidth", "ImageLength"):
            place = file.pages[0].tags[name].valueoffset
            size = {3: 2, 4: 4}[int(file.pages[0].tags[name].dtype)]
            data[place : place + size] = (60_000).to_bytes(size, "little")
    return bytes(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L", "I;16", "F", "bands"])
def test_every_tiff_is_turned_once(orientation: int, kind: str) -> None:
    values = np.arange(20 * 30).reshape(20, 30) % 256
    array = {"L": values.astype(np.uint8), "I;16": values.astype(np.uint16), "F": values.astype(np.float32)}.get(kind)
    extra = [(274, 3, 1, orientation, True)]
    if array is None:
        data = tiff(
            np.dstack([values] * 2).astype(np.uint8), photometric="minisblack", extrasamples=[0], extratags=extra
        )
        image = read(data, reading=Reading(bands=(0,)))
    else:
        image = read(tiff(array, extratags=extra), reading=Reading(value_range=(0, 255)))
    upright = values[:, :, None]
    if orientation >= 5:
        upright = upright.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    assert np.array_equal(image.array[:, :, :1], upright)


def test_pages_are_counted_without_copies_and_loops() -> None:
    from opendino.data.images.tiff import find_pages

    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number in range(3):
            writer.write(np.full((32, 32), 50 * number, np.uint8), photometric="minisblack")
            writer.write(np.zeros((16, 16), np.uint8), subfiletype=1)
    data = buffer.getvalue()
    assert find_pages(io.BytesIO(data)) == [0, 2, 4]
    for number in range(3):
        image = read(data, reading=Reading(frame=number))
        assert (image.array == 50 * number).all() and image.meta["frames"] == 3
    assert (read(data, reading=Reading(frame=-1)).array == 100).all()
    with pytest.raises(Unsupported, match="has 3 frames, frame 3 was asked for; ask for 0 to 2"):
        read(data, reading=Reading(frame=3))
    looping = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets = [page.offset for page in file.pages]
        tags = len(file.pages[5].tags)
    place = offsets[5] + 2 + 12 * tags
    looping[place : place + 4] = offsets[0].to_bytes(4, "little")
    assert find_pages(io.BytesIO(looping)) == [0, 2, 4]


# DICOM


def dicom(array: np.ndarray, **tags: object) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName = "Secret^Name"
    color = array.ndim == 4
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = array.shape[:3]
    dataset.SamplesPerPixel = array.shape[3] if color else 1
    if color:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = array.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_dicom_frames_windows_and_inverted_grey() -> None:
    values = np.random.default_rng(0).integers(-500, 500, (3, 20, 30), dtype=np.int16)
    data = dicom(values, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=[0, 5], WindowWidth=[401, 9])
    for frame in range(3):
        image = read(data, reading=Reading(frame=frame))
        assert np.abs(image.array[:, :, 0] - scaled(values[frame] * 2 - 10, -200.5, 199.5)).max() <= 1
        assert image.meta["frames"] == 3 and image.meta["range_rule"] == "window of the file"
    inverted = read(dicom(values, WindowCenter=0, WindowWidth=401, PhotometricInterpretation="MONOCHROME1"))
    plain = read(dicom(values, WindowCenter=0, WindowWidth=401))
    assert np.array_equal(inverted.array, 255 - plain.array)
    assert "Secret" not in str(plain)
    colour = np.random.default_rng(1).integers(0, 256, (1, 20, 30, 3), dtype=np.uint8)
    assert np.array_equal(read(dicom(colour)).array, colour[0])


# NIfTI


def nifti(array: np.ndarray, affine: np.ndarray, zipped: bool, **header: float) -> bytes:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    data = image.to_bytes()
    return gzip.compress(data) if zipped else data


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_nifti_slices_are_those_of_nibabel(zipped: bool, axes: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(2).integers(0, 1000, (12, 14, 16)).astype(np.int16)
    affine = np.diag([2.0, 2, 3, 1])
    turning = nibabel.orientations.axcodes2ornt(axes)
    affine = affine @ nibabel.orientations.inv_ornt_aff(turning, values.shape)
    data = nifti(values, affine, zipped)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine)).get_fdata()
    for slice in (None, 0, 5, -1):
        image = read(data, reading=Reading(frame=slice, value_range=(0, 1000)))
        place = canonical.shape[2] // 2 if slice is None else slice
        expected = scaled(canonical[:, ::-1, place].T, 0, 1000)
        assert np.abs(image.array[:, :, 0] - expected).max() <= 1
        assert image.meta["frames"] == canonical.shape[2] and image.meta["kind"] == "NIfTI"
    assert read(nifti(values, affine, zipped, cal_min=100, cal_max=300)).meta["range"] == (100, 300)
    series = np.stack([values, values * 0], axis=3)
    first = read(nifti(series, affine, zipped), reading=Reading(value_range=(0, 1000)))
    assert np.array_equal(first.array, read(data, reading=Reading(value_range=(0, 1000))).array)


def test_a_cut_or_exploding_nifti_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    from opendino.data.images import nifti as module

    data = nifti(np.zeros((64, 64, 20), np.int16), np.eye(4), True)
    with pytest.raises(Truncated):
        read(data[: len(data) // 2])
    monkeypatch.setattr(module, "MAX_VALUE_BYTES", 1000)
    with pytest.raises(TooLarge, match="unpacks to more"):
        read(data)


# Video


def video(frames: list[np.ndarray]) -> bytes:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_video_frames_by_number() -> None:
    frames = [photo(number, 32, 48) for number in range(7)]
    data = video(frames)
    for number in (0, 3, 6):
        assert np.array_equal(read(data, reading=Reading(frame=number)).array, frames[number])
    assert np.array_equal(read(data).array, frames[0])
    with pytest.raises(Unsupported, match="has 7 frames, frame 7 was asked for"):
        read(data, reading=Reading(frame=7))
    with pytest.raises(ImageError):
        read(data[:400])


# Pillow's kinds


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_frames_of_animations_by_number(format: str) -> None:
    frames = [PillowImage.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    for number, colour in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        image = read(buffer.getvalue(), reading=Reading(frame=number))
        assert (image.array == colour).all() and image.meta["frames"] == 3
    with pytest.raises(Unsupported, match="has 3 frames"):
        read(buffer.getvalue(), reading=Reading(frame=5))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("at_least", "by"), [(None, 1), (600, 1), (201, 2), (200, 2), (100, 4), (30, 8)])
def test_large_jpegs_decode_reduced(at_least: int | None, by: int, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(jpeg, "fast_decoder", lambda: None)
    array = photo(3, 403, 601)
    data = encoded(array, "JPEG", quality=95)
    image = read(data, reading=Reading(at_least=at_least))
    assert image.array.shape == (-(-403 // by), -(-601 // by), 3)
    assert image.meta.get("full_size", (403, 601)) == (403, 601)
    reduced = PillowImage.fromarray(read(data).array).resize(image.array.shape[1::-1], PillowImage.Resampling.BOX)
    assert np.abs(image.array.astype(int) - np.asarray(reduced)).mean() < 6
    if fast:
        pytest.importorskip("simplejpeg")
        monkeypatch.setattr(jpeg, "fast_decoder", lambda: None)
        assert np.array_equal(image.array, read(data, reading=Reading(at_least=at_least)).array)


def test_thousands_of_scans_are_refused_at_once() -> None:
    data = encoded(photo(1), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 500 + data[-2:]
    with pytest.raises(TooSlow, match="scans"):
        read(bomb)


def test_a_png_that_lies_about_its_size_sets_nothing_aside() -> None:
    import struct
    import zlib

    data = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), "PNG"))
    data[16:24] = struct.pack(">II", 13_000, 13_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(Truncated, match="too many for its"):
        read(bytes(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_useless_colour_profiles_are_named(format: str) -> None:
    """What a profile cannot do is named and changes nothing; real ones are tested on the shared pictures."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    data = encoded(P, format, icc_profile=profile.tobytes(), **({"lossless": True} if format == "WEBP" else {}))
    kept = read(data)
    assert kept.meta.get("icc") == "not of these pixels"
    assert np.array_equal(kept.array, read(data, reading=Reading(icc="keep")).array)
    broken = encoded(P, format, icc_profile=b"no profile", **({"lossless": True} if format == "WEBP" else {}))
    assert np.array_equal(read(broken).array, kept.array) and read(broken).meta["icc"] == "broken"


def test_transparency_can_stay_a_mask() -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    data = encoded(np.dstack([P, alpha]), "PNG")
    image = read(data, reading=Reading(alpha="mask"))
    assert np.array_equal(image.array, P) and np.array_equal(image.valid, alpha > 0)


@pytest.mark.parametrize("mode", ["P", "CMYK", "LAB"])
def test_windows_of_tiffs_that_pillow_alone_turns_into_rgb(mode: str) -> None:
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(
            PillowImage.fromarray(P), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
        )
    else:
        picture = PillowImage.fromarray(P).quantize(200) if mode == "P" else PillowImage.fromarray(P).convert(mode)
    stored = io.BytesIO()
    picture.save(stored, "TIFF")
    whole = read(stored.getvalue()).array
    window = read(stored.getvalue(), reading=Reading(window=(5, 6, 20, 30))).array
    assert np.array_equal(window, whole[5:25, 6:36])
    with pytest.raises(Unsupported, match="outside"):
        read(stored.getvalue(), reading=Reading(window=(40, 0, 20, 20)))


def test_windows_and_bands_of_ordinary_pictures() -> None:
    data = encoded(P, "PNG")
    assert np.array_equal(read(data, reading=Reading(window=(5, 6, 20, 30))).array, P[5:25, 6:36])
    assert np.array_equal(read(data, reading=Reading(bands=(2, 1, 0))).array, P[:, :, ::-1])
    with pytest.raises(Unsupported, match="outside of 48 x 64"):
        read(data, reading=Reading(window=(40, 0, 20, 20)))


def test_inverted_cmyk_without_its_mark_is_named_ambiguous() -> None:
    """C04."""
    cmyk = PillowImage.fromarray(P).convert("CMYK")
    inverted = PillowImage.fromarray(255 - np.asarray(cmyk), "CMYK")
    buffer = io.BytesIO()
    inverted.save(buffer, "JPEG", quality=98)
    data = buffer.getvalue()
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    image = read(data[:start] + data[start + 2 + length :])
    assert image.meta["cmyk"].startswith("ambiguous")
    assert "cmyk" not in read(data).meta


@pytest.mark.parametrize(
    ("module", "extra", "data"),
    [
        ("pydicom", "sci", b"\0" * 128 + b"DICM"),
        ("nibabel", "sci", b"\x5c\x01\0\0" + b"\0" * 340 + b"n+1\0"),
        ("av", "video", b"\x1a\x45\xdf\xa3" + b"\0" * 100),
    ],
)
def test_a_missing_library_names_its_extra(
    module: str, extra: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opendino.data.images import picture

    def without(name: str) -> object:
        if name == module:
            raise ImportError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(picture.importlib, "import_module", without)
    with limited_time(60), pytest.raises(Unsupported, match=rf"needs {module}; pip install 'opendino\[{extra}\]'"):
        read(data)


@pytest.mark.timeout(10)
def test_endless_devices_are_not_opened() -> None:
    for path in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(NotAnImage, match="not a regular file"):
            read(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"bands": ()},
        {"bands": (-1,)},
        {"value_range": (3, 3)},
        {"value_range": (0, float("nan"))},
        {"window": (0, 0, 0, 5)},
        {"at_least": 0},
    ],
)
def test_impossible_readings_are_refused(fields: dict) -> None:
    with pytest.raises(UsageError, match=r"reading\."):
        Reading(**fields)


def test_a_tiff_that_claims_more_than_its_bytes_can_hold_is_refused_before_memory_is_asked_for() -> None:
    """Found by 10^6 mutations: a width of 3.4 million in a deflated TIFF of 1,414 bytes."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: such TIFFs not tried")
    stored = io.BytesIO()
    tifffile.imwrite(stored, np.zeros((24, 32), np.float64), compression="zlib")
    data = stored.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].tags[256]
        place, form = tag.valueoffset, file.byteorder + "I"
    assert tag.dtype == 4  # a 32-bit number
    data = data[:place] + struct.pack(form, 3_407_904) + data[place + 4 :]
    with pytest.raises(Truncated, match="bytes for 654317568 of pixels"):
        read(data, reading=Reading(bands=(0,)))
