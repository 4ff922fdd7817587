"""Sheets of pictures: photographs on top, rows of maps below, a small label at the left of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from opendino.errors import ShapeError
from opendino.files import write_atomic
from opendino.pages.page import png_bytes

LABEL_GREY = (122, 122, 122)
"""Reads on white and on a dark page alike, so a sheet with a transparent ground fits both."""

PHOTO_PX, MAP_PX = 256, 112
"""Heights of the strips kept during training: maps are smooth, and a dozen of them must fit into one page."""


def picture_sheet(
    photos: Sequence[np.ndarray],
    rows: Mapping[str, Sequence[np.ndarray]],
    *,
    photo_label: str = "",
    cell_px: int = 176,
    smooth: bool = True,
    background: str | None = "white",
    max_columns: int = 8,
) -> Image.Image:
    """Photos above, maps below them: one column a photo, one row a training step, layer or head.

    Args:
        photos: uint8 [H, W, 3]; may be empty, then the sheet has the rows alone.
        rows: from a short label ("step 400", or "" for none) to the maps, uint8 [h, w, 3], one a column. They are
            enlarged to their photo's cell.
        cell_px: height of every cell; its width follows from the photo's shape.
        smooth: bicubic enlargement; False draws each patch as a square.
        background: a colour, or None for a transparent ground (for pages in light and dark).
        max_columns: more pictures than this go on in another band below.
    Raises:
        ShapeError: a row has another number of pictures than there are columns.
    """
    lines = ([(photo_label, photos)] if len(photos) else []) + list(rows.items())
    if not lines:
        raise ShapeError("sheet", "has neither photos nor rows", "give at least one")
    columns = lines[0][1]
    for label, pictures in lines:
        if len(pictures) != len(columns):
            cause = f"has {len(pictures)} pictures for {len(columns)} columns"
            raise ShapeError(f"row {label!r}", cause, "give one picture a column")
    if len(columns) > max_columns:
        starts = range(0, len(columns), max_columns)
        bands = [
            picture_sheet(
                photos[start : start + max_columns],
                {label: pictures[start : start + max_columns] for label, pictures in rows.items()},
                photo_label=photo_label,
                cell_px=cell_px,
                smooth=smooth,
                background=background,
            )
            for start in starts
        ]
        return _stack(bands, cell_px // 8, background)
    font = ImageFont.load_default(min(18, max(11, cell_px // 11)))
    gap = max(2, cell_px // 44)
    gutter = max(round(font.getlength(label)) for label, _ in lines)
    gutter = gutter + 3 * gap if gutter else 0
    widths = [cell_width(column, cell_px) for column in columns]
    width = gutter + sum(widths) + gap * (len(widths) - 1)
    height = len(lines) * cell_px + gap * (len(lines) - 1)
    canvas = Image.new("RGBA", (width, height), background or (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, (label, pictures) in enumerate(lines):
        top, left = index * (cell_px + gap), gutter
        if gutter:
            draw.text((gutter - 2 * gap, top + cell_px // 2), label, LABEL_GREY, font, anchor="rm")
        is_photo = index == 0 and len(photos) > 0
        for picture, across in zip(pictures, widths, strict=True):
            canvas.paste(enlarge(picture, cell_px, across, smooth or is_photo), (left, top))
            left += across + gap
    return canvas if background is None else canvas.convert("RGB")


def _stack(bands: Sequence[Image.Image], gap: int, background: str | None) -> Image.Image:
    height = sum(band.height for band in bands) + gap * (len(bands) - 1)
    canvas = Image.new(bands[0].mode, (max(band.width for band in bands), height), background or (0, 0, 0, 0))
    top = 0
    for band in bands:
        canvas.paste(band, (0, top))
        top += band.height + gap
    return canvas


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """What can be shown of a picture [H, W, C] uint8: its first three channels, or the first one as grey."""
    return picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, :1].repeat(3, 2)


def cell_width(picture: np.ndarray, cell_px: int) -> int:
    """Width of a picture drawn `cell_px` high; panoramas are squeezed to four times the height."""
    return max(1, round(cell_px * min(4.0, picture.shape[1] / picture.shape[0])))


def enlarge(picture: np.ndarray, height: int, width: int, smooth: bool = True) -> Image.Image:
    """uint8 [h, w, 3] -> a PIL image of height x width; bicubic, or nearest so that each patch stays a square."""
    resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize((width, height), resample)


def save_training_pictures(folder: Path, step: int, photos: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> Path:
    """Keep what the report stacks up: `photos.png` once, and this step's maps as `pca-00000400.png`, same columns.

    Args:
        folder: `pictures/` of the run directory; made if missing.
        photos: uint8 [H, W, 3] each.
        maps: uint8 [h, w, 3] each, in the order of the photos.
    Returns:
        The path of the maps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos.png").exists():
        sheet = picture_sheet(photos, {}, cell_px=PHOTO_PX, background=None)
        write_atomic(folder / "photos.png", png_bytes(sheet))
    cells = [
        np.asarray(enlarge(one, MAP_PX, cell_width(photo, MAP_PX))) for one, photo in zip(maps, photos, strict=True)
    ]
    path = folder / f"pca-{step:08d}.png"
    write_atomic(path, png_bytes(picture_sheet(cells, {}, cell_px=MAP_PX, background=None)))
    return path
