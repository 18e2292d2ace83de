"""Every notebook gives its stored outputs where there is nothing but the package and a kernel.

nbval runs it again outside the checkout and compares every output.

The environment is kept in build/, which git ignores, as long as what it was made from stays the
same; the wheel itself is built and installed anew each time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from notebooks import KERNEL_ENVIRONMENT, LIBRARY, ROOT, notebook_paths

PINS = ROOT / "requirements.txt"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command, **options):
    """Run a command that must succeed; its output is the message if it does not."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**CLEAN, **KERNEL_ENVIRONMENT},
        **options,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that nothing is left behind in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(LIBRARY, source / "diffusion_lib", ignore=ignored)
    target = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", target, source)
    (built,) = target.glob("*.whl")
    return built


def made_from():
    """A fingerprint of all that decides what is in the environment, the library apart."""
    files = PINS.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    python = f"{sys.version}{os.environ.get('TORCH')}".encode()
    return hashlib.sha256(files + python).hexdigest()


@pytest.fixture(scope="session")
def clean_python(wheel):
    """The Python of an environment that holds the wheel, what it asks for, and a kernel."""
    folder = ROOT / "build" / "standalone"
    python = folder / "bin" / "python"
    complete = folder / "complete"  # is written last, and says what the environment was made from
    # What is never imported need not be compiled.
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    if not complete.exists() or complete.read_text(encoding="utf-8") != made_from():
        venv.create(folder, with_pip=True, clear=True)
        if os.environ.get("TORCH") == "cpu":
            run(*pip, "--constraint", PINS, "--index-url", os.environ["TORCH_CPU_INDEX"], "torch")
        run(*pip, "--constraint", PINS, wheel, "ipykernel")
        complete.write_text(made_from(), encoding="utf-8")
    run(*pip, "--force-reinstall", "--no-deps", wheel)
    return python


@pytest.fixture(scope="session")
def kernels(clean_python, tmp_path_factory):
    """A folder where Jupyter finds a kernel called "alone", which runs in that environment."""
    folder = tmp_path_factory.mktemp("jupyter")
    command = [str(clean_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "alone", "language": "python"}
    (folder / "kernels" / "alone").mkdir(parents=True)
    (folder / "kernels" / "alone" / "kernel.json").write_text(json.dumps(kernel))
    return folder


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder that is not in the checkout, to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_library_is_the_installed_one(clean_python, outside):
    where = run(clean_python, "-c", "import diffusion_lib; print(diffusion_lib.__file__)")
    assert "site-packages" in where


def test_everything_the_library_needs_is_in_the_wheel(clean_python, outside):
    program = "import diffusion_lib; print(diffusion_lib.__path__[0])"
    where = run(clean_python, "-c", program).strip()
    here = {p.relative_to(LIBRARY) for p in LIBRARY.rglob("*") if p.is_file()}
    there = {p.relative_to(where) for p in Path(where).rglob("*") if p.is_file()}
    assert Path("py.typed") in there
    assert {p for p in here - there if "__pycache__" not in p.parts} == set()


def test_the_command_line_is_there(clean_python, outside):
    assert "train" in run(clean_python, "-m", "diffusion_lib", "--help")


def test_the_book_tools_are_not_there(clean_python, outside):
    listed = run(clean_python, "-m", "pip", "list", "--format", "freeze").lower()
    assert "torch==" in listed
    assert not any(name in listed for name in ("myst", "sphinx", "jupyter-book", "pytest"))


@pytest.mark.parametrize("path", notebook_paths(), ids=lambda path: path.stem)
def test_notebook_gives_its_stored_outputs(path, kernels, outside, monkeypatch):
    shutil.copy2(path, outside)
    monkeypatch.setitem(CLEAN, "JUPYTER_PATH", str(kernels))
    nbval = (sys.executable, "-m", "pytest", "--nbval", "--nbval-kernel-name", "alone")
    run(*nbval, "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", outside, path.name)
