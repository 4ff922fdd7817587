"""What all pages share: templates, inline charts, inline pictures, and the policy that forbids any request."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from opendino.files import write_atomic

TEMPLATES = Path(__file__).parent / "templates"
CHARTS = "page.js"


@dataclass(frozen=True)
class Tile:
    """One of the large numbers on top."""

    name: str
    value: str
    note: str = ""


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> Markup:
    """A dotted_name that may break after its dots and underscores, and only there."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


@cache
def _scripts(ours: str | None) -> tuple[str, ...]:
    """Our few lines, after the plotting library where they draw with it; none for a page that draws nothing."""
    if ours is None:
        return ()
    script = (TEMPLATES / ours).read_text()
    if ours != CHARTS:
        return (script,)
    from plotly.offline import get_plotlyjs

    return get_plotlyjs(), script


def write_page(path: Path, template: str, script: str | None = CHARTS, **values: Any) -> Path:
    """Fill a template that extends base.html and write it as one file that needs no network.

    Everything in `values` is escaped on its way in: names of files and classes come from outside. The page's content
    policy allows no request, and no script except those whose hashes it names, so a name that got through would
    still do nothing.

    Args:
        values: for the template. Charts stand in it as `charts.chart(...)` dictionaries, pictures as data URIs.
    """
    scripts = _scripts(script)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src " + " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
    )
    # Scripts are the one thing that must not be escaped; they come with the package, never from a user.
    html = (
        _environment().get_template(template).render(policy=policy, scripts=[Markup(one) for one in scripts], **values)
    )
    # A file name may hold bytes that are no text (kept by Python as lone surrogates); a page must be valid UTF-8.
    write_atomic(path, html.encode("utf-8", "replace"))
    return path


def png_bytes(picture: Image.Image | np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """A PIL image or uint8 [H, W, 3] array as PNG, with texts by name in it."""
    buffer, info = io.BytesIO(), PngInfo()
    for name, words in (text or {}).items():
        info.add_text(name, words)
    shown = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    shown.save(buffer, "PNG", pnginfo=info, compress_level=4)  # 3 % larger than at 6, in a third of the time
    return buffer.getvalue()


def jpeg_uri(picture: Image.Image | np.ndarray) -> str:
    """A PIL image or uint8 [H, W, 3] array as a JPEG inside a page: a tenth of a PNG for a photograph."""
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def data_uri(png: bytes) -> str:
    """A PNG to stand inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
