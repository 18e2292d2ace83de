"""An exporter for nbgrader: the points of every question, not only their sum."""

from __future__ import annotations

import csv
from typing import Any

from nbgrader.api import MissingEntry
from nbgrader.plugins import ExportPlugin


class Questions(ExportPlugin):
    """A line for each student and question: `--exporter=coursework.table.Questions`.

    The points are empty where a person has yet to read the answer.
    """

    def export(self, gradebook: Any) -> None:
        with open(self.to, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["student", "question", "points", "of"])
            for name in self.assignment:
                for student in gradebook.students:
                    writer.writerows(_lines(gradebook, name, student.id))


def _lines(gradebook: Any, assignment: str, student: str) -> list[list[Any]]:
    try:
        submission = gradebook.find_submission(assignment, student)
    except MissingEntry:
        return []
    return [
        [student, grade.name, "" if grade.needs_manual_grade else grade.score, grade.max_score]
        for notebook in submission.notebooks
        for grade in notebook.grades
    ]
