"""Where was x_s? Its law given x_t, with x_0 known and with x_0 drawn from two heaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from explorers import HEAP, HEAPS, SCHEDULES, rounded

from diffusion_lib import closed_forms as cf

STEPS = np.arange(110, 1001, 20)
OBSERVED = np.linspace(-3, 3, 61)


def right_share(level: float) -> list[float]:
    """How sure each x_t makes us of the heap at +1: Bayes' rule on the two components."""
    x = torch.tensor(OBSERVED)
    heap = cf.normal_log_density(x, *cf.data_marginal(1.0, HEAP, torch.tensor(level)))
    return rounded(0.5 * (heap - HEAPS.at(level).log_prob(x[:, None])).exp(), 4)


def laws(stride: int) -> dict[str, Any]:
    """Means by their weights and deviations of every bell of the figure, at each step t."""
    table = SCHEDULES["linear"].alpha_bar
    here, before = table[STEPS], table[STEPS - stride]
    past = cf.marginal(1.0, before)
    slope, future = cf.forward_step(1.0, cf.step_beta(before, here))

    def posterior(x_t: float, x_0: float) -> Any:
        return cf.posterior_mean(x_t, x_0, before, here)

    def reverse(x_t: float, heap: float) -> Any:
        return cf.data_reverse(x_t, heap, HEAP, before, here).mean

    return {
        "past": rounded([past.mean, cf.sqrt(past.variance)]),
        "future": rounded([1 / slope, cf.sqrt(future) / slope]),
        "mean": rounded(cf.coefficients(posterior, 2)),
        "variance": rounded(cf.posterior_variance(before, here)),
        "deviation": rounded(cf.sqrt(cf.posterior_variance(before, here))),
        "heap_mean": rounded(cf.coefficients(reverse, 2)),
        "heap_deviation": rounded(cf.sqrt(cf.data_reverse(0.0, 0.0, HEAP, before, here).variance)),
    }


def data() -> dict[str, Any]:
    """A bell of height 1, and for three strides what it is shifted and stretched by."""
    z = np.linspace(-4.5, 4.5, 91)
    log_bell = cf.normal_log_density(z, 0.0, 1.0)
    return {
        "t": STEPS.tolist(),
        "x_t": rounded(OBSERVED),
        "z": rounded(z),
        "bell": rounded(np.exp(log_bell - log_bell.max()), 4),
        "right": [right_share(level) for level in SCHEDULES["linear"].alpha_bar[STEPS].tolist()],
        "strides": {stride: laws(stride) for stride in (1, 20, 100)},
    }
