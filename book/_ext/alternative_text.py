"""Figures keep the alternative text that `diffusion_lib.figures.show` stored with them.

Jupyter reads it from the output's metadata; myst-nb takes only width and height from there.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx

render_image = NbElementRenderer.render_image


def render_image_with_alt(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    images = render_image(self, data)
    alt = data.output_metadata.get(data.mime_type, {}).get("alt")
    for image in images:
        if alt:
            image["alt"] = alt
    return images


def setup(app: Sphinx) -> dict[str, bool]:
    NbElementRenderer.render_image = render_image_with_alt
    return {"parallel_read_safe": True, "parallel_write_safe": True}
