r"""Noise schedules: a table of :math:`\bar\alpha_t`, and the network time of every entry.

A strided schedule is a schedule. `NoiseSchedule.subsequence` and `NoiseSchedule.strided` return a
`NoiseSchedule` whose neighbours are the kept steps, so no sampler, posterior or loss knows what a
stride is, and the adjacent-step mistake cannot be written. (Chapter 02.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import closed_forms
from .arguments import as_table, check_choice, check_integer, check_integers, check_number

Table = NDArray[np.float64]
_DIGITS = 60  # of the products behind a table; every entry is then the float64 nearest to the truth


class NoiseSchedule:
    r"""An immutable table :math:`\bar\alpha_0=1>\bar\alpha_1>\dots>\bar\alpha_T\ge0` in float64.

    Attributes:
        alpha_bar: shape (T+1,), float64, read-only; index t means t.
        times: shape (T+1,), int64, read-only; ``times[t]`` is what the network is told at entry t,
            ``times[0] == 0``. A subsequence keeps the times of the schedule it was taken from.
        T: the number of steps.

    The table is the schedule: each entry is the float64 nearest to its formula, and `beta`,
    `posterior_variance` and everything else are those of the entries. Where a formula begins with
    β, as `linear`, its β is met to about 1e-12.

    ``NoiseSchedule(alpha_bar)`` takes the table itself, :math:`\bar\alpha_0=1` included. A last
    level of 0 is pure noise, from which no data can be read off: there a network must predict v or
    x_0 (see `zero_terminal`).

    Raises:
        ValueError: if the table does not start at 1, leaves [0, 1], or does not decrease strictly;
            if the times do not start at 0, do not increase strictly, or differ in number.
    """

    alpha_bar: Table
    times: NDArray[np.int64]
    T: int
    _hash: int

    def __init__(self, alpha_bar: ArrayLike, times: ArrayLike | None = None) -> None:
        table = as_table("alpha_bar", alpha_bar)
        if table.ndim != 1 or len(table) < 2:
            raise ValueError(
                f"alpha_bar has shape {table.shape}; it must be one row of at least two entries, "
                "alpha_bar_0 = 1 first."
            )
        if table[0] != 1:
            raise ValueError(f"alpha_bar[0] is {table[0]}; alpha_bar_0 = 1 is part of the table.")
        _demand(table >= 0, "alpha_bar", table, "must be a number of 0 or more")
        _demand(table < _before(table, 2), "alpha_bar", table, "must be below the one before")
        kept = np.arange(len(table), dtype=np.int64)
        if times is not None:
            kept = np.array(check_integers("times", times, 0, 2**63 - 1), np.int64)
        if len(kept) != len(table):
            raise ValueError(
                f"times has {len(kept)} entries; it must have {len(table)}, as alpha_bar."
            )
        if kept[0] != 0:
            raise ValueError(f"times[0] is {kept[0]}; the clean end has time 0.")
        _demand(kept > _before(kept, -1), "times", kept, "must be above the one before")
        self._freeze(table, kept)

    def _freeze(self, alpha_bar: Table, times: NDArray[np.int64]) -> None:
        for array in (alpha_bar, times):
            array.setflags(write=False)
        fields = {
            "alpha_bar": alpha_bar,
            "times": times,
            "T": len(times) - 1,
            "_hash": hash((alpha_bar.tobytes(), times.tobytes())),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A NoiseSchedule is immutable; {name} cannot be set.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A NoiseSchedule is immutable; {name} cannot be deleted.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoiseSchedule):
            return NotImplemented
        return np.array_equal(self.alpha_bar, other.alpha_bar) and np.array_equal(
            self.times, other.times
        )

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[NoiseSchedule], tuple[Table, NDArray[np.int64]]]:
        return NoiseSchedule, (self.alpha_bar, self.times)  # copies are as immutable

    def __repr__(self) -> str:
        return (
            f"NoiseSchedule(T={self.T}, times 1..{self.T} -> {self.times[1]}..{self.times[-1]}, "
            f"alpha_bar_T={self.alpha_bar[-1]:.3g})"
        )

    # --- Constructors -----------------------------------------------------------------------------

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> NoiseSchedule:
        r"""The schedule with :math:`\bar\alpha_t=\prod_{i\le t}(1-\beta_i)`; ``betas[0]`` is β₁.

        The product runs in 60 digits and is rounded to float64 once.

        Raises:
            ValueError: if a beta is not strictly between 0 and 1.
        """
        steps = as_table("betas", betas)
        if steps.ndim != 1 or len(steps) == 0:
            raise ValueError(
                f"betas has shape {steps.shape}; it must be one row of beta_1..beta_T."
            )
        return cls._from_exact_betas([mpmath.mpf(beta) for beta in steps.tolist()])

    @classmethod
    def linear(
        cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> NoiseSchedule:
        r"""DDPM's schedule: :math:`\beta_t` on a line (Ho et al. 2020, sec. 4; made for T = 1000).

        Raises:
            ValueError: if T < 2 or a beta is not strictly between 0 and 1.
        """
        return cls._from_beta_formula(closed_forms.linear_beta, T, beta_start, beta_end)

    @classmethod
    def scaled_linear(
        cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> NoiseSchedule:
        r""":math:`\sqrt{\beta_t}` on a line (Rombach et al. 2022; made for T = 1000).

        Raises:
            ValueError: if T < 2 or a beta is not strictly between 0 and 1.
        """
        return cls._from_beta_formula(closed_forms.scaled_linear_beta, T, beta_start, beta_end)

    @classmethod
    def _from_beta_formula(
        cls, formula: Callable[..., Any], T: int, beta_start: float, beta_end: float
    ) -> NoiseSchedule:
        T = check_integer("T", T, least=2)
        beta_start, beta_end = _share("beta_start", beta_start), _share("beta_end", beta_end)
        with mpmath.workdps(_DIGITS):
            ends = mpmath.mpf(beta_start), mpmath.mpf(beta_end)
            betas = [formula(mpmath.mpf(t), T, *ends) for t in range(1, T + 1)]
        return cls._from_exact_betas(betas)

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
        r"""The cosine schedule (Nichol and Dhariwal 2021, eq. 17), each :math:`\beta_t` capped.

        The cap keeps :math:`\bar\alpha_T` above 0, where predicting ε would divide by zero.

        Raises:
            ValueError: if T < 1, s < 0 or the cap is not strictly between 0 and 1.
        """
        s = check_number("s", s, lambda s: 0 <= s < math.inf, "of 0 or more")
        return cls._from_level_formula(closed_forms.cosine_alpha_bar, T, max_beta, s)

    @classmethod
    def sigmoid(
        cls,
        T: int = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        max_beta: float = 0.999,
    ) -> NoiseSchedule:
        r"""The sigmoid schedule (Chen 2023, algorithm 1), each :math:`\beta_t` capped.

        Raises:
            ValueError: if T < 1, start is not below end, tau is not above 0, or the cap is not
                strictly between 0 and 1.
        """
        start, end = check_number("start", start), check_number("end", end)
        if not start < end:
            raise ValueError(f"start is {start:g} and end {end:g}; start must be below end.")
        tau = check_number("tau", tau, lambda tau: 0 < tau < math.inf, "above 0")
        return cls._from_level_formula(closed_forms.sigmoid_alpha_bar, T, max_beta, start, end, tau)

    @classmethod
    def _from_level_formula(
        cls, formula: Callable[..., Any], T: int, max_beta: float, *shape: float
    ) -> NoiseSchedule:
        r"""The schedule of a formula for :math:`\bar\alpha_t`, each :math:`\beta_t` capped."""
        T = check_integer("T", T)
        max_beta = _share("max_beta", max_beta)
        with mpmath.workdps(_DIGITS):
            numbers = [mpmath.mpf(x) for x in shape]
            try:
                levels = [formula(mpmath.mpf(t), T, *numbers) for t in range(T + 1)]
            except ZeroDivisionError:
                raise ValueError(
                    f"the shape {shape} of the schedule is too flat: its levels are all equal in "
                    f"{_DIGITS} digits."
                ) from None
            betas = [closed_forms.step_beta(a, b) for a, b in pairwise(levels)]
        return cls._from_exact_betas([min(beta, mpmath.mpf(max_beta)) for beta in betas])

    @classmethod
    def _from_exact_betas(cls, betas: list[mpmath.mpf]) -> NoiseSchedule:
        good = np.array([0 < beta < 1 for beta in betas])
        _demand(good, "betas", betas, "must lie strictly between 0 and 1")
        with mpmath.workdps(_DIGITS):
            return cls([float(level) for level in closed_forms.alpha_bar_table(betas)])

    def zero_terminal(self) -> NoiseSchedule:
        r"""The schedule rescaled so that :math:`\bar\alpha_T=0`: it ends in pure noise.

        Each root of :math:`\bar\alpha_t` is shifted and stretched so that the first level stays
        and the last becomes 0 (Lin et al. 2024, algorithm 1; proved in chapter 16). Train and
        sample with ``prediction="v"`` or "x_0": a predicted ε or score says nothing about the data
        there.

        Raises:
            ValueError: if there is one step only, which cannot be first and last.
        """
        check_integer("T", self.T, least=2)
        with mpmath.workdps(_DIGITS):
            levels = [mpmath.mpf(level) for level in self.alpha_bar[1:].tolist()]
            ends = levels[0], levels[-1]
            rescaled = [closed_forms.zero_terminal_alpha_bar(level, *ends) for level in levels]
            return NoiseSchedule([1.0, *(float(level) for level in rescaled)], self.times)

    # --- Subsequences -----------------------------------------------------------------------------

    def subsequence(self, steps: Sequence[int] | NDArray[np.integer]) -> NoiseSchedule:
        r"""The schedule of the given steps, in rising or falling order, and :math:`\bar\alpha_0=1`.

        Proved to be a schedule in chapter 11 (claim T2).

        Raises:
            ValueError: if a step is not one of 1..T or the list is not strictly monotone.
        """
        kept = np.array(check_integers("steps", steps, most=self.T), np.int64)
        if len(kept) == 0:
            raise ValueError(f"steps is {steps!r}; it must hold at least one of 1..{self.T}.")
        if len(kept) > 1 and kept[0] > kept[1]:
            kept = kept[::-1]
        _demand(kept > _before(kept, 0), "steps", kept, "must differ from and follow the others")
        index = np.concatenate([[0], kept])
        return NoiseSchedule(self.alpha_bar[index], self.times[index])

    def strided(self, S: int, spacing: str = "trailing") -> NoiseSchedule:
        """The schedule of S of the T steps; S may be any of 1..T and every list is exact.

        ``trailing`` keeps T and counts down in equal strides (the default: the first step is taken
        at full noise); ``linspace`` keeps 1 and T; ``leading`` keeps 1 and stops short of T;
        ``quadratic`` is dense near the data. Proved in chapter 11 (claim T1).

        Raises:
            ValueError: if S is not one of 1..T or the spacing is unknown.
        """
        place = check_choice("spacing", spacing, _SPACINGS)
        S = check_integer("S", S, most=self.T)
        return self.subsequence([place(i, S, self.T) for i in range(1, S + 1)])

    # --- Tables -----------------------------------------------------------------------------------

    @property
    def beta(self) -> Table:
        r""":math:`\beta_t=1-\bar\alpha_t/\bar\alpha_{t-1}` between neighbours; ``beta[0] == 0``."""
        return self._between(closed_forms.step_beta)

    @property
    def alpha(self) -> Table:
        r""":math:`\alpha_t=1-\beta_t`; ``alpha[0] == 1``."""
        return 1 - self.beta

    @property
    def posterior_variance(self) -> Table:
        r""":math:`\tilde\beta_t` between neighbours; zero at t = 1, and at t = 0 by convention."""
        return self._between(closed_forms.posterior_variance)

    @property
    def snr(self) -> Table:
        r""":math:`\bar\alpha_t/(1-\bar\alpha_t)`; infinite at t = 0."""
        clean_end = np.array([np.inf])
        return np.concatenate([clean_end, closed_forms.snr(self.alpha_bar[1:])])

    def _between(self, formula: Any) -> Table:
        return np.concatenate([[0.0], formula(self.alpha_bar[:-1], self.alpha_bar[1:])])


def _quadratic(i: int, S: int, T: int) -> int:
    # Squares of an even grid: i = S lands on T, and i itself is the least step that keeps the list
    # strictly increasing where the squares would collide.
    return max(i, -(-i * i * T // (S * S)))


_SPACINGS = {
    "trailing": lambda i, S, T: T - (S - i) * T // S,
    "linspace": lambda i, S, T: T if S == 1 else 1 + (i - 1) * (T - 1) // (S - 1),
    "leading": lambda i, S, T: 1 + (i - 1) * (T // S),
    "quadratic": _quadratic,
}


def _before(values: NDArray[Any], first: float) -> NDArray[Any]:
    """The entry before each, and before the first one a number that is in order with all."""
    return np.concatenate([np.array([first], values.dtype), values[:-1]])


def _demand(good: Any, name: str, values: Any, rule: str) -> None:
    """Name the first entry that breaks a rule (NaN breaks every rule)."""
    bad = np.flatnonzero(~good)
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {float(values[bad[0]]):g}; every entry {rule}.")


def check_schedule(schedule: object) -> None:
    """Raise ValueError unless it is a NoiseSchedule."""
    if not isinstance(schedule, NoiseSchedule):
        raise ValueError(f"schedule is {schedule!r:.60}; it must be a NoiseSchedule.")


def _share(name: str, value: object) -> float:
    return check_number(name, value, lambda x: 0 < x < 1, "strictly between 0 and 1")
