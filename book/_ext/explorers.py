"""Interactive figures: a cell with the tag `explorer-NAME` gets one in place of its picture.

NAME is a function in `explorer_data`, which computes its numbers with the library, and a script
`book/explorers/NAME.js`, which draws them with `kit.js`. All three are put into the page, so it
needs no kernel and asks for nothing. Without JavaScript, in Colab and on paper the cell's own
picture is there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import explorer_data
from docutils import nodes
from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parents[1] / "explorers"
TAG = re.compile(r"\btag_explorer-(\w+)")


def script(name: str) -> str:
    return f"<script>{(FOLDER / f'{name}.js').read_text(encoding='utf-8')}</script>"


def data(name: str) -> str:
    numbers = json.dumps(getattr(explorer_data, name)(), separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="explorer-data-{name}">{numbers}</script>'


def add_explorers(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    names = list(dict.fromkeys(TAG.findall(context.get("body", ""))))
    if names:
        parts = [*(data(name) for name in names), script("kit"), *(script(name) for name in names)]
        context["body"] += "".join(parts)


def note_sources(app: Sphinx, doctree: nodes.document) -> None:
    """A page is written again when a script or the numbers of one of its figures change."""
    for cell in doctree.findall(nodes.container):
        for tag in cell.get("classes", []):
            if match := TAG.fullmatch(tag):
                for file in (FOLDER / "kit.js", FOLDER / f"{match[1]}.js", explorer_data.__file__):
                    app.env.note_dependency(str(file))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", note_sources)
    app.connect("html-page-context", add_explorers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
