r"""Objectives: the loss :math:`L_{\mathrm{simple}}`, and the bound on the likelihood, term by term.

`simple_loss` is what training minimises. `bound` is what it approximates: for every sample an
upper bound of :math:`-\log p_\theta(x_0)` in nats. (Chapters 05 and 15.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import closed_forms
from .closed_forms import Gaussian
from .prediction import get_prediction
from .process import check_samples, linear_at, network_times
from .schedule import NoiseSchedule, Table

_STANDARD_NORMAL = Gaussian(0.0, 1.0)

Model = Callable[[Tensor, Tensor], Tensor]
"""A network: (x_t of shape (B, ...), times of shape (B,)) -> a tensor shaped like x_t."""


def simple_loss(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The objective :math:`L_{\mathrm{simple}}`, averaged over a batch.

    .. math:: \mathbb E_{t,x_0,\epsilon}\,\tfrac1d\|\epsilon-\epsilon_\theta(x_t,t)\|^2

    t is uniform on 1..T, ε standard normal. For another ``prediction`` the target is the data, the
    velocity or the score instead of ε. The square is averaged over the d dimensions and the batch,
    so a network that always answers 0 has loss 1 when it predicts ε.

    Args:
        model: called as ``model(x_t, times)``.
        schedule: the noise schedule.
        x_0: data of shape (B, ...), any number of dimensions.
        prediction: "eps", "x_0", "v" or "score".
        generator: the source of t and ε, on the device of x_0.

    Returns:
        The scalar loss, ready for ``backward``.

    Raises:
        ValueError: if the prediction is unknown, x_0 is empty or not of floating point, or the
            network's output is not a tensor shaped like x_0.

    Source: Ho et al. 2020, eq. 14. Measured in chapter 04 (claim L11), derived in
    chapter 06 (claim L10); used in chapter 15.
    """
    kind = get_prediction(prediction)
    check_samples(x_0=x_0)
    _check_rows(x_0)
    t = torch.randint(1, schedule.T + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = linear_at(closed_forms.noised, schedule, t, (x_0, eps))
    output = model(x_t, network_times(schedule, t))
    check_output(output, x_0, "x_0")
    target = linear_at(kind.target, schedule, t, (x_0, eps))
    return torch.nn.functional.mse_loss(output, target)


@dataclass(frozen=True)
class Bound:
    r"""The terms of :math:`-\mathrm{ELBO}`, one row for each sample, in nats.

    Attributes:
        terms: shape (B, T+1); column i is :math:`L_i`. Column 0 is the reconstruction, columns
            1..T-1 are the steps (the step from t ends at t - 1, so its term is column t - 1), and
            column T is the prior.
    """

    terms: Tensor

    @property
    def reconstruction(self) -> Tensor:
        r""":math:`L_0=-\log p_\theta(x_0\mid x_1)`, shape (B,)."""
        return self.terms[:, 0]

    @property
    def steps(self) -> Tensor:
        r""":math:`L_1,\dots,L_{T-1}`, the divergences of the steps t = 2..T, shape (B, T-1)."""
        return self.terms[:, 1:-1]

    @property
    def prior(self) -> Tensor:
        r""":math:`L_T=D_{\mathrm{KL}}(q(x_T\mid x_0)\,\|\,\mathcal N(0,I))`, shape (B,)."""
        return self.terms[:, -1]

    @property
    def total(self) -> Tensor:
        r""":math:`L_T+\sum_{t\ge2}L_{t-1}+L_0`, shape (B,)."""
        return self.terms.sum(dim=1)


def bound(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    variance: str = "posterior",
    decoder_variance: float | None = None,
    prediction: str = "eps",
    generator: torch.Generator | None = None,
) -> Bound:
    r"""The variational bound of every sample, term by term, in nats, summed over dimensions.

    .. math:: -\log p_\theta(x_0)\ \le\ \mathbb E_q\Big[
              \underbrace{D_{\mathrm{KL}}(q(x_T|x_0)\,\|\,p(x_T))}_{L_T}
              +\sum_{t\ge2}\underbrace{D_{\mathrm{KL}}(q(x_{t-1}|x_t,x_0)\,\|\,
              p_\theta(x_{t-1}|x_t))}_{L_{t-1}}
              \underbrace{-\log p_\theta(x_0|x_1)}_{L_0}\Big]

    The model is :math:`p_\theta(x_{t-1}|x_t)=\mathcal N(\mu_\theta,\sigma_t^2I)` with the mean of
    `samplers.ddpm`, starting from :math:`p(x_T)=\mathcal N(0,I)`. The data are continuous, so
    :math:`L_0` is a log-density and may have any sign. :math:`L_T` is exact. For every other term
    one :math:`x_t\sim q(x_t|x_0)` is drawn for each sample, independent from step to step: a row's
    total is an unbiased estimate of that sample's bound. Rows are independent given the data, so
    the spread of `Bound.total` over the batch gives an error bar; repeat rows for more draws.

    A strided schedule is bounded like any other: it is the bound for the strided sampler.

    Args:
        model: called as ``model(x_t, times)``, T times, without gradients, in evaluation mode.
        schedule: the noise schedule.
        x_0: data of shape (B, ...), any number of dimensions.
        variance: the variance of a step t ≥ 2: "posterior" is :math:`\tilde\beta_t`, "beta" is
            :math:`\beta_t`.
        decoder_variance: the variance of :math:`p_\theta(x_0|x_1)`, above 0. Without it
            :math:`\beta_1`, because :math:`\tilde\beta_1=0` is the variance of no density.
        prediction: "eps", "x_0", "v" or "score".
        generator: the source of the noise, on the device of x_0.

    Returns:
        The terms, in the type of x_0 (float32 at least) and on its device.

    Raises:
        ValueError: if an argument is outside its range, x_0 is empty or not of floating point, the
            schedule has levels too close for float64, or the network's output is not a tensor
            shaped like x_0.

    Source: Ho et al. 2020, eq. 5 and 12; Kingma et al. 2021, sec. 3. Proved in chapter 05 (claims
    L1, L2, L3, L4, L6, L9, L16).
    """
    kind = get_prediction(prediction)
    check_samples(x_0=x_0)
    _check_rows(x_0)
    weights, constants = _bound_tables(schedule, variance, decoder_variance)
    data = x_0.to(torch.promote_types(x_0.dtype, torch.float32))
    rows, dimensions = len(data), data.numel() // len(data)
    terms = []
    with torch.no_grad(), evaluating(model):
        for step, (weight, constant) in enumerate(zip(weights, constants, strict=True), start=1):
            t = torch.full((rows,), step, device=data.device)
            eps = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)
            x_t = linear_at(closed_forms.noised, schedule, t, (data, eps))
            output = model(x_t.to(x_0.dtype), network_times(schedule, t))
            check_output(output, x_0, "x_0")
            missing = linear_at(kind.target, schedule, t, (data, eps)) - output
            # What is missing of the target, as noise: `kind.eps` is linear, and x_t is the same.
            error = linear_at(kind.eps, schedule, t, (torch.zeros_like(data), missing))
            squares = error.square().reshape(rows, dimensions).sum(dim=1)
            terms.append(weight * squares + constant * dimensions)
    # In float64, because 1 - (1 - alpha_bar_T) has few digits in float32; CPU, for MPS has none.
    end = closed_forms.marginal(data.detach().cpu().double(), schedule.alpha_bar[-1])
    prior = closed_forms.gaussian_kl(end, _STANDARD_NORMAL).reshape(rows, dimensions).sum(dim=1)
    return Bound(torch.stack([*terms, prior.to(data)], dim=1))


