"""The training loss and the bound, held against what theory says of them."""

import math

import numpy as np
import pytest
import torch

from diffusion_lib.objectives import bound, simple_loss
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

V = 2.5  # variance of the data
SCHEDULE = NoiseSchedule.linear(20, 0.01, 0.3)
TARGET = gaussian(torch.zeros(1), torch.tensor([[V]], dtype=torch.float64))
LEVELS = torch.tensor(SCHEDULE.alpha_bar[1:])

# What x_t leaves open. Given x_t, the noise has variance ᾱ v / (ᾱ v + 1 - ᾱ); the other targets are
# affine in the noise once x_t is known, so their variances are multiples of it.
OPEN = LEVELS * V / (LEVELS * V + 1 - LEVELS)
BEST = {
    "eps": OPEN,
    "x_0": OPEN * (1 - LEVELS) / LEVELS,
    "v": OPEN / LEVELS,
    "score": OPEN / (1 - LEVELS),
}


def batch_losses(model, prediction, batches=400, size=500):
    generator = torch.Generator().manual_seed(0)
    data = torch.Generator().manual_seed(1)
    return torch.stack(
        [
            simple_loss(
                model,
                SCHEDULE,
                TARGET.sample(size, data),
                prediction=prediction,
                generator=generator,
            )
            for _ in range(batches)
        ]
    )


@pytest.mark.parametrize("prediction", BEST)
def test_the_perfect_network_has_the_loss_of_theory(prediction):
    losses = batch_losses(TARGET.model(SCHEDULE, prediction), prediction)
    z = (losses.mean() - BEST[prediction].mean()) / (losses.std() / len(losses) ** 0.5)
    assert abs(float(z)) < 4.5


def test_a_network_that_answers_nothing_has_loss_one():
    losses = batch_losses(lambda x, t: torch.zeros_like(x), "eps", batches=200)
    z = (losses.mean() - 1) / (losses.std() / len(losses) ** 0.5)
    assert abs(float(z)) < 4.5


def test_every_step_is_drawn_and_told_in_network_time():
    seen = []

    def model(x, t):
        seen.append(t)
        return x

    schedule = NoiseSchedule.linear(100).subsequence([10, 60, 90])
    simple_loss(model, schedule, torch.zeros(3000, 2), generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(seen[0], minlength=91)
    assert counts.nonzero().flatten().tolist() == [10, 60, 90]
    assert (counts[[10, 60, 90]] - 1000).abs().max() < 4.5 * (3000 * 2 / 9) ** 0.5


def test_the_generator_decides_everything():
    model, x_0 = (lambda x, t: 0.5 * x), torch.randn(8, 3)
    before = torch.get_rng_state()
    first, again, other = (
        simple_loss(model, SCHEDULE, x_0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 1, 8, 8)])
def test_any_shape_and_a_gradient(shape):
    weight = torch.ones(1, requires_grad=True)
    loss = simple_loss(lambda x, t: weight * x, SCHEDULE, torch.randn(shape))
    loss.backward()
    assert loss.shape == ()
    assert weight.grad.abs() > 0


def test_an_output_of_another_shape_gets_a_sentence():
    with pytest.raises(ValueError, match=r"output has shape \(4, 1\)"):
        simple_loss(lambda x, t: x[:, :1], SCHEDULE, torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("x_0", "message"),
    [
        (torch.zeros(4, 2, dtype=torch.int64), "x_0 is torch.int64"),
        (torch.zeros(0, 2), "x_0 has no rows"),
        ([[1.0]], "x_0 is"),
    ],
)
def test_data_that_cannot_be_noised_get_a_sentence(x_0, message):
    with pytest.raises(ValueError, match=message):
        simple_loss(lambda x, t: x, SCHEDULE, x_0)


def test_an_unknown_prediction_is_refused_before_the_network_runs():
    def never(x, t):
        raise AssertionError("the network was run")

    with pytest.raises(ValueError, match="prediction is 'noise'; it must be one of eps, x_0, v"):
        simple_loss(never, SCHEDULE, torch.zeros(4, 2), prediction="noise")


# --- The bound ------------------------------------------------------------------------------------

