"""The `{ledger}` directive: one row for each claim, assembled from the stored notebooks.

`{ledger-summary}` counts the verdicts.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import ledger
import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CLASSES = {
    "holds": "claim-holds",
    "holds if": "claim-if",
    "typo": "claim-typo",
    "false": "claim-false",
    None: "claim-open",
}
# What the summary says of each verdict, for one claim and for several.
SUMMARY = {
    "holds": ("holds", "hold"),
    "holds if": ("holds only under a condition", "hold only under a condition"),
    "typo": ("carries a typo", "carry a typo"),
    "false": ("is false", "are false"),
    None: ("is not settled yet", "are not settled yet"),
}


class FromCards(SphinxDirective):
    """Takes no argument; reads diffusion_lib/claims.toml and notebooks/*.ipynb."""

    has_content = False

    def rows(self) -> list[ledger.Entry]:
        """Every claim with its card; the titles of the chapters are noted on the way."""
        root = Path(self.env.srcdir)
        claims = root / "diffusion_lib" / "claims.toml"
        notebooks = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
        here = sorted(Path(__file__).parent.glob("*.py"))
        for path in (claims, *notebooks, *here):
            self.env.note_dependency(str(path))
        self.titles = {path.stem: chapter_title(path) for path in notebooks}
        return ledger.entries(ledger.read_claims(claims), ledger.collect(notebooks))


class Ledger(FromCards):
    def run(self) -> list[nodes.Node]:
        rows = self.rows()
        self.used_by: dict[str, list[str]] = {}
        for row in rows:
            for name in row.card["rests_on"] if row.card else []:
                self.used_by.setdefault(name, []).append(row.id)
        families = dict.fromkeys(row.claim["family"] for row in rows)
        return [
            self._family(name, [row for row in rows if row.claim["family"] == name])
            for name in families
        ]

    def _family(self, name: str, rows: list[ledger.Entry]) -> nodes.Node:
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        section += nodes.title(text=name)
        section += [self._row(row) for row in rows]
        return section

    def _row(self, row: ledger.Entry) -> nodes.Node:
        kind = "claim-topic" if row.is_topic else CLASSES[row.verdict]
        box = nodes.container(classes=["claim-card", "ledger-row", kind], ids=[row.id])
        head = nodes.paragraph(classes=["claim-head"])
        head += nodes.inline(text=row.id, classes=["claim-id"])
        if not row.is_topic:
            head += nodes.inline(text=row.verdict or "not settled yet", classes=["claim-verdict"])
        notes = "Note" if len(row.claim["source"]) == 1 else "Notes"
        source = f"{notes} {', '.join(row.claim['source'])}"
        head += nodes.inline(text=source, classes=["claim-source"])
        box += head
        box += self._markdown(row.claim["statement"], "claim-statement")
        if where := row.claim.get("where"):
            box += self._markdown(where, "claim-where")
        if row.card:
            box += self._facts(row)
            box += self._checks(row.card)
        return box

    def _facts(self, row: ledger.Entry) -> nodes.Node:
        """What the card says besides its checks, each fact under its name."""
        card, chapter = row.card, row.chapter
        facts: list[tuple[str, list[nodes.Node]]] = [
            ("condition", self._inline(card.get("condition"))),
            ("corrected", self._inline(card.get("corrected"))),
            ("counterexample", self._inline(card.get("counterexample"))),
            ("assumes", self._inline("; ".join(card["assumes"]))),
            ("rests on", _separated([_link_to(name) for name in card["rests_on"]])),
            ("used by", _separated([_link_to(name) for name in self.used_by.get(row.id, [])])),
            ("runs as", _separated([_function(name) for name in card["binds"]])),
            ("chapter", self._inline(f"[{self.titles[chapter]}](/notebooks/{chapter}.ipynb)")),
        ]
        table = nodes.definition_list(classes=["claim-facts"])
        for name, content in facts:
            if content:
                item = nodes.definition_list_item()
                item += nodes.term(text=name)
                item += nodes.definition("", nodes.paragraph("", "", *content))
                table += item
        return table

    def _checks(self, card: dict[str, Any]) -> nodes.Node:
        table = nodes.bullet_list(classes=["claim-checks"])
        for check in card["checks"]:
            line = nodes.paragraph()
            line += nodes.strong(text=check["kind"])
            line += [nodes.Text(" "), *self._inline(check["what"])]
            if check["detail"]:
                detail = nodes.inline(classes=["claim-detail"])
                detail += [nodes.Text("("), *self._inline(check["detail"]), nodes.Text(")")]
                line += [nodes.Text(" "), detail]
            table += nodes.list_item("", line, classes=[f"check-{check['kind']}"])
        return table

    def _markdown(self, text: str, name: str) -> nodes.Node:
        box = nodes.container(classes=[name])
        source = str(self.env.doc2path(self.env.docname))
        self.state.nested_parse(StringList([text], source=source), 0, box)
        return box

    def _inline(self, text: str | None) -> list[nodes.Node]:
        """The text's inline nodes, without the paragraph around them."""
        if not text:
            return []
        return list(self._markdown(text, "inline").children[0].children)


class LedgerSummary(FromCards):
    """How many claims got which verdict, the open ones plainly among them."""

    def run(self) -> list[nodes.Node]:
        counts = Counter(row.verdict for row in self.rows() if not row.is_topic)
        box = nodes.container(classes=["ledger-summary"])
        for verdict, (one, many) in SUMMARY.items():
            if count := counts[verdict]:
                item = nodes.paragraph(classes=[CLASSES[verdict]])
                item += nodes.strong(text=str(count))
                item += nodes.Text(f" {one if count == 1 else many}")
                box += item
        return [box]


def chapter_title(path: Path) -> str:
    """The notebook's first heading."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# ").strip()


def _link_to(name: str) -> nodes.Node:
    return nodes.reference("", name, internal=True, refuri=f"#{name}")


def _function(name: str) -> nodes.Node:
    return nodes.literal(text=name.removeprefix("diffusion_lib."))


def _separated(items: list[nodes.Node]) -> list[nodes.Node]:
    """The items with commas between them."""
    return [part for item in items for part in (nodes.Text(", "), item)][1:]


def let_rows_be_linked_to(app: Sphinx, doctree: nodes.document) -> None:
    """Make [P4](ledger.md#P4) a link that is checked; MyST itself knows only of headings."""
    anchors = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for box in doctree.findall(nodes.container):
        if "ledger-row" in box["classes"]:
            name = box["ids"][0]
            anchors[name] = (0, name, name)


CARD = re.compile(
    r'<div class="claim-card (claim-\w+)">(?=\s*<p><span class="claim-id"><strong>(\w+)</strong>)'
)


def let_cards_be_linked_to(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """The card of P4 is what `#P4` means in its chapter."""
    if page.startswith("notebooks/"):
        context["body"] = CARD.sub(r'<div class="claim-card \1" id="\2">', context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("ledger", Ledger)
    app.add_directive("ledger-summary", LedgerSummary)
    app.connect("doctree-read", let_rows_be_linked_to)
    app.connect("html-page-context", let_cards_be_linked_to)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
