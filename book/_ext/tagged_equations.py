r"""Displayed equations with a \tag are passed to MathJax as they were written.

Sphinx puts a `split` around every display of several lines, and in there a \tag is an error. The
chapters number their equations with \tag, because that works in Jupyter and Colab too.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class TaggedEquations(SphinxTransform):
    default_priority = 500

    def apply(self, **_: Any) -> None:
        for block in self.document.findall(nodes.math_block):
            if r"\tag" in block.astext() and not block.get("nowrap"):
                text = rf"\[{block.astext()}\]"
                block.children = [nodes.Text(text)]
                block["nowrap"] = True


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(TaggedEquations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
