"""The training loss and the bound, held against what theory says of them."""

import math

import mpmath
import numpy as np
import pytest
import torch

from diffusion_lib import closed_forms, objectives, process
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


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Weighted, hybrid, learned, on a grid ---------------------------------------------------------

WEIGHT_OF = {"eps": lambda snr: 1 / snr, "x_0": lambda snr: 1, "v": lambda snr: 1 / (snr + 1)}


@pytest.mark.parametrize("prediction", WEIGHT_OF)
def test_one_weight_means_the_same_for_every_prediction(prediction):
    """Networks that imply the same data have the same loss, which is that of the data's error."""
    schedule = NoiseSchedule.linear(50)
    x_0 = torch.randn(300, 2, generator=seeded(1), dtype=torch.float64)
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))
    level = torch.tensor(schedule.alpha_bar)[t][:, None]
    x_t = level.sqrt() * x_0 + (1 - level).sqrt() * eps
    guess = 0.7 * x_t + 0.2
    implied = {
        "x_0": guess,
        "eps": (x_t - level.sqrt() * guess) / (1 - level).sqrt(),
        "v": (level.sqrt() * x_t - guess) / (1 - level).sqrt(),
    }[prediction]
    snr = level / (1 - level)
    for weight in (lambda snr: snr, lambda snr: np.minimum(snr, 5.0), lambda snr: 1.0):
        got = objectives.weighted_loss(
            lambda x, times: implied, schedule, x_0, weight, prediction=prediction, t=t, eps=eps
        )
        want = (torch.as_tensor(weight(snr.numpy())) * (x_0 - guess) ** 2).mean()
        assert float(got) == pytest.approx(float(want), rel=1e-6)


@pytest.mark.parametrize("prediction", WEIGHT_OF)
def test_min_snr_caps_the_weight_of_the_data_at_gamma(prediction):
    schedule = NoiseSchedule.linear(50)
    x_0 = torch.randn(64, 2, generator=seeded(1))
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))
    ratio = torch.tensor(schedule.snr)[t]
    weight = ratio.clamp(max=3.0) * WEIGHT_OF[prediction](ratio)  # Hang et al. 2023, sec. 3.4
    target = {
        "eps": eps,
        "x_0": x_0,
        "v": process.linear_at(closed_forms.velocity, schedule, t, (x_0, eps)),
    }[prediction]
    got = objectives.min_snr_loss(
        lambda x, t: 0 * x, schedule, x_0, gamma=3.0, prediction=prediction, t=t, eps=eps
    )
    want = (weight * target.double().square().mean(dim=1)).mean()
    assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_simple_loss_is_the_weight_snr():
    schedule, x_0 = NoiseSchedule.cosine(30), torch.randn(64, 2, generator=seeded(1))
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))
    simple = objectives.simple_loss(lambda x, t: 0.3 * x, schedule, x_0, t=t, eps=eps)
    same = objectives.weighted_loss(
        lambda x, t: 0.3 * x, schedule, x_0, lambda snr: snr, t=t, eps=eps
    )
    assert float(simple) == pytest.approx(float(same), rel=1e-6)


