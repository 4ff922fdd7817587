"""The reader: golden pixels for each kind of file, a typed error for everything else."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps

from opendino.data import images
from opendino.data.images import (
    Denied,
    Empty,
    IOFault,
    NotAnImage,
    Reading,
    TooLarge,
    Truncated,
    Unsupported,
    Vanished,
    file,
    jpeg,
    read,
    upright,
)
from tests.data.drawing import encoded, photo

P = photo(3)


@pytest.fixture(params=["fast decoder", "Pillow alone"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with and without simplejpeg."""
    if request.param == "Pillow alone":
        monkeypatch.setattr(jpeg, "fast_decoder", lambda: None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


def with_orientation(array: np.ndarray, orientation: int, format: str) -> bytes:
    exif = PillowImage.Exif()
    exif[upright.ORIENTATION_TAG] = orientation
    return encoded(array, format, exif=exif.tobytes())


@pytest.mark.parametrize(
    ("format", "kind", "options"),
    [
        ("PNG", "png", {}),
        ("BMP", "bmp", {}),
        ("TIFF", "tiff", {}),
        ("TIFF", "tiff", {"compression": "tiff_lzw"}),
        ("PPM", "portable map", {}),
        ("WEBP", "webp", {"lossless": True}),
        ("JPEG2000", "jpeg2000", {}),
        ("JPEG2000", "jpeg2000", {"no_jp2": True}),
    ],
)
def test_lossless_kinds_are_exact(format: str, kind: str, options: dict) -> None:
    image = read(encoded(P, format, **options))
    assert np.array_equal(image.array, P)
    assert image.array.dtype == np.uint8 and image.array.flags.c_contiguous and image.array.flags.writeable
    assert (image.mode, image.bits, image.meta["kind"]) == ("RGB", 8, kind)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}, {"optimize": True}]
)
@pytest.mark.parametrize("size", [(48, 64), (33, 17), (8, 8)])
@pytest.mark.parametrize("grey", [False, True])
def test_both_jpeg_decoders_agree_to_the_byte(
    options: dict, size: tuple[int, int], grey: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simplejpeg")
    array = photo(1, *size)
    data = encoded(array[:, :, 0] if grey else array, "JPEG", **options)
    header = jpeg.parse_header(data)
    assert header is not None and header.plain != bool(options.get("progressive"))
    fast = read(data)
    monkeypatch.setattr(jpeg, "fast_decoder", lambda: None)
    slow = read(data)
    expected = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(fast.array, expected) and np.array_equal(slow.array, expected)
    assert fast.mode == slow.mode == ("L" if grey else "RGB") and fast.meta == slow.meta


def test_the_fast_decoder_is_used() -> None:
    pytest.importorskip("simplejpeg")
    assert jpeg.decode_fast(encoded(P, "JPEG"), Reading(), "x") is not None
    assert jpeg.decode_fast(encoded(P, "JPEG", progressive=True), Reading(), "x") is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, format: str, decoder: str) -> None:
    data = with_orientation(P, orientation, format)
    with PillowImage.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    image = read(data)
    assert np.array_equal(image.array, expected)
    assert image.array.shape == ((64, 48, 3) if orientation >= 5 else (48, 64, 3))
    assert image.array.flags.c_contiguous
    if format != "TIFF":
        assert image.meta.get("orientation", 1) == orientation


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_means_no_turn(exif: bytes, decoder: str) -> None:
    assert read(encoded(P, "JPEG", exif=exif)).array.shape == (48, 64, 3)


def test_an_impossible_orientation_means_no_turn(decoder: str) -> None:
    assert read(with_orientation(P, 77, "JPEG")).array.shape == (48, 64, 3)


def test_transparency_lies_on_white() -> None:
    """Every way a file can be transparent gives the same composite."""
    alpha = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    image = read(encoded(np.dstack([P, alpha]), "PNG"))
    share = alpha[:, :, None] / 255
    assert np.abs(image.array - (P * share + 255 * (1 - share))).max() <= 1
    assert image.mode == "RGBA"
    grey = read(encoded(np.dstack([P[:, :, 0], alpha]), "PNG"))
    assert np.abs(grey.array - (P[:, :, :1] * share + 255 * (1 - share))).max() <= 1
    assert grey.mode == "LA"


