"""Interactive figures: a cell with the tag `explorer-NAME` gets one in place of its picture.

`book/explorers/NAME.py` computes its numbers with the library in a function `data`, and
`book/explorers/NAME.js` draws them with `kit.js`. Numbers and scripts are put into the page, so it
needs no kernel and asks for nothing. Without JavaScript, in Colab and on paper the cell's own
picture is there.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docutils import nodes
from sphinx.application import Sphinx
from torch import Tensor

from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture

FOLDER = Path(__file__).resolve().parents[1] / "explorers"
TAG = re.compile(r"\btag_explorer-(\w+)")
SCHEDULES = {"linear": NoiseSchedule.linear(), "cosine": NoiseSchedule.cosine()}
HEAP = 0.01  # the variance of each of the two
HEAPS = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[HEAP]], [[HEAP]]])


def rounded(values: Any, digits: int = 5) -> list[Any]:
    """Numbers in so many significant digits: what a screen can show."""
    array = np.asarray(values, dtype=float)
    listed: list[Any] = np.vectorize(lambda x: float(f"{x:.{digits}g}"))(array).tolist()
    return listed


def grey(pictures: Tensor) -> str:
    """From black at -1 to white at 1, a byte a pixel, in base 64."""
    shades = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return base64.b64encode(shades.numpy().tobytes()).decode()


def numbers(name: str) -> dict[str, Any]:
    """What `data` in the figure's Python file returns: plain lists and numbers."""
    spec = importlib.util.spec_from_file_location(f"explorer_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.data()
    return found


def script(name: str) -> str:
    return f"<script>{(FOLDER / f'{name}.js').read_text(encoding='utf-8')}</script>"


def inlined(name: str) -> str:
    text = json.dumps(numbers(name), separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="explorer-data-{name}">{text}</script>'


def add_explorers(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    names = list(dict.fromkeys(TAG.findall(context.get("body", ""))))
    if names:
        parts = [
            *(inlined(name) for name in names),
            script("kit"),
            *(script(name) for name in names),
        ]
        context["body"] += "".join(parts)


def note_sources(app: Sphinx, doctree: nodes.document) -> None:
    """A page is written again when a script or the numbers of one of its figures change."""
    for cell in doctree.findall(nodes.container):
        for tag in cell.get("classes", []):
            if match := TAG.fullmatch(tag):
                for path in (FOLDER / "kit.js", *FOLDER.glob(f"{match[1]}.*")):
                    app.env.note_dependency(str(path))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", note_sources)
    app.connect("html-page-context", add_explorers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
