"""Solvers, learned variance, guidance, thresholds and gradients, against definitions and laws."""

import math

import mpmath
import numpy as np
import pytest
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib import samplers
from diffusion_lib.prediction import get_prediction
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import gaussian

FULL = NoiseSchedule.linear()
STRIDES = [1, 2, 3, 7, 50]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def answers(values):
    """A network that answers one value after the other, whatever it is asked."""
    left = iter(values)
    return lambda x, t: torch.full_like(x, next(left))


def weights_of(sampler, schedule, count, prediction):
    """How the result depends on x_T and on each of the network's answers, one at a time."""
    found = []
    for place in range(count + 1):
        said = [float(place == i + 1) for i in range(count)]
        x_T = torch.full((1, 1), float(place == 0))
        found.append(float(sampler(answers(said), schedule, x_T, prediction=prediction)))
    return found


def read(prediction, level):
    """The weights of (x_t, output) in x_0 and in eps, from the definitions of the predictions."""
    a, b = mpmath.sqrt(level), mpmath.sqrt(1 - level)
    return {
        "eps": ((1 / a, -b / a), (0, 1)),
        "x_0": ((0, 1), (1 / b, -a / b)),
        "v": ((a, -b), (b, a)),
    }[prediction]


class Linear:
    """A number that depends linearly on x_T and on the answers; index 0 is x_T."""

    def __init__(self, weights):
        self.weights = dict(weights)

    def __add__(self, other):
        keys = self.weights.keys() | other.weights.keys()
        return Linear({k: self.weights.get(k, 0) + other.weights.get(k, 0) for k in keys})

    def __rmul__(self, number):
        return Linear({k: number * w for k, w in self.weights.items()})


def dpm_solver_by_its_paper(levels, prediction):
    """Lu et al. 2022, algorithm 2, in their letters; the last step of first order."""
    x, before, h_before = Linear({0: 1}), None, None
    for i, (here, there) in enumerate(zip(levels, levels[1:], strict=False)):
        (p, q), _ = read(prediction, here)
        x_0 = p * x + q * Linear({i + 1: 1})
        last = there == 1
        if not last:
            lam_t, lam_s = (mpmath.log(mpmath.sqrt(a / (1 - a))) for a in (here, there))
            h = lam_s - lam_t
        data = x_0
        if before is not None and not last:
            r = h_before / h
            data = (1 + 1 / (2 * r)) * x_0 + (-1 / (2 * r)) * before
        if last:
            x = data
        else:
            sigma_t, sigma_s = mpmath.sqrt(1 - here), mpmath.sqrt(1 - there)
            x = (sigma_s / sigma_t) * x + (-mpmath.sqrt(there) * mpmath.expm1(-h)) * data
            h_before = h
        before = x_0
    return x


def heun_by_its_paper(levels, prediction):
    """Karras et al. 2022, algorithm 1, for x/√ᾱ against √((1-ᾱ)/ᾱ), no churn."""
    x, asked = Linear({0: 1}), 0
    for here, there in zip(levels, levels[1:], strict=False):
        clock = [mpmath.sqrt((1 - a) / a) for a in (here, there)]
        _, (p, q) = read(prediction, here)
        asked += 1
        slope = p * x + q * Linear({asked: 1})
        scaled = (1 / mpmath.sqrt(here)) * x
        tried = mpmath.sqrt(there) * (scaled + (clock[1] - clock[0]) * slope)
        if there == 1:
            return tried
        _, (p, q) = read(prediction, there)
        asked += 1
        second = p * tried + q * Linear({asked: 1})
        mean = mpmath.mpf("0.5") * (slope + second)
        x = mpmath.sqrt(there) * (scaled + (clock[1] - clock[0]) * mean)
    return x


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "scaled_linear"])
@pytest.mark.parametrize(
    ("sampler", "truth", "calls"),
    [
        (samplers.dpm_solver, dpm_solver_by_its_paper, lambda S: S),
        (samplers.heun, heun_by_its_paper, lambda S: 2 * S - 1),
    ],
)
def test_every_weight_is_that_of_the_paper(sampler, truth, calls, schedule, prediction):
    full = getattr(NoiseSchedule, schedule)(200)
    for S in (1, 2, 3, 5):
        strided = full.strided(S)
        got = weights_of(sampler, strided, calls(S), prediction)
        with mpmath.workdps(50):
            levels = [mpmath.mpf(a) for a in strided.alpha_bar[::-1].tolist()]
            want = truth(levels, prediction).weights
            size = max(abs(w) for w in want.values())
            # The result of S steps in float32; each step rounds by up to 1e-7 of what it adds up.
            gap = max(abs(got[k] - want.get(k, 0)) for k in range(len(got)))
            assert gap <= 4e-7 * max(size, 1) * S


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm_solver", 2), ("heun", 2)])
def test_the_error_falls_with_the_order_of_the_solver(sampler, order):
    """Gaussian data: the ODE's answer is known; the schedule ends where its clock is finite."""
    target = gaussian([0.3], [[0.25]])
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    fine = NoiseSchedule.cosine(4096)
    start = fine.alpha_bar[-512]

    def errors(S):
        # S equal strides that end at a level that is not clean, so that no step is special.
        kept = np.linspace(512, 4096 - 511, S + 1).round().astype(int)
        schedule = fine.subsequence(kept)
        path = []
        getattr(samplers, sampler)(target.model(schedule), schedule, x_T, callback=path.append)
        end = path[S - 1]
        a, b = schedule.alpha_bar[-1], schedule.alpha_bar[1]
        assert a == pytest.approx(start, rel=0.02)
        # Along the ODE the standardised sample stays what it is.
        V_a, V_b = (0.25 * level + 1 - level for level in (a, b))
        truth = 0.3 * math.sqrt(b) + math.sqrt(V_b / V_a) * (x_T - 0.3 * math.sqrt(a))
        return float((end.x_s - truth).abs().max())

    ratio = errors(32) / errors(64)
    assert 2**order * 0.8 < ratio < 2**order * 1.3


