"""Words and symbols explain themselves: the first use of a glossary's word, and every formula.

On each page the first use of a word of `book/glossary.md` becomes a link to its entry. A script
shows the entry beside the word, and beside a formula the meanings of its symbols, which are those
of the table in `book/notation.md`. Both pages stay the only place where a meaning is written.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

BOOK = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^(\S.*)\n((?:  .+\n?)+)", re.M)
MATH = re.compile(r"\$([^$]+)\$")
NO_WORDS_IN = (nodes.reference, nodes.literal, nodes.title, nodes.term, nodes.math, nodes.raw)
# Where a word or a letter means something else than the glossary and the notation page say.
OTHER_WORDS = {
    "notebooks/01_gaussian_toolbox": {"score"},
    "notebooks/07_ddpm_sampling": {"claim"},
    "notebooks/12_ddim_as_a_code": {"decoder"},
    "notebooks/16_faster_and_steered": {"velocity", "claim"},
}
OTHER_SIGMA = ("notebooks/01_gaussian_toolbox", "notebooks/16_faster_and_steered")
NO_WORDS_ON = ("book/glossary", "book/references", "book/benchmarks", "book/mutants")


def with_tex(text: str) -> str:
    """Markdown's formulas as MathJax finds them in a page."""
    return MATH.sub(r"\\(\1\\)", " ".join(text.split())).replace("`", "")


@cache
def glossary() -> dict[str, str]:
    """The words and what they mean."""
    page = (BOOK / "glossary.md").read_text(encoding="utf-8")
    listed = page.split("```{glossary}\n")[1].split("```")[0]
    return {word: with_tex(meaning) for word, meaning in ENTRY.findall(listed)}


@cache
def symbols() -> list[tuple[str, str]]:
    """Each symbol, without its index where it may have any, and what it means; the longest first.

    Latin letters alone are left out: a, b and v mean other things on other pages.
    """
    page = (BOOK / "notation.md").read_text(encoding="utf-8")
    table = page.split("## Symbols")[1].split("(rosetta)=")[0]
    found: dict[str, str] = {}
    for row, meaning in re.findall(r"^\| (\$.+?) \| (.+?) \|", table, re.M):
        names = [symbol.split("=")[0] for symbol in MATH.findall(row)]
        each = meaning.split("; ")
        if len(each) != len(names):
            each = [meaning] * len(names)
        for name, what in zip(names, each, strict=True):
            base = re.sub(r"(?<=\w\w)_(t|1.*)$|\(.*\)$", "", name)
            if "\\" in base or base in ("T", "x_0", "x_t", "x_T"):
                found.setdefault(base, f"\\({name}\\): {with_tex(what)}")
    return sorted(found.items(), key=lambda item: -len(item[0]))


def symbols_on(page: str) -> list[tuple[str, str]]:
    """The symbols that mean on this page what they mean in the book."""
    if page == "book/notation":  # it explains itself, and other papers' letters
        return []
    return [line for line in symbols() if line[0] != r"\sigma" or page not in OTHER_SIGMA]


@cache
def any_word() -> re.Pattern[str]:
    words = "|".join(re.escape(word) for word in sorted(glossary(), key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.I)


class LinkWords(SphinxPostTransform):
    """The first use of each word in running text leads to the glossary."""

    default_priority = 500
    formats = ("html",)

    def run(self, **_: Any) -> None:
        page = self.env.docname
        if page in NO_WORDS_ON or page.startswith("book/api"):
            return
        other = OTHER_WORDS.get(page, set())
        entries = {word.lower(): word for word in glossary() if word not in other}
        for text in list(self.document.findall(nodes.Text)):
            if _is_running_text(text):
                self._link(text, entries)

    def _link(self, text: nodes.Text, entries: dict[str, str]) -> None:
        """Replace the words that are still in `entries`, and take them out."""
        parts: list[nodes.Node] = []
        start = 0
        listed = self.env.get_domain("std").objects  # type: ignore[attr-defined]
        for match in any_word().finditer(text):
            word = entries.pop(match[0].lower(), None)
            if word and ("term", word) in listed:  # it is not on a page that is built alone
                parts += [nodes.Text(text[start : match.start()]), self._reference(word, match[0])]
                start = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[start:])])

    def _reference(self, word: str, shown: str) -> nodes.Node:
        std = self.env.get_domain("std")
        where, anchor = std.objects["term", word]  # type: ignore[attr-defined]
        content = nodes.inline(shown, shown, classes=["word"])
        return make_refnode(self.app.builder, self.env.docname, where, anchor, content)


def _is_running_text(text: nodes.Text) -> bool:
    above = text.parent
    if not isinstance(above, nodes.paragraph):
        return False
    while above is not None:
        if isinstance(above, NO_WORDS_IN) or "claim-card" in above.get("classes", []):
            return False
        above = above.parent
    return True


def add_meanings(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    body = context.get("body", "")
    shown = dict.fromkeys(re.findall(r'<span class="word">(.+?)</span>', body))
    meanings = {word.lower(): meaning for word, meaning in glossary().items()}
    words = {word: meanings[word.lower()] for word in shown if word.lower() in meanings}
    if words or 'class="math' in body:
        text = json.dumps({"words": words, "symbols": symbols_on(page)}, separators=(",", ":"))
        safe = text.replace("<", "\\u003c")
        context["body"] += f'<script type="application/json" id="meanings">{safe}</script>'


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(LinkWords)
    app.connect("html-page-context", add_meanings)
    app.add_js_file("hovers.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
