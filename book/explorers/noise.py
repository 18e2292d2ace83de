"""Noise on two heaps: the exact density of x_t, and draws of it that keep their noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from explorers import HEAP, HEAPS, SCHEDULES, rounded

from diffusion_lib import closed_forms as cf
from diffusion_lib import exact
from diffusion_lib.targets import GaussianMixture

RIGHT_HEAP = GaussianMixture([1.0], [[1.0]], [[[HEAP]]])
NOISE = GaussianMixture([1.0], [[0.0]], [[[1.0]]])
STEPS = np.arange(0, 1001, 10)
DRAWS = 120


def data() -> dict[str, Any]:
    """The right heap at each step, in thousandths of the peak; the left one is its mirror image."""
    levels = SCHEDULES["linear"].alpha_bar[STEPS]
    laws = [HEAPS.at(level) for level in levels]
    x = torch.linspace(-3, 3, 121, dtype=torch.float64)[:, None]
    peaks = [law.log_prob(x).max().exp() for law in laws]
    right = [RIGHT_HEAP.at(level).log_prob(x).exp() / 2 for level in levels]
    shares = [1000 * p / peak for p, peak in zip(right, peaks, strict=True)]
    generator = torch.Generator().manual_seed(3)
    return {
        "t": STEPS.tolist(),
        "x": rounded(x[:, 0]),
        "right": [share.round().int().tolist() for share in shares],
        "noise": rounded(NOISE.log_prob(x).exp(), 4),
        "peak": rounded(peaks, 4),
        "x_0": rounded(HEAPS.sample(DRAWS, generator)[:, 0], 3),
        "eps": rounded(torch.randn(DRAWS, generator=generator), 3),
        "height": rounded(torch.rand(DRAWS, generator=generator), 2),
        "weights": rounded(cf.coefficients(lambda x_0, eps: cf.noised(x_0, eps, levels), 2)),
        "alpha_bar": rounded(levels),
        "snr": [None, *rounded(cf.snr(levels[1:]))],  # infinite at t = 0
        "kl": rounded([exact.kl(exact.of_target(law), NOISE) for law in laws]),
    }