@pytest.mark.parametrize("S", STRIDES)
def test_every_stride_runs_and_hits_gaussian_data(S):
    """With 50 steps both second-order solvers have the right law to a hundredth."""
    target = gaussian([0.3], [[0.25]])
    schedule = FULL.strided(S)
    x_T = torch.randn(4000, 1, generator=seeded(), dtype=torch.float64)
    for sampler in (samplers.heun, samplers.dpm_solver):
        x = sampler(target.model(schedule), schedule, x_T)
        assert x.shape == x_T.shape
        if S == 50:
            assert float(x.std() / x_T.std()) == pytest.approx(0.5, rel=0.01)
            assert float(x.mean()) == pytest.approx(0.3 + 0.5 * float(x_T.mean()), abs=0.01)


def test_the_solvers_draw_no_random_number():
    target, x_T = gaussian([0.0], [[1.0]]), torch.randn(3, 1, generator=seeded())
    state = torch.get_rng_state()
    for sampler in (samplers.heun, samplers.dpm_solver, samplers.ddim):
        sampler(target.model(FULL), FULL.strided(5), x_T)
    assert torch.equal(torch.get_rng_state(), state)


# --- Zero terminal SNR ----------------------------------------------------------------------------

ZERO = FULL.zero_terminal()


def v_of(mean, variance, schedule):
    """The perfect v of Gaussian data, also at the level 0."""

    def model(x, t):
        level = torch.tensor(schedule.alpha_bar)[t].reshape(-1, 1)
        noise = 1 - level
        V = level * variance + noise
        x_0 = mean + level.sqrt() * variance / V * (x - level.sqrt() * mean)
        eps = noise.sqrt() / V * (x - level.sqrt() * mean)
        return level.sqrt() * eps - noise.sqrt() * x_0

    return model


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_v_prediction_samples_from_pure_noise(sampler):
    """On one-point data every sampler returns the point; nothing is lost at the level 0."""
    x_T = torch.randn(50, 1, generator=seeded(), dtype=torch.float64)
    x = getattr(samplers, sampler)(v_of(3.0, 0.0, ZERO), ZERO.strided(10), x_T, prediction="v")
    assert float((x - 3).abs().max()) < 1e-9


