r"""Objectives: what training minimises, and the bound on the likelihood, term by term.

`simple_loss` and its weighted kin average a squared error over random steps; `hybrid_loss` also
trains a variance. `bound` is what they approximate: for every sample an upper bound of
:math:`-\log p_\theta(x_0)` in nats, for continuous data and for data on a grid, as 8-bit images
are. (Chapters 05, 06 and 15.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import closed_forms
from .arguments import as_table, check_callable, check_choice, check_integer, check_number
from .closed_forms import Gaussian
from .prediction import Prediction, check_readable, get_prediction, learned_variance
from .process import check_one_each, check_samples, check_steps, levels_at, linear_at, network_times
from .schedule import NoiseSchedule, Table, check_schedule

LARGEST_WEIGHT = 1e30  # beyond it float32 overflows
_STANDARD_NORMAL = Gaussian(0.0, 1.0)

Model = Callable[..., Tensor]
"""A network, (x_t of shape (B, ...), times of shape (B,)) -> a tensor shaped like x_t.

A conditional one takes labels of shape (B,) as well; one with a learned variance answers twice as
many channels, the prediction first.
"""

Weight = Callable[[Table], Table]
r"""The weight of :math:`\|x_0-\hat x_0\|^2` as a function of the signal-to-noise ratio."""


def simple_loss(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    labels: Tensor | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The objective :math:`L_{\mathrm{simple}}`, averaged over a batch.

    .. math:: \mathbb E_{t,x_0,\epsilon}\,\tfrac1d\|\epsilon-\epsilon_\theta(x_t,t)\|^2

    t is uniform on 1..T, ε standard normal. For another ``prediction`` the target is the data, the
    velocity or the score instead of ε. The square is averaged over the d dimensions and the batch,
    so a network that always answers 0 has loss 1 when it predicts ε.

    Args:
        model: called as ``model(x_t, times)``, or ``model(x_t, times, labels)`` with labels.
        schedule: the noise schedule.
        x_0: data of shape (B, ...), any number of dimensions.
        prediction: "eps", "x_0", "v" or "score".
        labels: what the model is told about each sample, shape (B, ...).
        t, eps: the steps, int64 (B,), and the noise, shaped like x_0, where they are not to be
            drawn here: `draw_noise` gives them for a batch that is worked through in parts.
        generator: the source of t and ε, on the device of x_0.

    Returns:
        The scalar loss, ready for ``backward``.

    Raises:
        ValueError: if the prediction is unknown or says nothing about the data at the end of the
            schedule, x_0 is empty or not of floating point, t or eps do not fit it, or the
            network's output is not a tensor shaped like x_0.

    Source: Ho et al. 2020, eq. 14. Measured in chapter 04 (claim L11), derived in
    chapter 06 (claim L10); used in chapter 15.
    """
    kind = get_prediction(prediction)
    t, eps = _noise(schedule, kind, x_0, t, eps, generator)
    target, output = _target_and_output(model, schedule, kind, x_0, labels, t, eps)
    return torch.nn.functional.mse_loss(output, target)