SHORT = NoiseSchedule.linear(5, 0.05, 0.4)
SETTINGS = [("posterior", None), ("posterior", 0.3), ("beta", None), ("beta", 0.01)]
settings = pytest.mark.parametrize(("variance", "decoder_variance"), SETTINGS)
SLOPE, OFFSET = 0.7, 0.2  # a network of one line, eps_theta = SLOPE x_t + OFFSET, far from perfect


def line(x_t, times):
    return SLOPE * x_t + OFFSET


def variances(variance, decoder_variance):
    """The model's variances for t = 1..T, written out: beta_t, or what Bayes' rule leaves of it."""
    beta = 1 - SHORT.alpha_bar[1:] / SHORT.alpha_bar[:-1]
    kept = 1 - SHORT.alpha_bar
    chosen = beta * kept[:-1] / kept[1:] if variance == "posterior" else beta.copy()
    chosen[0] = beta[0] if decoder_variance is None else decoder_variance
    return chosen


class Chain:
    """A model of one line and the forward process, as joint Gaussians of (x_0, ..., x_T)."""

    def __init__(self, x_0, sigma2):
        levels, T = SHORT.alpha_bar, SHORT.T
        alpha = levels[1:] / levels[:-1]
        # Every variable as a row of weights on (1, z_0, ..., z_T) with independent normal z.
        rows = np.zeros((T + 1, T + 2))
        rows[T, T + 1] = 1
        for t in range(T, 0, -1):
            share = (1 - alpha[t - 1]) / np.sqrt(1 - levels[t])
            rows[t - 1] = (1 - share * SLOPE) * rows[t] / np.sqrt(alpha[t - 1])
            rows[t - 1, 0] -= share * OFFSET / np.sqrt(alpha[t - 1])
            rows[t - 1, t] = np.sqrt(sigma2[t - 1])
        self.mean, self.covariance = rows[:, 0], rows[:, 1:] @ rows[:, 1:].T
        self.x_0 = x_0
        self.q_mean = np.sqrt(levels[1:]) * x_0
        low, high = np.minimum.outer(levels, levels)[1:, 1:], np.maximum.outer(levels, levels)
        self.q_covariance = np.sqrt(low / high[1:, 1:]) * (1 - high[1:, 1:])

    def negative_log_likelihood(self):
        v = self.covariance[0, 0]
        return 0.5 * (math.log(2 * math.pi * v) + (self.x_0 - self.mean[0]) ** 2 / v)

    def gap(self):
        """KL(q(x_1..x_T | x_0) || p(x_1..x_T | x_0))."""
        to_x_0 = self.covariance[1:, 0] / self.covariance[0, 0]
        mean = self.mean[1:] + to_x_0 * (self.x_0 - self.mean[0])
        covariance = self.covariance[1:, 1:] - np.outer(to_x_0, self.covariance[0, 1:])
        offset = mean - self.q_mean
        return 0.5 * (
            np.linalg.slogdet(covariance)[1]
            - np.linalg.slogdet(self.q_covariance)[1]
            + np.trace(np.linalg.solve(covariance, self.q_covariance))
            + offset @ np.linalg.solve(covariance, offset)
            - len(offset)
        )


def z_score(draws, truth):
    return float((draws.mean(0) - truth) / (draws.std(0) / len(draws) ** 0.5))


@settings
@pytest.mark.parametrize("x_0", [-1.3, 0.4])
def test_total_is_likelihood_plus_gap_of_a_gaussian_chain(x_0, variance, decoder_variance):
    chain = Chain(x_0, variances(variance, decoder_variance))
    total = bound(
        line,
        SHORT,
        torch.full((60_000, 1), x_0, dtype=torch.float64),
        variance=variance,
        decoder_variance=decoder_variance,
        generator=torch.Generator().manual_seed(0),
    ).total
    assert abs(z_score(total, chain.negative_log_likelihood() + chain.gap())) < 4.5
    assert chain.gap() > 0.01


