"""The ledger's content: the claims of claims.toml joined with the cards stored in the notebooks.

A verdict is written nowhere but in a chapter, where checks back it. Here the stored cards are
collected for the ledger page, and everything that could make the ledger say more than was checked
is listed as a problem.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nbformat

CARD = "application/vnd.diffusion-lib.claim+json"
VERDICTS = ("holds", "holds if", "typo", "false")
# Whoever contradicts the notes, wholly or in part, shows where they fail.
NEEDS_REFUTATION = ("holds if", "typo", "false")


@dataclass(frozen=True)
class Entry:
    """A claim of the source notes, and the card that settles it if there is one."""

    claim: dict[str, Any]
    card: dict[str, Any] | None
    chapter: str | None

    @property
    def id(self) -> str:
        return self.claim["id"]

    @property
    def verdict(self) -> str | None:
        return self.card["verdict"] if self.card else None

    @property
    def is_topic(self) -> bool:
        return bool(self.claim.get("topic"))


def read_claims(path: Path) -> list[dict[str, Any]]:
    return tomllib.loads(path.read_text(encoding="utf-8"))["claim"]


def read_cards(notebook: Path) -> list[dict[str, Any]]:
    """The claim cards among the stored outputs of one notebook."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = (output for cell in cells for output in cell.get("outputs", []))
    return [dict(o.data[CARD]) for o in outputs if CARD in o.get("data", {})]


def collect(notebooks: Iterable[Path]) -> list[tuple[str, dict[str, Any]]]:
    """All cards, each with the name of its chapter."""
    return [(path.stem, card) for path in notebooks for card in read_cards(path)]


def entries(claims: list[dict[str, Any]], cards: list[tuple[str, dict[str, Any]]]) -> list[Entry]:
    """One entry for each claim, in the order of claims.toml."""
    settled = {card["id"]: (chapter, card) for chapter, card in cards}
    return [
        Entry(claim, *reversed(settled[claim["id"]]))
        if claim["id"] in settled
        else Entry(claim, None, None)
        for claim in claims
    ]


def function_named(name: str) -> Callable[..., Any] | None:
    """The library's function or method of this full name, or None."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        try:
            return reduce(getattr, parts[split:], module)
        except AttributeError:
            return None
    return None


def problems(claims: list[dict[str, Any]], cards: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Every reason not to believe the ledger, one sentence each."""
    return [
        *_bookkeeping(claims, cards),
        *(trouble for chapter, card in cards for trouble in _card_problems(chapter, card)),
        *_foundations(claims, cards),
    ]


def _bookkeeping(
    claims: list[dict[str, Any]], cards: list[tuple[str, dict[str, Any]]]
) -> Iterable[str]:
    """The claims file and the chapters must tell the same story."""
    recorded = {claim["id"]: claim.get("chapter") for claim in claims}
    for name, count in Counter(claim["id"] for claim in claims).items():
        if count > 1:
            yield f"{name} stands {count} times in claims.toml."
    for name, count in Counter(card["id"] for _, card in cards).items():
        if count > 1:
            yield f"{name} has {count} cards; a claim is settled once."
    for chapter, card in cards:
        if card["id"] not in recorded:
            yield f"{chapter} settles {card['id']}, which claims.toml does not know."
        elif recorded[card["id"]] != chapter:
            yield (
                f"{card['id']} has its card in {chapter}, but claims.toml says "
                f"chapter = {recorded[card['id']]!r}."
            )
    shown = {(card["id"], chapter) for chapter, card in cards}
    for name, chapter in recorded.items():
        if chapter is not None and (name, chapter) not in shown:
            yield f"claims.toml says that {chapter} settles {name}, but there is no card there."


def _card_problems(chapter: str, card: dict[str, Any]) -> Iterable[str]:
    """A verdict must be backed by checks, and by functions that exist and know of it."""
    here = f"{card['id']} in {chapter}"
    kinds = {check["kind"] for check in card["checks"]}
    if card["verdict"] not in VERDICTS:
        yield f"{here}: the verdict {card['verdict']!r} is none of {', '.join(VERDICTS)}."
    if not kinds:
        yield f"{here}: a verdict without a check."
    if card["verdict"] in NEEDS_REFUTATION and "refuted" not in kinds:
        yield f"{here}: the verdict {card['verdict']!r} needs a check that refutes the print."
    if not card["binds"]:
        yield f"{here}: the card is bound to no library function."
    for name in card["binds"]:
        function = function_named(name)
        if function is None or not name.startswith("diffusion_lib."):
            yield f"{here}: there is no {name} in the library."
        elif not re.search(rf"\b{card['id']}\b", function.__doc__ or ""):
            yield f"{here}: the docstring of {name} does not name {card['id']}."


def _foundations(
    claims: list[dict[str, Any]], cards: list[tuple[str, dict[str, Any]]]
) -> Iterable[str]:
    """What rests on what must exist, and must not go round in a circle."""
    known = {claim["id"] for claim in claims}
    rests = {card["id"]: set(card["rests_on"]) for _, card in cards}
    for name, below in rests.items():
        for missing in sorted(below - known):
            yield f"{name} rests on {missing}, which claims.toml does not know."
    try:
        TopologicalSorter(rests).prepare()
    except CycleError as circle:
        yield f"Claims rest on each other in a circle: {' → '.join(circle.args[1])}."
