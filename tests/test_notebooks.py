"""The stored notebooks are complete, true to the library, and readable outside the book."""

import copy
import subprocess
import sys

import nbformat
import notebook_checks as checks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pybtex.database import parse_file

from notebooks import KERNEL_ENVIRONMENT, ROOT, digest, notebook_paths, read

PATHS = notebook_paths()
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def references() -> set[str]:
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries.values()
    return {checks.paper_key(entry.fields["url"]) for entry in entries if "url" in entry.fields}


def test_there_are_notebooks():
    assert PATHS


@every_notebook
def test_notebook_is_as_it_should_be(path):
    found = checks.problems(read(path), path.name)
    assert not found, "\n".join(found)


@every_notebook
def test_cell_ids_are_unique(path):
    ids = [cell.id for cell in read(path).cells]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "path",
    [*PATHS, *sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"],
    ids=lambda path: path.name,
)
def test_every_paper_linked_to_is_in_the_bibliography(path):
    text = path.read_text(encoding="utf-8")
    assert checks.papers(text) <= references()


# --- Every guard bites ----------------------------------------------------------------------------


@pytest.fixture
def good():
    """A small notebook that nothing is wrong with."""
    code = new_code_cell("1 + 1", execution_count=1, id="sum")
    code.outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    notebook = new_notebook(cells=[new_markdown_cell("# Title", id="title"), code])
    notebook.metadata["diffusion_lib"] = {"digest": digest(notebook)}
    return notebook


def test_the_good_notebook_passes(good):
    for check in (checks.not_executed, checks.stored_errors, checks.stale, checks.raw_markup):
        assert list(check(good)) == []


def test_stripped_outputs_are_noticed(good):
    good.cells[1].outputs, good.cells[1].execution_count = [], None
    assert "make notebooks" in next(checks.not_executed(good))


def test_cells_run_out_of_order_are_noticed(good):
    good.cells[1].execution_count = 7
    assert list(checks.not_executed(good))


def test_stored_error_and_warning_are_noticed(good):
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    good.cells[1].outputs = [error, new_output("stream", name="stderr", text="careful")]
    assert len(list(checks.stored_errors(good))) == 2


def test_edited_library_is_noticed(good, tmp_path):
    library = tmp_path / "diffusion_lib"
    library.mkdir()
    formula = library / "closed_forms.py"
    formula.write_text("a = b + c\n")
    good.metadata["diffusion_lib"]["digest"] = digest(good, library)
    assert list(checks.stale(good, library)) == []
    formula.write_text("a = b - c\n")
    assert "make notebooks" in next(checks.stale(good, library))


def test_edited_code_is_noticed(good):
    good.cells[1].source = "1 + 2"
    assert list(checks.stale(good))


def test_missing_bootstrap_is_noticed(good):
    assert list(checks.not_adapted(good, "01_title.ipynb"))
    assert len(good.cells) == 2, "a check must not repair what it looks at"


def test_figure_without_alt_is_noticed(good):
    picture = new_output("display_data", {"image/png": "AAAA"})
    good.cells[1].outputs = [picture]
    assert list(checks.figures_without_alt(good))
    picture.metadata["image/png"] = {"alt": "A falling curve."}
    assert list(checks.figures_without_alt(good)) == []


@pytest.mark.parametrize(
    "source",
    [
        "See {ref}`there`.",
        "By {cite}`ho2020`.",
        ":::{note}\nhello\n:::",
        "```{math}\nx\n```",
        "````{admonition} Title\nhello\n````",
        "(label)=\n# Title",
        "% a comment",
        "A value: {{ value }}.",
        "+++",
        "Text.\n\n\\begin{align}x\\end{align}",
    ],
)
def test_markup_that_only_the_book_understands_is_noticed(good, source):
    good.cells[0].source = source
    assert list(checks.raw_markup(good))


@pytest.mark.parametrize(
    "source",
    [
        "$\\{x_t\\}$ and `{ref}` and $f_{a}$`code`.",
        "$$\n\\begin{aligned}\na &= b\\\\\n  &= c\n\\end{aligned}\n\\tag{3.1}\n$$",
        "```python\nx = {'a': 1}\n```",
        "<details>\n<summary>Solution</summary>\n\nText with $x$.\n\n</details>",
        "| a | b |\n|---|---|\n| $x$ | 50% |",
        "[there](03_posterior.ipynb), a set {1, 2}, and 5 % more",
    ],
)
def test_plain_markup_is_left_alone(good, source):
    good.cells[0].source = source
    assert list(checks.raw_markup(good)) == []


def test_links_to_one_paper_are_one_key():
    same = "http://arxiv.org/abs/2006.11239 https://arxiv.org/pdf/2006.11239v2.pdf, "
    assert checks.papers(same) == {"arxiv.org/2006.11239"}


def run_nbval(path):
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--rootdir", str(path.parent), "-c", "/dev/null", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_nbval_sees_a_changed_number(good, tmp_path):
    """The same notebook, first as it was stored and then with another number in its output."""
    good.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path = tmp_path / "good.ipynb"
    nbformat.write(good, path)
    assert run_nbval(path).returncode == 0
    changed = copy.deepcopy(good)
    changed.cells[1].outputs[0].data["text/plain"] = "3"
    nbformat.write(changed, path)
    result = run_nbval(path)
    assert result.returncode == 1
    assert "Cell outputs differ" in result.stdout


def test_kernels_run_on_one_thread():
    assert KERNEL_ENVIRONMENT["OMP_NUM_THREADS"] == "1"
