"""The repository's address: written once, in pyproject.toml, and from there into the notebooks.

    python tools/repository.py https://github.com/OWNER/NAME    set it and rewrite every notebook
    python tools/repository.py                                  bring every notebook in line

Two things in a notebook depend on the address: the Colab badge under the title, and the bootstrap
cell that installs the library where it is missing. Both are written here and nowhere else.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebooks import BOOTSTRAP, ROOT, notebook_paths

PYPROJECT = ROOT / "pyproject.toml"

GITHUB = "https://github.com/"
COLAB = "https://colab.research.google.com/"
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE = re.compile(rf"\[!\[[^\]]*\]\({re.escape(BADGE_IMAGE)}\)\]\([^)\s]*\)")
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
URLS_TABLE = re.compile(r"^\[project\.urls\]\n(?P<comments>(?:#.*\n)*)(?:Repository = .*\n)?", re.M)

INSTALL = '''\
try:
    import diffusion_lib
except ModuleNotFoundError:
    %pip install -q "git+{url}"'''

NO_ADDRESS = """\
try:
    import diffusion_lib
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "diffusion_lib is not installed, and this copy of the book does not say where to get it: "
        "run `pip install .` in its folder, or set the address with `make repository URL=...`."
    ) from None"""


def repository_url(pyproject: Path = PYPROJECT) -> str | None:
    """The address of the repository, or None as long as nobody has set it."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def set_repository_url(url: str, pyproject: Path = PYPROJECT) -> str:
    """Write `url` into pyproject.toml and return it in its plain form."""
    url = url.strip().rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"URL = {url!r}: Colab opens notebooks from https://github.com/OWNER/NAME")
    text = pyproject.read_text(encoding="utf-8")
    written, count = URLS_TABLE.subn(
        lambda table: f'[project.urls]\n{table["comments"]}Repository = "{url}"\n', text
    )
    if count != 1:
        raise ValueError(f"{pyproject.name} needs exactly one [project.urls] table, not {count}")
    pyproject.write_text(written, encoding="utf-8")
    return url


def badge(name: str, url: str | None) -> str:
    """The line under a notebook's title. Without an address it opens Colab's own start page."""
    if url is None:
        return f"[![Open in Colab]({BADGE_IMAGE})]({COLAB})"
    owner_and_name = url.removeprefix(GITHUB)
    target = f"{COLAB}github/{owner_and_name}/blob/main/notebooks/{name}"
    return f"[![Open in Colab]({BADGE_IMAGE})]({target})"


def bootstrap(url: str | None) -> str:
    """The source of a notebook's second cell."""
    return NO_ADDRESS if url is None else INSTALL.format(url=url)


def adapt(notebook: NotebookNode, name: str, url: str | None) -> bool:
    """Put badge and bootstrap cell into `notebook`; say whether anything had to change."""
    before = nbformat.writes(notebook)
    title = notebook.cells[0]
    line = badge(name, url)
    if BADGE.search(title.source):
        title.source = BADGE.sub(lambda _: line, title.source, count=1)
    else:
        heading, _, rest = title.source.partition("\n")
        title.source = f"{heading}\n\n{line}\n{rest}".rstrip()
    if len(notebook.cells) < 2 or notebook.cells[1].get("id") != BOOTSTRAP:
        cell = nbformat.v4.new_code_cell(id=BOOTSTRAP)
        notebook.cells.insert(1, cell)
    notebook.cells[1].source = bootstrap(url)
    notebook.cells[1].metadata = NotebookNode(tags=["remove-cell"])
    return nbformat.writes(notebook) != before


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Set the repository's address in one place.")
    parser.add_argument("url", nargs="?", help="https://github.com/OWNER/NAME")
    chosen = parser.parse_args(arguments).url
    try:
        url = set_repository_url(chosen) if chosen else repository_url()
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    print(f"Repository: {url or 'not set'}")
    for path in notebook_paths():
        notebook = nbformat.read(path, as_version=4)
        if adapt(notebook, path.name, url):
            nbformat.write(notebook, path)
            print(f"  rewritten: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