@settings
def test_every_term_is_the_divergence_it_says(variance, decoder_variance):
    """Each column against its definition, with the same noise and torch's own distributions."""
    x_0 = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = {}

    def spy(x_t, times):
        seen[int(times[0])] = x_t
        return line(x_t, times)

    got = bound(
        spy,
        SHORT,
        x_0,
        variance=variance,
        decoder_variance=decoder_variance,
        generator=torch.Generator().manual_seed(4),
    )
    levels = torch.tensor(SHORT.alpha_bar)
    sigma2 = torch.tensor(variances(variance, decoder_variance))
    Normal, divergence = torch.distributions.Normal, torch.distributions.kl_divergence
    want = []
    for t in range(1, SHORT.T + 1):
        x_t, alpha = seen[t], levels[t] / levels[t - 1]
        mean = (x_t - (1 - alpha) / (1 - levels[t]).sqrt() * line(x_t, None)) / alpha.sqrt()
        model = Normal(mean, sigma2[t - 1].sqrt())
        if t == 1:
            want.append(-model.log_prob(x_0))
            continue
        precision = alpha / (1 - alpha) + 1 / (1 - levels[t - 1])
        towards = alpha.sqrt() / (1 - alpha) * x_t
        towards = towards + levels[t - 1].sqrt() / (1 - levels[t - 1]) * x_0
        want.append(divergence(Normal(towards / precision, precision**-0.5), model))
    end = Normal(levels[-1].sqrt() * x_0, (1 - levels[-1]).sqrt())
    want.append(divergence(end, Normal(torch.zeros_like(x_0), 1.0)))
    want = torch.stack([term.sum((1, 2)) for term in want], dim=1)
    assert got.terms.shape == (7, SHORT.T + 1)
    assert torch.allclose(got.terms, want, rtol=1e-11, atol=1e-13)
    assert torch.equal(got.reconstruction, got.terms[:, 0])
    assert torch.equal(got.steps, got.terms[:, 1:-1])
    assert torch.equal(got.prior, got.terms[:, -1])
    assert torch.allclose(got.total, want.sum(1))


MIXTURE = GaussianMixture(
    [0.3, 0.7],
    [[-1.0, 0.5], [1.0, 0.0]],
    [[[0.04, 0.0], [0.0, 0.04]], [[0.09, 0.05], [0.05, 0.09]]],
)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_bound_of_a_mixture_is_the_mean_log_ratio_of_simulated_paths(variance):
    """-ELBO by its definition: log q(path | x_0) - log p(path), steps simulated one by one."""
    schedule = NoiseSchedule.linear(10, 0.02, 0.5)
    generator = torch.Generator().manual_seed(5)
    x_0, model = MIXTURE.sample(20_000, generator), MIXTURE.model(schedule)
    by_terms = bound(model, schedule, x_0, variance=variance, generator=generator).total

    Normal = torch.distributions.Normal
    levels = torch.tensor(schedule.alpha_bar)
    by_paths, x = torch.zeros(len(x_0), dtype=torch.float64), x_0
    for t in range(1, schedule.T + 1):
        alpha = levels[t] / levels[t - 1]
        forward = Normal(alpha.sqrt() * x, (1 - alpha).sqrt())
        x_next = forward.mean + forward.stddev * torch.randn(
            x.shape, generator=generator, dtype=torch.float64
        )
        eps = model(x_next, torch.full((len(x),), t))
        mean = (x_next - (1 - alpha) / (1 - levels[t]).sqrt() * eps) / alpha.sqrt()
        use_posterior = variance == "posterior" and t > 1
        share = (1 - levels[t - 1]) / (1 - levels[t]) if use_posterior else 1.0
        back = Normal(mean, ((1 - alpha) * share).sqrt())
        by_paths += (forward.log_prob(x_next) - back.log_prob(x)).sum(1)
        x = x_next
    by_paths -= Normal(0.0, 1.0).log_prob(x).sum(1)

    assert abs(z_score(by_terms - by_paths, 0.0)) < 4.5
    # Above the entropy of the data, the least that any model's likelihood can be.
    assert z_score(by_terms + MIXTURE.log_prob(x_0), 0.0) > 4.5


@pytest.mark.parametrize("schedule", [SHORT, SHORT.subsequence([2, 5]), SHORT.subsequence([3])])
def test_every_prediction_has_the_same_bound(schedule):
    x_0 = MIXTURE.sample(50, torch.Generator().manual_seed(6))
    first, *others = (
        bound(
            MIXTURE.model(schedule, prediction),
            schedule,
            x_0,
            prediction=prediction,
            generator=torch.Generator().manual_seed(7),
        ).terms
        for prediction in ("eps", "x_0", "v", "score")
    )
    assert first.shape == (50, schedule.T + 1)
    for other in others:
        assert torch.allclose(other, first, rtol=1e-10, atol=1e-12)


