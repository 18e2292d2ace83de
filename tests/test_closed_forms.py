"""One formula, every kind of number: SymPy, mpmath, NumPy, torch and Python agree."""

import inspect
import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib.targets import gaussian
from diffusion_lib.verify import interval, noise_levels, prove, sampled

# Admissible rational arguments. Levels fall from s to t; sigma stays below sqrt(1 - alpha_bar_s).
VALUES = {
    "alpha_bar_s": sp.Rational(3, 4),
    "alpha_bar_t": sp.Rational(2, 5),
    "alpha_bar_1": sp.Rational(9, 10),
    "alpha_bar_T": sp.Rational(1, 9),
    "alpha_bar_before": sp.Rational(1, 8),
    "beta": sp.Rational(1, 7),
    "sigma": sp.Rational(1, 3),
    "variance": sp.Rational(5, 7),
    "eta": sp.Rational(2, 3),
    "T": sp.Integer(11),
    "t": sp.Integer(4),
    "s": sp.Rational(1, 125),
    "beta_start": sp.Rational(1, 100),
    "beta_end": sp.Rational(1, 5),
}
OTHERS = [sp.Rational(n, 9) for n in (-13, 5, 22, -4)]


def arguments(function, kind=lambda x: x):
    spare = iter(OTHERS)

    def value(parameter):
        if parameter.annotation == "Gaussian":
            return cf.Gaussian(kind(next(spare)), kind(VALUES["variance"]))
        return kind(VALUES.get(parameter.name) or next(spare))

    return [value(parameter) for parameter in inspect.signature(function).parameters.values()]


