r"""Samplers: one family of steps, from noise to data, and DDIM's way back.

Every step from t to its neighbour s is

.. math:: x_s=\sqrt{\bar\alpha_s}\,\hat x_0
          +\sqrt{1-\bar\alpha_s-\sigma^2}\,\hat\epsilon+\text{noise}

with :math:`\hat x_0,\hat\epsilon` read off the network's output. `ddpm` and `ddim` differ in σ and
in the noise, nothing else. A strided sampler is the same sampler on a strided schedule. The step is
linear, so its coefficients are computed once, in float64, by evaluating `closed_forms` at unit
vectors; the loop only multiplies and adds. The last step, to s = 0, adds no noise.

`encode` runs `ddim` at η = 0 towards the noise: the same step with the levels exchanged. What it
returns is a code that `ddim` decodes, and codes can be blended with `interpolate`.
(Chapters 03, 08, 11, 12 and 15.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from . import closed_forms
from .closed_forms import Number
from .objectives import Model, check_output, evaluating
from .prediction import Prediction, get_prediction
from .process import check_samples
from .schedule import NoiseSchedule, Table

_LARGEST_WEIGHT = 1e30  # beyond it float32 overflows
_SMALLEST_ANGLE = 1e-4  # below it an arc is a straight line, to the digits of float32

Generators = torch.Generator | Sequence[torch.Generator] | None
Callback = Callable[["Step"], object]


class Step(NamedTuple):
    """What a callback is shown after each step.

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
    prediction: str = "eps",
    generator: Generators = None,
    clip: tuple[float, float] | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Ancestral sampling: :math:`x_s=\tilde\mu(x_t,\hat x_0)+\text{deviation}\cdot z`.

    Args:
        model: called as ``model(x_t, times)``.
        schedule: the noise schedule, strided or not.
        x_T: starting noise of any shape (B, ...); device and type of the samples follow it. In
            half precision the network runs in half, the loop itself in float32.
        variance: "posterior" adds noise of variance :math:`\tilde\beta`, "beta" of variance β.
        prediction: what the network was trained to output.
        generator: one generator, or one for each sample so that sample i does not depend on its
            batch; on the device of x_T.
        clip: a range (lowest, highest) for the predicted data; ε is derived again from it.
        callback: called with a `Step` after each step; changing its tensors changes the run.
        progress: show a progress bar.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Ho et al. 2020, algorithm 2. The mean is proved in chapter 03 (claims P5, P7, P9), that
    it may skip steps in chapter 11 (claim I13). As a sampler in chapter 07
    (claims S1, S2).
    In chapter 10: claims I16, I17.
    """
    _check_schedule(schedule)
    betas = {"posterior": schedule.posterior_variance[1:], "beta": schedule.beta[1:]}
    if variance not in betas:
        raise ValueError(f"variance is {variance!r}; it must be one of {', '.join(betas)}.")
    noise_std = np.sqrt(betas[variance])
    noise_std[0] = 0.0  # the step to s = 0
    sigma = closed_forms.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    plan = _plan_to_data(schedule, get_prediction(prediction), sigma, noise_std)
    return _run(model, plan, x_T, generator, clip, callback, progress)


def ddim(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    eta: float = 0.0,
    prediction: str = "eps",
    generator: Generators = None,
    clip: tuple[float, float] | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Tensor:
    r"""DDIM: :math:`\sigma=\eta\sqrt{\tilde\beta}`; deterministic at η = 0, DDPM at η = 1.

    Args:
        model: called as ``model(x_t, times)``.
        schedule: the noise schedule, strided or not.
        x_T: starting noise of any shape (B, ...); device and type of the samples follow it.
        eta: from 0 to 1, the share of DDPM's deviation. At 0 no random number is drawn.
        prediction, generator, clip, callback, progress: as in `ddpm`.

    Returns:
        Samples shaped like x_T. x_T and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Song et al. 2021, eq. 12 and 16. The step is proved in chapter 08 (claims I4, I5), over
    strides in chapter 11 (claim T6), as a code's decoder in chapter 12 (claim I15).
    In chapter 10: claims I2, I16, I17.
    """
    if not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta!r}; it must be a number in 0..1.")
    _check_schedule(schedule)
    sigma = closed_forms.ddim_sigma(eta, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    plan = _plan_to_data(schedule, get_prediction(prediction), sigma, sigma)
    return _run(model, plan, x_T, generator, clip, callback, progress)


def encode(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    callback: Callback | None = None,
    progress: bool = False,
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
        prediction: what the network was trained to output.
        callback: called with a `Step` after each step; changing its tensors changes the run.
        progress: show a progress bar.

    Returns:
        The code x_T, shaped like x_0. x_0 and the model are left as they were.

    Raises:
        ValueError: for an argument outside its range; nothing has been run then.

    Source: Song et al. 2021, sec. 4.3 and 5.4. Proved in chapter 12 (claim I15).
    """
    _check_schedule(schedule)
    kind = _told(get_prediction(prediction), schedule.alpha_bar[1:])
    still = np.zeros(schedule.T)
    order = np.arange(schedule.T + 1)
    plan = _Plan(schedule, kind, order, still, still, start="x_0", action="encoding")
    return _run(model, plan, x_0, None, None, callback, progress)


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
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; it must be a number in 0..1.")
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


