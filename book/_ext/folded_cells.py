"""What is folded says what it is: the solution of an exercise, or the code of a figure."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

FOLDED = {"all": "the solution", "input": "the code"}  # the tags hide-cell and hide-input


class NameFoldedCells(SphinxPostTransform):
    default_priority = 198  # before myst-nb writes its own words
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for cell in self.document.findall(nodes.container):
            if what := FOLDED.get(cell.get("hide_mode")):
                for prompt in ("prompt_show", "prompt_hide"):
                    cell[prompt] = cell[prompt].replace("{type}", what)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(NameFoldedCells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
