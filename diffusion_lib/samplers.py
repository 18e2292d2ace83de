r"""Samplers: one family of steps, from noise to data, and DDIM's way back.

Every step from t to its neighbour s is

.. math:: x_s=\sqrt{\bar\alpha_s}\,\hat x_0
          +\sqrt{1-\bar\alpha_s-\sigma^2}\,\hat\epsilon+\text{noise}

with :math:`\hat x_0,\hat\epsilon` read off the network's output. `ddpm` and `ddim` differ in σ and
in the noise, nothing else. `dpm_solver` and `heun` take DDIM's step at η = 0 with a better guess:
the data as they will be half-way through the step, or the noise averaged over both its ends. A
strided sampler is the same sampler on a strided schedule. The step is linear, so its coefficients
are computed once, in float64, by evaluating `closed_forms` at unit vectors; the loop only
multiplies and adds. The last step, to s = 0, adds no noise.

`encode` runs `ddim` at η = 0 towards the noise: the same step with the levels exchanged. What it
returns is a code that `ddim` decodes, and codes can be blended with `interpolate`. `guided` makes a
network with labels one without, for any of them. (Chapters 03, 08, 11, 12 and 15.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from . import closed_forms
from .arguments import as_table, check_choice, check_integer, check_number
from .closed_forms import Gaussian, Number
from .objectives import (
    LARGEST_WEIGHT,
    Model,
    check_generator,
    check_model,
    check_output,
    evaluating,
    prediction_of,
    split_output,
    variance_said,
)
from .prediction import X_0, Prediction, check_readable
from .process import check_samples
from .schedule import NoiseSchedule, Table, check_schedule

_LARGEST_SHARE = 1e6  # an extrapolation so far magnifies rounding beyond use
_SMALLEST_ANGLE = 1e-4  # below it an arc is a straight line, to the digits of float32

Generators = torch.Generator | Sequence[torch.Generator] | None
Callback = Callable[["Step"], object]
Clip = tuple[float, float] | Callable[[Tensor], Tensor] | None
"""A range (lowest, highest) for the predicted data, or a function that brings them into one."""


class Step(NamedTuple):
    """What a callback is shown after each step; ``callback=steps.append`` keeps the whole run.

    Attributes:
        number: 0, 1, ..., S - 1.
        t, s: the network times the step came from and went to; in `encode` s is the noisier one.
        x_s: the new sample, at s.
        x_0: the data predicted for the step, clipped if the sampler clips.
    """

    number: int
    t: int
    s: int
    x_s: Tensor
    x_0: Tensor


def ddpm(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    variance: str = "posterior",
    prediction: str | None = None,
    generator: Generators = None,
    clip: Clip = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    r"""Ancestral sampling: :math:`x_s=\tilde\mu(x_t,\hat x_0)+\text{deviation}\cdot z`.

    Args:
        model: called as ``model(x_t, times)``. What a network with a learned variance says of it is
            used for ``variance="learned"`` and left aside otherwise.
        schedule: the noise schedule, strided or not.
        x_T: starting noise of any shape (B, ...); device and type of the samples follow it. In
            half precision the network runs in half, the loop itself in float32.
        variance: "posterior" adds noise of variance :math:`\tilde\beta`, "beta" of variance β,
            "learned" of what the network says.
        prediction: what the network was trained to output, "eps", "x_0", "v" or "score"; without
            it ``model.prediction``, which the trainer sets, or else "eps".
        generator: one generator, or one for each sample so that sample i does not depend on its
            batch; on the device of x_T.
        clip: a range (lowest, highest) for the predicted data, or a function such as
            `dynamic_threshold` makes; ε is derived again from them.
        callback: called with a `Step` after each step; changing its x_s changes the run.
        progress: show a progress bar.
        grad: keep the graph, to differentiate the samples by x_T or by the network's weights.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Ho et al. 2020, algorithm 2. The mean is proved in chapter 03 (claims P5, P7, P9), that
    it may skip steps in chapter 11 (claim I13). As a sampler in chapter 07
    (claims S1, S2).
    In chapter 10: claims I16, I17.
    """
    check_schedule(schedule)
    variances = {
        "posterior": schedule.posterior_variance[1:],
        "beta": schedule.beta[1:],
        "learned": schedule.beta[1:],  # replaced step by step; it says where there is noise
    }
    check_choice("variance", variance, variances)
    noise_std = np.sqrt(variances[variance])
    noise_std[0] = 0.0  # the step to s = 0
    sigma = closed_forms.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    plan = _plan_to_data(schedule, prediction_of(model, prediction), sigma, noise_std)
    rule = _learned_rule if variance == "learned" else _first_order_rule
    return _run(model, plan, x_T, _Options(generator, clip, callback, progress, grad), rule)


def ddim(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    eta: float = 0.0,
    sigma: ArrayLike | None = None,
    prediction: str | None = None,
    generator: Generators = None,
    clip: Clip = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    r"""DDIM: :math:`\sigma=\eta\sqrt{\tilde\beta}`; deterministic at η = 0, DDPM at η = 1.

    Args:
        model: called as ``model(x_t, times)``.
        schedule: the noise schedule, strided or not.
        x_T: starting noise of any shape (B, ...); device and type of the samples follow it.
        eta: from 0 to 1, the share of DDPM's deviation. At 0 no random number is drawn.
        sigma: instead of eta, a table (T+1,) of deviations like those of the schedule: sigma[t] is
            that of the step from t, with :math:`\sigma_t^2\le1-\bar\alpha_{t-1}`, so
            ``sigma[1] == 0``; sigma[0] is not used.
        prediction, generator, clip, callback, progress, grad: as in `ddpm`.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Song et al. 2021, eq. 12 and 16. The step is proved in chapter 08 (claims I4, I5), over
    strides in chapter 11 (claim T6), as a code's decoder in chapter 12 (claim I15).
    In chapter 10: claims I2, I16, I17.
    """
    eta = check_number("eta", eta, _is_share, "in 0..1")
    check_schedule(schedule)
    if sigma is None:
        stds = closed_forms.ddim_sigma(eta, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    elif eta:
        raise ValueError(f"eta is {eta:g} and sigma is given too; give one of them.")
    else:
        stds = _own_sigma(schedule, sigma)
    plan = _plan_to_data(schedule, prediction_of(model, prediction), stds, stds)
    return _run(model, plan, x_T, _Options(generator, clip, callback, progress, grad))


def dpm_solver(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    prediction: str | None = None,
    clip: Clip = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    r"""DPM-Solver++ (2M): DDIM's step with the data as they will be half-way through it.

    The last two predictions of :math:`x_0` are continued on a straight line to the middle of the
    step (`closed_forms.extrapolated_x_0`). One network call a step, deterministic, and an error of
    second order in the stride where DDIM's is of first. The first step has no prediction before it
    and the last ends where the clock is infinite: both are DDIM's.

    Args:
        model, schedule, x_T, prediction, clip, callback, progress, grad: as in `ddpm`.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Lu et al. 2022, algorithm 2. Proved in chapter 16.
    """
    plan = _still_plan(model, schedule, prediction)._replace(answered=X_0)
    return _run(model, plan, x_T, _Options(None, clip, callback, progress, grad), _two_step_rule)


def heun(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    prediction: str | None = None,
    clip: Clip = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    r"""The probability-flow ODE by Heun's method: DDIM's step with the noise of both its ends.

    Each step is tried once, the network asked again where it leads, and the step taken anew with
    :math:`\tfrac12(\hat\epsilon_t+\hat\epsilon_s)`. Two network calls a step but for the last,
    2S - 1 in all; deterministic, with an error of second order in the stride. In the coordinates
    :math:`x/\sqrt{\bar\alpha}` against :math:`\sqrt{1-\bar\alpha}/\sqrt{\bar\alpha}` DDIM is
    Euler's method, and this is Heun's; so a schedule may not begin in pure noise, where both are
    infinite. One that begins close to it, as `NoiseSchedule.cosine` does, makes a very long first
    step there: `dpm_solver` does better.

    Args:
        model, schedule, x_T, prediction, clip, callback, progress, grad: as in `ddpm`.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Karras et al. 2022, algorithm 1; Song et al. 2021, eq. 14. Proved in chapter 16.
    """
    plan = _still_plan(model, schedule, prediction)
    if schedule.alpha_bar[-1] == 0:
        raise ValueError(
            "schedule ends in pure noise (alpha_bar_T = 0), which lies infinitely far out in "
            "Heun's coordinates; use dpm_solver or ddim, or a schedule that ends above 0."
        )
    return _run(model, plan, x_T, _Options(None, clip, callback, progress, grad), _heun_rule)


def encode(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    r"""The code of data: `ddim` at η = 0 run towards the noise, with the levels exchanged.

    .. math:: x_t=\sqrt{\bar\alpha_t}\,\hat x_0+\sqrt{1-\bar\alpha_t}\,\hat\epsilon,\qquad
              \hat x_0=\frac{x_s-\sqrt{1-\bar\alpha_s}\,\hat\epsilon}{\sqrt{\bar\alpha_s}}

    The network sees :math:`x_s` and is told the time of the noisier t, as `ddim` tells it on the
    way back. So it is never asked about clean data at time 0, which it has not been trained on, and
    with the same answer :math:`\hat\epsilon` the two steps undo each other exactly. What remains is
    that it answers at :math:`x_s` here and at :math:`x_t` there; that error falls like 1/S.
    ``ddim(model, schedule, x_T)`` with the same schedule decodes.

    Args:
        model: called as ``model(x_s, times)``.
        schedule: the noise schedule, strided or not.
        x_0: data of any shape (B, ...); device and type of the code follow it.
        prediction: what the network was trained to output, "eps", "x_0", "v" or "score"; without
            it ``model.prediction``, which the trainer sets, or else "eps". Whatever it is, it is
            read as ε first, with the level that the network was told.
        callback: called with a `Step` after each step; changing its x_s changes the run.
        progress: show a progress bar.
        grad: keep the graph.

    Returns:
        The code x_T, shaped like x_0. x_0 and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Song et al. 2021, sec. 4.3 and 5.4. Proved in chapter 12 (claim I15).
    """
    check_schedule(schedule)
    kind = prediction_of(model, prediction)
    check_readable(kind, schedule.alpha_bar[-1])
    kind = _told_level(kind, schedule.alpha_bar[1:])
    still = np.zeros(schedule.T)
    order = np.arange(schedule.T + 1)
    plan = _Plan(schedule, kind, order, still, still, kind, start="x_0", action="encoding")
    return _run(model, plan, x_0, _Options(None, None, callback, progress, grad))


def interpolate(x_a: Tensor, x_b: Tensor, share: float) -> Tensor:
    r"""The code that lies ``share`` of the way from x_a to x_b, on the arc between them.

    A sample counts as one vector. Noise of d coordinates has a norm close to :math:`\sqrt d`. The
    straight line between two of them passes nearer to the origin, at :math:`\sqrt{d/2}` in the
    middle, where the network has hardly ever seen noise. The arc keeps the norm.

    Args:
        x_a, x_b: codes of one shape (B, ...).
        share: from 0, which gives x_a, to 1, which gives x_b.

    Returns:
        Codes shaped like x_a.

    Raises:
        ValueError: if the shapes differ, a code is not of floating point, the share is outside
            0..1, or two codes are opposite, so that no arc between them is the shortest.

    Source: Song et al. 2021, appendix D.5. Proved in chapter 12 (claim I15).
    """
    check_samples(x_a=x_a, x_b=x_b)
    if x_a.shape != x_b.shape:
        raise ValueError(
            f"x_a and x_b have shapes {tuple(x_a.shape)} and {tuple(x_b.shape)}; "
            "they must have one shape."
        )
    share = check_number("share", share, _is_share, "in 0..1")
    if x_a.numel() == 0:
        return x_a.clone()
    working = torch.promote_types(x_a.dtype, torch.float32)
    flat_a, flat_b = (x.to(working).reshape(len(x), -1) for x in (x_a, x_b))
    # Half the angle from its tangent: exact for small angles too, where the cosine is flat.
    unit_a, unit_b = (torch.nn.functional.normalize(x, dim=1) for x in (flat_a, flat_b))
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=1), (unit_a + unit_b).norm(dim=1))
    if (angle > math.pi - _SMALLEST_ANGLE).any():
        raise ValueError("x_a and x_b hold opposite codes; no arc between them is the shortest.")
    weights = closed_forms.arc_weights(share, angle.clamp(min=_SMALLEST_ANGLE))
    blend = weights[0][:, None] * flat_a + weights[1][:, None] * flat_b
    return blend.reshape(x_a.shape).to(x_a.dtype)


def dynamic_threshold(share: float = 0.995, limit: float = 1.0) -> Callable[[Tensor], Tensor]:
    r"""A ``clip`` that adapts: each sample is cut off at a quantile of its own, and shrunk.

    Of the absolute values of a sample's predicted data the quantile q of that share is taken, or
    ``limit`` if it is smaller; the data are cut off at ±q and divided by q/limit. So nothing is
    beyond the limit, and strong guidance does not saturate whole areas. Any shape (B, ...) will do.

    Args:
        share: of the numbers that are not cut off, above 0 and up to 1.
        limit: the largest absolute value of the data.

    Raises:
        ValueError: if share or limit is outside its range.

    Source: Saharia et al. 2022, sec. 2.3.
    """
    share = check_number("share", share, lambda share: 0 < share <= 1, "above 0 and up to 1")
    limit = check_number("limit", limit, lambda limit: 0 < limit < math.inf, "above 0")

    def clip(x_0: Tensor) -> Tensor:
        check_samples(x_0=x_0)
        if x_0.numel() == 0:
            return x_0
        # By sorting: torch.quantile refuses batches of more than 16 million numbers.
        ordered = x_0.abs().reshape(len(x_0), -1).sort(dim=1).values
        place = share * (ordered.shape[1] - 1)
        low = math.floor(place)
        high = min(low + 1, ordered.shape[1] - 1)
        quantile = torch.lerp(ordered[:, low], ordered[:, high], place - low).clamp(min=limit)
        quantile = quantile.reshape(-1, *(1,) * (x_0.ndim - 1))
        return x_0.clamp(-quantile, quantile) * (limit / quantile)

    return clip


def guided(
    model: Model, labels: Tensor, scale: float, *, no_label: int | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""A network that is told labels, as one without: ``ddim(guided(model, labels, 3.0), ...)``.

    Classifier-free guidance, :math:`\epsilon_u+w\,(\epsilon_c-\epsilon_u)`: the labelled answer is
    exaggerated against the unlabelled one. The weights add up to 1, so the same holds for a
    predicted :math:`x_0`, v or score. Both answers come from one call of twice the batch; at
    scale 1 the labelled answer is all, and at 0 the unlabelled. In between and beyond, a learned
    variance is the labelled one.

    Args:
        model: called as ``model(x_t, times, labels)``.
        labels: int64 (B,), one for each sample, on the device of x_T.
        scale: w, 0 or more; 1 is the network with labels.
        no_label: the label that stands for none; without it ``model.config["classes"]``, which it
            is in the networks of this library.

    Raises:
        ValueError: if labels are not integers of shape (B,), the scale is negative or no number, or
            the model does not say which label stands for none.

    Source: Ho and Salimans 2022, eq. 6, with their w + 1 as scale. Proved in chapter 16.
    """
    if not torch.is_tensor(labels) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"labels is {labels!r:.60}; it must be an int64 tensor of shape (B,).")
    scale = check_number("scale", scale, lambda scale: 0 <= scale < math.inf, "of 0 or more")
    if no_label is None:
        config = getattr(model, "config", None)
        no_label = config.get("classes") if isinstance(config, Mapping) else None
    if no_label is None:
        raise ValueError(
            "no_label is None, and the model has no config with its number of classes; say which "
            "label stands for none."
        )
    check_model(model)
    return _Guided(model, labels, scale, check_integer("no_label", no_label, least=0))


