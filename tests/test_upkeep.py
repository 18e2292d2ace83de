"""The page on upkeep counts what the chapters say."""

import re

import pytest
import upkeep_page
from nbformat.v4 import new_code_cell, new_notebook, new_output

from notebooks import notebook_paths, read

SAID = """\
proved   a sum is a sum
  refuted  and not a product (at 2)
agrees   to fourteen digits (3 numbers within 1e-14)
agrees   about (one number within 0.02)
sampled  a mean (400000 draws, largest |z| 1.5 over 2 means)
sampled  another (1000 draws, largest |z| 0.7)
"""


def test_checks_are_counted_by_kind_with_the_loosest_of_each():
    cell = new_code_cell("1", outputs=[new_output("stream", text=SAID)])
    notebook = new_notebook(cells=[cell], metadata={"diffusion_lib": {"seconds": 7}})
    found = upkeep_page.chapter(notebook)
    assert found == (7, {"proved": 1, "refuted": 1, "agrees": 2, "sampled": 2}, 0.02, 1.5)
    assert upkeep_page.cells_of(found) == ["7", "1", "1", "2", "2", "0.02", "1.5"]


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)
def test_each_chapter_knows_its_seconds_and_versions(path):
    stored = read(path).metadata["diffusion_lib"]
    assert stored["seconds"] > 0
    assert {"Python", "torch", "sympy"} <= stored["versions"].keys()


def test_every_row_is_on_the_page(strict_build):
    source, _ = strict_build
    html = (source / "_build" / "html" / "book" / "upkeep.html").read_text("utf-8")
    # A title may hold a word of the glossary, and its apostrophe is set as one.
    page = re.sub(r"<[^>]+>", "", html).replace("\u2019", "'")
    for path in notebook_paths():
        assert f"\n{read(path).cells[0].source.splitlines()[0].lstrip('# ')}\n" in page
