"""What the theme and Sphinx leave out for those who listen to a page instead of looking at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

UNNAMED = "<summary>"  # of the arrow that opens a branch of the contents
NAMED = '<summary aria-label="Open or close this branch">'


def with_names(contents: Any) -> Any:
    return str(contents).replace(UNNAMED, NAMED)


def amend_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    # A signature over several lines is a list of definitions without terms: read it as plain text.
    parameters = '<dd><em class="sig-param">'
    context["body"] = (
        context.get("body", "")
        .replace(f"<dl>\n{parameters}", f'<dl role="presentation">\n{parameters}')
        .replace(parameters, '<dd role="presentation"><em class="sig-param">')
        # The bibliography is called a list, but its entries are not called items of one.
        .replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    )
    make_contents: Callable[..., Any] | None = context.get("generate_toctree_html")
    if make_contents is not None:
        context["generate_toctree_html"] = lambda *arguments, **options: with_names(
            make_contents(*arguments, **options)
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_js_file("scrolling.js", loading_method="defer")
    app.connect("html-page-context", amend_page, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
