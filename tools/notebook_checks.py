"""What must be true of a stored notebook beyond what nbval compares."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import repository
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from notebooks import LIBRARY, code_cells, digest, markdown_cells, outputs

RUN_AGAIN = "run `make notebooks`"
PAPER = re.compile(r"https?://(?:www\.)?(?:arxiv\.org|(?:dx\.)?doi\.org)/[^\s)>\]\"'`]+")
# What MyST would turn into something, and Jupyter and Colab show as it stands.
MARKUP = {
    "a MyST fence": re.compile(r"^\s*:{3,}", re.M),
    "a MyST role": re.compile(r"\{[a-z][\w:+-]*\}$"),
    "a MyST label": re.compile(r"^\([^()\s]+\)=\s*$", re.M),
    "a MyST comment": re.compile(r"^%", re.M),
    "a MyST block break": re.compile(r"^\+\+\+", re.M),
    "a MyST substitution": re.compile(r"\{\{.*?\}\}"),
    "maths outside dollars": re.compile(r"\\begin\{|\\end\{|\\\\[([]"),
}


def not_executed(notebook: NotebookNode) -> Iterator[str]:
    """nbval compares nothing where a cell has no execution count."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"cells were run in the order {counts}, not from top to bottom: {RUN_AGAIN}."


def stored_errors(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        if output.output_type == "error":
            yield f"an error is stored: {output.ename}: {output.evalue}."
        if output.get("name") == "stderr":
            yield f"a warning is stored: {output.text.strip()[:200]}"


def stale(notebook: NotebookNode, library: Path = LIBRARY) -> Iterator[str]:
    """nbval compares no figure, so what the outputs came from is compared instead."""
    if notebook.metadata.get("diffusion_lib", {}).get("digest") != digest(notebook, library):
        yield f"the library or this notebook's code changed since it was executed: {RUN_AGAIN}."


def not_adapted(notebook: NotebookNode, name: str) -> Iterator[str]:
    """Badge and bootstrap cell are written by one tool."""
    if repository.adapt(copy.deepcopy(notebook), name, repository.repository_url()):
        yield "badge or bootstrap cell differ from what `python tools/repository.py` writes."


def figures_without_alt(notebook: NotebookNode) -> Iterator[str]:
    for output in outputs(notebook):
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                alt = output.metadata.get(kind, {}).get("alt", "")
                if not alt.strip():
                    yield "a figure has no alternative text: use figures.show(fig, alt=...)."


def raw_markup(notebook: NotebookNode) -> Iterator[str]:
    """Render the Markdown as Jupyter does and look for what only MyST would have understood."""
    for cell in markdown_cells(notebook):
        for text in plain_text(cell.source):
            for what, pattern in MARKUP.items():
                if pattern.search(text):
                    yield f"{what} is left in the text: {text.strip()[:80]!r}."


def plain_text(source: str) -> Iterator[str]:
    """What a reader outside the book sees as text: no code, no maths, no HTML tags."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in markdown.use(dollarmath_plugin, double_inline=True).parse(source):
        if token.type == "fence" and token.info.strip().startswith("{"):
            yield f":::{token.info}"
        elif token.type == "inline":
            yield from _runs(token.children or [])


def _runs(children: list[Token]) -> Iterator[str]:
    """The texts of a paragraph; what stands between two of them is maths, code or emphasis."""
    run = ""
    for child in children:
        if child.type in ("text", "softbreak", "hardbreak"):
            run += child.content or "\n"
        elif run:
            # A role is a name in braces right before code; elsewhere braces are only braces.
            yield run if child.type == "code_inline" else run.rstrip("}")
            run = ""
    yield run.rstrip("}")


def problems(notebook: NotebookNode, name: str) -> list[str]:
    """All complaints about the notebook stored under `name`."""
    return [
        *not_executed(notebook),
        *stored_errors(notebook),
        *stale(notebook),
        *not_adapted(notebook, name),
        *figures_without_alt(notebook),
        *raw_markup(notebook),
    ]


def papers(text: str) -> set[str]:
    """The papers that a text links to, without the difference between abs, pdf and versions."""
    return {paper_key(url) for url in PAPER.findall(text)}


def paper_key(url: str) -> str:
    key = re.sub(r"^https?://(?:www\.|dx\.)?", "", url.rstrip(".,;/")).lower()
    return re.sub(r"^arxiv\.org/(?:abs|pdf)/(.*?)(?:v\d+)?(?:\.pdf)?$", r"arxiv.org/\1", key)