class _Guided(nn.Module):
    """See `guided`."""

    def __init__(self, model: Model, labels: Tensor, scale: float, no_label: int) -> None:
        super().__init__()
        self.model, self.labels, self.scale = model, labels, scale
        self.none = torch.full_like(labels, no_label)
        for name in ("embed_times", "prediction"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, ...), t: (B,), or what `embed_times` made of one time -> the guided answer."""
        if len(x_t) != len(self.labels):
            raise ValueError(
                f"labels has {len(self.labels)} entries; it must have one for each of the "
                f"{len(x_t)} samples."
            )
        if self.scale in (0.0, 1.0):
            return self.model(x_t, t, self.labels if self.scale else self.none)
        if t.ndim == 1:
            t = t[:1].expand(2 * len(x_t)) if t.stride(0) == 0 else torch.cat([t, t])
        elif len(t) > 1:
            t = torch.cat([t, t])
        labels = torch.cat([self.labels, self.none])
        with_label, without = self.model(torch.cat([x_t, x_t]), t, labels).chunk(2)
        (with_label, v), (without, _) = (
            split_output(output, x_t, "x_t") for output in (with_label, without)
        )
        answer = closed_forms.guided_eps(with_label, without, self.scale)
        return answer if v is None else torch.cat([answer, v], dim=1)


# --- How a run is made ----------------------------------------------------------------------------


class _Options(NamedTuple):
    """What all samplers have in common."""

    generator: Generators = None
    clip: Clip = None
    callback: Callback | None = None
    progress: bool = False
    grad: bool = False


class _Plan(NamedTuple):
    """Everything a run needs but the network. Row i belongs to the i-th step that is taken.

    Attributes:
        schedule, kind: the noise schedule, and how to read the network's output.
        order: the entries of the schedule that the run passes, one more than there are steps.
        sigma, noise_std: of each step.
        answered: what the steps are written in: the prediction itself, or the data where these are
            clipped or needed.
        start, action: what messages call the samples the run starts from, and what it does.
    """

    schedule: NoiseSchedule
    kind: Prediction
    order: NDArray[np.int64]
    sigma: Table
    noise_std: Table
    answered: Prediction
    start: str = "x_T"
    action: str = "sampling"

    @property
    def told(self) -> NDArray[np.int64]:
        """What the network is told at each step: the time of the step's noisier end."""
        return self.schedule.times[np.maximum(self.order[:-1], self.order[1:])]

    @property
    def here(self) -> Table:
        """The level each step starts from."""
        return self.schedule.alpha_bar[self.order[:-1]]

    @property
    def there(self) -> Table:
        """The level each step leads to."""
        return self.schedule.alpha_bar[self.order[1:]]

    def x_0(self, x_t: Number, output: Number) -> Number:
        return self.kind.x_0(x_t, output, self.here)

    def step(self, x_t: Number, answer: Number) -> Number:
        """The mean of the new sample in terms of the answer."""
        x_0 = self.answered.x_0(x_t, answer, self.here)
        eps = self.answered.eps(x_t, answer, self.here)
        return closed_forms.reverse_mean(x_0, eps, self.there, self.sigma)

    def rows(
        self, formula: Callable[..., Number], count: int = 2, largest: float = LARGEST_WEIGHT
    ) -> list[tuple[float, ...]]:
        """The coefficients of a formula for each step, in float64."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            columns = [
                np.broadcast_to(column, self.sigma.shape)
                for column in closed_forms.coefficients(formula, count)
            ]
        if not (np.abs(columns) < largest).all():  # NaN is not below either
            raise ValueError(
                f"schedule is {self.schedule!r}; some of its levels are too close to each other, "
                "to 0 or to 1 for float64 to compute the step between them."
            )
        return list(zip(*(column.tolist() for column in columns), strict=True))


def _plan_to_data(
    schedule: NoiseSchedule, kind: Prediction, sigma: Table, noise_std: Table
) -> _Plan:
    """The plan from the noisiest entry to the data; tables by entry, as a schedule has them."""
    check_readable(kind, schedule.alpha_bar[-1])
    # The largest sigma is a rounded root, whose square may exceed the variance there is.
    largest = closed_forms.noised(0.0, 1.0, schedule.alpha_bar[:-1])
    sigma = np.minimum(sigma, np.nextafter(largest, 0.0))
    order = np.arange(schedule.T, -1, -1)
    return _Plan(schedule, kind, order, sigma[::-1], noise_std[::-1], answered=kind)


def _still_plan(model: Model, schedule: NoiseSchedule, prediction: str | None) -> _Plan:
    """The plan of a sampler without noise."""
    check_schedule(schedule)
    still = np.zeros(schedule.T)
    return _plan_to_data(schedule, prediction_of(model, prediction), still, still)


def _own_sigma(schedule: NoiseSchedule, sigma: ArrayLike) -> Table:
    """The deviations a user gives, if every step is one of the family."""
    table = as_table("sigma", sigma)
    if table.shape != (schedule.T + 1,):
        raise ValueError(
            f"sigma has shape {table.shape}; it must hold {schedule.T + 1} deviations, that of the "
            "step from t at index t."
        )
    largest = closed_forms.noised(0.0, 1.0, schedule.alpha_bar[:-1])
    bad = np.flatnonzero(~((table[1:] >= 0) & (table[1:] <= largest)))
    if len(bad):
        t = bad[0] + 1
        raise ValueError(
            f"sigma[{t}] is {table[t]:g}; it must lie in 0..{largest[t - 1]:g}, the root of "
            "1 - alpha_bar of the step's end."
        )
    return table[1:]


def _told_level(kind: Prediction, alpha_bar_t: Table) -> Prediction:
    """A network that is told the level t and shown a sample of another level."""

    def eps(x_s: Number, output: Number, alpha_bar_s: Number) -> Number:
        return kind.eps(x_s, output, alpha_bar_t)

    def x_0(x_s: Number, output: Number, alpha_bar_s: Number) -> Number:
        return closed_forms.x_0_from_eps(x_s, eps(x_s, output, alpha_bar_s), alpha_bar_s)

    return replace(kind, x_0=x_0, eps=eps)


# --- How a run steps ------------------------------------------------------------------------------
# A rule prepares a plan's weights and returns the step: (number, x, ask) -> (new x, first answer).

Ask = Callable[[int, Tensor], tuple[Tensor, Tensor | None]]
"""(number of the step, x) -> the network's answer, and what it says of the variance if it does."""
Advance = Callable[[int, Tensor, Ask], tuple[Tensor, Tensor]]
Rule = Callable[[_Plan, Generators, Tensor], Advance]
Weights = tuple[Tensor | float, ...]