def weighted_loss(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    weight: Weight,
    *,
    prediction: str = "eps",
    labels: Tensor | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""A weighted objective, the same for every kind of prediction.

    .. math:: \mathbb E_{t,x_0,\epsilon}\,w(\mathrm{SNR}_t)\,\tfrac1d\|x_0-\hat x_0(x_t,t)\|^2

    The weight is that of the data's error. An error of ε is one of :math:`x_0` times
    :math:`\sqrt{\mathrm{SNR}}`, so ``weight=lambda snr: snr`` is `simple_loss` of ε, and
    ``lambda snr: snr + 1`` that of v. What is computed is the error of the prediction itself, with
    the weight translated, so nothing is divided by a small :math:`\bar\alpha_t`.

    Args:
        model, schedule, x_0, prediction, labels, t, eps, generator: as in `simple_loss`.
        weight: a function of an array of ratios, each 0 or more. Give the same function object at
            every call: its table is kept.

    Returns:
        The scalar loss, ready for ``backward``.

    Raises:
        ValueError: as `simple_loss`, or if a weight is negative or not finite.

    Source: Kingma et al. 2021, sec. 5.1; Salimans and Ho 2022, sec. 4. Proved in chapters
    06 and 16.
    """
    kind = get_prediction(prediction)
    check_callable("weight", weight, "weight(ratios)")
    t, eps = _noise(schedule, kind, x_0, t, eps, generator)
    weights = _output_weights(schedule, kind, weight, x_0.device)
    target, output = _target_and_output(model, schedule, kind, x_0, labels, t, eps)
    errors = (output - target).square().reshape(len(x_0), -1).mean(dim=1)
    return (weights[t].to(errors) * errors).mean()


def min_snr_loss(
    model: Model, schedule: NoiseSchedule, x_0: Tensor, *, gamma: float = 5.0, **options: Any
) -> Tensor:
    r"""`weighted_loss` with :math:`w=\min(\mathrm{SNR},\gamma)`: the clean steps count less.

    Args:
        model, schedule, x_0, options: as in `weighted_loss`, which this is.
        gamma: the largest weight.

    Raises:
        ValueError: as `weighted_loss`, or if gamma is not a number above 0.

    At the end of a schedule of zero terminal SNR the weight is 0, and nothing is learned there;
    ``weighted_loss`` with ``lambda snr: np.minimum(snr + 1, gamma)`` keeps it at 1.

    Source: Hang et al. 2023, sec. 3.4. Proved in chapter 16.
    """
    gamma = check_number("gamma", gamma, lambda gamma: 0 < gamma < math.inf, "above 0")
    return weighted_loss(model, schedule, x_0, _capped_at(gamma), **options)


@lru_cache
def _capped_at(gamma: float) -> Weight:
    return partial(np.minimum, gamma)  # one object for one gamma, so that its table is found again


def hybrid_loss(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    bound_weight: float = 0.001,
    prediction: str = "eps",
    labels: Tensor | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""`simple_loss` for the mean, and the bound for the variance, of a network with both.

    .. math:: L_{\mathrm{simple}}+\lambda\,T\;\mathbb E_t\big[\tfrac1d L_{t-1}\big]

    The second part is the bound, estimated from the same random step, hence the factor T. Its
    gradient reaches the variance only: the mean is held fixed there. The step to the data has no
    variance to learn and counts 0.

    Args:
        model: answers twice as many channels as x_0 has: the prediction, then v in about -1..1,
            of which the variance of a step is made (see `learned_variance`).
        schedule, x_0, prediction, labels, t, eps, generator: as in `simple_loss`.
        bound_weight: λ, for the bound in nats for each dimension. (In bits, as the paper's code
            counts, the same weight is λ ln 2.)

    Returns:
        The scalar loss, ready for ``backward``.

    Raises:
        ValueError: as `simple_loss`, or if the network learns no variance.

    Source: Nichol and Dhariwal 2021, eq. 16. What it asks of the variance: chapter 16.
    """
    kind = get_prediction(prediction)
    check_schedule(schedule)
    bound_weight = check_number(
        "bound_weight", bound_weight, lambda weight: 0 <= weight < math.inf, "of 0 or more"
    )
    if schedule.T < 2:
        raise ValueError(f"schedule has T = {schedule.T}; only steps above 1 learn a variance.")
    t, eps = _noise(schedule, kind, x_0, t, eps, generator)
    output, v = split_output(_answer(model, schedule, x_0, labels, t, eps), x_0, "x_0")
    if v is None:
        raise ValueError(
            f"The network's output has shape {tuple(output.shape)}; to learn a variance it must "
            "answer twice as many channels (learned_variance=True)."
        )
    target, output = _in_full(linear_at(kind.target, schedule, t, (x_0, eps))), _in_full(output)
    simple = torch.nn.functional.mse_loss(output, target)
    missing = target - output.detach()
    error = linear_at(kind.x_0, schedule, t, (torch.zeros_like(missing), missing))
    # The levels at t = 1 would give a variance of 0; its row is dropped below.
    levels = levels_at(schedule, t.clamp(min=2), x_0)
    terms = _divergence(error, learned_variance(v, *levels), *levels).flatten(start_dim=1).mean(1)
    terms = torch.where(t > 1, terms, 0.0)
    return simple + bound_weight * schedule.T * terms.mean().to(simple.dtype)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "simple": simple_loss,
    "min_snr": min_snr_loss,
    "hybrid": hybrid_loss,
}


