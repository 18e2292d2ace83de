"""Nothing on a page comes from elsewhere: the Colab badge is drawn here, thebe is left out."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

REMOTE_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
LOCAL_BADGE = "/book/_static/colab-badge.svg"


class LocalBadge(SphinxTransform):
    """Notebooks show Colab's own badge, for they are read elsewhere too; the book has its own."""

    default_priority = 10  # before Sphinx collects the images

    def apply(self, **_: Any) -> None:
        for image in self.document.findall(nodes.image):
            if image["uri"] == REMOTE_BADGE:
                image["uri"] = LOCAL_BADGE
                image["classes"].append("colab-badge")


def drop_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """sphinx-thebe writes its settings into every page, twice, which is a console error."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(LocalBadge)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