def _first_order_rule(plan: _Plan, generator: Generators, like: Tensor) -> Advance:
    """One answer, one step: DDPM, DDIM and everything between."""
    rows, stds = _weights(plan.rows(plan.step), like), plan.noise_std.tolist()

    def advance(number: int, x: Tensor, ask: Ask) -> tuple[Tensor, Tensor]:
        answer, _ = ask(number, x)
        x = _combine(rows[number], x, answer)
        if stds[number] > 0:
            x.add_(_standard_normal(x, generator), alpha=stds[number])
        return x, answer

    return advance


def _learned_rule(plan: _Plan, generator: Generators, like: Tensor) -> Advance:
    """The same with noise of the variance that the network says."""
    rows, stds = _weights(plan.rows(plan.step), like), plan.noise_std.tolist()
    levels = list(zip(plan.there.tolist(), plan.here.tolist(), strict=True))

    def advance(number: int, x: Tensor, ask: Ask) -> tuple[Tensor, Tensor]:
        answer, v = ask(number, x)
        x = _combine(rows[number], x, answer)
        if stds[number] > 0:
            law = Gaussian(x, variance_said(v, *levels[number]))
            x = closed_forms.draw(law, _standard_normal(x, generator)).to(x.dtype)
        return x, answer

    return advance