def _bound_tables(
    schedule: NoiseSchedule, variance: str, decoder_variance: float | None
) -> tuple[list[float], list[float]]:
    r"""For t = 1..T: the weight of :math:`\|\epsilon-\epsilon_\theta\|^2`, and what is left."""
    variances: dict[str, Table] = {"posterior": schedule.posterior_variance, "beta": schedule.beta}
    if variance not in variances:
        raise ValueError(f"variance is {variance!r}; it must be one of {', '.join(variances)}.")
    if decoder_variance is None:
        decoder_variance = float(schedule.beta[1])
    if not isinstance(decoder_variance, int | float) or not 0 < decoder_variance < math.inf:
        raise ValueError(
            f"decoder_variance is {decoder_variance!r}; it must be a number above 0, the variance "
            "of a density."
        )
    model_variance = np.concatenate([[decoder_variance], variances[variance][2:]])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weights = closed_forms.bound_weight_eps(
            schedule.alpha_bar[:-1], schedule.alpha_bar[1:], model_variance
        )
        # With equal means what is left of a divergence is that of the variances.
        constants = closed_forms.gaussian_kl(
            Gaussian(0.0, schedule.posterior_variance[2:]), Gaussian(0.0, model_variance[1:])
        )
    if not (np.isfinite(weights).all() and np.isfinite(constants).all()):
        raise ValueError(
            f"schedule is {schedule!r}; some of its levels are too close to each other for float64 "
            "to compute the bound between them."
        )
    decoder = -closed_forms.normal_log_density(0.0, 0.0, decoder_variance)
    return weights.tolist(), [decoder, *constants.tolist()]


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode restored outside."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _check_rows(x_0: Tensor) -> None:
    if len(x_0) == 0:
        raise ValueError("x_0 has no rows; the loss is a mean over at least one.")


def check_output(output: Tensor, like: Tensor, name: str) -> None:
    """Raise ValueError unless a network's output is a tensor shaped like the named one."""
    if not torch.is_tensor(output) or output.shape != like.shape:
        what = f"shape {tuple(output.shape)}" if torch.is_tensor(output) else f"type {type(output)}"
        raise ValueError(
            f"The network's output has {what}; "
            f"it must be a tensor of the shape {tuple(like.shape)} of {name}."
        )
