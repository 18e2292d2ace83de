"""The page on upkeep counts what the chapters say."""

import re

import pytest
import upkeep_page
from nbformat.v4 import new_code_cell, new_notebook, new_output

from diffusion_lib.verify import PAYLOAD
from notebooks import notebook_paths, read

SAID = """\
proved   a sum is a sum
  refuted  and not a product (at 2)
agrees   to fourteen digits (3 numbers within 1e-14)
agrees   about (one number within 0.02)
sampled  a mean (400000 draws, largest |z| 1.5 over 2 means)
sampled  another (1000 draws, largest |z| 0.7)
"""


def test_checks_are_counted_by_kind_with_the_largest_residual_and_z():
    shown = [
        new_output("stream", text=SAID),
        new_output("display_data", {}, metadata={PAYLOAD: {"residuals": [[1e-15, 1e-14]]}}),
        new_output("execute_result", {}, metadata={"text/markdown": {"residuals": [[0.01, 0.02]]}}),
    ]
    cell = new_code_cell("1", outputs=shown)
    notebook = new_notebook(cells=[cell], metadata={"diffusion_lib": {"seconds": 7}})
    found = upkeep_page.chapter(notebook)
    assert found == (7, {"proved": 1, "refuted": 1, "agrees": 2, "sampled": 2}, (0.01, 0.02), 1.5)
    assert upkeep_page.cells_of(found) == ["7", "1", "1", "2", "2", "0.01", "0.02", "1.5"]


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)
def test_every_comparison_of_numbers_that_is_shown_has_its_residual(path):
    for output in upkeep_page.outputs(read(path)):
        kinds = [kind for kind, _ in upkeep_page.CHECK.findall(upkeep_page.said(output))]
        residuals = upkeep_page.residuals(output)
        assert len(residuals) == kinds.count("agrees")
        assert all(0 <= off <= within for off, within in residuals)


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
