"""Fixtures that several tests of the book share."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from notebooks import ROOT

# What the book is built from; the library for its claims and its docstrings.
SOURCES = ["_config.yml", "_toc.yml", "pyproject.toml", "book", "notebooks", "diffusion_lib"]


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
def strict_build(tmp_path_factory):
    """A strict build of the book as it stands: its source folder and how the build went."""
    source = copy_sources(tmp_path_factory.mktemp("book"))
    return source, build_book(source)