def test_ddpm_from_pure_noise_has_the_law_of_its_recursion():
    schedule = ZERO.strided(20)
    x_T = torch.randn(40_000, 1, generator=seeded(), dtype=torch.float64)
    x = samplers.ddpm(v_of(0.3, 0.25, ZERO), schedule, x_T, prediction="v", generator=seeded(1))
    # Pure noise says nothing of the data: the first step guesses their mean and adds all noise.
    first = schedule.alpha_bar[-2]
    law = cf.Gaussian(0.3 * math.sqrt(first), 1 - first)
    for s, t in zip(schedule.alpha_bar[-3::-1], schedule.alpha_bar[-2:0:-1], strict=True):
        sigma = cf.ddim_sigma(1.0, s, t)
        law = cf.data_step(law, 0.3, 0.25, s, t, sigma, sigma)
    z = (float(x.mean()) - law.mean) / math.sqrt(law.variance / len(x))
    assert abs(z) < 4.5
    z = (float(x.var()) / law.variance - 1) / math.sqrt(2 / len(x))
    assert abs(z) < 4.5


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun", "encode"])
@pytest.mark.parametrize("prediction", ["eps", "score"])
def test_eps_says_nothing_of_the_data_in_pure_noise(sampler, prediction):
    with pytest.raises(ValueError, match="train and sample with prediction 'v' or 'x_0'"):
        getattr(samplers, sampler)(None, ZERO, torch.zeros(1, 1), prediction=prediction)


def test_heun_cannot_start_in_pure_noise():
    with pytest.raises(ValueError, match="alpha_bar_T = 0"):
        samplers.heun(None, ZERO, torch.zeros(1, 1), prediction="v")


# --- Sigma, learned variance ----------------------------------------------------------------------


def test_a_table_of_sigmas_is_the_eta_it_was_made_of():
    target = gaussian([0.0], [[0.25]])
    schedule = FULL.strided(9)
    x_T = torch.randn(5, 1, generator=seeded())
    model = target.model(schedule)
    table = 0.7 * np.sqrt(schedule.posterior_variance)
    ours = samplers.ddim(model, schedule, x_T, sigma=table, generator=seeded(1))
    theirs = samplers.ddim(model, schedule, x_T, eta=0.7, generator=seeded(1))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_largest_sigma_has_the_law_of_its_recursion():
    schedule = FULL.strided(6)
    sigma = np.concatenate([[0.0], np.sqrt(1 - schedule.alpha_bar[:-1])])
    x_T = torch.randn(40_000, 1, generator=seeded(), dtype=torch.float64)
    model = gaussian([0.3], [[0.25]]).model(schedule)
    x = samplers.ddim(model, schedule, x_T, sigma=sigma, generator=seeded(1))
    law = cf.Gaussian(0.0, 1.0)
    for t in range(6, 0, -1):
        s_level, t_level = schedule.alpha_bar[t - 1], schedule.alpha_bar[t]
        nearly = sigma[t] * (1 - 1e-12)  # the root of a number that is not -1e-17
        law = cf.data_step(law, 0.3, 0.25, s_level, t_level, nearly, nearly)
    assert abs(float(x.var()) / law.variance - 1) < 4.5 * math.sqrt(2 / len(x))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        ([0.0] * 5, "sigma has shape"),
        ([0, 0.1, 0, 0], r"sigma\[1\] is 0.1; it must lie in 0..0"),
        ([0, 0, 2.0, 0], r"sigma\[2\] is 2"),
        ([0, 0, -0.1, 0], r"sigma\[2\] is -0.1"),
        ([0, 0, math.nan, 0], r"sigma\[2\] is nan"),
    ],
)
def test_a_sigma_outside_the_family_gets_a_sentence(sigma, message):
    with pytest.raises(ValueError, match=message):
        samplers.ddim(None, FULL.strided(3), torch.zeros(1, 1), sigma=sigma)
    with pytest.raises(ValueError, match="eta is 1"):
        samplers.ddim(None, FULL.strided(3), torch.zeros(1, 1), sigma=[0.0] * 4, eta=1)


def doubled(model, v):
    """The model, with a constant said of the variance."""
    return lambda x, t: torch.cat([model(x, t), torch.full_like(x, v)], dim=1)


