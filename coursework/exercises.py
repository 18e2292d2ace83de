"""The exercises of a chapter as a notebook in nbgrader's format.

An exercise is the text from its bold number on, the code that is given with it, and the cells that
begin with "# @title Solution". Of the chapter's other code, an assignment keeps the imports and
those statements that the chosen exercises need. Where a solution marks lines with "# your answer",
they are what students write, and the rest of the solution is the test; elsewhere a person reads the
answer, and nbgrader keeps the place for the points.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.statements import names_bound, names_called_on, names_imported, names_read

POINTS = 2
TITLE = "# @title Solution"
ANSWER = "# your answer"
BOOTSTRAP = "bootstrap"  # the id of the cell that installs the library where it is missing
HIDDEN = "The test of the answer above, added when it is graded."
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
HOW_TO = (
    "Put your answer in the place of `raise NotImplementedError`: code that runs, and comments "
    "where words are asked for. `prove`, `refute` and `agree` judge your formulas as they do in "
    "the book. Numbers such as (3.8) are the chapter's equations."
)


@dataclass
class Statement:
    """One statement with the comments above it, and the exercise whose solution it belongs to."""

    text: str
    node: ast.stmt
    cell: int
    solves: int = 0


@dataclass
class Exercise:
    """A number, a text, and the numbers of the cells of the code that is given with it."""

    number: int
    text: str
    given: list[int] = field(default_factory=list)


def assignment(chapter: NotebookNode, numbers: Sequence[int] = ()) -> NotebookNode:
    """The chosen exercises of a chapter, all if none are named, as nbgrader's source notebook.

    Raises:
        ValueError: the chapter has no exercise of that number.
    """
    exercises, statements = _read(chapter)
    there = [exercise.number for exercise in exercises]
    chosen = sorted(set(numbers)) or there
    if not set(chosen) <= set(there):
        wrong = next(number for number in chosen if number not in there)
        raise ValueError(
            f"--exercises names {wrong}; the chapter has the exercises {there[0]} to {there[-1]}."
        )
    given = {cell for e in exercises if e.number in chosen for cell in e.given}
    kept = _needed(statements, set(chosen), given)
    cells = [new_markdown_cell(_opening(chapter, chosen))]
    cells += bootstrap(chapter)
    cells += _code_cells(s for s in kept if not s.solves and s.cell not in given)
    earlier: list[Statement] = []  # solutions that are not asked for, but that a chosen one needs
    for exercise in exercises:
        own = [s for s in kept if s.solves == exercise.number]
        if exercise.number in chosen:
            cells.append(new_markdown_cell(exercise.text))
            cells += _code_cells(s for s in kept if s.cell in exercise.given)
            cells += _question(exercise.number, earlier, own)
            earlier = []
        else:
            earlier += own
    return new_notebook(cells=cells, metadata={"kernelspec": dict(KERNEL)})


def bootstrap(chapter: NotebookNode) -> list[NotebookNode]:
    """The chapter's cell that installs the library where it is missing, as in Colab."""
    return [new_code_cell(c.source) for c in chapter.cells if c.get("id") == BOOTSTRAP]


def question(
    name: str, answer: str, test: str = "", points: int = POINTS, above: str = ""
) -> list[NotebookNode]:
    """An answer's cell and, if there is a test, its cell; without one a person gives the points."""
    region = f"{above}### BEGIN SOLUTION\n{answer}\n### END SOLUTION"
    if not test:
        return [_marked(region, grade_id=name, grade=True, solution=True, points=points)]
    hidden = f"# {HIDDEN}\n### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"
    return [
        _marked(region, grade_id=f"{name}-answer", grade=False, solution=True),
        _marked(hidden, grade_id=name, grade=True, solution=False, points=points),
    ]


def _marked(source: str, **mark: object) -> NotebookNode:
    locked = not mark["solution"]
    whole = {"schema_version": 3, "task": False, "locked": locked, **mark}
    return new_code_cell(source, metadata={"nbgrader": whole})


# --- Reading a chapter ----------------------------------------------------------------------------


