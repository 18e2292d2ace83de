"""The `{chapter-table}` directive: what each chapter takes to run, and what its checks say.

Everything is read from the stored notebooks: seconds and versions from their metadata, the checks
from their outputs, and the residuals from what `diffusion_lib.verify` stores beside these.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from docutils import nodes
from ledger_page import chapter_title
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

KINDS = ("proved", "refuted", "agrees", "sampled")
CHECK = re.compile(rf"^ *({'|'.join(KINDS)}) +(\S.*)", re.M)
Z = re.compile(r"largest \|z\| ([\d.]+)")


class Chapter(NamedTuple):
    """One row: the checks by kind, the largest residual with its tolerance, the largest |z|."""

    seconds: int | None
    checks: Counter[str]
    residual: tuple[float, float] | None
    z: float | None


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def said(output: NotebookNode) -> str:
    """The output as plain text."""
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def residuals(output: NotebookNode) -> list[tuple[float, float]]:
    """How far off each comparison of numbers was, and how far it might have been."""
    beside = output.get("metadata", {}).values()
    return [(off, within) for kind in beside for off, within in kind.get("residuals", [])]


def chapter(notebook: NotebookNode) -> Chapter:
    found = CHECK.findall("\n".join(said(output) for output in outputs(notebook)))
    close = [pair for output in outputs(notebook) for pair in residuals(output)]
    wide = [float(n) for kind, text in found if kind == "sampled" for n in Z.findall(text)]
    return Chapter(
        notebook.metadata["diffusion_lib"].get("seconds"),
        Counter(kind for kind, _ in found),
        max(close, default=None),
        max(wide, default=None),
    )


def cells_of(row: Chapter) -> list[str]:
    counts = [str(row.checks[kind] or "") for kind in KINDS]
    off, within = (f"{number:g}" for number in row.residual) if row.residual else ("", "")
    return [str(row.seconds or ""), *counts, off, within, f"{row.z:g}" if row.z else ""]


class ChapterTable(SphinxDirective):
    has_content = False

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        paths = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
        stored: list[Any] = [nbformat.read(path, as_version=4) for path in paths]
        for path in paths:
            self.env.note_dependency(str(path))
        rows = [chapter(notebook) for notebook in stored]
        lines = [
            [chapter_title(path), *cells_of(row)] for path, row in zip(paths, rows, strict=True)
        ]
        total = Counter[str]()
        for row in rows:
            total += row.checks
        seconds = sum(row.seconds or 0 for row in rows)
        lines.append(["All", *cells_of(Chapter(seconds, total, None, None))])
        head = ["chapter", "seconds", *KINDS, "largest residual", "allowed", "largest |z|"]
        versions = stored[0].metadata["diffusion_lib"].get("versions", {})
        text = ", ".join(f"{name} {number}" for name, number in versions.items())
        return [table(head, lines), nodes.paragraph(text=f"Run with {text}.")]


def table(head: list[str], lines: list[list[str]]) -> nodes.Node:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=30 if i == 0 else 10) for i in range(len(head))]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *(_row(line) for line in lines))
    return nodes.table("", group, classes=["chapter-table"])


def _row(line: list[str]) -> nodes.Node:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in line))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("chapter-table", ChapterTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