def test_a_batch_in_parts_is_the_batch():
    schedule, x_0 = NoiseSchedule.linear(), torch.randn(12, 3, generator=seeded(1))
    labels = torch.arange(12)
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))

    def network(x, times, labels):
        return x * labels[:, None] + times[:, None] / 1000

    for loss in (objectives.simple_loss, objectives.min_snr_loss):
        whole = loss(network, schedule, x_0, labels=labels, generator=seeded(2))
        parts = [
            loss(
                network,
                schedule,
                x_0[i : i + 4],
                labels=labels[i : i + 4],
                t=t[i : i + 4],
                eps=eps[i : i + 4],
            )
            for i in (0, 4, 8)
        ]
        assert float(sum(parts) / 3) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": torch.tensor([0, 5])}, "t runs from 0 to 5"),
        ({"t": torch.tensor([-5, 5])}, "t runs from -5 to 5"),
        ({"t": torch.tensor([1.0, 2.0])}, "t has shape"),
        ({"t": torch.tensor([[1], [2]])}, "t has shape"),
        ({"eps": torch.zeros(2, 1)}, r"eps has shape \(2, 1\)"),
        # Meta stands for a GPU, where values are not looked at, but all else is.
        ({"t": torch.ones(1, dtype=torch.int64, device="meta")}, r"t has shape \(1,\)"),
        ({"t": torch.ones(2, device="meta")}, r"t has shape \(2,\) and type torch\.float32"),
    ],
)
def test_steps_and_noise_that_do_not_fit_get_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        objectives.simple_loss(None, NoiseSchedule.linear(), torch.zeros(2, 3), **options)


@pytest.mark.parametrize("weight", [lambda snr: -snr, lambda snr: snr[:3], lambda snr: snr / 0])
def test_a_weight_that_is_none_gets_a_sentence(weight):
    with pytest.raises(ValueError, match="weight must give"), np.errstate(divide="ignore"):
        objectives.weighted_loss(None, NoiseSchedule.linear(), torch.zeros(2, 3), weight)


@pytest.mark.parametrize("weight", [[1.0] * 1000, np.ones(1000), 2.0, None])
def test_a_weight_that_is_no_function_gets_a_sentence(weight):
    with pytest.raises(ValueError, match=r"weight is .*; it must be callable, as weight\(ratios\)"):
        objectives.weighted_loss(None, NoiseSchedule.linear(), torch.zeros(2, 3), weight)


def test_the_hybrid_loss_of_half_precision_is_squared_in_single():
    """Squares of 300 do not fit into float16."""
    x_0 = torch.zeros(4, 2, dtype=torch.float16)

    def model(x_t, t):
        return torch.cat([torch.full_like(x_t, 300.0), torch.zeros_like(x_t)], dim=1)

    schedule = NoiseSchedule.linear(10)
    loss = objectives.hybrid_loss(model, schedule, x_0, eps=x_0, t=torch.tensor([1, 2, 5, 10]))
    twin = objectives.hybrid_loss(
        model, schedule, x_0.float(), eps=x_0.float(), t=torch.tensor([1, 2, 5, 10])
    )
    assert loss.dtype == torch.float32
    assert loss == pytest.approx(float(twin), rel=1e-3)


@pytest.mark.parametrize("gamma", [0, -1, math.inf, "5"])
def test_a_gamma_that_is_none_gets_a_sentence(gamma):
    with pytest.raises(ValueError, match="gamma is"):
        objectives.min_snr_loss(None, NoiseSchedule.linear(), torch.zeros(2, 3), gamma=gamma)


@pytest.mark.parametrize("loss", [objectives.simple_loss, objectives.hybrid_loss])
def test_eps_is_not_trained_on_pure_noise(loss):
    with pytest.raises(ValueError, match="with prediction 'v' or 'x_0'"):
        loss(None, NoiseSchedule.linear().zero_terminal(), torch.zeros(2, 3))


class Doubled(torch.nn.Module):
    """The perfect mean of Gaussian data, and one number for the variance."""

    def __init__(self, target, schedule, v):
        super().__init__()
        self.mean = target.model(schedule)
        self.v = torch.nn.Parameter(torch.tensor(float(v), dtype=torch.float64))
        self.shift = torch.nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def forward(self, x, t):
        mean = self.mean(x, t) + self.shift
        return torch.cat([mean, self.v.expand_as(x)], dim=1)


