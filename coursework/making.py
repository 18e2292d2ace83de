"""Making an assignment: its source, the students' notebook and the solutions, in a course's folder.

COURSE/source/NAME/NAME.ipynb     what both are made from; a teacher may edit it and make again
COURSE/release/NAME/NAME.ipynb    for students
COURSE/solution/NAME/NAME.ipynb   for the teacher, run from top to bottom
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import exercises
from .autograder import CONFIGURATION, ROOT, AutograderError, nbgrader

READY = Path(__file__).with_name("assignments")
SOLUTION_SECONDS = 900  # for a cell; chapters compute for minutes


def ready() -> list[str]:
    """The names of the ready assignments."""
    return sorted(path.stem for path in READY.glob("*.ipynb"))


def source(what: str, numbers: Sequence[int] = ()) -> tuple[str, NotebookNode]:
    """The name and the source notebook of a ready assignment, a chapter, or a notebook's path.

    Raises:
        ValueError: it is none of them, or exercises are chosen that it does not have.
    """
    chapters = {path.stem: path for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    found = {str(int(stem[:2])): path for stem, path in chapters.items()}
    chapter = chapters.get(what) or found.get(what.lstrip("0"))
    if chapter:
        name = "-".join([chapter.stem, *map(str, sorted(set(numbers)))])
        return name, exercises.assignment(_read(chapter), numbers)
    if numbers:
        raise ValueError(f"--exercises is for chapters; {what} is none.")
    path = READY / f"{what}.ipynb" if what in ready() else Path(what)
    if path.suffix != ".ipynb" or not path.is_file():
        raise ValueError(
            f"WHAT is {what!r}; it must be {', '.join(ready())}, a chapter's number from 1 to "
            f"{len(chapters)}, or the path of a notebook in nbgrader's format."
        )
    notebook = _read(path)
    if path.parent == READY:  # a teacher's own notebook stays as it is
        notebook.cells[1:1] = exercises.bootstrap(_read(found["1"]))
    return path.stem, notebook


def make(name: str, notebook: NotebookNode, course: Path) -> tuple[Path, Path]:
    """Write an assignment into a course's folder; the paths of the student's and the solution.

    Raises:
        ValueError: nbgrader refuses the source, or its solutions do not run.
    """
    folder = course / "source" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONFIGURATION, course)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    try:
        nbgrader(course, "generate_assignment", name, "--force")
        seconds = f"--Execute.timeout={SOLUTION_SECONDS}"
        nbgrader(course, "generate_solution", name, "--force", seconds)
    except AutograderError as error:
        last = str(error).strip().splitlines()[-1]
        raise ValueError(f"nbgrader could not make {name}: {last}") from None
    student, solution = (course / part / name / f"{name}.ipynb" for part in ("release", "solution"))
    for cell in _read(solution).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise ValueError(
                    f"the solutions of {name} do not run: {output.ename}: {output.evalue}"
                )
    return student, solution


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)