class _Plan(NamedTuple):
    """Everything a run needs but the network. Row i belongs to the i-th step that is taken.

    Attributes:
        schedule, kind: the noise schedule, and how to read the network's output.
        order: the entries of the schedule that the run passes, one more than there are steps.
        sigma, noise_std: of each step.
        start, action: what messages call the samples the run starts from, and what it does.
    """

    schedule: NoiseSchedule
    kind: Prediction
    order: NDArray[np.int64]
    sigma: Table
    noise_std: Table
    start: str = "x_T"
    action: str = "sampling"

    @property
    def told(self) -> NDArray[np.int64]:
        """What the network is told at each step: the time of the step's noisier end."""
        return self.schedule.times[np.maximum(self.order[:-1], self.order[1:])]

    def x_0(self, x_t: Number, output: Number) -> Number:
        return self.kind.x_0(x_t, output, self.schedule.alpha_bar[self.order[:-1]])

    def step_from_output(self, x_t: Number, output: Number) -> Number:
        """The mean of the new sample in terms of what the network said."""
        here, there = (self.schedule.alpha_bar[i] for i in (self.order[:-1], self.order[1:]))
        x_0, eps = self.kind.x_0(x_t, output, here), self.kind.eps(x_t, output, here)
        return closed_forms.reverse_mean(x_0, eps, there, self.sigma)

    def step_from_x_0(self, x_t: Number, x_0: Number) -> Number:
        """The mean of the new sample in terms of the (clipped) predicted data."""
        here, there = (self.schedule.alpha_bar[i] for i in (self.order[:-1], self.order[1:]))
        eps = closed_forms.eps_from_x_0(x_t, x_0, here)
        return closed_forms.reverse_mean(x_0, eps, there, self.sigma)

    def rows(self, formula: Callable[[Number, Number], Number]) -> list[tuple[float, float]]:
        """The two coefficients of a formula for each step, in float64."""
        with np.errstate(invalid="ignore"):
            columns = [
                np.broadcast_to(column, self.sigma.shape)
                for column in closed_forms.coefficients(formula, 2)
            ]
        if not (np.abs(columns) < _LARGEST_WEIGHT).all():  # NaN is not below either
            raise ValueError(
                f"schedule is {self.schedule!r}; some of its levels are too close to 0 or 1 for "
                "float64 to compute the step between them."
            )
        return list(zip(*(column.tolist() for column in columns), strict=True))


def _plan_to_data(
    schedule: NoiseSchedule, kind: Prediction, sigma: Table, noise_std: Table
) -> _Plan:
    """The plan from the noisiest entry to the data; tables by entry, as a schedule has them."""
    return _Plan(schedule, kind, np.arange(schedule.T, -1, -1), sigma[::-1], noise_std[::-1])


