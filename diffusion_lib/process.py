r"""The forward process and its posterior, on tensors.

Every function here evaluates one closed form over the whole schedule in float64 on the CPU, keeps
the resulting coefficients on the data's device, and picks the rows of the steps t. Nothing is
recomputed, rebuilt or moved between devices in a training loop. (Chapters 02 and 03.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import closed_forms
from .closed_forms import Gaussian, Number
from .schedule import NoiseSchedule, check_schedule

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def add_noise(schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    r"""A draw of q(x_t | x_0), :math:`\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon`.

    Args:
        schedule: the noise schedule.
        x_0: data of shape (B, ...).
        t: steps 0..T, integers of shape (B,).
        eps: standard normal noise of the shape of x_0.

    Returns:
        x_t of the shape and type of x_0.

    Raises:
        ValueError: if t is no integer tensor of shape (B,) within 0..T, eps differs in shape, or a
            sample is not of floating point. (Looking at t makes a GPU wait; `simple_loss` draws its
            own t and does not.)
    """
    _check_same_shape(x_0=x_0, eps=eps)
    check_steps(schedule, t, x_0, least=0)
    return linear_at(closed_forms.noised, schedule, t, (x_0, eps))


def posterior(schedule: NoiseSchedule, x_t: Tensor, x_0: Tensor, t: Tensor) -> Gaussian:
    r""":math:`q(x_{t-1}\mid x_t,x_0)` between neighbours of the schedule.

    Args:
        schedule: the noise schedule; in a strided one the neighbour of a step is the kept step
            before it.
        x_t, x_0: tensors of shape (B, ...).
        t: steps 1..T, integers of shape (B,).

    Returns:
        The mean, shaped like x_t, and the variance, which broadcasts against it.

    Raises:
        ValueError: if t is no integer tensor of shape (B,) within 1..T, the shapes differ, or a
            sample is not of floating point.
    """
    _check_same_shape(x_t=x_t, x_0=x_0)
    check_steps(schedule, t, x_t, least=1)
    mean = linear_at(closed_forms.posterior_mean, schedule, t, (x_t, x_0), neighbours=True)
    variance = _on_device(schedule, "posterior_variance", x_t.dtype, x_t.device)[t]
    return Gaussian(mean, variance.reshape(-1, *(1,) * (x_t.ndim - 1)))


def linear_at(
    formula: Callable[..., Number],
    schedule: NoiseSchedule,
    t: Tensor,
    samples: Sequence[Tensor],
    neighbours: bool = False,
) -> Tensor:
    """A closed form that is linear in its samples, evaluated at the steps t.

    The formula's last arguments are the noise levels: ``alpha_bar_t``, preceded by ``alpha_bar_s``
    of the entry before t when ``neighbours`` is set. The arithmetic runs in float32 at least. t is
    not checked.
    """
    like = samples[0]
    working = torch.promote_types(like.dtype, torch.float32)
    tables = _tables(formula, len(samples), neighbours, schedule, working, like.device)
    total: Tensor | None = None
    for table, sample in zip(tables, samples, strict=True):
        if isinstance(table, Tensor):
            term = table[t].reshape(-1, *(1,) * (like.ndim - 1)) * sample
        elif table == 0:  # the formula ignores this sample
            continue
        else:
            term = sample if table == 1 else table * sample
        total = term if total is None else total + term
    assert total is not None
    return total.to(like.dtype)


def network_times(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """The times (B,) that the network is told at the steps t, which are not checked."""
    return _on_device(schedule, "times", torch.int64, t.device)[t]


def levels_at(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\bar\alpha_s,\bar\alpha_t` of the steps t ≥ 1, which are not checked, by row of like.

    In float64, because :math:`1-\bar\alpha` has few digits in float32; MPS has none.
    """
    working = torch.float32 if like.device.type == "mps" else torch.float64
    table = _on_device(schedule, "alpha_bar", working, like.device)
    rows = (-1, *(1,) * (like.ndim - 1))
    return table[t - 1].reshape(rows), table[t].reshape(rows)


def check_one_each(t: Tensor, x: Tensor) -> None:
    """Raise ValueError unless t holds one integer for each row of x, whichever."""
    if not torch.is_tensor(t):
        raise ValueError(f"t is {t!r:.60}; it must be a tensor of integers.")
    if t.dtype not in (torch.int64, torch.int32) or t.shape != x.shape[:1]:
        raise ValueError(
            f"t has shape {tuple(t.shape)} and type {t.dtype}; it must hold one integer for each "
            f"of the {x.shape[0]} rows."
        )


def check_steps(schedule: NoiseSchedule, t: Tensor, x: Tensor, least: int) -> None:
    """Raise ValueError unless t holds one step of ``least``..T for each row of x."""
    check_schedule(schedule)
    check_one_each(t, x)
    if t.numel() == 0:
        return
    first, last = (int(bound) for bound in t.aminmax())
    if not (least <= first and last <= schedule.T):
        raise ValueError(
            f"t runs from {first} to {last}; every step must be one of {least}..{schedule.T}."
        )


def check_samples(**samples: Tensor) -> None:
    """Raise ValueError unless each is a floating-point tensor of shape (B, ...).

    Of 16 bits or more and not sparse: for others torch has no arithmetic.
    """
    for name, x in samples.items():
        tensor = torch.is_tensor(x)
        if not tensor or x.dtype not in _FLOATING or x.layout != torch.strided or x.ndim < 1:
            kind = f"{x.dtype} of shape {tuple(x.shape)}" if tensor else f"{x!r:.60}"
            kind += " and sparse" if tensor and x.layout != torch.strided else ""
            raise ValueError(
                f"{name} is {kind}; it must be a floating-point tensor of shape (B, ...)."
            )


def _check_same_shape(**pair: Tensor) -> None:
    (first, a), (second, b) = pair.items()
    check_samples(**pair)
    if a.shape != b.shape:
        raise ValueError(
            f"{second} has shape {tuple(b.shape)}; "
            f"it must have the shape {tuple(a.shape)} of {first}."
        )


@lru_cache(maxsize=64)
def _tables(
    formula: Callable[..., Number],
    count: int,
    neighbours: bool,
    schedule: NoiseSchedule,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor | float, ...]:
    """A tensor (T+1,) per sample, or a float where the coefficient does not depend on t."""
    alpha_bar = schedule.alpha_bar
    levels = (alpha_bar[:-1], alpha_bar[1:]) if neighbours else (alpha_bar,)

    def linear(*units: float) -> Number:
        return formula(*units, *levels)

    with np.errstate(divide="ignore", invalid="ignore"):  # t = 0, where some formulas end
        columns = closed_forms.coefficients(linear, count)

    def on_device(column: Number) -> Tensor | float:
        if np.ndim(column) == 0:
            return float(column)
        # Between neighbours the first row is t = 1; row 0 is there so that index t means t.
        rows = np.concatenate([[np.nan], column]) if neighbours else column
        return torch.from_numpy(rows).to(dtype).to(device)

    return tuple(on_device(column) for column in columns)


@lru_cache(maxsize=64)
def _on_device(
    schedule: NoiseSchedule, name: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.tensor(getattr(schedule, name), dtype=dtype, device=device)