PLAIN = [
    function
    for name, function in vars(cf).items()
    if inspect.isfunction(function)
    and function.__module__ == cf.__name__
    and not name.startswith("_")
    and name not in ("draw", "gaussian_kl", "alpha_bar_table", "coefficients")
    and name not in ("sqrt", "log", "exp", "erf")
]
KINDS = {
    "float": float,
    "mpmath": lambda x: mpmath.mpf(x.p) / x.q,
    "numpy": lambda x: np.array([float(x)] * 3),
    "torch": lambda x: torch.full((3,), float(x), dtype=torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", PLAIN, ids=lambda f: f.__name__)
def test_every_kind_of_number_gives_the_symbolic_value(function, kind):
    exact = function(*arguments(function))
    with mpmath.workdps(30):
        got = function(*arguments(function, KINDS[kind]))
    parts = exact if isinstance(exact, tuple) else (exact,)
    got_parts = got if isinstance(got, tuple) else (got,)
    for want, have in zip(parts, got_parts, strict=True):
        value = have if kind in ("float", "mpmath") else have[0]
        assert abs(float(value) - float(want)) <= 1e-14 * max(1, abs(float(want)))


@pytest.mark.parametrize("function", PLAIN, ids=lambda f: f.__name__)
def test_fractions_stay_exact(function):
    """No hidden float: a symbolic value has no floating-point number inside it."""
    exact = function(*arguments(function))
    for part in exact if isinstance(exact, tuple) else (exact,):
        assert not sp.sympify(part).atoms(sp.Float)


def test_integers_of_python_keep_symbols_exact():
    alpha_bar = sp.Symbol("a", positive=True)
    assert cf.reverse_mean(1, 0, 1, 0) == 1
    assert cf.posterior_mean(5, 7, 1, alpha_bar) == 7
    density = cf.normal_log_density(sp.Symbol("x"), 0, 1)
    assert not density.atoms(sp.Float)


def test_pairs_of_gaussians_and_tables_take_symbols_too():
    p, q = cf.Gaussian(sp.Rational(1, 3), sp.Rational(2)), cf.Gaussian(sp.Integer(0), sp.Integer(3))
    exact = cf.gaussian_kl(p, q)
    # log(3/2)/2 + (2 + 1/9)/6 - 1/2
    assert (
        sp.simplify(exact - (sp.log(sp.Rational(3, 2)) / 2 + sp.Rational(19, 54) - sp.S.Half)) == 0
    )
    torch_kl = cf.gaussian_kl(*(cf.Gaussian(*(torch.tensor(float(x)) for x in g)) for g in (p, q)))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(1 / 3, 2**0.5), torch.distributions.Normal(0.0, 3**0.5)
    )
    assert torch.allclose(torch_kl, reference)
    assert cf.alpha_bar_table([sp.Rational(1, 2), sp.Rational(1, 3)]) == [
        1,
        sp.S.Half,
        sp.Rational(1, 3),
    ]


def test_densities_agree_with_torch():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    reference = torch.distributions.Normal(torch.tensor(0.3).double(), torch.tensor(1.7).double())
    variance = torch.tensor(1.7).double() ** 2
    mean = torch.tensor(0.3).double()
    assert torch.allclose(cf.normal_log_density(x, mean, variance), reference.log_prob(x))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(reference.log_prob(x).sum(), x)
    assert torch.allclose(cf.normal_score(x, mean, variance), slope)


def test_coefficients_recover_a_linear_formula():
    assert cf.coefficients(lambda x, y, z: 2 * x - 3 * y + 0 * z, 3) == (2.0, -3.0, 0.0)


def test_posterior_is_conditioning_of_the_joint_gaussian():
    """An independent road: condition the 2x2 covariance of (x_s, x_t) given x_0."""
    s, t, x_0, x_t = 0.7, 0.2, 1.3, -0.4
    cov_ss, cov_tt, cov_st = 1 - s, 1 - t, np.sqrt(t / s) * (1 - s)
    mean = np.sqrt(s) * x_0 + cov_st / cov_tt * (x_t - np.sqrt(t) * x_0)
    variance = cov_ss - cov_st**2 / cov_tt
    got = cf.posterior(x_t, x_0, s, t)
    assert got.mean == pytest.approx(mean, rel=1e-14)
    assert got.variance == pytest.approx(variance, rel=1e-14)


def test_bound_weight_turns_a_mean_error_into_a_noise_error():
    """(mu - mu_theta)^2 / (2 sigma^2) = weight * (eps - eps_theta)^2: Ho et al., eq. 8 and 12."""
    s, t, variance = sp.Rational(3, 4), sp.Rational(2, 5), sp.Rational(1, 9)
    eps, eps_theta, x_t = sp.symbols("epsilon epsilon_theta x_t", real=True)
    gap = cf.posterior_mean_from_eps(x_t, eps, s, t) - cf.posterior_mean_from_eps(
        x_t, eps_theta, s, t
    )
    weight = cf.bound_weight_eps(s, t, variance)
    assert sp.simplify(gap**2 / (2 * variance) - weight * (eps - eps_theta) ** 2) == 0


@pytest.mark.parametrize(
    ("forward", "back"),
    [
        (cf.noised, cf.x_0_from_eps),
        (cf.velocity, cf.x_0_from_velocity),
        (cf.velocity, cf.eps_from_velocity),
    ],
)
def test_changes_of_variable_invert_each_other(forward, back):
    x_0, eps, level = 0.8, -1.1, 0.37
    x_t = cf.noised(x_0, eps, level)
    known = eps if forward is cf.noised else forward(x_0, eps, level)
    want = eps if back is cf.eps_from_velocity else x_0
    assert back(x_t, known, level) == pytest.approx(want, rel=1e-14)


def test_tweedie_gives_the_mean_of_the_data():
    """Against the posterior mean of a conjugate Gaussian model, written the statistician's way."""
    mu, v, level, x_t = 0.4, 2.5, 0.3, 1.9
    precision = 1 / v + level / (1 - level)
    mean = (mu / v + np.sqrt(level) * x_t / (1 - level)) / precision
    score = cf.normal_score(x_t, *cf.data_marginal(mu, v, level))
    assert cf.x_0_from_score(x_t, score, level) == pytest.approx(mean, rel=1e-13)


A, B = sp.symbols("a b", positive=True)  # the levels of s and t
LEVELS = noise_levels(A, B)
V, SIGMA, X, X_0 = sp.symbols("v sigma x x_0", positive=True)


def test_total_variance_of_a_reverse_step():
    x_0_variance = cf.data_reverse(X, 0, V, 1, B).variance
    got = cf.reverse_variance(x_0_variance, A, B)
    prove("total variance", got, cf.data_reverse(X, 0, V, A, B).variance, LEVELS)


def test_variance_of_the_noise():
    x_0_variance = cf.data_reverse(X, 0, V, 1, B).variance
    prove("noise", cf.data_eps_variance(V, B), B / (1 - B) * x_0_variance, LEVELS)


def test_weight_of_a_data_error_is_half_the_drop_in_snr():
    got = cf.bound_weight_x_0(A, B, cf.posterior_variance(A, B))
    prove("weight", got, (A / (1 - A) - B / (1 - B)) / 2, LEVELS)


def test_ddim_forward_and_reverse_give_the_same_covariances():
    given = LEVELS & interval(SIGMA, 0, sp.sqrt(1 - A))
    forward = cf.ddim_forward(X, X_0, A, B, SIGMA)
    backward = cf.reverse_mean(X_0, cf.eps_from_x_0(X, X_0, B), A, SIGMA)
    slope = sp.diff(forward.mean, X)
    prove("covariance", slope * (1 - A), sp.diff(backward, X) * (1 - B), given)
    prove("variance of x_t", slope**2 * (1 - A) + forward.variance, 1 - B, given)
    prove("mean of x_t", forward.mean.subs(X, sp.sqrt(A) * X_0), sp.sqrt(B) * X_0, given)


def test_the_law_after_a_step_is_that_of_simulated_steps():
    generator = torch.Generator().manual_seed(0)
    before, after = (
        cf.Gaussian(0.3, 1.2),
        cf.data_step(cf.Gaussian(0.3, 1.2), 0.5, 0.25, 0.8, 0.3, 0.2, 0.35),
    )
    noise = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    x_t = cf.draw(before, noise[0])
    target = gaussian([0.5], [[0.25]])
    eps = target.eps(x_t[:, None], 0.3)[:, 0]
    x_s = 0.8**0.5 * (x_t - 0.7**0.5 * eps) / 0.3**0.5 + (0.2 - 0.04) ** 0.5 * eps + 0.35 * noise[1]
    sampled("mean", x_s, after.mean)
    sampled("variance", (x_s - after.mean) ** 2, after.variance)


def test_learned_variance_is_between_its_extremes():
    small, large = cf.posterior_variance(0.8, 0.3), cf.step_beta(0.8, 0.3)
    for share in (0.0, 0.25, 1.0):
        expected = small * (large / small) ** share
        assert np.exp(cf.interpolated_log_variance(share, 0.8, 0.3)) == pytest.approx(expected)


def test_clock_frequencies_are_a_geometric_row_from_1():
    row = [cf.clock_frequency(i, 4, 10_000.0) for i in range(5)]
    assert row == pytest.approx([1, 0.1, 0.01, 0.001, 0.0001])


def test_the_root_of_a_perfect_square_stays_an_integer():
    for n in range(50):
        root = cf.sqrt(n)
        if n in (0, 1, 4, 9, 16, 25, 36, 49):
            assert type(root) is int
            assert root * root == n
        else:
            assert root == pytest.approx(n**0.5, rel=1e-15)


def test_the_logarithm_of_the_integer_one_is_the_integer_zero():
    assert type(cf.log(1)) is int
    assert cf.log(1) == 0
    assert cf.log(2) == pytest.approx(0.6931471805599453, rel=1e-15)


def test_pi_stays_exact_when_only_the_variance_is_a_symbol():
    v = sp.Symbol("v", positive=True)
    assert sp.simplify(cf.normal_log_density(0, 0, v) + sp.log(2 * sp.pi * v) / 2) == 0


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1, 1), (0.3, 0.31), (-40, -39.9), (39.9, 40), (-math.inf, -30), (30, math.inf), (5, 5.004)],
)
def test_the_share_of_a_bin_is_exact_in_both_tails(low, high):
    ends = (torch.tensor(0.5 * x + 3, dtype=torch.float64) for x in (low, high))
    got = cf.log_bin_probability(*ends, 3.0, 0.25)
    with mpmath.workdps(50):
        # The tail in which nothing cancels.
        a, b = (-high, -low) if low + high > 0 else (low, high)
        want = mpmath.log(mpmath.ncdf(mpmath.mpf(b)) - mpmath.ncdf(mpmath.mpf(a)))
        assert abs(float(got) / want - 1) < 1e-12


