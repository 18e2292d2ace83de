"""nbgrader's commands, from a folder of packages that is made once.

The packages lie in build/nbgrader-..., and stand before those of the environment that runs this
file. So nbgrader's wishes change nothing that this project is tested with, and what a student's
notebook runs on is installed once. A changed list makes a new folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("requirements.txt")
CONFIGURATION = Path(__file__).with_name("nbgrader_config.py")

# As wherever notebooks run here: one thread, and no progress bars among the outputs.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONHASHSEED": "0",
}


class AutograderError(RuntimeError):
    """A command of nbgrader did not succeed; the message is its log."""


def packages() -> Path:
    """The folder of nbgrader and its packages; the first call installs them, in seconds.

    Raises:
        AutograderError: a package could not be installed; says what pip said.
    """
    made_from = hashlib.sha256(LIST.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"nbgrader-{made_from}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            target = Path(unfinished) / "packages"
            pip = [sys.executable, "-m", "pip", "install", "--target", str(target)]
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-r", str(LIST)]
            done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise AutograderError(f"{LIST} could not be installed:\n{done.stderr[-2000:]}")
            target.rename(folder)  # so a folder that is there is complete
    return folder


def nbgrader(course: Path, *arguments: str, seconds: float | None = None) -> None:
    """Run one command of nbgrader in a course's folder.

    Raises:
        AutograderError: it failed, or did not end in that many seconds.
    """
    found = packages()
    environment = os.environ | ENVIRONMENT
    for name, entries in (("PYTHONPATH", (found, ROOT)), ("PATH", (found / "bin",))):
        known = environment.get(name)
        environment[name] = os.pathsep.join([*map(str, entries), *([known] if known else [])])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=course,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise AutograderError("TimeoutExpired") from None
    if done.returncode != 0:
        raise AutograderError(done.stderr)
