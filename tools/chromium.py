"""Where a Chromium is, for printing the book and for looking at its pages in the tests."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"there is no Chromium: set CHROMIUM, or put one of {', '.join(NAMES)} on the PATH"
FLAGS = [  # it runs as root in containers, needs no card and should not talk to anybody
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The variable CHROMIUM, or one on the PATH."""
    candidates = filter(None, [os.environ.get("CHROMIUM"), *NAMES])
    return next((path for path in map(shutil.which, candidates) if path), None)