@pytest.mark.parametrize(("v", "variance"), [(-1.0, "posterior"), (1.0, "beta")])
def test_the_learned_variance_runs_from_the_posterior_one_to_beta(v, variance):
    schedule, target = FULL.strided(9), gaussian([0.3], [[0.25]])
    x_T = torch.randn(50, 1, generator=seeded(), dtype=torch.float64)
    model = target.model(schedule)
    learned = samplers.ddpm(
        doubled(model, v), schedule, x_T, variance="learned", generator=seeded(1)
    )
    fixed = samplers.ddpm(model, schedule, x_T, variance=variance, generator=seeded(1))
    assert torch.allclose(learned, fixed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("table", [FULL, NoiseSchedule.cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("v", [-0.5, 0.25, 1.5])
def test_the_learned_deviation_in_float32_is_that_of_50_digits(table, v):
    """From x_t = 0 with the answer 0 a step is its noise alone; its one rounding is below 1e-7."""
    for s, t in ((1, 2), (9, 10), (100, 300), (498, 500), (997, 998)):
        path = []
        samplers.ddpm(
            doubled(lambda x, t: torch.zeros_like(x), v),
            table.subsequence([s, t]),
            torch.zeros(100, 1),
            variance="learned",
            generator=seeded(t),
            callback=path.append,
        )
        with mpmath.workdps(50):
            before, here = (mpmath.mpf(float(table.alpha_bar[i])) for i in (s, t))
            beta = 1 - here / before
            tilde = beta * (1 - before) / (1 - here)
            share = (1 + mpmath.mpf(v)) / 2
            sigma = mpmath.sqrt(beta**share * tilde ** (1 - share))
        z = torch.randn(100, 1, generator=seeded(t)).double()
        off = path[0].x_s.double() / (float(sigma) * z) - 1
        assert off.abs().max() < 1e-7


def test_between_them_the_logarithm_is_interpolated():
    schedule = FULL.subsequence([100, 300])
    x_T = torch.zeros(20_000, 1, dtype=torch.float64)
    path = []
    samplers.ddpm(
        doubled(lambda x, t: torch.zeros_like(x), 0.2),
        schedule,
        x_T,
        variance="learned",
        generator=seeded(1),
        callback=path.append,
    )
    beta, posterior = schedule.beta[2], schedule.posterior_variance[2]
    want = beta**0.6 * posterior**0.4
    assert abs(float(path[0].x_s.var()) / want - 1) < 4.5 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
def test_every_sampler_runs_a_network_that_learned_a_variance(sampler):
    schedule, model = FULL.strided(5), gaussian([0.3], [[0.25]]).model(FULL.strided(5))
    x_T = torch.randn(7, 1, generator=seeded())
    options = {"generator": seeded(1)} if sampler == "ddpm" else {}
    plain = getattr(samplers, sampler)(model, schedule, x_T, **options)
    options = {"generator": seeded(1)} if sampler == "ddpm" else {}
    both = getattr(samplers, sampler)(doubled(model, 0.3), schedule, x_T, **options)
    assert torch.equal(plain, both)


def test_a_variance_that_was_not_learned_gets_a_sentence():
    model = gaussian([0.3], [[0.25]]).model(FULL)
    with pytest.raises(ValueError, match="the network answers no variance"):
        samplers.ddpm(model, FULL, torch.zeros(1, 1), variance="learned")


# --- Guidance -------------------------------------------------------------------------------------


class TwoHeaps:
    """The perfect conditional network of two narrow heaps, 0 at -1 and 1 at 1; 2 means either."""

    config = {"classes": 2}  # noqa: RUF012

    def __init__(self, schedule):
        self.levels = torch.tensor(schedule.alpha_bar)
        self.times = torch.tensor(schedule.times)
        self.rows = []

    def __call__(self, x, t, labels):
        self.rows.append(len(x))
        level = self.levels[torch.searchsorted(self.times, t)].reshape(-1, 1)
        V = level * 0.01 + 1 - level
        means = level.sqrt() * torch.tensor([-1.0, 1.0], dtype=x.dtype)
        scores = (means - x) / V
        share = torch.softmax(-((x - means) ** 2) / (2 * V), dim=1)
        one = torch.nn.functional.one_hot(labels.clamp(max=1), 2).to(x.dtype)
        share = torch.where(labels[:, None] == 2, share, one)
        return -(1 - level).sqrt() * (share * scores).sum(dim=1, keepdim=True)


def test_scale_one_samples_each_label_and_zero_samples_all():
    schedule = FULL.strided(50)
    x_T = torch.randn(400, 1, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(400) % 2
    network = TwoHeaps(schedule)
    with_label = samplers.ddim(samplers.guided(network, labels, 1.0), schedule, x_T)
    assert torch.equal(with_label.sign().ravel(), 2.0 * labels - 1)
    without = samplers.ddim(samplers.guided(network, labels, 0.0), schedule, x_T)
    assert abs(float((without > 0).double().mean()) - 0.5) < 4.5 * 0.5 / 20
    assert set(network.rows) == {400}


def test_guidance_is_its_definition_in_one_call_of_twice_the_batch():
    schedule = FULL.strided(3)
    network, x = TwoHeaps(schedule), torch.randn(6, 1, generator=seeded(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    t = torch.full((6,), int(schedule.times[2]))
    got = samplers.guided(network, labels, 3.5)(x, t)
    assert network.rows == [12]
    of_label, of_none = network(x, t, labels), network(x, t, torch.full((6,), 2))
    assert torch.allclose(got, of_none + 3.5 * (of_label - of_none), rtol=1e-12, atol=0)
    shared = t[:1].expand(6)
    assert torch.equal(samplers.guided(network, labels, 3.5)(x, shared), got)


def test_guidance_leaves_the_learned_variance_as_labelled():
    def network(x, t, labels):
        return torch.cat([x * labels[:, None], x + labels[:, None]], dim=1)

    x = torch.ones(2, 3, 4, 4)[:, :, 0, 0].clone()
    model = samplers.guided(network, torch.tensor([1, 2]), 2.0, no_label=5)
    mean, v = model(x, torch.tensor([7, 7])).chunk(2, dim=1)
    assert torch.equal(mean, x * torch.tensor([[5 + 2 * (1 - 5)], [5 + 2 * (2 - 5)]]))
    assert torch.equal(v, x + torch.tensor([[1], [2]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: samplers.guided(n, torch.zeros(2), 1.0), "labels is"),
        (lambda n: samplers.guided(n, [0, 1], 1.0), "labels is"),
        (lambda n: samplers.guided(n, torch.tensor([0]), -1.0), "scale is -1"),
        (lambda n: samplers.guided(n, torch.tensor([0]), math.nan), "scale is nan"),
        (lambda n: samplers.guided(lambda *a: a, torch.tensor([0]), 2.0), "no_label is None"),
        (lambda n: samplers.guided(n, torch.tensor([0]), 2.0)(torch.zeros(3, 1), None), "labels"),
    ],
)
def test_bad_guidance_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make(TwoHeaps(FULL))


# --- Thresholds, gradients, trajectories ----------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 8, 8), (2, 1, 2, 3, 4)])
@pytest.mark.parametrize(("share", "limit"), [(0.9, 1.0), (0.995, 0.5), (1.0, 2.0)])
def test_the_dynamic_threshold_is_a_quantile_of_each_sample(shape, share, limit):
    x = 3 * torch.randn(shape, generator=seeded(), dtype=torch.float64)
    got = samplers.dynamic_threshold(share, limit)(x)
    for row, cut in zip(x.numpy(), got.numpy(), strict=True):
        q = max(np.quantile(np.abs(row), share), limit)
        assert np.allclose(cut, np.clip(row, -q, q) * limit / q, rtol=1e-13)
    assert float(got.abs().max()) <= limit * (1 + 1e-12)


def test_the_dynamic_threshold_leaves_what_is_within_the_limit():
    x = torch.linspace(-1, 1, 12).reshape(2, 6)
    assert torch.equal(samplers.dynamic_threshold()(x), x)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
def test_any_function_may_clip(sampler):
    schedule, model = FULL.strided(8), gaussian([0.0], [[4.0]]).model(FULL.strided(8))
    x_T = 3 * torch.randn(50, 1, generator=seeded())

    def run(clip):
        options = {"generator": seeded(1)} if sampler == "ddpm" else {}
        return getattr(samplers, sampler)(model, schedule, x_T, clip=clip, **options)

    assert torch.equal(run((-0.5, 0.5)), run(lambda x_0: x_0.clamp(-0.5, 0.5)))
    assert float(run((-0.5, 0.5)).abs().max()) <= 0.5 + 1e-6
    assert torch.allclose(run((-1e6, 1e6)), run(None), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "share is 0"), ((1.5,), "share is 1.5"), ((0.9, 0), "limit is 0")],
)
def test_bad_thresholds_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        samplers.dynamic_threshold(*arguments)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
def test_samples_can_be_differentiated_when_asked(sampler):
    """Gaussian data: the samples are linear in x_T, so the slope is what a shift of x_T does."""
    schedule = FULL.strided(6)
    model = gaussian([0.3], [[0.25]]).model(schedule)

    def run(x_T, **more):
        options = {"generator": seeded(1)} if sampler == "ddpm" else {}
        return getattr(samplers, sampler)(model, schedule, x_T, **options, **more)

    x_T = torch.randn(4, 1, generator=seeded(), dtype=torch.float64)
    leaf = x_T.clone().requires_grad_()
    (slope,) = torch.autograd.grad(run(leaf, grad=True).sum(), leaf)
    assert torch.allclose(slope, run(x_T + 1) - run(x_T), rtol=1e-9)


def test_samples_are_plain_tensors_otherwise_and_no_mode_leaks():
    layer = torch.nn.Linear(2, 2)
    x = samplers.ddim(lambda x, t: layer(x), FULL.strided(3), torch.randn(4, 2))
    assert not x.requires_grad
    assert torch.is_grad_enabled()
    layer(x).square().sum().backward()  # an inference tensor would refuse
    assert layer.weight.grad is not None

    def seen(_):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        samplers.ddim(lambda x, t: layer(x), FULL.strided(3), x, callback=seen)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
def test_a_list_keeps_the_trajectory(sampler):
    schedule = FULL.strided(4)
    model = gaussian([0.3], [[0.25]]).model(schedule)
    path = []
    x = getattr(samplers, sampler)(model, schedule, torch.randn(3, 1), callback=path.append)
    assert [step.t for step in path] == [1000, 750, 500, 250]
    assert [step.s for step in path] == [750, 500, 250, 0]
    assert torch.equal(path[-1].x_s, x)
    assert len({float(step.x_s[0]) for step in path}) == 4
    assert torch.allclose(path[-1].x_0, x)


# --- What a model says of itself ------------------------------------------------------------------


class Says(torch.nn.Module):
    """The perfect v of one-point data; it says that it predicts v."""

    prediction = "v"

    def forward(self, x, t):
        return v_of(3.0, 0.0, FULL)(x, t)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
def test_a_model_that_says_what_it_predicts_is_believed(sampler):
    x_T = torch.randn(5, 1, generator=seeded(), dtype=torch.float64)
    run = getattr(samplers, sampler)
    assert float((run(Says(), FULL.strided(10), x_T) - 3).abs().max()) < 1e-9
    with pytest.raises(ValueError, match="prediction is 'eps', but the model was trained to pred"):
        run(Says(), FULL.strided(10), x_T, prediction="eps")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_every_stride_from_pure_noise_runs(name):
    """There sigma is the largest there is, a rounded root."""
    zero = getattr(NoiseSchedule, name)().zero_terminal()
    x_T = torch.randn(2, 1, generator=seeded(), dtype=torch.float64)
    for S in [*range(1, 30), 64, 128, 200, 250, 256, 300, 1000]:
        schedule = zero.strided(S)
        rows = samplers._plan_to_data(
            schedule,
            get_prediction("v"),
            cf.ddim_sigma(1.0, schedule.alpha_bar[:-1], schedule.alpha_bar[1:]),
            np.zeros(S),
        )
        assert np.isfinite(rows.rows(rows.step)).all()
    x = samplers.ddpm(v_of(3.0, 0.0, zero), zero.strided(25), x_T, prediction="v")
    assert float((x - 3).abs().max()) < 1e-9


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_a_network_may_answer_in_the_same_memory_every_time(sampler, prediction):
    """As a recorded CUDA graph does."""
    schedule, memory = FULL.strided(6), torch.empty(4, 1)
    network = gaussian([0.3], [[0.25]]).model(schedule, prediction)
    x_T = torch.randn(4, 1, generator=seeded())

    def run(model):
        path, options = [], {"generator": seeded(1)} if sampler == "ddpm" else {}
        getattr(samplers, sampler)(
            model, schedule, x_T, prediction=prediction, callback=path.append, **options
        )
        return torch.stack([torch.stack([step.x_s, step.x_0]) for step in path])

    assert torch.equal(run(lambda x, t: memory.copy_(network(x, t))), run(network))


@pytest.mark.parametrize(
    "levels",
    [[1, 0.9, 0.5, np.nextafter(0.5, 0), 0.1], [1, 0.9, np.nextafter(1e-10, 1), 1e-10, 1e-12]],
)
def test_an_extrapolation_without_bounds_gets_a_sentence(levels):
    schedule = NoiseSchedule(levels)
    with pytest.raises(ValueError, match="too close to each other"):
        samplers.dpm_solver(lambda x, t: x, schedule, torch.zeros(1, 1), prediction="v")


def test_a_target_answers_in_pure_noise_with_the_mean_of_the_data():
    target = gaussian([0.3], [[0.25]])
    x = torch.randn(5, 1, generator=seeded(), dtype=torch.float64)
    x_0 = target.model(ZERO, "x_0")(x, torch.full((5,), 1000))
    assert torch.allclose(x_0, torch.full_like(x, 0.3), rtol=1e-12)
    assert torch.allclose(target.eps(x, 0.0), x)
