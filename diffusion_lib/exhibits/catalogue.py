"""The wrong formulas, in the order of the book.

They are plain functions on any kind of number, like those of `closed_forms`, and have the signature
of the function whose place they take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from .. import closed_forms as cf
from .. import process, samplers
from ..closed_forms import Gaussian, Number, sqrt
from ..objectives import prediction_of
from ..schedule import NoiseSchedule, Table
from ..verify import Check
from . import checks
from .exhibit import ONE_STEP_BETA, Exhibit
from .planting import copy_of

_COLLECTED: list[Exhibit] = []


def _exhibit(
    replaces: str,
    name: str,
    slip: str,
    *,
    room: str,
    seen: str,
    right: str,
    wrong: str,
    check: Callable[[], Check],
    chapter: str,
    at: dict[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def collect(formula: Callable[..., Any]) -> Callable[..., Any]:
        places = tuple(seen.split())
        _COLLECTED.append(
            Exhibit(
                name, room, slip, replaces, formula, places, right, wrong, check, chapter, at or {}
            )
        )
        return formula

    return collect


# --- The forward process --------------------------------------------------------------------------


@_exhibit(
    "closed_forms.forward_step",
    "a mean without its sample",
    "The mean of one step is printed without $x_{t-1}$.",
    room="the forward process",
    seen="F2",
    right=r"\mathcal N(\sqrt{1-\beta}\,x_s,\ \beta)",
    wrong=r"\mathcal N(\sqrt{1-\beta},\ \beta)",
    check=checks.two_steps_are_one,
    chapter="02_forward_process",
)
def _mean_without_sample(x_s: Number, beta: Number) -> Gaussian:
    return Gaussian(sqrt(1 - beta), beta)


@_exhibit(
    "closed_forms.forward_step",
    "noise scaled by β",
    r"The fresh noise is multiplied by $\beta_t$ instead of $\sqrt{\beta_t}$.",
    room="the forward process",
    seen="W1",
    right=r"\sqrt{1-\beta}\,x_s+\sqrt\beta\,\epsilon",
    wrong=r"\sqrt{1-\beta}\,x_s+\beta\,\epsilon",
    check=checks.two_steps_are_one,
    chapter="02_forward_process",
)
def _noise_scaled_by_beta(x_s: Number, beta: Number) -> Gaussian:
    return Gaussian(sqrt(1 - beta) * x_s, beta**2)


@_exhibit(
    "closed_forms.noised",
    "one noise used twice",
    r"Two steps are unrolled with one and the same $\epsilon$ (here: two equal steps).",
    room="the forward process",
    seen="F3",
    right=r"\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon",
    wrong=r"\dots+(1+\sqrt\alpha)\sqrt{1-\alpha}\;\epsilon,\ \alpha=\sqrt{\bar\alpha_t}",
    check=checks.two_steps_are_one,
    chapter="02_forward_process",
)
def _shared_noise(x_0: Number, eps: Number, alpha_bar_t: Number) -> Number:
    alpha = sqrt(alpha_bar_t)
    return sqrt(alpha_bar_t) * x_0 + (1 + sqrt(alpha)) * sqrt(1 - alpha) * eps


@_exhibit(
    "closed_forms.marginal",
    "deviation for variance",
    "The standard deviation is written where the variance belongs.",
    room="the forward process",
    seen="W2",
    right=r"\mathcal N(\sqrt{\bar\alpha_t}\,x_0,\ 1-\bar\alpha_t)",
    wrong=r"\mathcal N(\sqrt{\bar\alpha_t}\,x_0,\ \sqrt{1-\bar\alpha_t})",
    check=checks.two_steps_are_one,
    chapter="02_forward_process",
)
def _deviation_for_variance(x_0: Number, alpha_bar_t: Number) -> Gaussian:
    return Gaussian(sqrt(alpha_bar_t) * x_0, sqrt(1 - alpha_bar_t))


@_exhibit(
    "closed_forms.draw",
    "variance for deviation",
    r"A draw multiplies the noise by the variance, as in $\tilde\beta_t z$ for "
    r"$\sqrt{\tilde\beta_t}\,z$.",
    room="the forward process",
    seen="W2 W7",
    right=r"\mu+\sqrt v\,\epsilon",
    wrong=r"\mu+v\,\epsilon",
    check=checks.two_steps_are_one,
    chapter="01_gaussian_toolbox",
)
def _variance_for_deviation(gaussian: Gaussian, eps: Number) -> Number:
    return gaussian.mean + gaussian.variance * eps


@_exhibit(
    "closed_forms.alpha_bar_table",
    "a sum for the product",
    r"$\bar\alpha_t$ is printed as a sum, of one and the same term.",
    room="the forward process",
    seen="F5",
    right=r"\prod_{i=1}^t\alpha_i",
    wrong=r"\sum_{i=0}^T\alpha_t",
    check=checks.products_up_to_t,
    chapter="02_forward_process",
)
def _sum_for_product(betas: Any) -> list[Number]:
    steps = list(betas)
    return [1, *((len(steps) + 1) * (1 - beta) for beta in steps)]


@_exhibit(
    "closed_forms.alpha_bar_table",
    "the product runs to T",
    "The product is taken to $T$, so that every step has the last level.",
    room="the forward process",
    seen="W3",
    right=r"\prod_{i=1}^t\alpha_i",
    wrong=r"\prod_{i=1}^T\alpha_i",
    check=checks.products_up_to_t,
    chapter="02_forward_process",
)
def _product_to_the_end(betas: Any) -> list[Number]:
    levels = list(accumulate(betas, lambda level, beta: level * (1 - beta), initial=1))
    return [1] + levels[-1:] * (len(levels) - 1)


@_exhibit(
    "closed_forms.alpha_bar_table",
    "the product starts at 0",
    r"The array of $\bar\alpha$ begins with $1-\beta_1$, and its index is taken for $t$.",
    room="the forward process",
    seen="W3",
    right=r"\bar\alpha_0=1",
    wrong=r"\bar\alpha_0=1-\beta_1",
    check=checks.products_up_to_t,
    chapter="02_forward_process",
)
def _product_from_zero(betas: Any) -> list[Number]:
    levels = list(accumulate(betas, lambda level, beta: level * (1 - beta), initial=1))
    return [*levels[1:], levels[-1]]


@_exhibit(
    "closed_forms.cosine_alpha_bar",
    "cosine without its square",
    "The cosine is not squared.",
    room="the forward process",
    seen="W4",
    right=r"\cos^2\!\big(\tfrac{t/T+s}{1+s}\tfrac\pi2\big)\big/\dots",
    wrong=r"\cos\!\big(\tfrac{t/T+s}{1+s}\tfrac\pi2\big)\big/\dots",
    check=checks.cosine_by_half_angles,
    chapter="02_forward_process",
)
def _cosine_without_square(t: Number, T: Number, s: Number) -> Number:
    return sqrt(_right_cosine(t, T, s))


_right_cosine = copy_of(cf.cosine_alpha_bar)


@_exhibit(
    "closed_forms.cosine_alpha_bar",
    "offset ten times too large",
    "The offset $s$ is 0.08 where the paper has 0.008.",
    room="the forward process",
    seen="W4",
    right=r"s=0.008",
    wrong=r"s=0.08",
    check=checks.cosine_by_half_angles,
    chapter="02_forward_process",
)
def _cosine_offset(t: Number, T: Number, s: Number) -> Number:
    return _right_cosine(t, T, 10 * s)


@_exhibit(
    "closed_forms.scaled_linear_beta",
    "squares for roots",
    "The ends of the “quadratic” schedule are squared instead of rooted.",
    room="the forward process",
    seen="W4",
    right=r"\big(\sqrt{\beta_1}+\dots(\sqrt{\beta_T}-\sqrt{\beta_1})\big)^2",
    wrong=r"\big(\beta_1^2+\dots(\beta_T^2-\beta_1^2)\big)^2",
    check=checks.roots_of_beta_are_even,
    chapter="02_forward_process",
)
def _squares_for_roots(t: Number, T: Number, beta_start: Number, beta_end: Number) -> Number:
    return cf.linear_beta(t, T, beta_start**2, beta_end**2) ** 2


# --- Gaussians ------------------------------------------------------------------------------------


@_exhibit(
    "closed_forms.normal_log_density",
    "a normaliser without its root",
    r"The factor of the density is $1/(\sqrt{2\pi}\,v)$, as if $v$ were the deviation.",
    room="Gaussians",
    seen="P3",
    right=r"\frac1{\sqrt{2\pi v}}e^{-(x-\mu)^2/2v}",
    wrong=r"\frac1{\sqrt{2\pi}\,v}e^{-(x-\mu)^2/2v}",
    check=checks.density_has_mass_one,
    chapter="03_posterior",
)
def _normaliser_without_root(x: Number, mean: Number, variance: Number) -> Number:
    pi = cf._library_of(variance, x, mean).pi
    return -(cf.log(2 * pi * variance**2) + (x - mean) ** 2 / variance) / 2


@_exhibit(
    "closed_forms.gaussian_kl",
    "a weight with a square too many",
    r"In the divergence the means are weighted by $1/(2\lVert\Sigma\rVert^2)$ "
    r"instead of $1/(2\sigma^2)$.",
    room="Gaussians",
    seen="W11",
    right=r"\frac{(\mu_p-\mu_q)^2}{2v_q}",
    wrong=r"\frac{(\mu_p-\mu_q)^2}{2v_q^2}",
    check=checks.kl_is_the_mean_log_ratio,
    chapter="01_gaussian_toolbox",
)
def _kl_with_squared_variance(p: Gaussian, q: Gaussian) -> Number:
    return (
        cf.log(q.variance / p.variance)
        + p.variance / q.variance
        + (p.mean - q.mean) ** 2 / q.variance**2
        - 1
    ) / 2


@_exhibit(
    "closed_forms.gaussian_kl",
    "a bound with the wrong sign",
    "The squared distance enters with the other sign, so that a worse network has a better bound.",
    room="Gaussians",
    seen="W12",
    right=r"+\frac{(\mu_p-\mu_q)^2}{2v_q}",
    wrong=r"-\frac{(\mu_p-\mu_q)^2}{2v_q}",
    check=checks.kl_is_the_mean_log_ratio,
    chapter="05_the_bound",
)
def _kl_with_other_sign(p: Gaussian, q: Gaussian) -> Number:
    return (
        cf.log(q.variance / p.variance) + (p.variance - (p.mean - q.mean) ** 2) / q.variance - 1
    ) / 2


# --- The posterior --------------------------------------------------------------------------------


@_exhibit(
    "closed_forms.posterior_mean",
    "a letter nobody defined",
    r"The weight of $x_0$ has $\sqrt{\bar x_{t-1}}$; no $\bar x$ is defined "
    "(read here as the data).",
    room="the posterior",
    seen="P6",
    right=r"\frac{\sqrt{\bar\alpha_s}\,\beta}{1-\bar\alpha_t}\,x_0",
    wrong=r"\frac{\sqrt{\bar x_s}\,\beta}{1-\bar\alpha_t}\,x_0",
    check=checks.posterior_mean_is_bayes,
    chapter="03_posterior",
    at={"x_0": sp.Integer(4)},
)
def _letter_without_meaning(
    x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number
) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    weight_t = sqrt(1 - beta) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return weight_t * x_t + sqrt(x_0) * beta / (1 - alpha_bar_t) * x_0


@_exhibit(
    "closed_forms.posterior_mean",
    "a network behind an equals sign",
    "The posterior mean, which depends on $x_0$, is set equal to what a network makes of "
    "$x_t$ alone (here: the perfect one for standard normal data).",
    room="the posterior",
    seen="P8",
    right=r"\frac1{\sqrt\alpha}\Big(x_t-\frac{\beta}{\sqrt{1-\bar\alpha_t}}\,\epsilon\Big)",
    wrong=r"\frac1{\sqrt\alpha}\Big(x_t-\frac{\beta}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta(x_t,t)\Big)",
    check=checks.posterior_mean_is_bayes,
    chapter="03_posterior",
)
def _network_for_noise(
    x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number
) -> Number:
    guess = cf.data_eps(x_t, 0, 1, alpha_bar_t)
    return cf.posterior_mean_from_eps(x_t, guess, alpha_bar_s, alpha_bar_t)


@_exhibit(
    "closed_forms.posterior_mean",
    "a bar too many",
    r"The weight of $x_t$ has $\sqrt{\bar\alpha_t}$ where $\sqrt{\alpha_t}$ belongs.",
    room="the posterior",
    seen="W6",
    right=r"\frac{\sqrt{\alpha}\,(1-\bar\alpha_s)}{1-\bar\alpha_t}\,x_t",
    wrong=r"\frac{\sqrt{\bar\alpha_t}\,(1-\bar\alpha_s)}{1-\bar\alpha_t}\,x_t",
    check=checks.posterior_mean_is_bayes,
    chapter="03_posterior",
)
def _bar_too_many(x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    weight_t = sqrt(alpha_bar_t) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return weight_t * x_t + sqrt(alpha_bar_s) * beta / (1 - alpha_bar_t) * x_0


@_exhibit(
    "closed_forms.posterior_mean",
    "padded at the wrong end",
    r"The array of $\bar\alpha_{t-1}$ is padded at its end, so its entry $t$ is $\bar\alpha_t$.",
    room="the posterior",
    seen="W5",
    right=r"\bar\alpha_{t-1}\text{ in }\tilde\mu",
    wrong=r"\bar\alpha_t\text{ in }\tilde\mu",
    check=checks.posterior_mean_is_bayes,
    chapter="03_posterior",
)
def _padded_at_the_wrong_end(
    x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number
) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    return sqrt(1 - beta) * x_t + sqrt(alpha_bar_t) * beta / (1 - alpha_bar_t) * x_0


@_exhibit(
    "closed_forms.posterior_variance",
    "a missing denominator",
    r"The factor $1/(1-\bar\alpha_t)$ is missing.",
    room="the posterior",
    seen="W7",
    right=r"\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\,\beta",
    wrong=r"(1-\bar\alpha_s)\,\beta",
    check=checks.posterior_variance_is_bayes,
    chapter="03_posterior",
)
def _missing_denominator(alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return (1 - alpha_bar_s) * cf.step_beta(alpha_bar_s, alpha_bar_t)


@_exhibit(
    "closed_forms.posterior",
    "the wrong variable before the semicolon",
    "The posterior is printed as a density of $x_t$, which it is not "
    "(here: drawn from as printed).",
    room="the posterior",
    seen="P10",
    right=r"\mathcal N(x_{t-1};\,\tilde\mu,\tilde\beta)",
    wrong=r"\mathcal N(x_t;\,\tilde\mu,\tilde\beta)",
    check=checks.bayes_gives_the_posterior,
    chapter="03_posterior",
)
def _density_of_the_wrong_variable(
    x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number
) -> Gaussian:
    free = 1 - cf.posterior_mean(1, 0, alpha_bar_s, alpha_bar_t)
    mean = cf.posterior_mean(0 * x_t, x_0, alpha_bar_s, alpha_bar_t) / free
    return Gaussian(mean, cf.posterior_variance(alpha_bar_s, alpha_bar_t) / free**2)


@_exhibit(
    "closed_forms.posterior",
    "fresh noise in the posterior",
    "The posterior is drawn with new noise, so that $x_t$ is forgotten.",
    room="the posterior",
    seen="I1",
    right=r"\mathcal N(\tilde\mu(x_t,x_0),\ \tilde\beta)",
    wrong=r"\mathcal N(\sqrt{\bar\alpha_s}\,x_0,\ 1-\bar\alpha_s)",
    check=checks.bayes_gives_the_posterior,
    chapter="10_eta",
)
def _fresh_noise(x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Gaussian:
    return Gaussian(sqrt(alpha_bar_s) * x_0, 1 - alpha_bar_s)


@_exhibit(
    "closed_forms.data_reverse",
    "the posterior for the reverse kernel",
    r"$q(x_s\mid x_t)$ is taken for $q(x_s\mid x_t,x_0)$ "
    "(here: with the mean of the data for $x_0$).",
    room="the posterior",
    seen="P1",
    right=r"\mathcal N\big(\dots,\ \tfrac{V_s}{V_t}\beta\big)",
    wrong=r"\mathcal N\big(\dots,\ \tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}\beta\big)",
    check=checks.reverse_of_gaussian_data_is_bayes,
    chapter="03_posterior",
)
def _posterior_for_reverse(
    x_t: Number, mean: Number, variance: Number, alpha_bar_s: Number, alpha_bar_t: Number
) -> Gaussian:
    return Gaussian(
        cf.posterior_mean(x_t, mean, alpha_bar_s, alpha_bar_t),
        cf.posterior_variance(alpha_bar_s, alpha_bar_t) + 0 * variance,
    )


@_exhibit(
    "closed_forms.reverse_variance",
    "Bayes' variance for the best one",
    r"$\tilde\beta$ is said to be right by itself; the doubt about $x_0$ is left out.",
    room="the posterior",
    seen="I19",
    right=r"\tilde\beta+w_0^2\,\mathrm{Var}[x_0\mid x_t]",
    wrong=r"\tilde\beta",
    check=checks.total_variance,
    chapter="03_posterior",
)
def _no_doubt(x_0_variance: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return cf.posterior_variance(alpha_bar_s, alpha_bar_t) + 0 * x_0_variance


@_exhibit(
    "closed_forms.interpolated_log_variance",
    "interpolated before the logarithm",
    "The learned variance is interpolated on the variances instead of their logarithms.",
    room="the posterior",
    seen="W10",
    right=r"v\log\beta+(1-v)\log\tilde\beta",
    wrong=r"\log\big(v\,\beta+(1-v)\,\tilde\beta\big)",
    check=checks.learned_variance_is_between,
    chapter="03_posterior",
)
def _interpolated_variance(share: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    large = cf.step_beta(alpha_bar_s, alpha_bar_t)
    small = cf.posterior_variance(alpha_bar_s, alpha_bar_t)
    return cf.log(share * large + (1 - share) * small)


# --- What the network predicts --------------------------------------------------------------------


@_exhibit(
    "closed_forms.data_eps",
    "a network that fits a standard normal",
    "The network's output is said to be standard normal, as the noise is.",
    room="what the network predicts",
    seen="L13",
    right=r"\mathbb E[\epsilon\mid x_t]=\frac{\sqrt{1-\bar\alpha_t}\,(x_t-\sqrt{\bar\alpha_t}\mu)}"
    r"{\bar\alpha_tv+1-\bar\alpha_t}",
    wrong=r"\frac{x_t-\sqrt{\bar\alpha_t}\mu}{\sqrt{\bar\alpha_tv+1-\bar\alpha_t}}",
    check=checks.noise_is_a_regression,
    chapter="04_what_the_network_predicts",
)
def _output_is_standard_normal(
    x_t: Number, mean: Number, variance: Number, alpha_bar_t: Number
) -> Number:
    law = cf.data_marginal(mean, variance, alpha_bar_t)
    return (x_t - law.mean) / sqrt(law.variance)


@_exhibit(
    "closed_forms.eps_from_score",
    "noise equated with the score",
    "The predicted noise is taken for the negative score, without its scale.",
    room="what the network predicts",
    seen="L14 W21",
    right=r"-\sqrt{1-\bar\alpha_t}\;\nabla\log q(x_t)",
    wrong=r"-\nabla\log q(x_t)",
    check=checks.noise_is_a_regression,
    chapter="04_what_the_network_predicts",
)
def _noise_is_the_score(score: Number, alpha_bar_t: Number) -> Number:
    return -score


@_exhibit(
    "closed_forms.x_0_from_score",
    "Tweedie without its scale",
    r"Tweedie's formula of another noise process is used: "
    r"the division by $\sqrt{\bar\alpha_t}$ is gone.",
    room="what the network predicts",
    seen="W21",
    right=r"\frac{x_t+(1-\bar\alpha_t)\nabla\log q(x_t)}{\sqrt{\bar\alpha_t}}",
    wrong=r"x_t+(1-\bar\alpha_t)\nabla\log q(x_t)",
    check=checks.tweedie,
    chapter="04_what_the_network_predicts",
)
def _tweedie_without_scale(x_t: Number, score: Number, alpha_bar_t: Number) -> Number:
    return x_t + (1 - alpha_bar_t) * score


@_exhibit(
    "closed_forms.x_0_from_eps",
    "one paper's α in the other's formula",
    r"DDIM's $\alpha_t$, which is DDPM's $\bar\alpha_t$, is read as DDPM's $\alpha_t=1-\beta_t$.",
    room="what the network predicts",
    seen="W17",
    right=r"\frac{x_t-\sqrt{1-\bar\alpha_t}\,\epsilon}{\sqrt{\bar\alpha_t}}",
    wrong=r"\frac{x_t-\sqrt{\beta_t}\,\epsilon}{\sqrt{1-\beta_t}}",
    check=checks.conversion_goes_back,
    chapter="09_ddim",
)
def _alpha_of_the_other_paper(x_t: Number, eps: Number, alpha_bar_t: Number) -> Number:
    beta = _one_step_beta(alpha_bar_t)
    return (x_t - sqrt(beta) * eps) / sqrt(1 - beta)


def _one_step_beta(alpha_bar_t: Number) -> Number:
    """β_t of the single step at a level of DDPM's schedule; a symbol where the level is symbolic.

    This is what code reads that indexes the array of betas with a kept step.
    """
    if isinstance(alpha_bar_t, sp.Basic):
        return ONE_STEP_BETA
    levels, betas = _ddpm_tables()
    tensor = alpha_bar_t if isinstance(alpha_bar_t, Tensor) else None
    wanted = np.asarray(alpha_bar_t if tensor is None else tensor.cpu(), dtype=np.float64)
    after = np.searchsorted(-levels, -wanted).clip(1, len(levels) - 1)  # levels fall
    closer = np.abs(levels[after - 1] - wanted) < np.abs(levels[after] - wanted)
    nearest = betas[after - closer]
    if tensor is not None:
        return torch.as_tensor(nearest).to(tensor)
    return nearest if isinstance(alpha_bar_t, np.ndarray) else type(alpha_bar_t)(nearest)


@functools.cache
def _ddpm_tables() -> tuple[Table, Table]:
    schedule = NoiseSchedule.linear()
    return schedule.alpha_bar, schedule.beta


@_exhibit(
    "closed_forms.guided_eps",
    "guidance with a plus",
    "Guidance is written with the wrong sign in its second part.",
    room="what the network predicts",
    seen="W20",
    right=r"w\,\epsilon_c-(w-1)\,\epsilon_u",
    wrong=r"w\,\epsilon_c+(w-1)\,\epsilon_u",
    check=checks.guidance_leaves_agreement_alone,
    chapter="14_museum",
)
def _guidance_with_a_plus(eps_cond: Number, eps_uncond: Number, scale: Number) -> Number:
    return scale * eps_cond + (scale - 1) * eps_uncond


# --- Reverse steps --------------------------------------------------------------------------------


@_exhibit(
    "closed_forms.reverse_mean",
    "direction without −σ²",
    r"The weight of the predicted noise leaves out $-\sigma^2$ while fresh noise is added.",
    room="reverse steps",
    seen="W15",
    right=r"\sqrt{\bar\alpha_s}\,x_0+\sqrt{1-\bar\alpha_s-\sigma^2}\,\epsilon",
    wrong=r"\sqrt{\bar\alpha_s}\,x_0+\sqrt{1-\bar\alpha_s}\,\epsilon",
    check=checks.marginal_is_kept,
    chapter="08_epsilon_decomposition",
)
def _direction_without_sigma(
    x_0: Number, eps: Number, alpha_bar_s: Number, sigma: Number
) -> Number:
    return sqrt(alpha_bar_s) * x_0 + sqrt(1 - alpha_bar_s + 0 * sigma) * eps


@_exhibit(
    "closed_forms.reverse_mean",
    "a clamp at zero",
    r"A negative radicand is hidden by a clamp at 0, and a $\sigma$ that is "
    "too large goes unnoticed.",
    room="reverse steps",
    seen="W15",
    right=r"\sqrt{1-\bar\alpha_s-\sigma^2}\,\epsilon",
    wrong=r"\sqrt{\max(0,\,1-\bar\alpha_s-\sigma^2)}\,\epsilon",
    check=checks.marginal_is_kept,
    chapter="08_epsilon_decomposition",
    at={"sigma": sp.Rational(12, 13)},
)
def _clamp_at_zero(x_0: Number, eps: Number, alpha_bar_s: Number, sigma: Number) -> Number:
    radicand = 1 - alpha_bar_s - sigma**2
    return sqrt(alpha_bar_s) * x_0 + sqrt((radicand + abs(radicand)) / 2) * eps


@_exhibit(
    "closed_forms.reverse_step",
    "a mixture that is not one",
    "Fresh and predicted noise are said to be mixed; the formula printed has no fresh noise.",
    room="reverse steps",
    seen="I3",
    right=r"\sqrt{\bar\alpha_s}\,x_0+\sqrt{1-\bar\alpha_s-\sigma^2}\,\epsilon+\sigma z",
    wrong=r"\sqrt{\bar\alpha_s}\,x_0+\sqrt{1-\bar\alpha_s}\,\epsilon",
    check=checks.step_keeps_the_marginal,
    chapter="10_eta",
)
def _no_mixture(x_0: Number, eps: Number, z: Number, alpha_bar_s: Number, sigma: Number) -> Number:
    return sqrt(alpha_bar_s) * x_0 + sqrt(1 - alpha_bar_s) * eps


@_exhibit(
    "closed_forms.ddim_sigma",
    "η for η²",
    r"The variance is $\eta\tilde\beta$; in the paper the deviation is $\eta\sqrt{\tilde\beta}$.",
    room="reverse steps",
    seen="I8 W14",
    right=r"\sigma=\eta\sqrt{\tilde\beta}",
    wrong=r"\sigma=\sqrt{\eta\,\tilde\beta}",
    check=checks.sigma_meets_ddpm,
    chapter="10_eta",
)
def _eta_for_its_square(eta: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return sqrt(eta * cf.posterior_variance(alpha_bar_s, alpha_bar_t))


@_exhibit(
    "closed_forms.ddim_sigma",
    "β where β̃ belongs",
    r"$\sigma^2=\beta$ is called DDPM, fully random.",
    room="reverse steps",
    seen="I7",
    right=r"\sigma=\eta\sqrt{\tilde\beta}",
    wrong=r"\sigma=\eta\sqrt{\beta}",
    check=checks.sigma_meets_ddpm,
    chapter="10_eta",
)
def _beta_for_beta_tilde(eta: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return eta * sqrt(cf.step_beta(alpha_bar_s, alpha_bar_t))


@_exhibit(
    "closed_forms.ddim_sigma",
    "σ of the single step",
    r"Between strided steps $\sigma$ is made of the single step's $\beta_t$.",
    room="reverse steps",
    seen="W16",
    right=r"\beta=1-\bar\alpha_t/\bar\alpha_s",
    wrong=r"\beta=\beta_t",
    check=checks.sigma_meets_ddpm,
    chapter="10_eta",
)
def _sigma_of_one_step(eta: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return eta * sqrt(_strided_variance(alpha_bar_s, alpha_bar_t))


@_exhibit(
    "closed_forms.posterior_mean",
    "strided mean, single α",
    r"Between strided steps the mean is made of the single step's $\alpha_t=1-\beta_t$.",
    room="reverse steps",
    seen="T3 W16",
    right=r"\alpha=\bar\alpha_t/\bar\alpha_s",
    wrong=r"\alpha=1-\beta_t",
    check=checks.posterior_mean_is_bayes,
    chapter="11_strided_sampling",
)
def _strided_mean(x_t: Number, x_0: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    beta = _one_step_beta(alpha_bar_t)
    weight_t = sqrt(1 - beta) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return weight_t * x_t + sqrt(alpha_bar_s) * beta / (1 - alpha_bar_t) * x_0


@_exhibit(
    "closed_forms.posterior_variance",
    "strided variance, single β",
    r"Between strided steps the variance is made of the single step's $\beta_t$.",
    room="reverse steps",
    seen="T4 W16",
    right=r"\tilde\beta=\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}\big(1-\tfrac{\bar\alpha_t}{\bar\alpha_s}\big)",
    wrong=r"\tilde\beta=\tfrac{1-\bar\alpha_s}{1-\bar\alpha_t}\,\beta_t",
    check=checks.posterior_variance_is_bayes,
    chapter="11_strided_sampling",
)
def _strided_variance(alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    return (1 - alpha_bar_s) / (1 - alpha_bar_t) * _one_step_beta(alpha_bar_t)


# --- Weights of the bound -------------------------------------------------------------------------


@_exhibit(
    "closed_forms.bound_weight_eps",
    "the variance squared in the weight",
    r"The weight is divided by $\tilde\beta^2$ instead of $\tilde\beta$.",
    room="weights of the bound",
    seen="L7 W11",
    right=r"\frac{\beta^2}{2\sigma^2\alpha(1-\bar\alpha_t)}",
    wrong=r"\frac{\beta^2}{2(\sigma^2)^2\alpha(1-\bar\alpha_t)}",
    check=checks.weight_is_a_divergence,
    chapter="05_the_bound",
)
def _weight_with_squared_variance(
    alpha_bar_s: Number, alpha_bar_t: Number, variance: Number
) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    return beta**2 / (2 * variance**2 * (1 - beta) * (1 - alpha_bar_t))


@_exhibit(
    "closed_forms.bound_weight_eps",
    "a division by zero at t = 1",
    r"The weight of the last step is divided by $\tilde\beta_1^2$, which is 0.",
    room="weights of the bound",
    seen="L8",
    right=r"\frac{1-\bar\alpha_1}{2\sigma_1^2\alpha_1}",
    wrong=r"\frac{1-\bar\alpha_1}{2\tilde\beta_1^2\alpha_1}",
    check=checks.reconstruction_has_a_weight,
    chapter="05_the_bound",
    at={"alpha_bar_s": sp.Integer(1)},
)
def _weight_of_the_last_step(alpha_bar_s: Number, alpha_bar_t: Number, variance: Number) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    beta_tilde = cf.posterior_variance(alpha_bar_s, alpha_bar_t)
    return (1 - alpha_bar_t) / (2 * beta_tilde**2 * (1 - beta))


@_exhibit(
    "closed_forms.bound_weight_eps",
    "a product for the norm",
    r"The summary of training multiplies what should be squared: its weight is $(1-\alpha)\alpha$.",
    room="weights of the bound",
    seen="L12",
    right=r"\frac1{2\sigma^2}\,\frac{(1-\alpha)^2}{\alpha(1-\bar\alpha_t)}",
    wrong=r"\frac1{2\sigma^2}\,(1-\alpha)\,\alpha",
    check=checks.weight_is_a_divergence,
    chapter="05_the_bound",
)
def _product_for_norm(alpha_bar_s: Number, alpha_bar_t: Number, variance: Number) -> Number:
    beta = cf.step_beta(alpha_bar_s, alpha_bar_t)
    return beta * (1 - beta) / (2 * variance)


# --- Not formulas: tables, losses, loops ----------------------------------------------------------


@_exhibit(
    "schedule.NoiseSchedule.beta",
    "σ = β",
    r"The deviation of the sampler's noise is $\beta_t$ where its variance is $\beta_t$.",
    room="tables, losses, loops",
    seen="S2",
    right=r"\sigma_t^2=\beta_t",
    wrong=r"\sigma_t=\beta_t",
    check=checks.betas_come_back,
    chapter="07_ddpm_sampling",
)
def _beta_squared(self: NoiseSchedule) -> Table:
    return self._between(cf.step_beta) ** 2


@_exhibit(
    "schedule.NoiseSchedule.subsequence",
    "a clean end that is not clean",
    r"The last level of the sampler is $\bar\alpha_1$ instead of 1, without a word.",
    room="tables, losses, loops",
    seen="W19",
    right=r"\bar\alpha_0=1",
    wrong=r"\bar\alpha_0:=\bar\alpha_1",
    check=checks.kept_steps_keep_their_levels,
    chapter="11_strided_sampling",
)
def _unclean_end(self: NoiseSchedule, steps: Any) -> NoiseSchedule:
    kept = _right_subsequence(self, steps)
    table = kept.alpha_bar.copy()
    table[0] = self.alpha_bar[1]
    kept._freeze(table, kept.times)
    return kept


_right_subsequence = copy_of(NoiseSchedule.subsequence)


@_exhibit(
    "objectives.simple_loss",
    "uniform noise",
    "`rand` is called where `randn` is meant, so that the noise is uniform.",
    room="tables, losses, loops",
    seen="W1",
    right=r"\epsilon\sim\mathcal N(0,I)",
    wrong=r"\epsilon\sim\mathcal U(0,1)",
    check=checks.loss_is_flat_at_the_mean,
    chapter="06_simple_loss",
)
def _uniform_noise(
    model: Any,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    labels: Tensor | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    def loss(x_t: Tensor, output: Tensor, eps: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(output, eps)

    return _training_step(model, schedule, x_0, generator, torch.rand, loss)


@_exhibit(
    "objectives.simple_loss",
    "a norm without its square",
    r"The loss is $\lVert\epsilon-\epsilon_\theta\rVert$, in one dimension the L1 loss, under a "
    "derivation that needs a mean.",
    room="tables, losses, loops",
    seen="L11 W13",
    right=r"\lVert\epsilon-\epsilon_\theta\rVert^2",
    wrong=r"\lVert\epsilon-\epsilon_\theta\rVert",
    check=checks.loss_is_flat_at_the_mean,
    chapter="04_what_the_network_predicts",
)
def _norm_without_square(
    model: Any,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    labels: Tensor | None = None,
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    def loss(x_t: Tensor, output: Tensor, eps: Tensor) -> Tensor:
        return (output - eps).flatten(1).norm(dim=1).mean()

    return _training_step(model, schedule, x_0, generator, torch.randn, loss)


def _training_step(
    model: Any,
    schedule: NoiseSchedule,
    x_0: Tensor,
    generator: torch.Generator | None,
    random: Callable[..., Tensor],
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """A training step on the noise, with any noise and any loss."""
    t = torch.randint(1, schedule.T + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    eps = random(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = process.add_noise(schedule, x_0, t, eps)
    return loss(x_t, model(x_t, process.network_times(schedule, t)), eps)


@_exhibit(
    "samplers.ddim",
    "η here, η² there",
    r"The direction is computed with $\sigma^2=\eta\tilde\beta$ and the noise with "
    r"$\sigma^2=\eta^2\tilde\beta$.",
    room="tables, losses, loops",
    seen="W14",
    right=r"\sqrt{1-\bar\alpha_s-\eta^2\tilde\beta}\;\epsilon+\eta\sqrt{\tilde\beta}\,z",
    wrong=r"\sqrt{1-\bar\alpha_s-\eta\,\tilde\beta}\;\epsilon+\eta\sqrt{\tilde\beta}\,z",
    check=checks.ddim_has_its_law,
    chapter="10_eta",
)
def _two_etas(
    model: Any,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    eta: float = 0.0,
    sigma: Any = None,
    prediction: str | None = None,
    generator: Any = None,
    clip: Any = None,
    callback: Any = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    levels = schedule.alpha_bar[:-1], schedule.alpha_bar[1:]
    noise_std = cf.ddim_sigma(eta, *levels)
    kind = prediction_of(model, prediction)
    plan = samplers._plan_to_data(schedule, kind, cf.ddim_sigma(sqrt(eta), *levels), noise_std)
    options = samplers._Options(generator, clip, callback, progress, grad)
    return samplers._run(model, plan, x_T, options)


@_exhibit(
    "samplers.ddpm",
    "noise at the last step",
    "The guard against noise in the last step never holds: `if t > 0` in a loop that ends at 1.",
    room="tables, losses, loops",
    seen="W8",
    right=r"x_0=\tilde\mu",
    wrong=r"x_0=\tilde\mu+\sqrt{\beta_1}\,z",
    check=checks.ddpm_has_its_law,
    chapter="07_ddpm_sampling",
)
def _noise_at_the_last_step(
    model: Any,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    variance: str = "posterior",
    prediction: str | None = None,
    generator: Any = None,
    clip: Any = None,
    callback: Any = None,
    progress: bool = False,
    grad: bool = False,
) -> Tensor:
    table = schedule.beta if variance == "beta" else schedule.posterior_variance
    sigma = cf.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:])
    kind = prediction_of(model, prediction)
    plan = samplers._plan_to_data(schedule, kind, sigma, sqrt(table[1:]))
    options = samplers._Options(generator, clip, callback, progress, grad)
    return samplers._run(model, plan, x_T, options)


@_exhibit(
    "samplers._Plan.told",
    "an index off by one",
    "The network is asked about one step and the formula evaluated at its neighbour.",
    room="tables, losses, loops",
    seen="W9",
    right=r"\epsilon_\theta(x_t,\,t)",
    wrong=r"\epsilon_\theta(x_t,\,t-1)",
    check=checks.network_is_told_its_time,
    chapter="15_train_and_sample",
)
def _off_by_one(self: Any) -> Any:
    return np.maximum(self.schedule.times[np.maximum(self.order[:-1], self.order[1:])] - 1, 1)


@_exhibit(
    "samplers._Plan.told",
    "an index for a time",
    "The sampler feeds its own index where the timestep belongs, "
    "as inversion code has been seen to.",
    room="tables, losses, loops",
    seen="W18",
    right=r"\epsilon_\theta(x_{\tau_i},\,\tau_i)",
    wrong=r"\epsilon_\theta(x_{\tau_i},\,i)",
    check=checks.network_is_told_its_time,
    chapter="12_ddim_as_a_code",
)
def _index_for_time(self: Any) -> Any:
    return np.maximum(self.order[:-1], self.order[1:])


@_exhibit(
    "networks.time_embedding.time_embedding",
    "masks over rows",
    "Sine and cosine alternate over the rows of the batch instead of over the columns.",
    room="tables, losses, loops",
    seen="W22",
    right=r"[\cos(tf),\ \sin(tf)]",
    wrong=r"\cos(tf)\text{ in even rows},\ \sin(tf)\text{ in odd rows}",
    check=checks.rows_stand_alone,
    chapter="13_the_clock",
)
def _masks_over_rows(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    half = max(dim // 2, 1)
    i = torch.arange(dim, dtype=torch.float64, device=t.device) // 2
    angles = t.to(torch.float64)[:, None] * cf.clock_frequency(i, half, max_period)
    out = angles.sin()
    out[0::2] = angles[0::2].cos()
    return out.float()


EXHIBITS: tuple[Exhibit, ...] = tuple(_COLLECTED)
"""All exhibits, in the order of the book."""
