"""Paths of DDIM from codes to data and back, with the perfect network of two uneven heaps."""

from __future__ import annotations

from typing import Any

import torch
from explorers import rounded
from torch import Tensor

from diffusion_lib import samplers
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

STEPS = [5, 20, 100]
SHOWN = 20  # places of a path, at most
CODES = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)[:, None]


def target() -> GaussianMixture:
    return GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.01]]])


def paths(steps: int) -> dict[str, Any]:
    """For each code the way down to the data, the way back up, and where that one leads."""
    schedule = NoiseSchedule.linear().strided(steps)
    network = target().model(schedule)
    down: list[Tensor] = [CODES]
    data = samplers.ddim(network, schedule, CODES, callback=lambda step: down.append(step.x_s))
    up: list[Tensor] = [data]
    codes = samplers.encode(network, schedule, data, callback=lambda step: up.append(step.x_s))
    again = samplers.ddim(network, schedule, codes)
    every = max(1, steps // SHOWN)

    def shown(path: list[Tensor]) -> list[Any]:
        return torch.cat(path[::every], dim=1).numpy().round(3).tolist()

    return {
        "t": schedule.times[::-every].tolist(),
        "down": shown(down),
        "up": shown(up[::-1]),
        "again": again[:, 0].numpy().round(3).tolist(),
        "miss": rounded((again - data)[:, 0].abs(), 2),
    }


def data() -> dict[str, Any]:
    x = torch.linspace(-3, 3, 121, dtype=torch.float64)
    return {
        "codes": CODES[:, 0].numpy().round(3).tolist(),
        "runs": {str(steps): paths(steps) for steps in STEPS},
        "x": x.numpy().round(3).tolist(),
        "data": target().log_prob(x[:, None]).exp().numpy().round(3).tolist(),
        "noise": gaussian([0.0], [[1.0]]).log_prob(x[:, None]).exp().numpy().round(3).tolist(),
    }
