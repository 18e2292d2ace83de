"""Checks that catch the exhibits. Each holds for the library as it is.

They hold the library's functions, whatever these compute at the time, against another derivation
or against what they are for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import sympy as sp
import torch
from torch import Tensor

from .. import closed_forms as cf
from .. import objectives, samplers, targets
from ..closed_forms import Gaussian
from ..derive import complete_the_square, integrate_out
from ..networks.time_embedding import time_embedding
from ..schedule import NoiseSchedule
from ..verify import Check, agree, interval, noise_levels, prove, sampled

_x, _x_0, _x_s, _x_t, _eps, _other_eps, _z, _m, _n = sp.symbols(
    "x x_0 x_s x_t epsilon epsilon' z m n", real=True
)
_v, _w, _sigma, _eta, _share, _scale = sp.symbols("v w sigma eta k g", positive=True)
_s, _t = sp.symbols(r"\bar\alpha_s \bar\alpha_t", positive=True)
_LEVELS = noise_levels(_s, _t)


def _log_joint(prior: Gaussian) -> sp.Expr:
    """log q(x_t | x_s) plus the log-density of x_s."""
    kernel = cf.forward_step(_x_s, cf.step_beta(_s, _t))
    return cf.normal_log_density(_x_t, *kernel) + cf.normal_log_density(_x_s, *prior)


def _regression(of: sp.Expr, on: sp.Expr, sources: Sequence[sp.Symbol]) -> sp.Expr:
    """E[of | on = x_t] for two linear combinations of independent N(0, 1) sources."""
    mean = dict.fromkeys(sources, 0)
    covariance = sum(sp.diff(of, e) * sp.diff(on, e) for e in sources)
    variance = sum(sp.diff(on, e) ** 2 for e in sources)
    return of.subs(mean) + covariance / variance * (_x_t - on.subs(mean))


def two_steps_are_one() -> Check:
    """To s and then to t is the same as to t."""
    at_s = cf.noised(_x_0, _eps, _s)
    at_t = cf.draw(cf.forward_step(at_s, cf.step_beta(_s, _t)), _z)
    at_once = cf.noised(_x_0, _eps, _t)
    return prove(
        "noising to $s$ and then to $t$ is noising to $t$: weight of the data, variance",
        (sp.diff(at_t, _x_0), sp.diff(at_t, _eps) ** 2 + sp.diff(at_t, _z) ** 2),
        (sp.diff(at_once, _x_0), sp.diff(at_once, _eps) ** 2),
        _LEVELS,
    )


def products_up_to_t() -> Check:
    """The table begins 1, 1 - b, (1 - b)(1 - c)."""
    b, c, d = sp.symbols("b c d", positive=True)
    a, e, f = 1 - b, 1 - c, 1 - d
    return prove(
        "entry $t$ of the table is the product of the first $t$ factors",
        tuple(cf.alpha_bar_table([b, c, d])),
        (1, a, a * e, a * e * f),
    )


def density_has_mass_one() -> Check:
    return prove(
        "the density integrates to 1",
        integrate_out(cf.normal_log_density(_x, _m, _v), _x),
        0,
    )


def kl_is_the_mean_log_ratio() -> Check:
    """E_p[log p - log q]: with x = m + √v z, put E[z²] = 1 and E[z] = 0."""
    here = _m + sp.sqrt(_v) * _z
    ratio = cf.normal_log_density(here, _m, _v) - cf.normal_log_density(here, _n, _w)
    expanded = sp.expand(ratio)
    mean = expanded.coeff(_z, 0) + expanded.coeff(_z, 2)
    return prove(
        r"the divergence is the mean of $\log p-\log q$ under $p$",
        cf.gaussian_kl(Gaussian(_m, _v), Gaussian(_n, _w)),
        mean,
    )


def bayes_gives_the_posterior() -> Check:
    derived = complete_the_square(_log_joint(cf.marginal(_x_0, _s)), _x_s)
    return prove(
        r"completing the square in Bayes' rule gives $\tilde\mu$ and $\tilde\beta$",
        cf.posterior(_x_t, _x_0, _s, _t),
        derived,
        _LEVELS,
    )


def posterior_mean_is_bayes() -> Check:
    derived = complete_the_square(_log_joint(cf.marginal(_x_0, _s)), _x_s)
    return prove(
        r"completing the square in Bayes' rule gives $\tilde\mu$",
        cf.posterior_mean(_x_t, _x_0, _s, _t),
        derived.mean,
        _LEVELS,
    )


def posterior_variance_is_bayes() -> Check:
    derived = complete_the_square(_log_joint(cf.marginal(_x_0, _s)), _x_s)
    return prove(
        r"completing the square in Bayes' rule gives $\tilde\beta$",
        cf.posterior_variance(_s, _t),
        derived.variance,
        _LEVELS,
    )


def reverse_of_gaussian_data_is_bayes() -> Check:
    derived = complete_the_square(_log_joint(cf.data_marginal(_m, _v, _s)), _x_s)
    return prove(
        r"Bayes' rule with Gaussian data gives $q(x_s\mid x_t)$",
        cf.data_reverse(_x_t, _m, _v, _s, _t),
        derived,
        _LEVELS,
    )


def total_variance() -> Check:
    x_0_variance = cf.data_reverse(_x_t, _m, _v, 1, _t).variance
    return prove(
        "the variance of $x_s$ given $x_t$, for Gaussian data",
        cf.reverse_variance(x_0_variance, _s, _t),
        cf.data_reverse(_x_t, _m, _v, _s, _t).variance,
        _LEVELS,
    )


def learned_variance_is_between() -> Check:
    large, small = sp.log(cf.step_beta(_s, _t)), sp.log(cf.posterior_variance(_s, _t))
    return prove(
        "half way the learned variance is the geometric mean of its extremes",
        cf.interpolated_log_variance(sp.Rational(1, 2), _s, _t),
        (large + small) / 2,
        _LEVELS,
    )


def conversion_goes_back() -> Check:
    return prove(
        r"reading $x_0$ off $x_t$ and $\epsilon$ undoes the noising",
        cf.x_0_from_eps(cf.noised(_x_0, _eps, _t), _eps, _t),
        _x_0,
        noise_levels(_t),
    )


def noise_is_a_regression() -> Check:
    x_0 = _m + sp.sqrt(_v) * _z
    return prove(
        r"for Gaussian data, $\mathbb E[\epsilon\mid x_t]$ is the regression of "
        r"$\epsilon$ on $x_t$",
        cf.data_eps(_x_t, _m, _v, _t),
        _regression(_eps, cf.noised(x_0, _eps, _t), (_eps, _z)),
        noise_levels(_t),
    )


def tweedie() -> Check:
    x_0 = _m + sp.sqrt(_v) * _z
    score = cf.normal_score(_x_t, *cf.data_marginal(_m, _v, _t))
    return prove(
        "for Gaussian data, Tweedie's formula is the regression of $x_0$ on $x_t$",
        cf.x_0_from_score(_x_t, score, _t),
        _regression(x_0, cf.noised(x_0, _eps, _t), (_eps, _z)),
        noise_levels(_t),
    )


def marginal_is_kept() -> Check:
    """No domain for σ: the square of the root is its radicand, whatever its sign."""
    return prove(
        r"direction squared plus $\sigma^2$ is the variance $1-\bar\alpha_s$, "
        r"for every $\sigma$",
        cf.reverse_mean(0, 1, _s, _sigma) ** 2 + _sigma**2,
        1 - _s,
        noise_levels(_s),
    )


def step_keeps_the_marginal() -> Check:
    step = cf.reverse_step(_x_0, _eps, _z, _s, _sigma)
    domain = noise_levels(_s) & interval(_sigma, 0, sp.sqrt(1 - _s))
    return prove(
        r"in a step, $z$ has the weight $\sigma$ and both noises together "
        r"variance $1-\bar\alpha_s$",
        (sp.diff(step, _z), sp.diff(step, _eps) ** 2 + sp.diff(step, _z) ** 2),
        (_sigma, 1 - _s),
        domain,
    )


def sigma_meets_ddpm() -> Check:
    at_1 = cf.ddim_sigma(1, _s, _t)
    eps = cf.eps_from_x_0(_x_t, _x_0, _t)
    return prove(
        r"$\sigma$ is $\eta$ times its value at 1, where the step's mean is the posterior's",
        (cf.ddim_sigma(_eta, _s, _t), cf.reverse_mean(_x_0, eps, _s, at_1)),
        (_eta * at_1, cf.posterior_mean(_x_t, _x_0, _s, _t)),
        _LEVELS,
    )


def weight_is_a_divergence() -> Check:
    laws = [Gaussian(cf.posterior_mean_from_eps(_x_t, e, _s, _t), _v) for e in (_eps, _other_eps)]
    return prove(
        r"the weight times $(\epsilon-\epsilon')^2$ is the divergence of two steps",
        cf.bound_weight_eps(_s, _t, _v) * (_eps - _other_eps) ** 2,
        cf.gaussian_kl(*laws),
        _LEVELS,
    )


def reconstruction_has_a_weight() -> Check:
    """At s = 0 too the weight is finite: the decoder has a variance of its own."""
    laws = [Gaussian(cf.posterior_mean_from_eps(_x_t, e, 1, _t), _v) for e in (_eps, _other_eps)]
    return prove(
        "at $s=0$ the weight is that of the decoder, with the decoder's variance",
        cf.bound_weight_eps(1, _t, _v) * (_eps - _other_eps) ** 2,
        cf.gaussian_kl(*laws),
        noise_levels(_t),
    )


def guidance_leaves_agreement_alone() -> Check:
    return prove(
        "where both networks say the same, guidance changes nothing",
        cf.guided_eps(_eps, _eps, _scale),
        _eps,
    )


def cosine_by_half_angles() -> Check:
    """cos² x = (1 + cos 2x)/2, in 30 digits, with the offset 0.008."""
    steps = [1, 100, 500, 900, 999]
    with mpmath.workdps(30):
        s = mpmath.mpf(8) / 1000

        def double(t: int) -> Any:
            return 1 + mpmath.cos((mpmath.mpf(t) / 1000 + s) / (1 + s) * mpmath.pi)

        exact = [double(t) / double(0) for t in steps]
        agree(
            "the cosine schedule as it comes, by the double angle",
            NoiseSchedule.cosine(1000).alpha_bar[steps],
            exact,
            within=1e-12,
        )
        return agree(
            "the cosine formula, by the double angle",
            [cf.cosine_alpha_bar(mpmath.mpf(t), 1000, s) for t in steps],
            exact,
            within=1e-20,
        )


def roots_of_beta_are_even() -> Check:
    a, b, T = sp.symbols("a b T", positive=True)
    betas = [cf.scaled_linear_beta(t, T, a**2, b**2) for t in (1, (1 + T) / 2, T)]
    return prove(
        r"$\sqrt{\beta}$ at the first, middle and last step",
        betas,
        [a**2, ((a + b) / 2) ** 2, b**2],
    )


_TOY = NoiseSchedule.linear(10, 0.05, 0.5)
_TOY_DATA = 0.5, 0.25  # mean and variance


def _output_law(deviations: Sequence[float], sigmas: Sequence[float]) -> Gaussian:
    """The exact law of a sampler's output on Gaussian data, step after step."""
    law = Gaussian(0.0, 1.0)
    for i in range(_TOY.T, 0, -1):
        levels = float(_TOY.alpha_bar[i - 1]), float(_TOY.alpha_bar[i])
        law = cf.data_step(law, *_TOY_DATA, *levels, sigmas[i - 1], deviations[i - 1])
    return law


