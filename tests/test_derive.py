"""Derivation steps, against numerical integration."""

import mpmath
import pytest
import sympy as sp

from diffusion_lib.derive import bayes, complete_the_square, integrate_out

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
