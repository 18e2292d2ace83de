r"""The exact law of a sampler's output on a one-dimensional target: no draws, no Monte Carlo.

With the perfect network of a `GaussianMixture` every step is
:math:`x_s=f(x_t)+\text{deviation}\cdot z`, with a function f that `closed_forms` gives. Between two
steps the law is held by its characteristic function, which the step changes to

.. math:: \mathbb E\,e^{ikx_s}=e^{-\text{deviation}^2k^2/2}\;\mathbb E\,e^{ikf(x_t)}.

The mean on the right is a sum over even nodes, as many as the density and the stretching by f ask
for; for smooth densities such a sum errs in the tenth digit or later. The last step adds no noise
and is a change of variable, because f never decreases. (Chapter 10.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from . import closed_forms
from .schedule import NoiseSchedule, Table
from .targets import GaussianMixture

_NOTHING = 1e-13  # below this share of the highest density lies only rounding
_LOST = 1e-10  # how large the density at the ends may be
_FINEST = 1e-12  # how large the finest waves may be: what lies beyond them is left out
_SPARE = 1e-14  # how small the finer half of the waves must be to be dropped
_STRETCH = 1.5  # neighbouring nodes may move apart by this factor before there must be more of them
_FEWEST, _MOST, _SHOWN = 128, 65_536, 2048  # nodes between two steps, and at least in a result


class Law(NamedTuple):
    """A law on the line, at increasing nodes. All four have shape (n,) and are float64.

    Attributes:
        x: the nodes.
        mass: the weights of the nodes: a mean is ``(mass * f(x)).sum()``.
        density: the density at the nodes.
        cdf: the distribution function at the nodes.
    """

    x: Tensor
    mass: Tensor
    density: Tensor
    cdf: Tensor

    @property
    def mean(self) -> float:
        """The mean."""
        return float(self.mass @ self.x)

    @property
    def variance(self) -> float:
        """The variance."""
        return float(self.mass @ (self.x - self.mean) ** 2)


# --- The output of a sampler ----------------------------------------------------------------------


def ddim(
    target: GaussianMixture,
    schedule: NoiseSchedule,
    *,
    eta: float = 0.0,
    reach: float = 12.0,
) -> Law:
    r"""The law of what `samplers.ddim` returns, with the target's perfect network.

    Used in chapter 10 (claim I14).

    Args:
        target: the data, on the line (d = 1).
        schedule: the noise schedule, strided or not.
        eta: from 0 to 1, the share of DDPM's deviation.
        reach: all laws on the way must lie between -reach and reach.

    Raises:
        ValueError: for an argument outside its range, or if a law on the way goes beyond the reach
            or is too narrow for float64 sums.
    """
    if not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta!r}; it must be a number in 0..1.")
    sigma = closed_forms.ddim_sigma(eta, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    return _output(target, schedule, sigma, sigma, reach)


def ddpm(
    target: GaussianMixture,
    schedule: NoiseSchedule,
    *,
    variance: str = "posterior",
    reach: float = 12.0,
) -> Law:
    r"""The law of what `samplers.ddpm` returns, with the target's perfect network.

    Used in chapter 10 (claim I14).

    Args:
        target, schedule, reach: as in `ddim`.
        variance: "posterior" adds noise of variance :math:`\tilde\beta`, "beta" of variance β; the
            step to s = 0 adds none.

    Raises:
        ValueError: as in `ddim`.
    """
    variances = {"posterior": schedule.posterior_variance[1:], "beta": schedule.beta[1:]}
    if variance not in variances:
        raise ValueError(f"variance is {variance!r}; it must be one of {', '.join(variances)}.")
    deviation = closed_forms.sqrt(variances[variance])
    deviation[0] = 0.0  # the step to s = 0
    sigma = closed_forms.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    return _output(target, schedule, sigma, deviation, reach)


def of_target(target: GaussianMixture, *, reach: float = 12.0) -> Law:
    """The law of the data themselves, on even nodes.

    Raises:
        ValueError: as in `ddim`.
    """
    _check(target, reach)
    waves = _waves_of(lambda x: target.log_prob(x[:, None]), reach)
    return _law(waves, max(_SHOWN, _count(waves)), reach)


# --- Distances ------------------------------------------------------------------------------------


def wasserstein(law: Law, other: Law) -> float:
    r"""The Wasserstein-1 distance, :math:`\int|F-G|\,dx`: how far mass has to be moved."""
    x = torch.cat([law.x, other.x]).unique()
    difference = _distribution_function(law, x) - _distribution_function(other, x)
    return float(torch.trapezoid(difference.abs(), x))


def total_variation(law: Law, target: GaussianMixture) -> float:
    r""":math:`\tfrac12\int|p-q|\,dx`: the largest error in the probability of any event."""
    there = target.log_prob(law.x[:, None]).exp()
    shared = law.mass * (there / law.density).clamp(max=1)
    return float(law.mass.sum() - shared.sum())


def kl(law: Law, target: GaussianMixture) -> float:
    r""":math:`D_{\mathrm{KL}}(\text{law}\,\|\,\text{target})=\int p\log(p/q)\,dx` in nats."""
    there = target.log_prob(law.x[:, None])
    return float(law.mass @ (law.density.log() - there))


# --- One step after the other ---------------------------------------------------------------------
#
# Between the steps a law is held as its waves: row j is the mean of e^{-ik(x + reach)} at
# k = πj/reach. With n/2 + 1 rows they are the Fourier transform of the masses at n even nodes.


def _output(
    target: GaussianMixture, schedule: NoiseSchedule, sigma: Table, deviation: Table, reach: float
) -> Law:
    """Row i of the tables belongs to the step from t = i + 1 to s = i."""
    _check(target, reach)

    def standard_normal(x: Tensor) -> Tensor:
        return closed_forms.normal_log_density(x, 0.0, torch.ones_like(x))

    def mean_of_step(x: Tensor, i: int) -> Tensor:
        alpha_bar_s, alpha_bar_t = (float(level) for level in schedule.alpha_bar[i : i + 2])
        eps = target.eps(x[:, None], alpha_bar_t)[:, 0]
        if alpha_bar_t == 0:  # pure noise: the data are guessed by their mean
            x_0 = target.mean.to(x).expand_as(x)
        else:
            x_0 = closed_forms.x_0_from_eps(x, eps, alpha_bar_t)
        return closed_forms.reverse_mean(x_0, eps, alpha_bar_s, float(sigma[i]))

    waves = _waves_of(standard_normal, reach)
    for i in reversed(range(1, schedule.T)):
        waves = _after(waves, partial(mean_of_step, i=i), float(deviation[i]), reach)
    nodes = max(_SHOWN, _count(waves))
    last = partial(mean_of_step, i=0)
    nodes *= _times(last(_masses(waves, nodes, reach)[0]), nodes, reach)
    return _change_of_variable(_law(waves, nodes, reach), last)


def _after(waves: Tensor, f: Callable[[Tensor], Tensor], deviation: float, reach: float) -> Tensor:
    """The waves of f(x) + deviation · z, as many as it takes."""

    def attempt(nodes: int) -> Tensor:
        x, mass = _masses(waves, nodes, reach)
        y = f(x)
        times = _times(y, nodes, reach)
        if times > 1:
            x, mass = _masses(waves, nodes * times, reach)
            y = f(x)
        noise = torch.exp(-((deviation * _frequencies(nodes, reach)) ** 2) / 2)
        return _waves_at(y, mass, nodes, reach) * noise

    return _resolved(attempt, _count(waves))


def _times(y: Tensor, nodes: int, reach: float) -> int:
    """How many times as many nodes it takes so that a step does not tear them apart."""
    return max(1, math.ceil(float(y.diff().max()) / (2 * reach / nodes) / _STRETCH))


def _resolved(attempt: Callable[[int], Tensor], nodes: int) -> Tensor:
    """The waves for as many nodes as it takes until the finest waves have died away."""
    while nodes <= _MOST:
        waves = attempt(nodes)
        if float(waves[-nodes // 16 :].abs().max()) < _FINEST:
            while nodes > _FEWEST and float(waves[nodes // 4 :].abs().max()) < _SPARE:
                nodes //= 2
                waves = waves[: nodes // 2 + 1]
            return waves
        nodes *= 2
    raise ValueError(
        f"target or schedule leads to a law on the way that is too narrow for {_MOST} nodes."
    )


def _masses(waves: Tensor, nodes: int, reach: float) -> tuple[Tensor, Tensor]:
    """Even nodes and their masses, less those where there is nothing."""
    mass = torch.fft.irfft(waves, nodes)
    _check_ends(mass * nodes / (2 * reach), reach)
    kept = mass > _NOTHING * mass.max()
    return _nodes(nodes, reach)[kept], mass[kept]


def _change_of_variable(law: Law, f: Callable[[Tensor], Tensor]) -> Law:
    x = law.x.clone().requires_grad_()
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    y = y.detach()
    if not (y.diff() > 0).all():
        raise ValueError(
            "target or schedule leads to an output without density: the last step takes different "
            "points to the same one."
        )
    return Law(y, law.mass, law.density / slope, law.cdf)


def _waves_of(log_density: Callable[[Tensor], Tensor], reach: float) -> Tensor:
    def attempt(nodes: int) -> Tensor:
        density = log_density(_nodes(nodes, reach)).exp()
        _check_ends(density, reach)
        return torch.fft.rfft(density * (2 * reach / nodes))

    return _resolved(attempt, _FEWEST)


def _waves_at(y: Tensor, mass: Tensor, nodes: int, reach: float) -> Tensor:
    """The waves of masses at any points: all powers of e^{-iπ(y + reach)/reach}, from a few."""
    few = 1 << (nodes // 2).bit_length() // 2
    angle = -math.pi / reach * (y + reach)
    low = _powers(angle, few)
    high = _powers(few * angle, nodes // 2 // few + 1) * mass
    return (high @ low.T).flatten()[: nodes // 2 + 1]


def _powers(angle: Tensor, count: int) -> Tensor:
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.cat([torch.ones_like(turn[None]), turn.expand(count - 1, -1)]).cumprod(0)


def _law(waves: Tensor, nodes: int, reach: float) -> Law:
    """The law on even nodes, less those where there is nothing."""
    x, spacing = _nodes(nodes, reach), 2 * reach / nodes
    density = torch.fft.irfft(waves, nodes) / spacing
    _check_ends(density, reach)
    # The integral of e^{ikx} is e^{ikx} / ik, and that of the constant wave grows along the nodes.
    k = _frequencies(_count(waves), reach)
    swings = torch.fft.irfft(torch.cat([0 * waves[:1], waves[1:] / (1j * k[1:])]), nodes) / spacing
    cdf = swings - swings[0] + waves[0].real * (x + reach) / (2 * reach)
    kept = density > _NOTHING * density.max()
    return Law(x[kept], spacing * density[kept], density[kept], cdf[kept])


def _check_ends(density: Tensor, reach: float) -> None:
    if not float(density[[0, 1, -2, -1]].abs().max()) < _LOST:
        raise ValueError(f"reach is {reach}; a law on the way goes beyond it.")


def _count(waves: Tensor) -> int:
    return 2 * (len(waves) - 1)


def _nodes(count: int, reach: float) -> Tensor:
    return -reach + 2 * reach / count * torch.arange(count, dtype=torch.float64, device="cpu")


def _frequencies(nodes: int, reach: float) -> Tensor:
    return math.pi / reach * torch.arange(nodes // 2 + 1, dtype=torch.float64, device="cpu")


def _check(target: GaussianMixture, reach: float) -> None:
    if target.mean.shape != (1,):
        raise ValueError(
            f"target has a mean of shape {tuple(target.mean.shape)}; it must be one law with d = 1."
        )
    if not 0 < reach < math.inf:
        raise ValueError(f"reach is {reach}; it must be a positive number.")


def _distribution_function(law: Law, x: Tensor) -> Tensor:
    """F at any points: a cubic between nodes, 0 before the first and 1 after the last."""
    left = (torch.searchsorted(law.x, x, right=True) - 1).clamp(0, len(law.x) - 2)
    width = law.x[left + 1] - law.x[left]
    u = ((x - law.x[left]) / width).clamp(0, 1)
    rise, slopes = law.cdf[left + 1] - law.cdf[left], (law.density[left], law.density[left + 1])
    bend = slopes[0] * width - rise, rise - slopes[1] * width
    between = law.cdf[left] + u * rise + u * (1 - u) * ((1 - u) * bend[0] + u * bend[1])
    return between.where(x >= law.x[0], 0.0).where(x <= law.x[-1], 1.0)
