"""Build one page of the book alone, in seconds, to look at it while writing.

    python tools/build_page.py 03            chapter 03
    python tools/build_page.py book/ledger   any page, by its path without a suffix

References to other pages stay unresolved here, and the page comes without its neighbours; `make
book` is what says whether the book is sound.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from notebooks import ROOT, notebook_paths


def page_of(name: str) -> str:
    """The path of a page without its suffix, from itself or from a chapter's number."""
    for path in notebook_paths():
        if path.stem == name or path.stem.startswith(f"{name}_"):
            return f"notebooks/{path.stem}"
    if not any((ROOT / name).with_suffix(suffix).is_file() for suffix in (".md", ".ipynb")):
        raise SystemExit(
            f"PAGE is {name!r}; it must be a chapter's number, as 03, or a path, as book/ledger."
        )
    return str((ROOT / name).with_suffix("").relative_to(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page")
    page = page_of(parser.parse_args().page)
    folder = ROOT / "_build" / "page" / page.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    contents = folder / "_toc.yml"
    contents.write_text(f"format: jb-book\nroot: {page}\n", encoding="utf-8")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(ROOT), "--quiet"]
    command += ["--toc", str(contents), "--path-output", str(folder)]
    code = subprocess.run(command, stderr=subprocess.PIPE, check=False, text=True)
    if code.returncode:
        print(code.stderr[-3000:], file=sys.stderr)
    else:
        print(f"Open {folder / '_build' / 'html' / page}.html")
    return code.returncode


if __name__ == "__main__":
    raise SystemExit(main())
