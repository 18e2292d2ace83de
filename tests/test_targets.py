"""Exact targets, held against integration, autograd, Bayes' rule and sampling."""

import mpmath
import pytest
import torch

from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

LEVELS = [1.0, 0.9, 0.3, 0.01]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_mixture(K=3, d=2):
    g = seeded(1)
    factors = torch.randn(K, d, d, generator=g, dtype=torch.float64)
    covariances = factors @ factors.mT + 0.05 * torch.eye(d, dtype=torch.float64)
    weights = torch.rand(K, generator=g, dtype=torch.float64) + 0.1
    return GaussianMixture(
        weights / weights.sum(),
        2 * torch.randn(K, d, generator=g, dtype=torch.float64),
        covariances,
    )


def dense_log_prob(mixture_parts, level, x):
    """The same density through torch.distributions: no eigenbasis, no closed forms."""
    weights, means, covariances = mixture_parts
    d = means.shape[1]
    components = torch.distributions.MultivariateNormal(
        level**0.5 * means, level * covariances + (1 - level) * torch.eye(d, dtype=torch.float64)
    )
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights), components
    ).log_prob(x)


@pytest.mark.parametrize("level", LEVELS)
def test_log_density_under_noise(level):
    g = seeded(1)
    factors = torch.randn(3, 2, 2, generator=g, dtype=torch.float64)
    covariances = factors @ factors.mT + 0.05 * torch.eye(2, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    means = torch.randn(3, 2, generator=g, dtype=torch.float64)
    x = torch.randn(50, 2, generator=g, dtype=torch.float64)
    got = GaussianMixture(weights, means, covariances).at(level).log_prob(x)
    assert torch.allclose(got, dense_log_prob((weights, means, covariances), level, x), atol=1e-11)


@pytest.mark.parametrize("level", LEVELS)
def test_score_is_the_gradient_of_the_log_density(level):
    law = some_mixture().at(level)
    x = torch.randn(20, 2, generator=seeded(), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    assert torch.allclose(law.score(x), slope, atol=1e-10)


def test_eps_is_the_conditional_mean_of_the_noise_by_quadrature():
    """E[eps | x_t] from its definition, integrating over x_0 in 20 digits."""
    weights, means, deviations, level, x_t = (0.3, 0.7), (-1.0, 0.8), (0.4, 0.2), 0.45, 0.25
    mixture = GaussianMixture(weights, [[m] for m in means], [[[s**2]] for s in deviations])
    with mpmath.workdps(20):

        def joint(x_0):
            prior = sum(
                w * mpmath.npdf(x_0, m, s)
                for w, m, s in zip(weights, means, deviations, strict=True)
            )
            return prior * mpmath.npdf(x_t, mpmath.sqrt(level) * x_0, mpmath.sqrt(1 - level))

        def eps(x_0):
            return (x_t - mpmath.sqrt(level) * x_0) / mpmath.sqrt(1 - level)

        grid = [-4, -1, 0, 0.8, 4]
        truth = mpmath.quad(lambda x: eps(x) * joint(x), grid) / mpmath.quad(joint, grid)
    got = mixture.eps(torch.tensor([[x_t]], dtype=torch.float64), level)
    assert float(got) == pytest.approx(float(truth), rel=1e-12)


def test_reverse_kernel_is_bayes_rule():
    """log q(x_s|x_t) = log q(x_t|x_s) + log q(x_s) - log q(x_t), each from elsewhere."""
    mixture, s, t = some_mixture(), 0.6, 0.35
    x_t = torch.randn(30, 2, generator=seeded(2), dtype=torch.float64)
    x_s = torch.randn(30, 2, generator=seeded(3), dtype=torch.float64)
    step = torch.distributions.Normal((t / s) ** 0.5 * x_s, (1 - t / s) ** 0.5)
    want = step.log_prob(x_t).sum(-1) + mixture.at(s).log_prob(x_s) - mixture.at(t).log_prob(x_t)
    assert torch.allclose(mixture.reverse_kernel(x_t, s, t).log_prob(x_s), want, atol=1e-10)


def test_reverse_kernel_of_a_point_is_the_posterior_of_that_point():
    point = gaussian([0.7], [[0.0]])
    law = point.reverse_kernel(torch.tensor([[0.1]], dtype=torch.float64), 0.6, 0.35)
    alpha = 0.35 / 0.6
    assert float(law.covariance) == pytest.approx(0.4 / 0.65 * (1 - alpha), rel=1e-13)


def test_samples_have_the_moments_of_the_law():
    mixture, n = some_mixture(), 400_000
    x = mixture.sample(n, seeded())
    error = (x.mean(0) - mixture.mean) / (x.std(0) / n**0.5)
    assert error.abs().max() < 4.5
    centred = x - mixture.mean
    products = centred[:, :, None] * centred[:, None, :]
    z = (products.mean(0) - mixture.covariance) / (products.std(0) / n**0.5)
    assert z.abs().max() < 4.5


def test_samples_of_a_batch_of_kernels_follow_each_kernel():
    mixture, n = some_mixture(), 100_000
    x_t = torch.tensor([[0.0, 0.0], [2.0, -1.0]], dtype=torch.float64)
    kernels = mixture.reverse_kernel(x_t, 0.6, 0.35)
    x = kernels.sample(n, seeded())
    assert x.shape == (n, 2, 2)
    z = (x.mean(0) - kernels.mean) / (x.std(0) / n**0.5)
    assert z.abs().max() < 4.5
    assert torch.equal(x, kernels.sample(n, seeded()))


def test_one_level_for_each_row():
    mixture = some_mixture()
    x = torch.randn(4, 2, generator=seeded(), dtype=torch.float64)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    together = mixture.eps(x, levels)
    alone = torch.cat([mixture.eps(row[None], level) for row, level in zip(x, LEVELS, strict=True)])
    assert torch.allclose(together, alone, atol=1e-13)
    assert together[0].abs().max() == 0  # no noise at alpha_bar = 1


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v", "score"])
def test_the_perfect_network_answers_at_network_times(prediction):
    mixture = some_mixture()
    schedule = NoiseSchedule.linear().subsequence([100, 700])
    x = torch.randn(3, 2, generator=seeded())
    level = float(schedule.alpha_bar[2])
    answer = mixture.model(schedule, prediction)(x, torch.full((3,), 700))
    assert answer.dtype == x.dtype
    eps = mixture.eps(x.double(), level)
    x_0 = (x.double() - (1 - level) ** 0.5 * eps) / level**0.5
    want = {
        "eps": eps,
        "x_0": x_0,
        "v": level**0.5 * eps - (1 - level) ** 0.5 * x_0,
        "score": mixture.at(level).score(x.double()),
    }[prediction]
    assert torch.allclose(answer.double(), want, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.6], [[0.0], [1.0]], [[[1.0]], [[1.0]]]), "weights is"),
        (([-0.5, 1.5], [[0.0], [1.0]], [[[1.0]], [[1.0]]]), "weights is"),
        (([1.0], [[0.0], [1.0]], [[[1.0]], [[1.0]]]), "have shapes"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]]), "not symmetric"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "eigenvalue -1"),
    ],
)
def test_bad_parameters_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.at(2.0), "alpha_bar_t is 2.0"),
        (lambda m, x: m.at(-1.0), "alpha_bar_t is -1.0"),
        (lambda m, x: m.at(float("nan")), "alpha_bar_t is nan"),
        (lambda m, x: m.eps(x, torch.full((3, 1), 0.5)), "alpha_bar_t is torch.float32 of shape"),
        (lambda m, x: m.reverse_kernel(x, 0.2, 0.5), "from t to a cleaner s"),
        (lambda m, x: m.model(NoiseSchedule.linear(9))(x, torch.tensor([1, 2, 10])), "times is"),
        (lambda m, x: m.model(NoiseSchedule.linear(9))(x, torch.tensor([1, 2, -1])), "times is"),
        (lambda m, x: m.sample(0), "count is 0"),
        (lambda m, x: GaussianMixture([1.0], [[float("nan")]], [[[1.0]]]), "not finite"),
    ],
)
def test_levels_and_times_out_of_range_get_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(some_mixture(), torch.zeros(3, 2, dtype=torch.float64))


def test_a_mixture_can_be_kept_in_float32():
    mixture = some_mixture()
    x = torch.randn(5, 2, generator=seeded())
    single = mixture.to(dtype=torch.float32).at(0.5).score(x)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), mixture.at(0.5).score(x.double()), atol=1e-4)


def test_points_of_another_dimension_get_a_sentence():
    with pytest.raises(ValueError, match="last dimension must be 2"):
        some_mixture().log_prob(torch.zeros(5, 3))
