"""One picture of a run: the same photographs, and below them their PCA maps at steps of the training."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from opendino.errors import DataError
from opendino.pages.record import RunRecord
from opendino.pages.sheet import LABEL_GREY

LABEL_PX, GAP_PX = 84, 4


def training_figure(record: RunRecord, rows: int = 4, height_px: int = 104) -> Image.Image:
    """RGB image: a strip of photographs, then `rows` strips of maps evenly spaced over the run, labelled by step.

    Raises DataError when the run has drawn no picture yet.
    """
    photos, maps = record.photos(), record.pictures(rows)
    if photos is None or not maps:
        raise DataError(record.path, "has no pictures yet", "they are drawn while it trains")
    strips = [("", photos), *((f"step {picture.step:,}", picture.png) for picture in maps)]
    images = [(label, Image.open(io.BytesIO(png)).convert("RGBA")) for label, png in strips]
    scaled = [(label, image.resize((image.width * height_px // image.height, height_px))) for label, image in images]
    width = LABEL_PX + max(image.width for _, image in scaled)
    canvas = Image.new("RGB", (width, len(scaled) * (height_px + GAP_PX) - GAP_PX), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for index, (label, image) in enumerate(scaled):
        top = index * (height_px + GAP_PX)
        canvas.paste(image, (LABEL_PX, top), image)
        draw.text((LABEL_PX - 10, top + height_px // 2), label, LABEL_GREY, font, anchor="rm")
    return canvas