def _read(chapter: NotebookNode) -> tuple[list[Exercise], list[Statement]]:
    exercises: list[Exercise] = []
    statements: list[Statement] = []
    inside = False
    for place, cell in enumerate(chapter.cells):
        if cell.cell_type == "markdown":
            headings = re.findall(r"(?m)^## (.+)", cell.source)
            if inside or "Exercises" in headings:
                exercises += _texts(cell.source, inside)
            if headings:
                inside = headings[-1] == "Exercises"
        elif cell.cell_type == "code" and cell.get("id") != BOOTSTRAP:
            solves = cell.source.startswith(TITLE)
            number = exercises[-1].number if inside and exercises else 0
            statements += _statements(cell.source, place, number if solves else 0)
            if number and not solves:
                exercises[-1].given.append(place)
    return exercises, statements


def _texts(source: str, inside: bool) -> Iterator[Exercise]:
    """The exercises of a Markdown cell, without what is folded away beside them."""
    text = re.sub(r"(?s)<details>.*?</details>", "", source)
    if not inside:
        text = text.partition("## Exercises")[2]
    text = re.split(r"(?m)^## ", text)[0]
    for part in re.split(r"(?m)^(?=\*\*\d+\. )", text):
        if match := re.match(r"\*\*(\d+)\. ", part):
            yield Exercise(int(match[1]), part.strip())


def _statements(source: str, cell: int, solves: int) -> Iterator[Statement]:
    lines, done = source.removeprefix(TITLE).splitlines(), 0
    nodes = ast.parse("\n".join(lines)).body
    for node in nodes:
        # The last one takes the comments below it along.
        end = len(lines) if node is nodes[-1] else node.end_lineno
        yield Statement("\n".join(lines[done:end]), node, cell, solves)
        done = end


def _needed(statements: list[Statement], chosen: set[int], given: set[int]) -> list[Statement]:
    """What the chosen exercises consist of, the imports, and what gives their names values."""
    imported = set().union(*(names_imported(s.node) for s in statements))
    kept: list[Statement] = []
    names: set[str] = set()
    for statement in reversed(statements):
        node = statement.node
        own = statement.solves in chosen or statement.cell in given
        changed = names_bound(node) | (names_called_on(node) - imported) | _lent(node)
        imports = isinstance(node, ast.Import | ast.ImportFrom) and not statement.solves
        if own or imports or changed & names:
            kept.append(statement)
            names = (names - _defined(node)) | names_read(node)
    return kept[::-1]


def _lent(node: ast.stmt) -> set[str]:
    """The lists that a statement lets somebody else fill, as in callback=film.append."""
    return {
        part.value.id
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and part.attr == "append"
        and isinstance(part.value, ast.Name)
    }


def _defined(node: ast.stmt) -> set[str]:
    """The names whose value a statement decides alone, whatever came before it."""
    if isinstance(node, ast.Assign):
        targets = {x for target in node.targets for x in ast.walk(target)}
        return {x.id for x in targets if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
    return {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()


# --- Writing an assignment ------------------------------------------------------------------------


def _opening(chapter: NotebookNode, chosen: Sequence[int]) -> str:
    title = chapter.cells[0].source.splitlines()[0].removeprefix("# ")
    rows = "\n".join(f"| {number} | {POINTS} |" for number in chosen)
    return f"# Exercises: {title}\n\n{HOW_TO}\n\n| exercise | points |\n|---|---|\n{rows}"


def _code_cells(statements: Iterator[Statement]) -> list[NotebookNode]:
    """The statements in cells, as they were."""
    by_cell: dict[int, list[Statement]] = {}
    for statement in statements:
        by_cell.setdefault(statement.cell, []).append(statement)
    return [new_code_cell(_text(group)) for group in by_cell.values()]


def _question(number: int, earlier: list[Statement], own: list[Statement]) -> list[NotebookNode]:
    places = [i for i, statement in enumerate(own) if ANSWER in statement.text]
    name = f"exercise-{number}"
    if not places:
        return question(name, _text([*earlier, *own]))
    first, last = places[0], places[-1] + 1
    above = _text(own[:first])
    answers = [re.sub(rf"\s*{ANSWER}.*", "", s.text) for s in own[first:last]]
    asked = " and ".join(f"`{name}`" for s in own[first:last] for name in names_bound(s.node))
    return question(
        name,
        _text(earlier) + "\n".join(answers).strip(),
        _text(own[last:]),
        above=f"{above}\n# Give {asked}.\n".lstrip(),
    )


def _text(statements: Sequence[Statement]) -> str:
    return "\n".join(statement.text for statement in statements).strip("\n")
