"""Keep a comma on the line of the formula before it, and a bracket on that of the one after it.

A browser may break a line at an inline formula: then the next line begins with the comma, or this
one ends with the bracket.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

AFTER = re.compile(r"^[,.;:!?)\]’”]+")
BEFORE = re.compile(r"[(\[“]+$")


class GluePunctuation(SphinxPostTransform):
    """Put a formula and the punctuation around it into one box that does not break."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            parent, place = formula.parent, formula.parent.index(formula)
            before = cut(parent, place - 1, BEFORE)
            after = cut(parent, place + 1, AFTER)
            if before or after:
                box = nodes.inline("", "", classes=["glued"])
                formula.replace_self(box)
                box += [nodes.Text(before), formula, nodes.Text(after)]


def cut(parent: nodes.Element, place: int, pattern: re.Pattern[str]) -> str:
    """Take the punctuation out of the text at this place, if there is a text and any in it."""
    text = parent[place] if 0 <= place < len(parent) else None
    match = pattern.search(text) if isinstance(text, nodes.Text) else None
    if not match:
        return ""
    parent[place] = nodes.Text(text[: match.start()] + text[match.end() :])
    return match.group()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(GluePunctuation)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