def test_palettes_are_looked_up_and_their_holes_are_white() -> None:
    picture = PillowImage.new("P", (16, 16), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    picture.paste(0, (0, 0, 8, 16))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0)
    image = read(buffer.getvalue())
    assert (image.array[:, :8] == 255).all() and (image.array[:, 8:] == [200, 100, 50]).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_grey_levels_fill_the_range(depth: int) -> None:
    levels = 2**depth
    values = np.tile(np.arange(levels, dtype=np.uint8), 16 // levels * 16).reshape(16, 16)
    bits = (values[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(16, -1), axis=1)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    image = read(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    assert np.array_equal(image.array[:, :, 0], values.astype(int) * 255 // (levels - 1))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(format: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = read(encoded(ramp, format))
    assert np.array_equal(image.array[:, :, 0], np.round(ramp / 257).astype(np.uint8))
    assert np.ptp(image.array, axis=2).max() == 0
    assert image.bits == 16 and image.meta["peak"] == 65535


def test_cmyk_is_close_to_its_original() -> None:
    cmyk = PillowImage.fromarray(P).convert("CMYK")
    buffer = io.BytesIO()
    cmyk.save(buffer, "JPEG", quality=98, subsampling=0)
    image = read(buffer.getvalue())
    assert image.mode == "CMYK"
    assert np.abs(image.array.astype(int) - P).mean() < 5


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [PillowImage.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    assert (read(buffer.getvalue()).array == [255, 0, 0]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "MPO"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.97])
def test_cut_files_are_truncated(format: str, share: float, decoder: str) -> None:
    data = encoded(P, format)
    with pytest.raises((Truncated, NotAnImage)) as caught:
        read(data[: max(int(len(data) * share), 12)])
    if share > 0.02:
        assert isinstance(caught.value, Truncated) and caught.value.reason == "truncated"


def test_no_cut_of_a_jpeg_gives_a_grey_tail(decoder: str) -> None:
    data = encoded(P, "JPEG", quality=60)
    whole = read(data).array
    for end in range(4, len(data)):
        try:
            array = read(data[:end]).array
        except Truncated:
            continue
        assert np.array_equal(array, whole), end


@pytest.mark.parametrize("seed", range(4))
def test_damage_gives_a_picture_or_a_typed_error(seed: int, decoder: str) -> None:
    generator = np.random.default_rng(seed)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        data = bytearray(encoded(P, format))
        for _ in range(25):
            damaged = data.copy()
            for place in generator.integers(0, len(data), 5):
                damaged[place] = generator.integers(256)
            with contextlib.suppress(images.ImageError):
                assert read(bytes(damaged)).array.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", Empty, "0 bytes"),
        (b"hello, this is text", NotAnImage, "no picture of a known kind"),
        (b"BMW is a maker of cars, and BM starts bitmaps", NotAnImage, "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NotAnImage, "document"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", NotAnImage, "document"),
        (b"%PDF-1.7 ...", NotAnImage, "document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", NotAnImage, "git lfs pull"),
        (b"\xff\x0a\xfa\x7f\x01", Unsupported, "JPEG XL is not decoded; convert it"),
        (b"\x76\x2f\x31\x01\2\0\0\0", Unsupported, "OpenEXR is not decoded; convert it"),
        (b"\0" * 128 + b"DICM", NotAnImage, "DICOM without a picture"),
        (b"8BPS\0\1", Unsupported, "Photoshop"),
        (b"\xff\xd8\xff\xe0", Truncated, "header"),
    ],
)
def test_other_content_is_named(data: bytes, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        read(data, name="thing.jpg")


def test_a_float_picture_without_a_range_is_grey_and_says_so() -> None:
    buffer = io.BytesIO()
    PillowImage.fromarray(np.full((16, 16), 7, np.float32)).save(buffer, "TIFF")
    image = read(buffer.getvalue())
    assert (image.array == 128).all() and image.meta["range"] == (7, 7) and "measured" in image.meta["range_rule"]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_huge_headers_are_refused_before_any_pixel(format: str, decoder: str) -> None:
    data = bytearray(encoded(np.zeros((16, 16, 3), np.uint8), format))
    if format == "PNG":
        data[16:24] = struct.pack(">II", 60000, 60000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    with pytest.raises(TooLarge):
        read(bytes(data))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 200), (200, 7)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_tiny_pictures_are_refused(height: int, width: int, format: str, decoder: str) -> None:
    with pytest.raises(NotAnImage, match=f"too small: {width}x{height}"):
        read(encoded(photo(0, height, width), format))


def test_paths_are_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(P, "PNG"))
    assert np.array_equal(read(path).array, P)
    with pytest.raises(Vanished, match=r"pictur\.jpg: no such file; did you mean .*picture\.jpg\?"):
        read(tmp_path / "pictur.jpg")
    with pytest.raises(Vanished, match=rf"no such file; the nearest that exists is {re.escape(str(tmp_path))}$"):
        read(tmp_path / "xyz" / "gone.png")
    with pytest.raises(Vanished, match="below: its file is no longer there"):
        read(tmp_path / "below", name="below")  # found by a scan, so not mistyped
    with pytest.raises(Vanished):
        read(path / "below-a-file.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(Empty):
        read(tmp_path / "empty.png")
    with pytest.raises(NotAnImage, match="is a folder, and one picture is needed; give a file in it"):
        read(tmp_path)


@pytest.mark.timeout(10)
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(NotAnImage, match="not a regular file"):
        read(tmp_path / "a.jpg")


def test_storage_errors_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(P, "PNG"))
    waits: list[float] = []
    monkeypatch.setattr(file.time, "sleep", waits.append)
    failures = [OSError(5, "Input/output error")] * 2
    plain_open = builtins.open

    def failing_open(*args: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return plain_open(*args, **options)

    monkeypatch.setattr(builtins, "open", failing_open)
    assert np.array_equal(read(path).array, P)
    assert [round(wait / 0.1 / 2**turn) for turn, wait in enumerate(waits)] == [1, 1]  # with some jitter
    failures.extend([OSError(5, "Input/output error")] * 6)  # the first try and five more
    with pytest.raises(IOFault, match="Input/output error"):
        read(path)
    failures[:] = [PermissionError(13, "Permission denied")]
    waits.clear()
    with pytest.raises(Denied):
        read(path)
    assert not waits


def test_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(Truncated("a.jpg", "cut", "repair it")))
    assert isinstance(error, Truncated) and (error.thing, error.cause, error.fix) == ("a.jpg", "cut", "repair it")