def _sampler_has_the_law(what: str, law: Gaussian, sampler: Callable[..., Tensor]) -> Check:
    generator = torch.Generator().manual_seed(0)
    mean, variance = _TOY_DATA
    network = targets.gaussian(torch.tensor([mean]), torch.tensor([[variance]])).model(_TOY)
    x_T = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    out = sampler(network, _TOY, x_T, generator=generator)[:, 0]
    r = (out - law.mean) / law.variance**0.5
    return sampled(what, torch.stack([r, r**2], dim=1), [0, 1])


def ddim_has_its_law() -> Check:
    levels = _TOY.alpha_bar[:-1], _TOY.alpha_bar[1:]
    sigma = cf.ddim_sigma(0.5, *levels).tolist()
    return _sampler_has_the_law(
        r"DDIM at $\eta=\frac12$ on Gaussian data: mean and variance of the output",
        _output_law(sigma, sigma),
        functools.partial(samplers.ddim, eta=0.5),
    )


def ddpm_has_its_law() -> Check:
    levels = _TOY.alpha_bar[:-1], _TOY.alpha_bar[1:]
    sigma = cf.ddim_sigma(1.0, *levels).tolist()
    deviation = [0.0, *(cf.sqrt(beta) for beta in cf.step_beta(*levels)[1:].tolist())]
    return _sampler_has_the_law(
        r"DDPM with variance $\beta$ on Gaussian data: mean and variance of the output",
        _output_law(deviation, sigma),
        functools.partial(samplers.ddpm, variance="beta"),
    )