def draw_noise(
    schedule: NoiseSchedule, x_0: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """What an objective draws for a batch: steps t, uniform on 1..T, and noise shaped like x_0."""
    check_schedule(schedule)
    check_samples(x_0=x_0)
    check_generator(generator)
    t = torch.randint(1, schedule.T + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    return t, eps


def _noise(
    schedule: NoiseSchedule,
    kind: Prediction,
    x_0: Tensor,
    t: Tensor | None,
    eps: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """The steps and noise of a batch, drawn where they are not given; everything checked."""
    check_schedule(schedule)
    check_readable(kind, schedule.alpha_bar[-1])
    check_data(x_0)
    if t is not None:
        check_one_each(t, x_0)
        if t.device.type == "cpu":  # another device would have to be waited for
            check_steps(schedule, t, x_0, least=1)
    if eps is not None:
        check_samples(eps=eps)
    if t is None or eps is None:
        drawn = draw_noise(schedule, x_0, generator)
        t, eps = drawn[0] if t is None else t, drawn[1] if eps is None else eps
    if eps.shape != x_0.shape:
        raise ValueError(
            f"eps has shape {tuple(eps.shape)}; it must have the shape {tuple(x_0.shape)} of x_0."
        )
    return t, eps


def _answer(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    labels: Tensor | None,
    t: Tensor,
    eps: Tensor,
) -> Tensor:
    """What the network says about the noised data."""
    check_model(model)
    x_t = linear_at(closed_forms.noised, schedule, t, (x_0, eps))
    times = network_times(schedule, t)
    return model(x_t, times) if labels is None else model(x_t, times, labels)


def _target_and_output(
    model: Model,
    schedule: NoiseSchedule,
    kind: Prediction,
    x_0: Tensor,
    labels: Tensor | None,
    t: Tensor,
    eps: Tensor,
) -> tuple[Tensor, Tensor]:
    """What the network should have said, and what it said."""
    output = _answer(model, schedule, x_0, labels, t, eps)
    check_output(output, x_0, "x_0")
    target = linear_at(kind.target, schedule, t, (x_0, eps))
    return _in_full(target), _in_full(output)


def _in_full(x: Tensor) -> Tensor:
    """x in float32 at least, because squares of half have few digits, or none."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@lru_cache(maxsize=64)
def _output_weights(
    schedule: NoiseSchedule, kind: Prediction, weight: Weight, device: torch.device
) -> Tensor:
    """The weight of the squared error of the prediction itself, by step, shape (T+1,)."""
    ratios = closed_forms.snr(schedule.alpha_bar[1:])
    weights = as_table("weight", weight(ratios))
    if weights.shape not in ((), ratios.shape) or not ((weights >= 0) & (weights < np.inf)).all():
        raise ValueError(
            "weight must give one finite number of 0 or more for each signal-to-noise ratio."
        )
    weights = weights * _x_0_factor(schedule, kind) ** 2
    table = torch.from_numpy(np.concatenate([[0.0], weights]))
    return table.to(device, torch.float32 if device.type == "mps" else torch.float64)


def _x_0_factor(schedule: NoiseSchedule, kind: Prediction) -> Table:
    """How large an error of the data an error of 1 in the prediction is, for t = 1..T."""
    # The conversion is linear: this is its value for an output of 1 at x_t = 0.
    factor = kind.x_0(0.0, 1.0, schedule.alpha_bar[1:])
    return np.abs(np.broadcast_to(factor, schedule.T))


def _divergence(x_0_error: Any, variance: Any, alpha_bar_s: Any, alpha_bar_t: Any) -> Any:
    """A step's divergence for every coordinate: of the means, and of the variances."""
    weight = closed_forms.bound_weight_x_0(alpha_bar_s, alpha_bar_t, variance)
    true_variance = closed_forms.posterior_variance(alpha_bar_s, alpha_bar_t)
    # With equal means what is left is the divergence of the variances.
    rest = closed_forms.gaussian_kl(Gaussian(0.0, true_variance), Gaussian(0.0, variance))
    return weight * x_0_error**2 + rest


@dataclass(frozen=True)
class Bound:
    r"""The terms of :math:`-\mathrm{ELBO}`, one row for each sample, in nats.

    Attributes:
        terms: shape (B, T+1); column i is :math:`L_i`. Column 0 is the reconstruction, columns
            1..T-1 are the steps (the step from t ends at t - 1, so its term is column t - 1), and
            column T is the prior.
        dimensions: how many numbers a sample has.
    """

    terms: Tensor
    dimensions: int

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

    @property
    def bits_per_dim(self) -> Tensor:
        r""":math:`\text{total}/(d\ln2)`, shape (B,).

        For data on a grid (``levels``) this is a code length, 8 for 8-bit noise. For continuous
        data it is that of a density, may be negative, and changes with the unit of the data.
        """
        return self.total / (self.dimensions * math.log(2))

    def mean_and_error(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over the samples of `total`, `terms` or another row of values, and its error.

        The error is one standard deviation of the mean, over both the samples and the noise drawn.
        It takes rows that are different samples: a sample that is repeated counts as one.

        Raises:
            ValueError: if there is only one sample.
        """
        if len(values) < 2:
            raise ValueError(f"there is {len(values)} sample; an error bar takes at least 2.")
        return values.mean(dim=0), values.std(dim=0) / math.sqrt(len(values))


def bound(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    variance: str = "posterior",
    decoder_variance: float | None = None,
    levels: int | None = None,
    prediction: str | None = None,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Bound:
    r"""The variational bound of every sample, term by term, in nats, summed over dimensions.

    .. math:: -\log p_\theta(x_0)\ \le\ \mathbb E_q\Big[
              \underbrace{D_{\mathrm{KL}}(q(x_T|x_0)\,\|\,p(x_T))}_{L_T}
              +\sum_{t\ge2}\underbrace{D_{\mathrm{KL}}(q(x_{t-1}|x_t,x_0)\,\|\,
              p_\theta(x_{t-1}|x_t))}_{L_{t-1}}
              \underbrace{-\log p_\theta(x_0|x_1)}_{L_0}\Big]

    The model is :math:`p_\theta(x_{t-1}|x_t)=\mathcal N(\mu_\theta,\sigma_t^2I)` with the mean of
    `samplers.ddpm`, starting from :math:`p(x_T)=\mathcal N(0,I)`. :math:`L_T` is exact. For every
    other term one :math:`x_t\sim q(x_t|x_0)` is drawn for each sample, independent from step to
    step: a row's total is an unbiased estimate of that sample's bound. Rows are independent given
    the data, so the spread over different samples gives an error bar (`Bound.mean_and_error`).

    Continuous data have a log-density, so :math:`L_0` may have any sign. Data on a grid, as 8-bit
    images are, have a probability: with ``levels=256`` :math:`p_\theta(x_0|x_1)` is the Gaussian's
    share of the bin around each value, open-ended at -1 and 1, and `Bound.bits_per_dim` is a code
    length.

    A strided schedule is bounded like any other: it is the bound for the strided sampler.

    Args:
        model: called as ``model(x_t, times)`` or ``model(x_t, times, labels)``, T times, without
            gradients, in evaluation mode.
        schedule: the noise schedule.
        x_0: data of shape (B, ...), any number of dimensions.
        variance: the variance of a step t ≥ 2: "posterior" is :math:`\tilde\beta_t`, "beta" is
            :math:`\beta_t`, "learned" is the network's own. Data with spread have a lower bound
            with "beta", often by far: near the data :math:`\tilde\beta_t` is much too small.
        decoder_variance: the variance of :math:`p_\theta(x_0|x_1)`, above 0. Without it
            :math:`\beta_1`, because :math:`\tilde\beta_1=0` is the variance of no density.
        levels: how many values, evenly spaced from -1 to 1, each number of the data can take; None
            for continuous data.
        prediction: "eps", "x_0", "v" or "score"; without it ``model.prediction``, which the trainer
            sets, or else "eps".
        labels: what the model is told about each sample.
        generator: the source of the noise, on the device of x_0.
        progress: show a progress bar.

    Returns:
        The terms, in the type of x_0 (float32 at least) and on its device.

    Raises:
        ValueError: if an argument is outside its range, x_0 is empty, not of floating point or not
            on the grid, the schedule has levels too close for float64, or the network's output is
            not a tensor shaped like x_0 (of twice the channels for a learned variance).

    Source: Ho et al. 2020, eq. 5, 12 and 13; Kingma et al. 2021, sec. 3. Proved in chapter 05
    (claims L1, L2, L3, L4, L6, L9, L16); for data on a grid in chapter 16.
    """
    kind = prediction_of(model, prediction)
    check_schedule(schedule)
    check_readable(kind, schedule.alpha_bar[-1])
    check_data(x_0)
    check_generator(generator)
    variances = _step_variances(schedule, kind, variance)
    decoder_variance = _decoder_variance(schedule, decoder_variance)
    if levels is not None:
        levels = check_integer("levels", levels, least=2)
        _check_grid(x_0, levels)
    data = x_0.to(torch.promote_types(x_0.dtype, torch.float32))
    # Sums of many small terms: float64, but for MPS, which has none.
    exact = torch.float32 if data.device.type == "mps" else torch.float64
    rows = len(data)
    table = schedule.alpha_bar.tolist()
    terms = []
    with torch.no_grad(), evaluating(model):
        for step in tqdm(range(1, schedule.T + 1), disable=not progress, desc="bound"):
            t = torch.full((rows,), step, device=data.device)
            eps = torch.randn(data.shape, generator=generator, device=data.device, dtype=data.dtype)
            output = _answer(model, schedule, x_0, labels, t, eps.to(x_0.dtype))
            output, v = split_output(output, x_0, "x_0")
            # What is missing of the target, as data: `kind.x_0` is linear, and x_t is the same.
            missing = linear_at(kind.target, schedule, t, (data, eps)) - output
            error = linear_at(kind.x_0, schedule, t, (torch.zeros_like(data), missing)).to(exact)
            if step == 1:
                term = _decoder_term(error, data.to(exact), decoder_variance, levels)
            else:
                here = (table[step - 1], table[step])
                of_step = variance_said(v, *here) if variances is None else float(variances[step])
                term = _divergence(error, of_step, *here)
            terms.append(term.reshape(rows, -1).sum(dim=1))
    # On the CPU, where there is float64: 1 - (1 - alpha_bar_T) has few digits in float32.
    end = closed_forms.marginal(data.detach().cpu().double(), schedule.alpha_bar[-1])
    prior = closed_forms.gaussian_kl(end, _STANDARD_NORMAL).reshape(rows, -1).sum(dim=1)
    columns = torch.stack([*terms, prior.to(terms[0])], dim=1).to(data)
    return Bound(columns, dimensions=data[0].numel())


def _step_variances(schedule: NoiseSchedule, kind: Prediction, variance: str) -> Table | None:
    """The variance of every step by its t; None where the network says it."""
    choices = {"posterior": schedule.posterior_variance, "beta": schedule.beta, "learned": None}
    chosen = check_choice("variance", variance, choices)
    smallest = schedule.posterior_variance[2:]
    with np.errstate(all="ignore"):
        steps = _divergence(np.ones(1), smallest, schedule.alpha_bar[1:-1], schedule.alpha_bar[2:])
    if not np.isfinite(steps).all() or (_x_0_factor(schedule, kind) > LARGEST_WEIGHT).any():
        raise ValueError(
            f"schedule is {schedule!r}; some of its levels are too close to each other or to 0 for "
            "floating point to compute the bound between them."
        )
    return chosen


def _decoder_variance(schedule: NoiseSchedule, given: float | None) -> float:
    value = float(schedule.beta[1]) if given is None else given
    rule = "above 0, the variance of a density"
    return check_number("decoder_variance", value, lambda value: 0 < value < math.inf, rule)


def _check_grid(x_0: Tensor, levels: int) -> None:
    numbers = (x_0.double() if x_0.device.type != "mps" else x_0.float()) + 1
    steps = numbers * ((levels - 1) / 2)
    off = (steps - steps.round()).abs().max()
    if not (off < 0.01 and x_0.min() >= -1 and x_0.max() <= 1):
        raise ValueError(
            f"x_0 runs from {float(x_0.min()):g} to {float(x_0.max()):g} and is not on a grid of "
            f"{levels} values evenly spaced from -1 to 1; scale it so, or leave levels out."
        )


def variance_said(v: Tensor | None, alpha_bar_s: float, alpha_bar_t: float) -> Tensor:
    """The learned variance of a step; in float64, because its logarithm is large (MPS has none).

    Raises:
        ValueError: v is None, because the network says none.
    """
    if v is None:
        raise ValueError(
            'variance is "learned", but the network answers no variance beside its prediction.'
        )
    return learned_variance(v.double() if v.device.type != "mps" else v, alpha_bar_s, alpha_bar_t)


def _decoder_term(x_0_error: Tensor, x_0: Tensor, variance: float, levels: int | None) -> Tensor:
    """What :math:`-\\log p(x_0|x_1)` is in every coordinate; its mean is the predicted data."""
    if levels is None:
        return -closed_forms.normal_log_density(x_0_error, 0.0, variance)
    half = 1 / (levels - 1)
    low = torch.where(x_0 - half < -1, -math.inf, x_0 - half)
    high = torch.where(x_0 + half > 1, math.inf, x_0 + half)
    return -closed_forms.log_bin_probability(low, high, x_0 - x_0_error, variance)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode restored outside."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_data(x_0: Tensor) -> None:
    """Raise ValueError unless a mean over the data exists."""
    check_samples(x_0=x_0)
    if x_0.numel() == 0:
        what = f"no numbers, being of shape {tuple(x_0.shape)}" if len(x_0) else "no rows"
        raise ValueError(f"x_0 has {what}; the loss is a mean over at least one.")


def check_generator(generator: object) -> None:
    """Raise ValueError unless it is one generator, or None for torch's own."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator is {generator!r:.60}; it must be one torch.Generator.")


def prediction_of(model: Model, prediction: str | None) -> Prediction:
    """What a model predicts: as it is said here, as the model says itself, or ε.

    Raises:
        ValueError: if the prediction is unknown, or the two do not agree.
    """
    own = getattr(model, "prediction", None)
    if not isinstance(own, str):  # a layer or a method of the user's
        own = None
    if prediction is not None and own is not None and prediction != own:
        raise ValueError(
            f"prediction is {prediction!r}, but the model was trained to predict {own!r}."
        )
    said = own if prediction is None else prediction
    return get_prediction("eps" if said is None else said)


def check_model(model: object) -> None:
    """Raise ValueError unless the model can be called."""
    check_callable("model", model, "model(x_t, times)")


def split_output(output: Tensor, like: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """A network's prediction, and what it says of the variance if it does.

    Raises:
        ValueError: unless the output is a tensor shaped like the named one, or has twice its
            second dimension.
    """
    doubled = torch.is_tensor(output) and output.shape != like.shape and like.ndim > 1
    if doubled and output.shape == (like.shape[0], 2 * like.shape[1], *like.shape[2:]):
        prediction, v = output.chunk(2, dim=1)
        check_output(prediction, like, name)
        return prediction, v
    check_output(output, like, name)
    return output, None


def check_output(
    output: Tensor, like: Tensor, name: str, whose: str = "The network's output"
) -> None:
    """Raise ValueError unless an output is a floating-point tensor shaped like the named one."""
    if not torch.is_tensor(output) or output.shape != like.shape or not output.is_floating_point():
        what = f"type {type(output)}"
        if torch.is_tensor(output):
            what = f"shape {tuple(output.shape)} and type {output.dtype}"
        raise ValueError(
            f"{whose} has {what}; it must be a floating-point tensor of the shape "
            f"{tuple(like.shape)} of {name}."
        )
