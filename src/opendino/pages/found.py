"""A sheet of what a search found: the query first, each picture with its cosine and its name below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL_PX, TEXT_PX, GAP_PX = 208, 40, 8
COLUMNS = 6


@dataclass(frozen=True)
class Cell:
    """A picture uint8 [H, W, 3], or None when its file cannot be read, with two lines of text."""

    picture: np.ndarray | None
    title: str
    name: str


def found_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Cells row by row on white; pictures keep their shape."""
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    across, down = CELL_PX + GAP_PX, CELL_PX + TEXT_PX + GAP_PX
    canvas = Image.new("RGB", (columns * across + GAP_PX, rows * down + GAP_PX), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for index, cell in enumerate(cells):
        left, top = GAP_PX + index % columns * across, GAP_PX + index // columns * down
        if cell.picture is None:
            draw.rectangle((left, top, left + CELL_PX, top + CELL_PX), outline="grey")
            draw.text((left + CELL_PX // 2, top + CELL_PX // 2), "file not readable", "grey", font, anchor="mm")
        else:
            image = Image.fromarray(cell.picture)
            image.thumbnail((CELL_PX, CELL_PX))
            canvas.paste(image, (left + (CELL_PX - image.width) // 2, top + (CELL_PX - image.height) // 2))
        draw.text((left, top + CELL_PX + 4), cell.title, "black", font)
        draw.text((left, top + CELL_PX + 20), _fitting(cell.name, font), "dimgrey", font)
    return canvas


def _fitting(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The end of a name, which tells files apart, as long as it fits under its picture."""
    shown = text
    while font.getlength(shown) > CELL_PX and len(shown) > 4:
        shown = "…" + shown[2:]
    return shown
