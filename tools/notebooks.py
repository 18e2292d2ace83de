"""What tools and tests need to know about notebooks: where they are, and when they are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "diffusion_lib"

BOOTSTRAP = "bootstrap"  # the id of the cell that installs the library where it is missing

# Numbers must not depend on how many cores there are, and a progress bar must not be stored.
KERNEL_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def notebook_paths(root: Path = ROOT) -> list[Path]:
    """The chapters, in order."""
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The code cells that have something to run."""
    return (c for c in notebook.cells if c.cell_type == "code" and c.source.strip())


def markdown_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "markdown")


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (output for cell in code_cells(notebook) for output in cell.outputs)


def library_files(library: Path = LIBRARY) -> list[Path]:
    """Everything in the library that an output may depend on."""
    suffixes = {".py", ".toml", ".safetensors"}
    return sorted(path for path in library.rglob("*") if path.suffix in suffixes)


def digest(notebook: NotebookNode, library: Path = LIBRARY) -> str:
    """A fingerprint of all that the stored outputs were computed from: the library and the code."""
    total = hashlib.sha256()
    for path in library_files(library):
        total.update(path.relative_to(library).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    for cell in code_cells(notebook):
        if cell.get("id") != BOOTSTRAP:  # it computes nothing, and `make repository` rewrites it
            total.update(cell.source.encode() + b"\0")
    return total.hexdigest()
