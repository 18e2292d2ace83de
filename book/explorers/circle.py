"""The arc a² + b² = 1: the noise of a step, shared between old and fresh."""

from __future__ import annotations

from typing import Any

import numpy as np
from explorers import SCHEDULES, rounded

from diffusion_lib import closed_forms as cf


def data() -> dict[str, Any]:
    """The arc by the share of the largest sigma, and what a step's own choices are in that unit."""
    along = np.linspace(0, 1, 91)  # steps of the same length anywhere on the arc
    _, share = cf.arc_weights(along, np.array(np.pi / 2))
    a, b = cf.noise_mixture(0.0, np.minimum(share, 1))  # at alpha_bar_s = 0 the largest sigma is 1
    steps = np.unique(np.geomspace(2, 1000, 120).round().astype(int))
    tables = {}
    for name, schedule in SCHEDULES.items():
        before, here = schedule.alpha_bar[steps - 1], schedule.alpha_bar[steps]
        largest = cf.noised(0.0, 1.0, before)
        tables[name] = {
            "largest": rounded(largest),
            "posterior": rounded(cf.ddim_sigma(1.0, before, here) / largest),
            "beta": rounded(np.sqrt(cf.step_beta(before, here)) / largest),
        }
    return {
        "share": rounded(share),
        "a": rounded(a),
        "b": rounded(b),
        "t": steps.tolist(),
        "schedules": tables,
    }
