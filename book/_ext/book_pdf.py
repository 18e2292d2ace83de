"""The welcome page offers the book as one PDF where `make pdf` has put it beside the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

WELCOME = "book/index"
OFFERS = re.compile(r'(<p class="offers">.*?)</p>', re.S)


def offer(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    printed = next(Path(app.outdir).glob("*.pdf"), None)
    if page == WELCOME and printed is not None:
        size = f"{printed.stat().st_size / 1e6:.0f} MB"
        link = f'<a href="../{printed.name}" download>as one PDF</a>'
        words = f'<span class="pdf-offer">For paper, the whole book comes {link} ({size}).</span>'
        context["body"] = OFFERS.sub(rf"\1 {words}</p>", context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    # Whether there is a PDF is not something that Sphinx would notice.
    app.connect("env-get-outdated", lambda *_: [WELCOME])
    app.connect("html-page-context", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
