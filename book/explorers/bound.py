"""The terms of the bound for two heaps and their perfect network, as exact means over the data.

The likelihoods take half a minute, so they are kept in `bound.json`. To compute them again:

    PYTHONPATH=book/_ext python book/explorers/bound.py
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explorers import HEAPS
from tqdm import tqdm

from diffusion_lib import closed_forms as cf
from diffusion_lib import exact
from diffusion_lib.closed_forms import Gaussian
from diffusion_lib.schedule import NoiseSchedule, Table
from diffusion_lib.targets import GaussianMixture

LIKELIHOODS = Path(__file__).with_suffix(".json")
FULL = NoiseSchedule.linear()
STEPS = [10, 20, 50, 100, 200, 1000]
VARIANCES = ["posterior", "beta"]
REACH = 7.0
X = torch.linspace(-REACH, REACH, 801, dtype=torch.float64)


def mean_over(law: GaussianMixture, values: torch.Tensor) -> float:
    """The mean of a function by a sum over even nodes, which for smooth functions is exact."""
    return float(law.log_prob(X[:, None]).exp() @ values * (X[1] - X[0]))


@cache
def data_errors() -> Table:
    """For t = 1..T the root mean square error of the perfect network's guess of the data."""
    mean_squares = [
        mean_over(HEAPS.at(level), HEAPS.reverse_kernel(X[:, None], 1.0, level).covariance[:, 0, 0])
        for level in FULL.alpha_bar[1:].tolist()
    ]
    return np.array(cf.sqrt(np.array(mean_squares)))


def terms(schedule: NoiseSchedule, variance: str) -> Table:
    """The means of L_0, ..., L_T. A quadratic in the error has it at its root mean square."""
    before, here = schedule.alpha_bar[:-1], schedule.alpha_bar[1:]
    errors = data_errors()[schedule.times[1:] - 1]
    chosen = {"posterior": schedule.posterior_variance, "beta": schedule.beta}[variance][2:]
    guess = Gaussian(cf.posterior_mean(0.0, 0.0, before[1:], here[1:]), chosen)
    steps = cf.gaussian_kl(cf.posterior(0.0, errors[1:], before[1:], here[1:]), guess)
    reconstruction = -cf.normal_log_density(errors[0], 0.0, schedule.beta[1])
    size = cf.sqrt(float(HEAPS.mean**2 + HEAPS.covariance))
    prior = cf.gaussian_kl(cf.marginal(size, here[-1]), Gaussian(0.0, 1.0))
    return np.array([reconstruction, *steps, prior])


def entropy() -> float:
    """Of the data, in nats: what no model's mean of -log p is below."""
    return mean_over(HEAPS, -HEAPS.log_prob(X[:, None]))


def negative_log_likelihood(steps: int, variance: str) -> float:
    """The mean of -log p of the model: DDPM's exact output, with the decoder's noise on it."""
    schedule = FULL.strided(steps)
    law = exact.ddpm(HEAPS, schedule, variance=variance, reach=REACH)
    log_densities = cf.normal_log_density(X[:, None], law.x, float(schedule.beta[1]))
    return mean_over(HEAPS, -(log_densities + law.mass.log()).logsumexp(1))


def curve(steps: int, variance: str) -> dict[str, Any]:
    """What is drawn: at some t the term, and the sum of all from the noise down to it."""
    schedule = FULL.strided(steps)
    values = terms(schedule, variance)
    down = values[::-1].cumsum()[::-1]  # the sum from L_T to each term
    shown = np.unique(np.geomspace(1, steps, 250).round().astype(int))
    return {
        "t": schedule.times[shown].tolist(),
        "term": [float(f"{value:.4g}") for value in values[shown - 1]],
        "down": [float(f"{value:.4g}") for value in down[shown - 1]],
        "total": round(float(down[0]), 4),
    }


def with_gap(drawn: dict[str, Any], likelihood: float) -> dict[str, Any]:
    return {**drawn, "likelihood": likelihood, "gap": round(drawn["total"] - likelihood, 4)}


def data() -> dict[str, Any]:
    likelihoods = json.loads(LIKELIHOODS.read_text(encoding="utf-8"))
    return {
        "steps": STEPS,
        "entropy": round(entropy(), 4),
        "curves": {
            name: [
                with_gap(curve(steps, name), likelihood)
                for steps, likelihood in zip(STEPS, likelihoods[name], strict=True)
            ]
            for name in VARIANCES
        },
    }


if __name__ == "__main__":
    found = {
        name: [round(negative_log_likelihood(steps, name), 4) for steps in tqdm(STEPS)]
        for name in VARIANCES
    }
    LIKELIHOODS.write_text(json.dumps(found) + "\n", encoding="utf-8")
