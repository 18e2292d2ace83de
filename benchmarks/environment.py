"""The environment of the other libraries, .venv-peers: made once, and anew when its list changes.

    python -m benchmarks.environment

Their packages lie in a folder of their own and come first; behind them stands the environment that
runs this file. So torch is installed once and is the same for everyone, and nothing that another
library wants can change what this project is tested with.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-peers"
LIST = Path(__file__).with_name("requirements.txt")


def peers_python() -> Path:
    """The Python that can import the other libraries, torch and this project.

    Raises:
        RuntimeError: a package could not be installed; says what pip said.
    """
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = FOLDER / "complete"  # is written last, and says what the environment was made from
    if not complete.is_file() or complete.read_text(encoding="utf-8") != _made_from():
        venv.create(FOLDER, clear=True, symlinks=os.name != "nt")  # without pip: ours serves it
        _install(python)
        behind = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (_packages(python) / "behind.pth").write_text(behind, encoding="utf-8")
        complete.write_text(_made_from(), encoding="utf-8")
    return python


def _made_from() -> str:
    """A fingerprint of all that decides what is in the environment."""
    own = f"{sys.version} {sysconfig.get_path('purelib')}".encode()
    return hashlib.sha256(LIST.read_bytes() + own).hexdigest()


def _install(python: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run(
        [*pip, *options, "-r", str(LIST)], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"{LIST.name} could not be installed:\n{result.stderr[-2000:]}")


def _packages(python: Path) -> Path:
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", program], text=True).strip())


if __name__ == "__main__":
    print(peers_python())
