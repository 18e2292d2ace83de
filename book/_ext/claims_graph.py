"""The `{claims-graph}` directive: which result rests on which, drawn from the stored cards.

One band for each chapter, in the order of the book; one node for each claim, in the colour of its
verdict and linked to its proof; one line from each claim to those that use it. Within a band a
claim stands a line below the claims of its chapter that it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

import ledger
from docutils import nodes
from ledger_page import CLASSES, FromCards
from sphinx.application import Sphinx

WIDTH = 760  # of the picture
TITLE = 30  # height of a band's title
LINE, PILL = 46, (40, 22)  # the distance of two lines of nodes; width and height of a node


GLOW = "stroke:var(--sym-{});stroke-opacity:1;stroke-width:2"
# Which verdicts to show: without a script, the style sheet asks which one is chosen.
FILTER = (
    '<fieldset class="claims-filter"><legend>Show</legend>'
    + "".join(
        f'<label class="{kind}"><input type="radio" name="verdict" value="{kind}"'
        f"{' checked' if kind == 'claim-all' else ''}><span>{words}</span></label>"
        for words, kind in [("all", "claim-all"), *list(CLASSES.items())[:4]]
    )
    + "</fieldset>"
)


class Band(NamedTuple):
    """A chapter's part of the picture: its name, top and height, and the centre of each node."""

    chapter: str
    top: float
    height: float
    centres: dict[str, tuple[float, float]]


def settled(rows: Iterable[ledger.Entry]) -> list[ledger.Entry]:
    """The claims that have a card."""
    return [row for row in rows if row.card is not None]


def bands(rows: list[ledger.Entry]) -> list[Band]:
    """The picture's geometry."""
    found: list[Band] = []
    where: dict[str, tuple[float, float]] = {}
    top = 0.0
    for chapter in sorted({row.chapter or "" for row in rows}):
        here = {row.id: _below(row) for row in rows if row.chapter == chapter}
        lines = _lines(here)
        centres: dict[str, tuple[float, float]] = {}
        for number, names in enumerate(lines):
            pull = {name: _pull(here[name], where | centres) for name in names}
            step = WIDTH / len(names)
            aside = (0.13 if number % 2 else -0.13) * step  # or lines would run through nodes
            for slot, name in enumerate(sorted(names, key=pull.__getitem__)):
                centres[name] = ((slot + 0.5) * step + aside, top + TITLE + (number + 0.4) * LINE)
        found.append(Band(chapter, top, TITLE + LINE * len(lines), centres))
        where |= centres
        top += found[-1].height
    return found


def _below(row: ledger.Entry) -> list[str]:
    return row.card["rests_on"] if row.card else []


def _lines(here: dict[str, list[str]]) -> list[list[str]]:
    """A chapter's claims, each one line below the lowest of those it rests on there."""
    depth: dict[str, int] = {}

    def depth_of(name: str) -> int:
        if name not in depth:
            inside = [depth_of(other) for other in here[name] if other in here]
            depth[name] = 1 + max(inside, default=-1)
        return depth[name]

    lines: list[list[str]] = []
    for name in sorted(here, key=lambda name: (depth_of(name), name)):
        lines += [[] for _ in range(depth[name] + 1 - len(lines))]
        lines[depth[name]].append(name)
    return lines


def _pull(below: list[str], where: dict[str, tuple[float, float]]) -> float:
    """Where the lines from above draw a claim; what rests on nothing stands first."""
    above = [where[name][0] for name in below if name in where]
    return sum(above) / len(above) if above else 0.0


def edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve from the foot of one node to the head of another."""
    down = 1 if end[1] > start[1] else -1
    y1, y2 = start[1] + down * PILL[1] / 2, end[1] - down * PILL[1] / 2
    bend = (y2 - y1) / 2
    return (
        f"M{start[0]:.0f} {y1:.0f}C{start[0]:.0f} {y1 + bend:.0f} "
        f"{end[0]:.0f} {y2 - bend:.0f} {end[0]:.0f} {y2:.0f}"
    )


def svg(rows: list[ledger.Entry], titles: dict[str, str]) -> str:
    """The picture. Its nodes are links, and say in words what their lines say."""
    picture = bands(rows)
    where = {name: centre for band in picture for name, centre in band.centres.items()}
    paths, pills, rests, used = [], [], [], []
    for row in rows:
        x, y = where[row.id]
        below = [name for name in _below(row) if name in where]
        paths += [
            f'<path class="from-{name} to-{row.id}" d="{edge(where[name], (x, y))}"/>'
            for name in below
        ]
        says = f"{row.id}, {row.verdict}, rests on {', '.join(below) or 'no other claim'}"
        pills.append(
            f'<a href="../notebooks/{row.chapter}.html#{row.id}" '
            f'class="{CLASSES[row.verdict]}" id="node-{row.id}" '
            f'aria-label="{says}"><title>{says}</title>'
            f'<rect x="{x - PILL[0] / 2:.0f}" y="{y - PILL[1] / 2:.0f}" '
            f'width="{PILL[0]}" height="{PILL[1]}" rx="11"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}">{row.id}</text></a>'
        )
        here = f".claims-graph svg:has(#node-{row.id}:is(:hover,:focus-visible))"
        rests.append(f"{here} .to-{row.id}")
        used.append(f"{here} .from-{row.id}")
    grounds = [
        f'<rect class="band" x="0" y="{band.top:.0f}" width="{WIDTH}" height="{band.height:.0f}"/>'
        for band in picture[::2]
    ]
    labels = [
        f'<a href="../notebooks/{band.chapter}.html">'
        f'<text class="chapter" x="10" y="{band.top + 19:.0f}">'
        f"{escape(titles[band.chapter])}</text></a>"
        for band in picture
    ]
    height = picture[-1].top + picture[-1].height
    return (
        f'<figure class="claims-graph"><style>{",".join(rests)}{{{GLOW.format("data")}}}'
        f"{','.join(used)}{{{GLOW.format('noise')}}}</style>{FILTER}"
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="group" '
        f'aria-label="{len(rows)} settled claims in bands, one for each chapter. '
        'A line joins each claim to those that rest on it.">'
        f"{''.join(grounds)}<g>{''.join(paths)}</g>{''.join(labels)}{''.join(pills)}</svg></figure>"
    )


class ClaimsGraph(FromCards):
    def run(self) -> list[nodes.Node]:
        rows = settled(self.rows())
        return [nodes.raw("", svg(rows, self.titles), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("claims-graph", ClaimsGraph)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
