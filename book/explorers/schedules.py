"""Five schedules and what their steps leave: all steps, and the few that a sampler keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from explorers import rounded

from diffusion_lib.schedule import NoiseSchedule

SCHEDULES = {
    "linear": NoiseSchedule.linear(),
    "scaled linear": NoiseSchedule.scaled_linear(),
    "cosine": NoiseSchedule.cosine(),
    "sigmoid": NoiseSchedule.sigmoid(),
    "linear, zero terminal": NoiseSchedule.linear().zero_terminal(),
}
SHOWN = np.array([1, 2, 5, *range(10, 990, 10), 990, 995, 998, 999, 1000])  # of all 1000 steps


def tables(schedule: NoiseSchedule, entries: Any) -> dict[str, list[Any]]:
    found = {
        "alpha_bar": schedule.alpha_bar,
        "snr": schedule.snr,
        "beta": schedule.beta,
        "posterior_variance": schedule.posterior_variance,
    }
    return {name: rounded(table[entries], 4) for name, table in found.items()}


def data() -> dict[str, Any]:
    every: dict[str, Any] = {"t": SHOWN.tolist()}
    every |= {name: tables(schedule, SHOWN) for name, schedule in SCHEDULES.items()}
    found = {"1000": every}
    for S in (50, 20, 10):
        kept = {name: schedule.strided(S) for name, schedule in SCHEDULES.items()}
        found[str(S)] = {"t": kept["linear"].times[1:].tolist()}
        found[str(S)] |= {name: tables(schedule, slice(1, None)) for name, schedule in kept.items()}
    return {"names": list(SCHEDULES), "steps": found}