def test_the_extrapolated_prediction_is_the_line_at_half_the_step():
    with mpmath.workdps(50):
        before, here, there = mpmath.mpf("0.1"), mpmath.mpf("0.3"), mpmath.mpf("0.4")
        clock = [mpmath.log(mpmath.sqrt(a) / mpmath.sqrt(1 - a)) for a in (before, here, there)]
        middle = (clock[1] + clock[2]) / 2
        line = lambda clock: 3 - 7 * clock  # noqa: E731
        got = cf.extrapolated_x_0(line(clock[1]), line(clock[0]), before, here, there)
        assert abs(got - line(middle)) < 1e-45


def test_rescaling_to_zero_terminal_keeps_the_first_level_and_the_spacing_of_roots():
    with mpmath.workdps(50):
        levels = [mpmath.mpf(n) / 10 for n in (9, 6, 3, 1)]
        got = [cf.zero_terminal_alpha_bar(a, levels[0], levels[-1]) for a in levels]
        assert abs(got[0] - levels[0]) < 1e-48
        assert got[-1] == 0
        ratio = (mpmath.sqrt(got[1]) - mpmath.sqrt(got[2])) / (
            mpmath.sqrt(levels[1]) - mpmath.sqrt(levels[2])
        )
        assert (
            abs(mpmath.sqrt(got[2]) - ratio * (mpmath.sqrt(levels[2]) - mpmath.sqrt(levels[3])))
            < 1e-48
        )
