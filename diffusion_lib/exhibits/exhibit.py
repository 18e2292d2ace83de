"""What an exhibit is, and the exact point at which it leaves a residual."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from ..closed_forms import Gaussian
from ..verify import Check
from .planting import named, replaced, unwrapped

ONE_STEP_BETA = sp.Symbol("beta_t", positive=True)
"""The noise of the last single step before t, which a strided formula has no use for."""


@dataclass(frozen=True)
class Exhibit:
    """A published slip: a wrong formula in the place of a right one.

    Attributes:
        name: a short name.
        room: the part of the book it belongs to.
        slip: what is wrong, in one sentence of Markdown.
        replaces: the library's function, "module.function" or "module.Class.function".
        wrong: the wrong formula, with the signature of the function.
        seen: where: claims of the notes, or W and a number.
        right_tex, wrong_tex: what stands there and what was put there, in LaTeX.
        check: holds the library against the truth; raises `CheckFailed` while this is planted.
        chapter: the notebook that proves the right formula.
        at: where the residual is taken, if not at `POINT`.
    """

    name: str
    room: str
    slip: str
    replaces: str
    wrong: Callable[..., Any]
    seen: tuple[str, ...]
    right_tex: str
    wrong_tex: str
    check: Callable[[], Check]
    chapter: str
    at: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Any:
        """The library's function, under whatever wraps it."""
        return unwrapped(named(self.replaces))

    @property
    def is_closed_form(self) -> bool:
        """Whether the slip is one of a formula: then there is a residual."""
        return self.replaces.startswith("closed_forms.")

    def arguments(self) -> list[Any]:
        """Exact arguments for the function, by the names of its parameters."""
        values = {**POINT, **self.at}
        return [values[name] for name in inspect.signature(self.wrong).parameters]

    def residual(self) -> list[sp.Expr]:
        """Wrong minus right at an exact point, one entry for each that the function returns.

        `POINT` makes nearly all roots rational. A slip that has no value there leaves `sp.zoo`.
        """
        got, want = (_row(f(*self.arguments())) for f in (self.wrong, named(self.replaces)))
        if len(got) != len(want):
            return [sp.zoo]
        values = (sp.sympify(a) - sp.sympify(b) for a, b in zip(got, want, strict=True))
        return [sp.simplify(x.subs(ONE_STEP_BETA, sp.Rational(1, 50))) for x in values]


POINT: dict[str, Any] = {
    "alpha_bar_s": sp.Rational(144, 169),
    "alpha_bar_t": sp.Rational(9, 25),
    "beta": sp.Rational(231, 400),
    "betas": [sp.Rational(1, 10), sp.Rational(1, 5), sp.Rational(2, 5)],
    "x": sp.Integer(1),
    "x_0": sp.Integer(1),
    "x_s": sp.Integer(2),
    "x_t": sp.Integer(2),
    "eps": sp.Rational(1, 2),
    "eps_cond": sp.Rational(1, 2),
    "eps_uncond": sp.Rational(1, 3),
    "scale": sp.Integer(3),
    "z": sp.Integer(1),
    "score": sp.Integer(-1),
    "mean": sp.Integer(0),
    "variance": sp.Rational(1, 4),
    "x_0_variance": sp.Rational(1, 4),
    "gaussian": Gaussian(sp.Integer(0), sp.Rational(1, 4)),
    "p": Gaussian(sp.Integer(0), sp.Rational(1, 4)),
    "q": Gaussian(sp.Integer(1), sp.Rational(1, 4)),
    "sigma": sp.Rational(3, 13),
    "eta": sp.Rational(1, 2),
    "share": sp.Rational(1, 2),
    "t": sp.Integer(5),
    "T": sp.Integer(10),
    "s": sp.Rational(1, 125),
    "beta_start": sp.Rational(1, 100),
    "beta_end": sp.Rational(1, 25),
}
"""The exact point at which residuals are taken, by parameter name."""


@contextmanager
def planted(exhibit: Exhibit) -> Iterator[Exhibit]:
    """The wrong formula in the place of the right one, everywhere, inside the block."""
    with replaced(exhibit.function, exhibit.wrong):
        yield exhibit


def _row(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]
