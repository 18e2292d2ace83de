"""Plant a mistake in a closed form and see whether a chapter catches it.

A mutant is one closed form with one sign changed. It is planted by exchanging the function's code
in place, so every module that imported the function runs the mutant. The chapter's code cells then
run from the top until a claim fails.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple
from unittest import mock

import matplotlib
import nbformat

from diffusion_lib import closed_forms, figures, process
from diffusion_lib.verify import CheckFailed

SOURCE = Path(closed_forms.__file__)
SIGNS: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}


class Mutant(NamedTuple):
    """The name of a closed form, the line as changed, and the code to plant."""

    function: str
    line: str
    code: CodeType

    def __str__(self) -> str:
        return f"{self.function}: {self.line}"


def sign_mutants(function: str) -> list[Mutant]:
    """The mutants of a closed form: each + made a -, each - a +, each leading - dropped."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (definition,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    places = len(list(_signs(definition)))
    return [_changed(definition, place) for place in range(places)]


def _signs(definition: ast.FunctionDef) -> Iterator[ast.BinOp | ast.UnaryOp]:
    for node in ast.walk(definition):
        plus_or_minus = isinstance(node, ast.BinOp) and type(node.op) in SIGNS
        leading_minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        if plus_or_minus or leading_minus:
            yield node


def _changed(definition: ast.FunctionDef, place: int) -> Mutant:
    mutant = copy.deepcopy(definition)
    node = list(_signs(mutant))[place]
    if isinstance(node, ast.BinOp):
        node.op = SIGNS[type(node.op)]()
    else:
        node.op = ast.UAdd()
    statement = next(part for part in mutant.body if any(child is node for child in ast.walk(part)))
    namespace = dict(vars(closed_forms))
    module = ast.fix_missing_locations(ast.Module([mutant], []))
    exec(compile(module, f"<mutant of {mutant.name}>", "exec"), namespace)
    return Mutant(mutant.name, ast.unparse(statement), namespace[mutant.name].__code__)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The mutant in place of the closed form, everywhere, inside the block."""
    function: FunctionType = getattr(closed_forms, mutant.function)
    original = function.__code__
    _forget_tables()
    function.__code__ = mutant.code
    try:
        yield
    finally:
        function.__code__ = original
        _forget_tables()


def _forget_tables() -> None:
    """Empty the caches of what closed forms returned."""
    process._tables.cache_clear()
    process._on_device.cache_clear()


def first_failure(chapter: Path) -> str | None:
    """Run a chapter's cells; what the first failing check says, or None if none fails.

    A mutant may break a cell before any check is reached (a figure takes the root of a negative
    number, say). Like nbval, this goes on with the next cell.
    """
    namespace: dict[str, object] = {"display": lambda *_: None, "print": lambda *_: None}
    with mock.patch.object(figures, "show"), matplotlib.rc_context():
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", []):
                try:
                    exec(compile(cell.source, str(chapter), "exec"), namespace)
                except CheckFailed as failure:
                    return str(failure)
                except Exception:
                    continue
    return None
