"""Fixtures that several tests of the book share."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import FLAGS, MISSING, chromium
from filelock import FileLock
from playwright.sync_api import sync_playwright

from notebooks import ROOT

# What the book is built from; the library for its claims and its docstrings.
SOURCES = [
    "_config.yml",
    "_toc.yml",
    "pyproject.toml",
    "CHANGELOG.md",
    "book",
    "notebooks",
    "diffusion_lib",
]


def copy_sources(destination: Path) -> Path:
    """A copy of all that the book is built from, to be altered by a test."""
    for name in SOURCES:
        source, target = ROOT / name, destination / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return destination


def build_book(source: Path) -> subprocess.CompletedProcess[str]:
    """Build the book strictly: every warning is an error, every reference must resolve."""
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(source), "-W", "-n", "--keep-going"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def strict_build(tmp_path_factory, worker_id):
    """A strict build of the book as it stands: its source folder and how the build went.

    It is made once, also for several test processes.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    source, outcome = shared / "book", shared / "book.json"
    with FileLock(shared / "book.lock"):
        if not outcome.exists():
            source.mkdir()
            result = build_book(copy_sources(source))
            kept = {"args": [], "returncode": result.returncode}
            kept |= {"stdout": result.stdout, "stderr": result.stderr}
            outcome.write_text(json.dumps(kept), encoding="utf-8")
    return source, subprocess.CompletedProcess(**json.loads(outcome.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def browser():
    """A Chromium: the variable CHROMIUM, or one on the PATH.

    Without one these tests are skipped, except where CI is set: there they fail.
    """
    path = chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


# Files with few but long tests, the longest first: two processes then finish at about one time.
LONG = [
    "test_standalone.py",
    "test_interruption.py",
    "test_browser.py",
    "test_mutants.py",
    "test_coursework.py",
    "test_explorers.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))
