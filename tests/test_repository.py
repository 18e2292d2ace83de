"""The repository's address stands in one place, and the notebooks follow it."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib

import pytest
import repository
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from diffusion_lib.verify import CheckFailed
from notebooks import ROOT, digest

URL = "https://github.com/someone/somewhere"


@pytest.fixture
def pyproject(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(repository.PYPROJECT.read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture
def notebook():
    return new_notebook(
        cells=[new_markdown_cell("# Title\n\nA question.", id="title"), new_code_cell("1", id="a")]
    )


def test_address_is_written_and_read_back(pyproject):
    repository.set_repository_url(f"{URL}.git", pyproject)
    assert repository.repository_url(pyproject) == URL
    repository.set_repository_url(f"{URL}2", pyproject)
    assert repository.repository_url(pyproject) == f"{URL}2"


def test_only_the_address_changes_in_pyproject(pyproject):
    before = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    repository.set_repository_url(URL, pyproject)
    after = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    before["project"]["urls"] = {"Repository": URL}
    assert after == before


@pytest.mark.parametrize(
    "url", ["", "somewhere", "https://example.org/a/b", "https://github.com/a"]
)
def test_other_addresses_are_refused(pyproject, url):
    before = pyproject.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"github\.com/OWNER/NAME"):
        repository.set_repository_url(url, pyproject)
    assert pyproject.read_text(encoding="utf-8") == before


def test_badge_and_bootstrap_are_inserted_once(notebook):
    assert repository.adapt(notebook, "01_title.ipynb", URL)
    title, bootstrap, rest = notebook.cells
    assert title.source.startswith("# Title\n\n[![Open in Colab](")
    assert title.source.endswith("A question.")
    assert "/github/someone/somewhere/blob/main/notebooks/01_title.ipynb)" in title.source
    assert f'%pip install -q "git+{URL}"' in bootstrap.source
    assert bootstrap.metadata.tags == ["remove-cell"]
    assert rest.source == "1"
    assert not repository.adapt(notebook, "01_title.ipynb", URL)


def test_a_new_address_replaces_the_old_one(notebook):
    repository.adapt(notebook, "01_title.ipynb", None)
    repository.adapt(notebook, "01_title.ipynb", f"{URL}-new")
    assert len(notebook.cells) == 3
    assert len(repository.BADGE.findall(notebook.cells[0].source)) == 1
    assert f"{URL}-new" in notebook.cells[1].source


def test_a_new_address_makes_no_output_stale(notebook):
    repository.adapt(notebook, "01_title.ipynb", None)
    before = digest(notebook)
    repository.adapt(notebook, "01_title.ipynb", URL)
    assert digest(notebook) == before


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_without_an_address_the_bootstrap_cell_says_so():
    # None in sys.modules is how Python itself marks a module that must not be found.
    missing = "import sys; sys.modules['diffusion_lib'] = None\n"
    result = run(missing + repository.bootstrap(None))
    assert result.returncode != 0
    assert "make repository URL=" in result.stderr.strip().splitlines()[-1]
    assert "http" not in repository.bootstrap(None), "it installs from nowhere"


def test_where_the_library_is_there_the_bootstrap_cell_does_nothing():
    result = run(repository.bootstrap(None))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def make(folder, *arguments):
    """What the Makefile does in a folder that holds nothing else of the project."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy2(ROOT / name, folder)
    inherited = {"TORCH", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}  # from `make test TORCH=cpu`
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_address_nothing_is_set_up(tmp_path):
    result = make(tmp_path, "repository")
    assert result.returncode != 0
    assert "make repository URL=" in result.stderr
    assert "Setting up" not in result.stdout
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("asked", "sets_up"), [([], False), (["TORCH=cpu"], False), (["TORCH=default"], True)]
)
def test_another_torch_makes_another_environment(tmp_path, asked, sets_up):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready-cpu").touch()
    result = make(tmp_path, "--dry-run", "book", *asked)
    assert "jupyter-book build" in result.stdout
    assert ("venv --clear" in result.stdout) == sets_up


def test_the_example_for_contributors_runs_and_can_fail():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = map(textwrap.dedent, re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    exec(example, {})
    wrong = example.replace("(1 - step)", "(1 + step)")
    assert wrong != example
    with pytest.raises(CheckFailed, match=r"P4 \(holds\): not proved"):
        exec(wrong, {})


# Colab's packages in August 2026, on Python 3.13.15.
COLAB = {
    "torch": "2.11.0",
    "numpy": "2.1.3",
    "scipy": "1.16.3",
    "sympy": "1.14.0",
    "matplotlib": "3.10.0",
    "scikit-learn": "1.6.1",
    "ipython": "7.34.0",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def pins():
    """The versions of requirements.txt, where every line must name exactly one."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines)


def lower_bounds():
    """What the package asks for, where every line must be a lower bound and nothing more."""
    lines = PROJECT["dependencies"]
    return dict(re.fullmatch(r"([\w.-]+)>=([\d.]+)", line).groups() for line in lines)


def test_every_dependency_is_pinned_at_or_above_its_lower_bound():
    pinned = pins()
    for name, least in lower_bounds().items():
        assert numbers(least) <= numbers(pinned[name]), name


def test_colab_satisfies_every_lower_bound():
    """Otherwise the bootstrap cell would replace what Colab has, torch first of all."""
    bounds = lower_bounds()
    for name in COLAB.keys() & bounds.keys():
        assert numbers(bounds[name]) <= numbers(COLAB[name]), name
    assert {"torch", "numpy", "sympy", "matplotlib", "scikit-learn"} <= bounds.keys()
    assert numbers(PROJECT["requires-python"].removeprefix(">=")) <= (3, 13, 15)
