"""The `{mutants}` directive: which planted mistakes were noticed, by whom, and which were not.

Read from book/mutants.json, which `make mutants` writes, and book/survivors.toml, which says of
each mistake that nobody noticed why that is so.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Results = dict[str, dict[str, Any]]


def read_reasons(path: Path) -> list[dict[str, str]]:
    """The survivors that are explained: function, change, reason."""
    return tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])


def survivors(results: Results) -> list[tuple[str, str]]:
    """The mistakes that nobody noticed: function and change."""
    return [
        (name, mutant["change"])
        for name, entry in results.items()
        for mutant in entry["mutants"]
        if not mutant["noticed_by"]
    ]


def unexplained(results: Results, reasons: list[dict[str, str]]) -> list[str]:
    """Every survivor without a reason, and every reason without a survivor."""
    there = set(survivors(results))
    explained = {(row["function"], row["change"]) for row in reasons if row["reason"].strip()}
    return [
        *(f"no reason is given for {name}: {change}" for name, change in sorted(there - explained)),
        *(f"noticed by now: {name}: {change}" for name, change in sorted(explained - there)),
    ]


class Mutants(SphinxDirective):
    """Takes no argument."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        book = Path(self.env.srcdir) / "book"
        for path in (book / "mutants.json", book / "survivors.toml", Path(__file__)):
            self.env.note_dependency(str(path))
        results: Results = json.loads((book / "mutants.json").read_text(encoding="utf-8"))
        reasons = read_reasons(book / "survivors.toml")
        return [self._summary(results), *self._rooms(results), *self._survivors(results, reasons)]

    def _summary(self, results: Results) -> nodes.Node:
        mutants = [mutant for entry in results.values() for mutant in entry["mutants"]]
        whom = Counter(mutant["noticed_by"].partition(" ")[0] for mutant in mutants)
        return _paragraph(
            f"{len(mutants)} mistakes in {len(results)} functions. A claim of the book noticed "
            f"{whom['claim']}, a unit test {whom['test']}, nobody {whom['']}."
        )

    def _rooms(self, results: Results) -> Iterable[nodes.Node]:
        rooms = dict.fromkeys(name.split(".")[0] for name in results)
        for room in rooms:
            section = nodes.section(ids=[f"mutants-{room}"], names=[f"mutants of {room}"])
            section += nodes.title("", "", nodes.literal(text=room))
            rows = [
                [
                    [nodes.literal(text=name.partition(".")[2])],
                    [nodes.Text(str(len(entry["mutants"])))],
                    list(_noticed(entry["mutants"])),
                ]
                for name, entry in results.items()
                if name.split(".")[0] == room and entry["mutants"]
            ]
            section += _table(["function", "mistakes", "noticed by"], rows, [34, 12, 54])
            yield section

    def _survivors(self, results: Results, reasons: list[dict[str, str]]) -> list[nodes.Node]:
        section = nodes.section(ids=["survivors"], names=["survivors"])
        section += nodes.title(text="What nobody noticed, and why")
        there = survivors(results)
        if not there:
            section += _paragraph("Nothing: every mistake was noticed.")
            return [section]
        why = {(row["function"], row["change"]): row["reason"] for row in reasons}
        rows = [
            [
                [nodes.literal(text=name)],
                [nodes.literal(text=change)],
                [nodes.Text(why.get((name, change), "not explained yet"))],
            ]
            for name, change in there
        ]
        section += _table(["function", "mistake", "why nobody can notice"], rows, [22, 43, 35])
        return [section]


def _noticed(mutants: list[dict[str, str]]) -> Iterable[nodes.Node]:
    """The claims, each with how many it noticed and a link; then tests, then nobody."""
    whom = Counter(
        re.sub(r"^test .*", "unit tests", mutant["noticed_by"]) or "nobody" for mutant in mutants
    )
    ordered = sorted(whom, key=lambda name: (not name.startswith("claim"), name == "nobody"))
    for i, name in enumerate(ordered):
        if i:
            yield nodes.Text(", ")
        if name.startswith("claim "):
            claim = name.removeprefix("claim ")
            yield nodes.reference(
                "", claim, internal=True, refuri=f"ledger.html#{claim.split()[0]}"
            )
        else:
            yield nodes.Text(name)
        yield nodes.Text(f" {whom[name]}")


def _paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph(text=text)


def _table(head: list[str], rows: list[list[list[nodes.Node]]], widths: list[int]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row([[nodes.Text(name)] for name in head]))
    group += nodes.tbody("", *(_row(cells) for cells in rows))
    return nodes.table("", group, classes=["mutants", "stacked"])


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("mutants", Mutants)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
