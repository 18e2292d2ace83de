"""Keep a comma or full stop on the line of the formula before it.

A browser may break a line after an inline formula, and then the next line begins with the comma.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

PUNCTUATION = re.compile(r"[,.;:!?)\]’”]+")


class GluePunctuation(SphinxPostTransform):
    """Put a formula and the punctuation after it into one box that does not break."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            following = formula.next_node(descend=False, siblings=True)
            if not isinstance(following, nodes.Text):
                continue
            if match := PUNCTUATION.match(following):
                rest = nodes.Text(following[match.end() :])
                following.parent.replace(following, rest)
                box = nodes.inline("", "", classes=["glued"])
                formula.replace_self(box)
                box += [formula, nodes.Text(match.group())]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(GluePunctuation)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