def _two_step_rule(plan: _Plan, generator: Generators, like: Tensor) -> Advance:
    """DDIM's step with the data extrapolated from the last two answers."""
    rows = _weights(plan.rows(plan.step), like)
    # But for the first and the last step.
    inner = plan._replace(order=plan.order[1:-1], sigma=plan.sigma[1:-1])

    def halfway(x_0: Number, before: Number) -> Number:
        return closed_forms.extrapolated_x_0(x_0, before, plan.here[:-2], inner.here, inner.there)

    blends = _weights(inner.rows(halfway, largest=_LARGEST_SHARE), like)
    last: list[Tensor] = []

    def advance(number: int, x: Tensor, ask: Ask) -> tuple[Tensor, Tensor]:
        x_0, _ = ask(number, x)
        inside = 0 < number < len(rows) - 1
        middle = _combine(blends[number - 1], x_0, last[0]) if inside else x_0
        x = _combine(rows[number], x, middle)
        # The network may write its next answer where it wrote this one.
        last[:] = [x_0.clone() if plan.kind is X_0 else x_0]
        return x, x_0

    return advance


def _heun_rule(plan: _Plan, generator: Generators, like: Tensor) -> Advance:
    """DDIM's step tried, the network asked where it leads, the step taken with the mean noise."""
    tries = _weights(plan.rows(plan.step), like)
    inner = plan._replace(order=plan.order[:-1], sigma=plan.sigma[:-1])  # but for the last step

    def with_mean_eps(x_t: Number, answer: Number, x_s: Number, second: Number) -> Number:
        eps_t = plan.answered.eps(x_t, answer, inner.here)
        eps_s = plan.answered.eps(x_s, second, inner.there)
        eps = (eps_t + eps_s) / 2
        x_0 = closed_forms.x_0_from_eps(x_t, eps, inner.here)
        return closed_forms.reverse_mean(x_0, eps, inner.there, inner.sigma)

    rows = _weights(inner.rows(with_mean_eps, 4), like)

    def advance(number: int, x: Tensor, ask: Ask) -> tuple[Tensor, Tensor]:
        answer, _ = ask(number, x)
        tried = _combine(tries[number], x, answer)
        if number == len(rows):
            return tried, answer
        # Summed up before the network is asked again: it may write where it wrote this answer.
        x = _combine(rows[number][:3], x, answer, tried)
        answer = answer.clone()
        second, _ = ask(number + 1, tried)
        return _add(x, second, rows[number][3]), answer

    return advance


