"""Every noise of a step, every number of steps: the exact output on two heaps, and its error.

The exact laws take a minute, so they are kept in `eta.json`. To compute them again:

    PYTHONPATH=book/_ext python book/explorers/eta.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explorers import HEAPS
from tqdm import tqdm

from diffusion_lib import exact
from diffusion_lib.schedule import NoiseSchedule

TABLE = Path(__file__).with_suffix(".json")
REACH = 7.0
ROWS: list[float | str] = [*(i / 10 for i in range(11)), "hat"]  # values of eta, and the variance β
STEPS = [3, 5, 10, 20, 50, 100, 200, 500, 1000]
X = np.r_[0:0.6:0.05, 0.6:1.4:0.0125, 1.4:2.01:0.05]  # both heaps are alike: the right one will do


def law_of(row: float | str, steps: int) -> exact.Law:
    """The law of DDIM's output at eta, or of DDPM's with the variance β where the row is "hat"."""
    kept = NoiseSchedule.linear().strided(steps, "linspace")
    if isinstance(row, str):
        return exact.ddpm(HEAPS, kept, variance="beta", reach=REACH)
    return exact.ddim(HEAPS, kept, eta=row, reach=REACH)


def entry(row: float | str, steps: int) -> dict[str, Any]:
    """One place of the table: the density at X, and the distance W1 to the data."""
    law = law_of(row, steps)
    density = np.interp(X, law.x, law.density, left=0, right=0)
    distance = exact.wasserstein(law, exact.of_target(HEAPS, reach=REACH))
    return {"density": density.round(3).tolist(), "w1": round(distance, 6)}


def data() -> dict[str, Any]:
    return {
        "rows": ROWS,
        "steps": STEPS,
        "x": X.round(4).tolist(),
        "data": HEAPS.log_prob(torch.tensor(X)[:, None]).exp().numpy().round(3).tolist(),
        "table": json.loads(TABLE.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    places = tqdm([(row, steps) for row in ROWS for steps in STEPS])
    entries = [entry(*place) for place in places]
    table = [entries[i : i + len(STEPS)] for i in range(0, len(entries), len(STEPS))]
    TABLE.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")
