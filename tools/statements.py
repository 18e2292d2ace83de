"""What a statement of a notebook needs and gives: the names that it reads, binds or changes."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def names_read(statement: ast.stmt) -> set[str]:
    return {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def names_bound(statement: ast.stmt) -> set[str]:
    """The names a statement gives a value, whole or in part."""
    names = names_imported(statement)
    for node in _outside_functions(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= _roots_of(node)
    return names


def names_imported(statement: ast.stmt) -> set[str]:
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def names_called_on(statement: ast.stmt) -> set[str]:
    """The names in x.method(...) that stand alone: they are called for what they change."""
    calls = (
        node.value.func
        for node in ast.walk(statement)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    return set().union(*(_roots_of(func) for func in calls if isinstance(func, ast.Attribute)))


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A tree without the insides of functions and comprehensions, whose names are their own."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.comprehension):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def _roots_of(node: ast.expr) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