def test_the_hybrid_loss_is_simple_plus_the_mean_term_of_the_bound():
    schedule, target = NoiseSchedule.linear(6), gaussian([0.3], [[0.25]])
    x_0 = target.sample(60_000, seeded(1))
    model = Doubled(target, schedule, 0.4)
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))
    hybrid = objectives.hybrid_loss(model, schedule, x_0, bound_weight=0.5, t=t, eps=eps)
    simple = objectives.simple_loss(model.mean, schedule, x_0, t=t, eps=eps)
    part = float(hybrid - simple) / 0.5
    # The same sum of divergences by the exact bound, all steps at once.
    steps = objectives.bound(model, schedule, x_0, variance="learned", generator=seeded(3))
    mean, error = steps.mean_and_error(steps.steps.sum(dim=1))
    # One step a row, T times its term: its spread is below T times the largest term's.
    spread = schedule.T * float(steps.steps.square().mean().sqrt()) / math.sqrt(len(x_0))
    assert abs(part - float(mean)) < 4.5 * (float(error) + spread)


def test_the_bound_reaches_the_variance_only():
    schedule, target = NoiseSchedule.linear(6), gaussian([0.3], [[0.25]])
    model = Doubled(target, schedule, 0.4)
    x_0 = target.sample(1000, seeded(1))
    t, eps = objectives.draw_noise(schedule, x_0, seeded(2))
    objectives.hybrid_loss(model, schedule, x_0, bound_weight=1.0, t=t, eps=eps).backward()
    of_mean = model.shift.grad.clone()
    assert model.v.grad != 0
    model.shift.grad = None
    simple = objectives.simple_loss(lambda x, t: model(x, t)[:, :1], schedule, x_0, t=t, eps=eps)
    simple.backward()
    assert torch.allclose(of_mean, model.shift.grad, rtol=1e-12)


def test_the_hybrid_loss_learns_the_variance_that_is_best():
    """For Gaussian data the best variance of a step is known; the gradient vanishes there."""
    target = gaussian([0.0], [[0.25]])
    schedule = NoiseSchedule.linear(1000).subsequence([300, 600])
    s, t_level = schedule.alpha_bar[1], schedule.alpha_bar[2]
    best = closed_forms.data_reverse(0.0, 0.0, 0.25, s, t_level).variance
    beta, posterior = schedule.beta[2], schedule.posterior_variance[2]
    v = 2 * math.log(best / posterior) / math.log(beta / posterior) - 1
    x_0 = target.sample(200_000, seeded(1))
    t = torch.full((len(x_0),), 2)
    eps = torch.randn(x_0.shape, generator=seeded(2), dtype=torch.float64)
    gradients = []
    for value in (v - 0.2, v, v + 0.2):
        model = Doubled(target, schedule, value)
        objectives.hybrid_loss(model, schedule, x_0, bound_weight=1.0, t=t, eps=eps).backward()
        gradients.append(float(model.v.grad))
    assert gradients[0] < 0 < gradients[2]
    assert abs(gradients[1]) < 0.05 * min(-gradients[0], gradients[2])


def test_a_network_without_a_variance_cannot_learn_one():
    x_0, schedule = torch.zeros(4, 2), NoiseSchedule.linear(5)
    with pytest.raises(ValueError, match="twice as many channels"):
        objectives.hybrid_loss(lambda x, t: x, schedule, x_0)
    with pytest.raises(ValueError, match="the network answers no variance"):
        objectives.bound(lambda x, t: x, schedule, x_0, variance="learned")
    with pytest.raises(ValueError, match="T = 1"):
        objectives.hybrid_loss(lambda x, t: x, NoiseSchedule.linear(5).strided(1), x_0)