def _run(
    model: Model, plan: _Plan, x_start: Tensor, options: _Options, rule: Rule = _first_order_rule
) -> Tensor:
    check_model(model)
    _check(x_start, plan.start, options)
    if options.clip is not None:
        plan = plan._replace(answered=X_0)
    working = torch.promote_types(x_start.dtype, torch.float32)
    x = x_start.to(working)
    asked_for = options.callback is not None or plan.answered is not plan.kind
    x_0_rows = _weights(plan.rows(plan.x_0), x) if asked_for else []
    advance = rule(plan, options.generator, x)
    passed = plan.schedule.times[plan.order].tolist()
    steps = tqdm(range(plan.schedule.T), disable=not options.progress, desc=plan.action)
    with torch.set_grad_enabled(options.grad), evaluating(model):
        ask = _asking(model, plan, x_start, options.clip, x_0_rows)
        for number in steps:
            before = x
            x, answer = advance(number, x, ask)
            if options.callback is not None:
                direct = plan.answered is X_0
                x_0 = answer.clone() if direct else _combine(x_0_rows[number], before, answer)
                options.callback(Step(number, passed[number], passed[number + 1], x, x_0))
    return x.to(x_start.dtype)


def _asking(model: Model, plan: _Plan, like: Tensor, clip: Clip, x_0_rows: list[Weights]) -> Ask:
    """The network as the rules ask it: told its times, its output read, the data clipped."""
    told = _told(model, plan.told, like)
    clipped: Callable[[Tensor], Tensor] | None
    if callable(clip) or clip is None:
        clipped = clip
    else:
        clipped = partial(torch.clamp, min=float(clip[0]), max=float(clip[1]))
    converts = plan.answered is not plan.kind

    def ask(number: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        output = model(x.to(like.dtype), told[number])
        answer, v = split_output(output, like, plan.start)
        answer = answer.to(x.dtype)
        if converts:
            answer = _combine(x_0_rows[number], x, answer)
        if clipped is not None:
            free, answer = answer, clipped(answer)
            check_output(answer, free, "the data", "What clip returns")
        return answer, v

    return ask


def _told(model: Model, times: NDArray[np.int64], x: Tensor) -> Sequence[Tensor]:
    """What the network is told at each step: its own embedding of the time, where it has one.

    All of it is made before the loop, which then builds no tensor and reads none back from the
    device.
    """
    t = torch.from_numpy(times.copy()).to(x.device)
    if hasattr(model, "embed_times"):
        return model.embed_times(t).split(1)
    return t[:, None].expand(-1, len(x)).unbind()


def _weights(rows: Sequence[Sequence[float]], like: Tensor) -> list[Weights]:
    """The first weight of each row as a tensor: multiplying by one is faster than by a float."""
    first = torch.tensor([row[0] for row in rows], device=like.device, dtype=like.dtype)
    return [(a, *row[1:]) for a, row in zip(first.unbind(), rows, strict=True)]


def _combine(weights: Weights, x: Tensor, *others: Tensor) -> Tensor:
    total = x * weights[0]
    for weight, y in zip(weights[1:], others, strict=True):
        total = _add(total, y, weight)
    return total


def _add(x: Tensor, y: Tensor, weight: Tensor | float) -> Tensor:
    return torch.add(x, y, alpha=weight)  # type: ignore[arg-type]


def _standard_normal(like: Tensor, generator: Generators) -> Tensor:
    # In one order of memory whatever that of the samples is: it decides which draw goes where.
    noise = torch.empty_like(like, memory_format=torch.contiguous_format)
    if generator is None or isinstance(generator, torch.Generator):
        return noise.normal_(generator=generator)
    for row, source in zip(noise, generator, strict=True):
        row.normal_(generator=source)
    return noise


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _check(x_start: Tensor, start: str, options: _Options) -> None:
    generator, callback = options.generator, options.callback
    check_samples(**{start: x_start})
    sources = list(generator) if isinstance(generator, Sequence) else [generator]
    if isinstance(generator, Sequence) and len(generator) != len(x_start):
        raise ValueError(
            f"generator has {len(generator)} entries; "
            f"it must be one generator, or one for each of the {len(x_start)} samples."
        )
    for source in sources:
        check_generator(source)
        if source is not None and source.device.type != x_start.device.type:
            raise ValueError(
                f"generator is on {source.device}; "
                f"it must be on the device {x_start.device} of {start}."
            )
    if callback is not None and not callable(callback):
        raise ValueError(f"callback is {callback!r:.60}; it must be a function of a Step.")
    if options.clip is not None and not callable(options.clip):
        _check_range(options.clip)


def _check_range(clip: object) -> None:
    if not isinstance(clip, list | tuple) or len(clip) != 2:
        raise ValueError(
            f"clip is {clip!r:.60}; it must be a pair (lowest, highest) or a function."
        )
    low, high = (
        check_number(f"clip[{i}]", end, lambda end: not math.isnan(end), "or infinite")
        for i, end in enumerate(clip)
    )
    if not low < high:
        raise ValueError(f"clip is {clip!r:.60}; its lowest must be below its highest.")