def test_a_perfect_network_with_the_exact_variance_leaves_no_gap():
    """Standard normal data stay standard normal, and the reverse kernel has variance beta."""
    target = gaussian(torch.zeros(2), torch.eye(2, dtype=torch.float64))
    x_0 = torch.tensor([[0.5, -1.0]], dtype=torch.float64).repeat(20_000, 1)
    total = bound(
        target.model(SHORT),
        SHORT,
        x_0,
        variance="beta",
        generator=torch.Generator().manual_seed(8),
    ).total
    assert abs(z_score(total, -float(target.log_prob(x_0[0])))) < 4.5


def test_the_prior_term_keeps_its_digits_in_float32():
    schedule = NoiseSchedule.linear()
    x_0 = torch.linspace(-1, 1, 5)
    level = schedule.alpha_bar[-1]
    want = 0.5 * (level * x_0.double() ** 2 - level - math.log1p(-level))
    got = bound(lambda x, t: x, schedule, x_0).prior
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("dtype", "result"), [(torch.float16, torch.float32), (torch.float64, torch.float64)]
)
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4)])
def test_any_shape_and_type(shape, dtype, result):
    x_0 = torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(dtype)

    def model(x_t, times):
        assert (x_t.dtype, x_t.shape, times.shape) == (dtype, shape, (3,))
        return 0.5 * x_t

    got = bound(model, SHORT, x_0)
    assert got.terms.dtype == result
    assert got.total.shape == (3,)
    assert got.terms.isfinite().all()


def test_the_network_is_told_network_times_in_evaluation_mode_without_gradients():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.dropout = torch.nn.Dropout(0.5)
            self.seen = []

        def forward(self, x, times):
            self.seen.append(int(times[0]))
            assert not self.training
            assert not self.dropout.training
            return self.dropout(self.weight * x)

    network = Network()
    got = bound(network, NoiseSchedule.linear(100).subsequence([10, 60, 90]), torch.zeros(4, 2))
    assert network.seen == [10, 60, 90]
    assert network.training
    assert network.dropout.training
    assert not got.total.requires_grad


def test_the_generator_decides_the_whole_bound():
    x_0 = torch.randn(8, 3, generator=torch.Generator().manual_seed(9))
    before = torch.get_rng_state()
    first, again, other = (
        bound(line, SHORT, x_0, generator=torch.Generator().manual_seed(seed)).terms
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first[:, :-1], other[:, :-1])
    assert torch.equal(first[:, -1], other[:, -1])
    assert torch.equal(before, torch.get_rng_state())


BAD_BOUNDS = [
    ({"variance": "both"}, "variance is 'both'; it must be one of posterior, beta"),
    ({"decoder_variance": 0.0}, "decoder_variance is 0.0; it must be a number above 0"),
    ({"decoder_variance": -1}, "decoder_variance is -1; it must be"),
    ({"decoder_variance": math.inf}, "decoder_variance is inf; it must be"),
    ({"decoder_variance": math.nan}, "decoder_variance is nan; it must be"),
    ({"decoder_variance": "beta"}, "decoder_variance is 'beta'; it must be"),
    ({"prediction": "noise"}, "prediction is 'noise'; it must be one of eps, x_0, v"),
    ({"x_0": torch.zeros(4, dtype=torch.int64)}, "x_0 is torch.int64"),
    ({"x_0": torch.zeros(0, 2)}, "x_0 has no rows"),
    ({"schedule": NoiseSchedule([1.0, 1 - 2e-16, 0.5, 1e-320])}, "too close to each other or to 0"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_BOUNDS, ids=[m[:40] for _, m in BAD_BOUNDS])
def test_a_bound_that_does_not_exist_gets_a_sentence_before_the_network_runs(changed, message):
    def never(x, t):
        raise AssertionError("the network was run")

    arguments = {"schedule": SHORT, "x_0": torch.zeros(4, 2), **changed}
    schedule, x_0 = arguments.pop("schedule"), arguments.pop("x_0")
    with pytest.raises(ValueError, match=message):
        bound(never, schedule, x_0, **arguments)


def test_a_network_of_another_shape_has_no_bound():
    with pytest.raises(ValueError, match=r"output has shape \(4, 1\)"):
        bound(lambda x, t: x[:, :1], SHORT, torch.zeros(4, 2))