def network_is_told_its_time() -> Check:
    told = []

    def listener(x: Tensor, times: Tensor) -> Tensor:
        told.append(int(times[0]))
        return x

    schedule = NoiseSchedule.linear().strided(5)
    samplers.ddim(listener, schedule, torch.zeros(1, 1))
    return agree(
        "the times that a sampler tells the network", told, schedule.times[:0:-1], within=0
    )


def betas_come_back() -> Check:
    betas = [0.05, 0.2, 0.1]
    return agree(
        r"the $\beta_t$ that made a schedule are read off it",
        NoiseSchedule.from_betas(betas).beta[1:],
        betas,
        within=1e-12,
    )


def kept_steps_keep_their_levels() -> Check:
    full = NoiseSchedule.linear(10, 0.05, 0.5)
    return agree(
        "a kept step has the level it had, and the clean end is 1",
        full.strided(5).alpha_bar,
        [1, *full.alpha_bar[[2, 4, 6, 8, 10]]],
        within=0,
    )


def loss_is_flat_at_the_mean() -> Check:
    r"""The slope of the loss, when the network says :math:`\mathbb E[\epsilon\mid x_t]`."""
    generator = torch.Generator().manual_seed(0)
    n = 40_000
    data = targets.GaussianMixture(
        torch.tensor([0.2, 0.8], dtype=torch.float64),
        torch.tensor([[-1.0], [1.0]]),
        torch.tensor([[[0.01]], [[0.01]]]),
    )
    network = data.model(_TOY)
    shift = torch.zeros(n, 1, dtype=torch.float64, requires_grad=True)

    def shifted(x_t: Tensor, times: Tensor) -> Tensor:
        return network(x_t, times) + shift

    loss = objectives.simple_loss(shifted, _TOY, data.sample(n, generator), generator=generator)
    (slope,) = torch.autograd.grad(loss, shift)
    right = n * slope[:, 0] / 2
    return sampled(r"the loss is flat where the network is $\mathbb E[\epsilon\mid x_t]$", right, 0)


def rows_stand_alone() -> Check:
    times = torch.tensor([1, 20, 300, 1000])
    alone = torch.cat([time_embedding(t[None], 8) for t in times])
    return agree(
        "a time's embedding does not depend on its neighbours in the batch",
        time_embedding(times, 8),
        alone,
        within=1e-5,
    )
