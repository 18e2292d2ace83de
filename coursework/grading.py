"""Grading a class: nbgrader runs every submission, and one table says what came of it.

Every submission is run by a process of its own. One that crashes, never ends or cannot be read gets
a row that says so, and the others are graded all the same.
"""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from .autograder import AutograderError, nbgrader

BY_HAND = "?"
STUDENT = re.compile(r"\w[\w .@+-]*")  # others would be options, formulas or patterns
WHY_NOT = {
    "No notebooks were matched": "there is no notebook of the assignment's name.",
    "TimeoutExpired": "it does not end, and cannot be interrupted.",
    "DeadKernelError": "it kills the Python that runs it: too much memory, or an exit.",
    "NotJSONError": "it is no notebook: the file is damaged, or something else.",
    "NBFormatError": "it is no notebook: the file is damaged, or something else.",
    "ValidationError": "it is no notebook: the file is damaged, or something else.",
    "UnicodeDecodeError": "it is no notebook: the file is damaged, or something else.",
}


@dataclass
class Row:
    """One student: the points of each question, and what went wrong."""

    student: str
    points: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def total(self) -> str:
        """The sum; empty where nothing was graded, with a question mark where some is not yet."""
        if not self.points:
            return ""
        known = sum(float(p) for p in self.points.values() if p != BY_HAND)
        return f"{known:g}" + (BY_HAND if BY_HAND in self.points.values() else "")


@dataclass
class Grades:
    """The questions with their points, and a row for every student."""

    questions: dict[str, str]
    rows: list[Row]

    def lines(self) -> Iterator[list[str]]:
        """The table, its head first."""
        head = [f"{name} ({points})" for name, points in self.questions.items()]
        total = sum(map(float, self.questions.values()))
        yield ["student", *head, f"total ({total:g})", "what went wrong"]
        for row in self.rows:
            points = [row.points.get(name, "") for name in self.questions]
            yield [row.student, *points, row.total, " | ".join(row.remarks)]

    def __str__(self) -> str:
        *short, _ = zip(*self.lines(), strict=True)
        widths = [max(map(len, column)) for column in short]
        text = []
        for line in self.lines():
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            text.append("  ".join(cells).rstrip())
        for row in self.rows:
            if row.remarks:
                text += ["", row.student, *(f"  {remark}" for remark in row.remarks)]
        return "\n".join(text)


def grade(name: str, course: Path, folder: Path | None, seconds: int) -> Grades:
    """Grade a class with nbgrader; its files stay in the course's folder, as nbgrader leaves them.

    Args:
        name: the assignment.
        course: the folder in which it was made.
        folder: the submissions, ann.ipynb or ann/....ipynb; without it those in course/submitted.
        seconds: the time that a cell may take.

    Raises:
        ValueError: there is no such assignment, or no submission.
    """
    source = course / "source" / name / f"{name}.ipynb"
    if not source.is_file():
        raise ValueError(f"there is no assignment {name} in {course}; make it first.")
    if folder is None:
        students = sorted(path.parent.name for path in (course / "submitted").glob(f"*/{name}"))
        refused: dict[str, str] = {}
    else:
        students, refused = _collect(name, course, folder)
    if not students and not refused:
        raise ValueError(f"there are no submissions of {name} in {folder or course / 'submitted'}.")
    for student in tqdm(students, unit="student"):
        if why := _autograde(name, course, student, seconds):
            refused[student] = why
    graded = [student for student in students if student not in refused]
    source_cells = nbformat.read(source, as_version=4).cells
    questions = {
        mark.grade_id: f"{mark.points:g}"
        for mark in (cell.metadata.get("nbgrader") for cell in source_cells)
        if mark and mark.grade
    }
    points = _points(name, course)
    rows = [Row(student, remarks=[why]) for student, why in refused.items()]
    for student in graded:
        notebook = nbformat.read(
            course / "autograded" / student / name / f"{name}.ipynb", as_version=4
        )
        rows.append(Row(student, points[student], list(_remarks(notebook, seconds))))
    return Grades(questions, sorted(rows, key=lambda row: row.student))


def write(grades: Grades, path: Path) -> None:
    """The table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(grades.lines())


# --- A submission ---------------------------------------------------------------------------------


def _collect(name: str, course: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Copy submissions to where nbgrader looks for them: whose, and why not for those left out."""
    if not folder.is_dir():
        raise ValueError(f"FOLDER is {folder}; it must be a folder of submissions.")
    students: list[str] = []
    refused: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")) or (entry.is_file() and entry.suffix != ".ipynb"):
            continue
        student = entry.stem if entry.is_file() else entry.name
        found = [entry] if entry.is_file() else _notebooks(entry, name)
        if not STUDENT.fullmatch(student):
            refused[student] = "not graded: its name has signs that are not allowed; rename it."
        elif len(found) != 1:
            refused[student] = f"not graded: {len(found)} notebooks where there should be one."
        else:
            there = course / "submitted" / student / name
            there.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found[0], there / f"{name}.ipynb")
            students.append(student)
    return students, refused


def _notebooks(folder: Path, name: str) -> list[Path]:
    """The notebook of the assignment's name, or else all there are."""
    found = [p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return [p for p in found if p.stem == name] or found


def _autograde(name: str, course: Path, student: str, seconds: int) -> str:
    """Run one submission; why it could not be graded, or nothing."""
    limit = f"--Execute.timeout={seconds}"
    try:
        # A loop is interrupted after that time, and the cells below it still count. Twice the time
        # and a minute to start is what a notebook gets that cannot be interrupted.
        arguments = ("autograde", name, "--student", student, "--force", limit)
        nbgrader(course, *arguments, seconds=60 + 2 * seconds)
    except AutograderError as error:
        log = str(error)
        known = (why for kind, why in WHY_NOT.items() if kind in log)
        return f"not graded: {next(known, log.strip().splitlines()[-1])}"
    return ""


def _points(name: str, course: Path) -> dict[str, dict[str, str]]:
    """The points by student and question, from nbgrader's book of grades."""
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "points.csv"
        exporter = "--exporter=coursework.table.Questions"
        nbgrader(course, "export", exporter, f"--assignment=['{name}']", f"--to={table}")
        with table.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                points = f"{float(line['points']):g}" if line["points"] else BY_HAND
                found.setdefault(line["student"], {})[line["question"]] = points
    return found


def _remarks(notebook: NotebookNode, seconds: int) -> Iterator[str]:
    """What went wrong in each question: the first error in its answer or, if none, in its test."""
    first = ""
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader")
        if not mark or cell.cell_type != "code":
            continue
        first = first or _error(cell, seconds)
        if mark.grade:
            if first:
                yield f"{mark.grade_id}: {first}"
            elif mark.solution:
                yield f"{mark.grade_id}: it runs; to be read by a person."
            first = ""


def _error(cell: NotebookNode, seconds: int) -> str:
    """What a cell raised, as a sentence."""
    for output in cell.outputs:
        if output.output_type != "error":
            continue
        said = " ".join(str(output.evalue).split())
        if output.ename == "NotImplementedError":
            return "no answer."
        if output.ename in ("CellTimeoutError", "KeyboardInterrupt"):
            return f"it does not end within {seconds} seconds."
        if output.ename in ("CheckFailed", "AssertionError") and said:
            return said
        return f"{output.ename}: {said}".rstrip(": ")
    return ""
