"""Derivation steps on symbols: what a chapter does between a definition and a closed form.

A density is handled as its logarithm, a SymPy expression. The steps are the ones a person takes on
paper: complete the square, integrate a Gaussian, take a mean, apply Bayes' rule. (Chapter 01.)
"""

from __future__ import annotations

import sympy as sp

from .closed_forms import Gaussian


def complete_the_square(log_density: sp.Expr, x: sp.Symbol) -> Gaussian:
    r"""The Gaussian whose log-density is the given quadratic in x, up to a constant.

    :math:`-\tfrac12Ax^2+Bx+C` belongs to mean :math:`B/A` and variance :math:`1/A`.

    Raises:
        ValueError: if the expression is not a quadratic in x.
    """
    A, B, _ = _quadratic(log_density, x)
    return Gaussian(sp.cancel(B / A), sp.cancel(1 / A))


def integrate_out(log_density: sp.Expr, x: sp.Symbol) -> sp.Expr:
    r"""The logarithm of :math:`\int e^{\text{log\_density}}\,dx` over the real line.

    :math:`\int e^{-\frac12Ax^2+Bx+C}dx=\sqrt{2\pi/A}\;e^{B^2/2A+C}` for A > 0.

    Raises:
        ValueError: if the expression is not a quadratic in x.
    """
    A, B, C = _quadratic(log_density, x)
    return sp.log(2 * sp.pi / A) / 2 + B**2 / (2 * A) + C


def bayes(log_likelihood: sp.Expr, log_prior: sp.Expr, x: sp.Symbol) -> sp.Expr:
    """log p(x | y) = log p(y | x) + log p(x) - log p(y), the evidence integrated out exactly."""
    log_joint = log_likelihood + log_prior
    return log_joint - integrate_out(log_joint, x)


def expectation(polynomial: sp.Expr, x: sp.Symbol, law: Gaussian) -> sp.Expr:
    r"""The mean of a polynomial in x, when x follows a Gaussian law.

    The moments come from integration by parts,
    :math:`\mathbb E[x^n]=\mu\,\mathbb E[x^{n-1}]+(n-1)\,v\,\mathbb E[x^{n-2}]`.

    Raises:
        ValueError: if the expression is not a polynomial in x.
    """
    expanded = sp.expand(polynomial)
    if not expanded.is_polynomial(x):
        raise ValueError(f"polynomial is {polynomial}; it must be a polynomial in {x}.")
    coefficients = sp.Poly(expanded, x).all_coeffs()[::-1]  # of 1, x, x², ...
    moments = [sp.Integer(1), law.mean]
    for n in range(2, len(coefficients)):
        moments.append(law.mean * moments[-1] + (n - 1) * law.variance * moments[-2])
    return sp.Add(*(c * moment for c, moment in zip(coefficients, moments, strict=False)))


def _quadratic(log_density: sp.Expr, x: sp.Symbol) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """(A, B, C) of -A x²/2 + B x + C."""
    expanded = sp.expand(log_density)
    square, linear = expanded.coeff(x, 2), expanded.coeff(x, 1)
    constant = sp.expand(expanded - square * x**2 - linear * x)
    if square == 0 or constant.has(x):
        raise ValueError(f"log_density is {log_density}; it must be a quadratic in {x}.")
    return sp.factor(-2 * square), linear, constant
