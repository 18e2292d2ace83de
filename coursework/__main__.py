"""The command line: ``python -m coursework make ...`` and ``... grade ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import grading, making
from .autograder import AutograderError

EXAMPLES = """\
examples:
  python -m coursework make derive
  python -m coursework make 3 --exercises 1 3
  python -m coursework grade derive submissions
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, AutograderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    return 0


def make(options: argparse.Namespace) -> None:
    """Write the students' notebook and the solutions, and say where they are."""
    name, notebook = making.source(options.what, options.exercises)
    student, solution = making.make(name, notebook, options.course)
    print(f"for students  {student}\nsolutions     {solution}")


def grade(options: argparse.Namespace) -> None:
    """Grade a class, print the table and write it as CSV."""
    if not 1 <= options.seconds <= 86_400:
        raise ValueError(f"--seconds is {options.seconds}; it must be from 1 to 86400.")
    grades = grading.grade(options.name, options.course, options.folder, options.seconds)
    table = options.table or options.course / f"{options.name}.csv"
    grading.write(grades, table)
    print(f"{grades}\n\nwrote {table}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m coursework",
        description="Make assignments from the book, and grade a class.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="{make,grade}")

    command = commands.add_parser("make", help="write a student notebook and a solution notebook")
    command.set_defaults(run=make)
    command.add_argument(
        "what",
        metavar="WHAT",
        help=f"{', '.join(making.ready())}, a chapter's number, or a notebook of your own",
    )
    command.add_argument(
        "--exercises", type=int, nargs="+", default=(), metavar="N", help="some of a chapter's"
    )
    _add_course(command)

    command = commands.add_parser("grade", help="grade a class")
    command.set_defaults(run=grade)
    command.add_argument("name", metavar="NAME", help="the assignment, as make called it")
    command.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        nargs="?",
        help="submissions, ann.ipynb or ann/....ipynb (default: COURSE/submitted)",
    )
    command.add_argument("--seconds", type=int, default=120, help="time for a cell (default: 120)")
    command.add_argument("--table", type=Path, help="CSV file (default: COURSE/NAME.csv)")
    _add_course(command)
    return parser


def _add_course(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--course",
        type=Path,
        default=Path("runs/course"),
        help="folder of the course (default: runs/course)",
    )


if __name__ == "__main__":
    raise SystemExit(main())
