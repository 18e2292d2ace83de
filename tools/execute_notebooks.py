"""Run notebooks from the top and store what they say, the same bytes each time.

    python tools/execute_notebooks.py                              all chapters
    python tools/execute_notebooks.py notebooks/03_posterior.ipynb ...

Along with its outputs each notebook gets a digest of the library and of its own code, by which the
tests see that somebody changed one of them without running the notebook again; and, for the page
on upkeep, how many seconds it took and with which versions.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from notebooks import KERNEL_ENVIRONMENT, ROOT, code_cells, digest, notebook_paths, read, write

SECONDS_PER_CELL = 600
PACKAGES = ("torch", "numpy", "sympy", "matplotlib", "scikit-learn")


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel in `folder`; the outputs replace the old ones."""
    cells = sum(1 for _ in code_cells(notebook))
    environment = {**os.environ, **KERNEL_ENVIRONMENT}
    with tqdm(total=cells, unit="cell", leave=True) as bar:
        client = NotebookClient(
            notebook,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            resources={"metadata": {"path": str(folder)}},
            on_cell_executed=lambda **_: bar.update(),
        )
        client.execute(env=environment)


def strip_volatile(notebook: NotebookNode) -> None:
    """Keep only what depends on the notebook's content, not on the machine it ran on."""
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python", "pygments_lexer": "ipython3"},
    )
    notebook.nbformat_minor = 5


def refresh(path: Path) -> None:
    """Execute the notebook at `path` and write it back."""
    notebook = read(path)
    start = time.perf_counter()
    execute(notebook, path.parent)
    seconds = round(time.perf_counter() - start)
    strip_volatile(notebook)
    notebook.metadata["diffusion_lib"] = {
        "digest": digest(notebook),
        "seconds": seconds,
        "versions": {"Python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    write(notebook, path)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Execute notebooks and store their outputs.")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all chapters")
    for path in parser.parse_args(arguments).notebook or notebook_paths():
        print(path.resolve().relative_to(ROOT), flush=True)
        try:
            refresh(path)
        except CellExecutionError as failure:
            print(
                f"{path.name} is left as it was, for a cell failed:\n{failure}",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