def _told(kind: Prediction, alpha_bar_t: Table) -> Prediction:
    """A network that is told the level t and shown a sample of another level."""

    def eps(x_s: Number, output: Number, alpha_bar_s: Number) -> Number:
        return kind.eps(x_s, output, alpha_bar_t)

    def x_0(x_s: Number, output: Number, alpha_bar_s: Number) -> Number:
        return closed_forms.x_0_from_eps(x_s, eps(x_s, output, alpha_bar_s), alpha_bar_s)

    return replace(kind, x_0=x_0, eps=eps)


def _run(
    model: Model,
    plan: _Plan,
    x_start: Tensor,
    generator: Generators,
    clip: tuple[float, float] | None,
    callback: Callback | None,
    progress: bool,
) -> Tensor:
    _check(x_start, plan.start, generator, clip)
    x_0_rows = plan.rows(plan.x_0)
    step_rows = plan.rows(plan.step_from_output if clip is None else plan.step_from_x_0)
    noise_stds = plan.noise_std.tolist()
    passed = plan.schedule.times[plan.order].tolist()
    # One view a step, made before the loop: the loop itself builds no tensor and reads none back.
    batches = torch.tensor(plan.told, device=x_start.device)[:, None].expand(-1, len(x_start))
    working = torch.promote_types(x_start.dtype, torch.float32)
    x = x_start.to(working)
    with torch.no_grad(), evaluating(model):
        for index, t in enumerate(tqdm(batches.unbind(), disable=not progress, desc=plan.action)):
            output = model(x.to(x_start.dtype), t)
            check_output(output, x, plan.start)
            output = output.to(working)
            x_0 = None
            if clip is not None or callback is not None:
                x_0 = _combine(x_0_rows[index], x, output)
            if clip is not None and x_0 is not None:
                x_0 = output = x_0.clamp(*clip)
            x = _combine(step_rows[index], x, output)
            if noise_stds[index] > 0:
                x.add_(_standard_normal(x, generator), alpha=noise_stds[index])
            if callback is not None and x_0 is not None:
                callback(Step(index, passed[index], passed[index + 1], x, x_0))
    return x.to(x_start.dtype)


def _combine(weights: tuple[float, float], x: Tensor, y: Tensor) -> Tensor:
    return torch.add(x * weights[0], y, alpha=weights[1])


def _standard_normal(like: Tensor, generator: Generators) -> Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    rows = [
        torch.randn(like.shape[1:], generator=g, device=like.device, dtype=like.dtype)
        for g in generator
    ]
    return torch.stack(rows)


def _check_schedule(schedule: NoiseSchedule) -> None:
    if not isinstance(schedule, NoiseSchedule):
        raise ValueError(f"schedule is {schedule!r:.60}; it must be a NoiseSchedule.")


def _check(
    x_start: Tensor, start: str, generator: Generators, clip: tuple[float, float] | None
) -> None:
    check_samples(**{start: x_start})
    sources = list(generator) if isinstance(generator, Sequence) else [generator]
    if not all(source is None or isinstance(source, torch.Generator) for source in sources):
        raise ValueError(f"generator is {generator!r:.60}; it must be a torch.Generator.")
    if isinstance(generator, Sequence) and len(generator) != len(x_start):
        raise ValueError(
            f"generator has {len(generator)} entries; "
            f"it must be one generator, or one for each of the {len(x_start)} samples."
        )
    for source in sources:
        if source is not None and source.device.type != x_start.device.type:
            raise ValueError(
                f"generator is on {source.device}; "
                f"it must be on the device {x_start.device} of {start}."
            )
    pair = isinstance(clip, Sequence) and len(clip) == 2
    if clip is not None and not (pair and clip[0] < clip[1]):
        raise ValueError(f"clip is {clip}; it must be a pair (lowest, highest).")
