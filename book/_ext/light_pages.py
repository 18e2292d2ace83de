"""Pages that load fast: no script for icons, and pictures in few colours.

The theme ships its icons twice, as a script of 1.5 MB and as a font; the font alone draws them all.
A figure of the book has a handful of colours and their shades, so 256 of them are enough.
"""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image
from sphinx.application import Sphinx

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
    """Give a picture a palette, if it has none and that makes its file smaller."""
    with Image.open(path) as picture:
        if picture.mode == "P":
            return
        few = picture.convert("RGBA").quantize(
            256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    smaller = path.with_suffix(".few.png")
    few.save(smaller, optimize=True)
    if smaller.stat().st_size < path.stat().st_size:
        smaller.replace(path)
    else:
        smaller.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", add_filter)
    app.connect("build-finished", shrink_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
