"""Pages that load fast: no script for icons, and pictures in few colours.

The theme ships its icons twice, as a script of 1.5 MB and as a font; the font alone draws them all.
Most figures have a handful of colours and their shades, so that 256 of them are enough.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image
from sphinx.application import Sphinx

VISIBLE = 3.5  # levels: beyond it, smooth shades turn into bands
ICON_SCRIPT = re.compile(r'<script src="[^"]*/fontawesome/[^"]*"></script>')


def without_icon_script(html: str) -> str:
    return ICON_SCRIPT.sub("", str(html))


def add_filter(app: Sphinx) -> None:
    """For book/_templates/layout.html."""
    if app.builder.format == "html":
        filters = app.builder.templates.environment.filters  # type: ignore[attr-defined]
        filters["without_icon_script"] = without_icon_script


def shrink_pictures(app: Sphinx, problem: Exception | None) -> None:
    if app.builder.format != "html" or problem:
        return
    for path in (Path(app.outdir) / "_images").glob("*.png"):
        shrink(path)


def shrink(path: Path) -> None:
    """Give a picture a palette, unless it has one, would change to the eye, or would not shrink."""
    with Image.open(path) as picture:
        if picture.mode == "P":
            return
        full = picture.convert("RGBA")
    few = full.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    if difference(full, few.convert("RGBA")) > VISIBLE:
        return
    smaller = io.BytesIO()
    few.save(smaller, format="png", optimize=True)
    if smaller.tell() < path.stat().st_size:
        path.write_bytes(smaller.getvalue())


def difference(one: Image.Image, other: Image.Image) -> float:
    """The root mean square difference of two pictures on white, in levels out of 255."""
    on_white = [
        np.asarray(Image.alpha_composite(Image.new("RGBA", one.size, "white"), picture), float)
        for picture in (one, other)
    ]
    return float(np.sqrt(((on_white[0] - on_white[1]) ** 2).mean()))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", add_filter)
    app.connect("build-finished", shrink_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
