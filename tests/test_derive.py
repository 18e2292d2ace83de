"""Derivation steps, against numerical integration."""

import mpmath
import pytest
import sympy as sp

from diffusion_lib.closed_forms import Gaussian
from diffusion_lib.derive import bayes, complete_the_square, expectation, integrate_out

x, y = sp.symbols("x y", real=True)
a, b = sp.symbols("a b", positive=True)


def test_the_square_is_completed():
    law = complete_the_square(-((x - 3) ** 2) / (2 * a) - x / b, x)
    assert sp.simplify(law.mean - (3 - a / b)) == 0
    assert sp.simplify(law.variance - a) == 0


def test_integration_agrees_with_quadrature():
    log_density = -3 * x**2 / 7 + 2 * x / 3 - sp.Rational(1, 5) + y
    got = float(sp.exp(integrate_out(log_density, x)).subs(y, sp.Rational(1, 2)))
    want = mpmath.quad(
        lambda u: mpmath.exp(-3 * u**2 / 7 + 2 * u / 3 - 0.2 + 0.5), [-mpmath.inf, mpmath.inf]
    )
    assert got == pytest.approx(float(want), rel=1e-12)


def test_bayes_gives_a_density():
    log_likelihood = -((y - 2 * x) ** 2) / (2 * a)
    log_prior = -(x**2) / (2 * b)
    posterior = bayes(log_likelihood, log_prior, x)
    assert sp.simplify(integrate_out(posterior, x)) == 0
    law = complete_the_square(posterior, x)
    assert sp.simplify(1 / law.variance - (4 / a + 1 / b)) == 0  # precisions add


@pytest.mark.parametrize("not_quadratic", [x, sp.Integer(3), x**3 - x**2, sp.sin(x) - x**2, x**4])
def test_what_is_no_quadratic_is_refused(not_quadratic):
    for step in (complete_the_square, integrate_out):
        with pytest.raises(ValueError, match="must be a quadratic in x"):
            step(not_quadratic, x)


@pytest.mark.parametrize(
    "polynomial",
    [sp.Integer(3), y - x, (x - 1) ** 2 * y, 2 * x**3 - x + 1, x**4, (x + y) ** 5, x**6 - x**2],
)
def test_expectation_agrees_with_quadrature(polynomial):
    mean, deviation = mpmath.mpf(2) / 3, mpmath.sqrt(mpmath.mpf(5) / 7)
    law = Gaussian(sp.Rational(2, 3), sp.Rational(5, 7))
    f = sp.lambdify(x, polynomial.subs(y, sp.Rational(1, 4)), "mpmath")
    want = mpmath.quad(
        lambda u: f(u) * mpmath.npdf(u, mean, deviation), mpmath.linspace(-9, 11, 21)
    )
    got = expectation(polynomial, x, law).subs(y, sp.Rational(1, 4))
    assert float(got) == pytest.approx(float(want), rel=1e-12)


@pytest.mark.parametrize("not_polynomial", [sp.exp(x), 1 / x, sp.sqrt(x), sp.Abs(x)])
def test_the_mean_of_what_is_no_polynomial_is_refused(not_polynomial):
    with pytest.raises(ValueError, match="must be a polynomial in x"):
        expectation(not_polynomial, x, Gaussian(0, 1))