@pytest.mark.parametrize(("v", "variance"), [(-1, "posterior"), (1, "beta")])
def test_a_learned_variance_at_its_ends_has_the_fixed_bound(v, variance):
    schedule, target = NoiseSchedule.linear(8), gaussian([0.3], [[0.25]])
    x_0 = target.sample(50, seeded(1))
    learned = objectives.bound(
        Doubled(target, schedule, v), schedule, x_0, variance="learned", generator=seeded(2)
    )
    fixed = objectives.bound(
        target.model(schedule), schedule, x_0, variance=variance, generator=seeded(2)
    )
    assert torch.allclose(learned.terms, fixed.terms, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_the_discretised_decoder_is_a_probability_over_the_grid(levels):
    """Summed over all values that the data can take, the shares of the bins are one."""
    schedule = NoiseSchedule.linear(1000).subsequence([400])
    grid = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
    result = objectives.bound(
        lambda x, t: torch.full_like(x, 0.37),
        schedule,
        grid,
        prediction="x_0",
        levels=levels,
        decoder_variance=0.04,
    )
    assert float((-result.reconstruction).exp().sum()) == pytest.approx(1, rel=1e-9)
    with mpmath.workdps(50):
        half, x = mpmath.mpf(1) / (levels - 1), mpmath.mpf(float(grid[1]))
        high = mpmath.inf if levels == 2 else (x + half - mpmath.mpf("0.37")) / mpmath.mpf("0.2")
        low = (x - half - mpmath.mpf("0.37")) / mpmath.mpf("0.2")
        want = -mpmath.log(mpmath.ncdf(high) - mpmath.ncdf(low))
    assert float(result.reconstruction[1]) == pytest.approx(float(want), rel=1e-9)


def test_bits_per_dimension_of_one_constant_picture():
    """T = 1 and a decoder that is nearly sure: the prior is all that is left."""
    schedule = NoiseSchedule.linear(1000).subsequence([1000])
    x_0 = torch.full((4, 1, 2, 2), -1.0)
    result = objectives.bound(
        lambda x, t: torch.full_like(x, -1.0),
        schedule,
        x_0,
        prediction="x_0",
        levels=256,
        decoder_variance=1e-8,
    )
    level = schedule.alpha_bar[1]
    per_number = (level * 1 - level - math.log(1 - level)) / 2  # KL(N(-√ᾱ, 1-ᾱ) || N(0, 1))
    bits = torch.full((4,), per_number / math.log(2), dtype=torch.float64)
    assert torch.allclose(result.bits_per_dim.double(), bits, rtol=1e-4)
    assert result.dimensions == 4


@pytest.mark.parametrize(
    ("x_0", "levels", "message"),
    [
        (torch.tensor([[0.5]]), 2, "not on a grid of 2 values"),
        (torch.tensor([[100.0]]), 256, "x_0 runs from 100 to 100"),
        (torch.tensor([[-1.0]]), 1, "levels is 1"),
        (torch.tensor([[-1.0]]), 256.0, "levels is 256.0"),
    ],
)
def test_data_off_the_grid_get_a_sentence(x_0, levels, message):
    with pytest.raises(ValueError, match=message):
        objectives.bound(None, NoiseSchedule.linear(3), x_0, levels=levels)


def test_the_bound_of_a_schedule_that_ends_in_pure_noise():
    """Data in one point and a perfect v: every divergence and the prior are zero."""
    schedule = NoiseSchedule.linear(20).zero_terminal()

    def model(x, t):
        level = torch.tensor(schedule.alpha_bar)[t][:, None]
        eps = (x - level.sqrt() * 3) / (1 - level).sqrt()
        return level.sqrt() * eps - (1 - level).sqrt() * 3

    x_0 = torch.full((5, 1), 3.0, dtype=torch.float64)
    result = objectives.bound(model, schedule, x_0, prediction="v", generator=seeded())
    assert float(result.terms[:, 1:].abs().max()) < 1e-12


def test_an_error_bar_covers_the_truth():
    """The standard error of the mean, over rows that are independent."""
    result = objectives.Bound(torch.randn(10_000, 3, generator=seeded()) + 1, dimensions=2)
    mean, error = result.mean_and_error(result.terms)
    assert mean.shape == error.shape == (3,)
    assert torch.allclose(error, torch.full((3,), 0.01), rtol=0.05)
    with pytest.raises(ValueError, match="at least 2"):
        result.mean_and_error(result.terms[:1])
