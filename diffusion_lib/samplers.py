r"""Samplers: one family of steps, from noise to data.

Every step from t to its neighbour s is

.. math:: x_s=\sqrt{\bar\alpha_s}\,\hat x_0
          +\sqrt{1-\bar\alpha_s-\sigma^2}\,\hat\epsilon+\text{noise}

with :math:`\hat x_0,\hat\epsilon` read off the network's output. `ddpm` and `ddim` differ in σ and
in the noise, nothing else. A strided sampler is the same sampler on a strided schedule. The step is
linear, so its coefficients are computed once, in float64, by evaluating `closed_forms` at unit
vectors; the loop only multiplies and adds. The last step, to s = 0, adds no noise.
(Chapters 03, 08 and 15.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import closed_forms
from .closed_forms import Number
from .objectives import Model, check_output
from .prediction import Prediction, get_prediction
from .process import check_samples
from .schedule import NoiseSchedule, Table

_LARGEST_WEIGHT = 1e30  # beyond it float32 overflows

Generators = torch.Generator | Sequence[torch.Generator] | None
Callback = Callable[["Step"], object]


class Step(NamedTuple):
    """What a callback is shown after each step.

    Attributes:
        number: 0, 1, ..., S - 1.
        t, s: the network times the step came from and went to.
        x_s: the new sample.
        x_0: the data predicted at t, clipped if the sampler clips.
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

    Source: Ho et al. 2020, algorithm 2. The mean is proved in chapter 03 (claims P5, P7, P9).
    """
    _check_schedule(schedule)
    betas = {"posterior": schedule.posterior_variance[1:], "beta": schedule.beta[1:]}
    if variance not in betas:
        raise ValueError(f"variance is {variance!r}; it must be one of {', '.join(betas)}.")
    noise_std = np.sqrt(betas[variance])
    noise_std[0] = 0.0  # the step to s = 0
    sigma = closed_forms.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    plan = _Plan(schedule, get_prediction(prediction), sigma, noise_std)
    return _sample(model, plan, x_T, generator, clip, callback, progress)


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

    Source: Song et al. 2021, eq. 12 and 16. The step is proved in chapter 08 (claims I4, I5).
    """
    if not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta!r}; it must be a number in 0..1.")
    _check_schedule(schedule)
    sigma = closed_forms.ddim_sigma(eta, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    plan = _Plan(schedule, get_prediction(prediction), sigma, sigma)
    return _sample(model, plan, x_T, generator, clip, callback, progress)


class _Plan(NamedTuple):
    """Everything a run needs but the network: row i belongs to the step from t = i + 1 to s = i."""

    schedule: NoiseSchedule
    kind: Prediction
    sigma: Table
    noise_std: Table

    def x_0(self, x_t: Number, output: Number) -> Number:
        return self.kind.x_0(x_t, output, self.schedule.alpha_bar[1:])

    def step_from_output(self, x_t: Number, output: Number) -> Number:
        """The mean of x_s in terms of what the network said."""
        alpha_bar_s, alpha_bar_t = self.schedule.alpha_bar[:-1], self.schedule.alpha_bar[1:]
        x_0 = self.kind.x_0(x_t, output, alpha_bar_t)
        eps = self.kind.eps(x_t, output, alpha_bar_t)
        return closed_forms.reverse_mean(x_0, eps, alpha_bar_s, self.sigma)

    def step_from_x_0(self, x_t: Number, x_0: Number) -> Number:
        """The mean of x_s in terms of the (clipped) predicted data."""
        alpha_bar_s, alpha_bar_t = self.schedule.alpha_bar[:-1], self.schedule.alpha_bar[1:]
        eps = closed_forms.eps_from_x_0(x_t, x_0, alpha_bar_t)
        return closed_forms.reverse_mean(x_0, eps, alpha_bar_s, self.sigma)

    def rows(self, formula: Callable[[Number, Number], Number]) -> list[tuple[float, float]]:
        """The two coefficients of a formula for each step, in float64, noisiest step first."""
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
        return list(zip(*(column[::-1].tolist() for column in columns), strict=True))


def _sample(
    model: Model,
    plan: _Plan,
    x_T: Tensor,
    generator: Generators,
    clip: tuple[float, float] | None,
    callback: Callback | None,
    progress: bool,
) -> Tensor:
    _check(x_T, generator, clip)
    times = plan.schedule.times
    x_0_rows = plan.rows(plan.x_0)
    step_rows = plan.rows(plan.step_from_output if clip is None else plan.step_from_x_0)
    noise_stds = plan.noise_std[::-1].tolist()
    # One view a step, made before the loop: the loop itself builds no tensor and reads none back.
    batches = torch.tensor(times[:0:-1].copy(), device=x_T.device)[:, None].expand(-1, len(x_T))
    working = torch.promote_types(x_T.dtype, torch.float32)
    x = x_T.to(working)
    with torch.no_grad(), _evaluating(model):
        for index, t in enumerate(tqdm(batches.unbind(), disable=not progress, desc="sampling")):
            output = model(x.to(x_T.dtype), t)
            check_output(output, x, "x_T")
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
                here = plan.schedule.T - index
                callback(Step(index, int(times[here]), int(times[here - 1]), x, x_0))
    return x.to(x_T.dtype)


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


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
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


def _check_schedule(schedule: NoiseSchedule) -> None:
    if not isinstance(schedule, NoiseSchedule):
        raise ValueError(f"schedule is {schedule!r:.60}; it must be a NoiseSchedule.")


def _check(x_T: Tensor, generator: Generators, clip: tuple[float, float] | None) -> None:
    check_samples(x_T=x_T)
    sources = list(generator) if isinstance(generator, Sequence) else [generator]
    if not all(source is None or isinstance(source, torch.Generator) for source in sources):
        raise ValueError(f"generator is {generator!r:.60}; it must be a torch.Generator.")
    if isinstance(generator, Sequence) and len(generator) != len(x_T):
        raise ValueError(
            f"generator has {len(generator)} entries; "
            f"it must be one generator, or one for each of the {len(x_T)} samples."
        )
    for source in sources:
        if source is not None and source.device.type != x_T.device.type:
            raise ValueError(
                f"generator is on {source.device}; it must be on the device {x_T.device} of x_T."
            )
    pair = isinstance(clip, Sequence) and len(clip) == 2
    if clip is not None and not (pair and clip[0] < clip[1]):
        raise ValueError(f"clip is {clip}; it must be a pair (lowest, highest).")
