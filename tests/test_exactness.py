"""Exact to rounding: tables, every step's coefficients, and whole runs, against 50 digits.

The definitions are written anew here, from the papers, in mpmath. A schedule is its float64 table
of levels: what is computed from the levels is held against that table, the table against its
formula.
"""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch

from diffusion_lib import exact, samplers
from diffusion_lib.objectives import bound
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

mpf, root = mpmath.mpf, mpmath.sqrt


@pytest.fixture(autouse=True)
def _fifty_digits():
    with mpmath.workdps(50):
        yield


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Tables ---------------------------------------------------------------------------------------


def levels_of_betas(betas):
    levels = [mpf(1)]
    for beta in betas:
        levels.append(levels[-1] * (1 - beta))
    return levels


def linear(T):
    """Ho et al. 2020, sec. 4."""
    first, last = mpf(1e-4), mpf(0.02)
    return levels_of_betas(first + (last - first) * i / (T - 1) for i in range(T))


def scaled_linear(T):
    """Rombach et al. 2022: an even row of roots."""
    first, last = root(mpf(0.00085)), root(mpf(0.012))
    return levels_of_betas((first + (last - first) * i / (T - 1)) ** 2 for i in range(T))


def capped(levels):
    """Nichol and Dhariwal 2021: no beta above 0.999."""
    return levels_of_betas(min(1 - b / a, mpf(0.999)) for a, b in pairwise(levels))


def cosine(T):
    """Nichol and Dhariwal 2021, eq. 17; cos² x = (1 + cos 2x) / 2."""
    s = mpf(0.008)
    values = [1 + mpmath.cos((mpf(t) / T + s) / (1 + s) * mpmath.pi) for t in range(T + 1)]
    return capped([value / values[0] for value in values])


def sigmoid(T):
    """Chen 2023, algorithm 1, with start -3, end 3, tau 1; a logistic curve is a tanh."""
    values = [mpmath.tanh((-3 + 6 * mpf(t) / T) / 2) for t in range(T + 1)]
    return capped([(values[-1] - value) / (values[-1] - values[0]) for value in values])


FORMULAS = {f.__name__: f for f in (linear, scaled_linear, cosine, sigmoid)}
each_name = pytest.mark.parametrize("name", FORMULAS)


def worst(got, want):
    """The largest relative error; where the truth is 0 or infinite nothing else will do."""
    errors = [mpf(0)]
    for number, truth in zip(got.tolist(), want, strict=True):
        if truth == 0 or mpmath.isinf(truth):
            assert number == truth
        else:
            errors.append(abs(mpf(number) / truth - 1))
    return float(max(errors))


def derived(levels):
    """Every other table, from the levels."""
    pairs = list(pairwise(levels))
    return {
        "beta": [mpf(0), *(1 - b / a for a, b in pairs)],
        "alpha": [mpf(1), *(b / a for a, b in pairs)],
        "posterior_variance": [mpf(0), *((1 - a) / (1 - b) * (1 - b / a) for a, b in pairs)],
        "snr": [mpmath.inf, *(a / (1 - a) for a in levels[1:])],
    }


@each_name
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_levels_are_the_float64_nearest_to_their_formula(name, T):
    table = getattr(NoiseSchedule, name)(T).alpha_bar
    assert worst(table, FORMULAS[name](T)) <= 1.12e-16
    assert worst(table.astype(np.float32), FORMULAS[name](T)) <= 6e-8


@each_name
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_the_tables_keep_all_the_digits_of_float32(name, T):
    """Against the formula itself, not the rounded levels."""
    schedule = getattr(NoiseSchedule, name)(T)
    for table, truth in derived(FORMULAS[name](T)).items():
        assert worst(getattr(schedule, table).astype(np.float32), truth) <= 6e-8


@pytest.mark.parametrize("zero_terminal", [False, True])
@each_name
def test_the_tables_follow_from_the_levels(name, zero_terminal):
    """In float64: a few 1e-16 of 1 - alpha_bar_t / alpha_bar_s, which is between 0 and 1."""
    schedule = getattr(NoiseSchedule, name)(250)
    schedule = schedule.zero_terminal() if zero_terminal else schedule
    for some in (schedule, schedule.strided(50), schedule.subsequence([1, 2, 100, 249, 250])):
        truth = derived([mpf(level) for level in some.alpha_bar.tolist()])
        assert worst(some.snr, truth["snr"]) <= 4e-16
        for table in ("beta", "alpha", "posterior_variance"):
            gaps = [
                abs(mpf(number) - want)
                for number, want in zip(getattr(some, table).tolist(), truth[table], strict=True)
            ]
            assert max(gaps) <= 4e-16


# --- Every coefficient of every step --------------------------------------------------------------
#
# A step is linear in its sample, in what the network answers and in the noise. One row of the batch
# sees a 1 in place of each of them, a callback sets the samples back after every step, and so one
# run shows the coefficients of all its steps.

KINDS = ["eps", "x_0", "v", "score"]
each_kind = pytest.mark.parametrize("prediction", KINDS)


def read(prediction, level):
    """The weights of (x_t, output) in x_0 and in eps, from the definitions of the predictions."""
    a, b = root(level), root(1 - level)
    if level == 0:  # pure noise: x_t is eps
        return {"x_0": ((0, 1), (1, 0)), "v": ((0, -1), (1, 0))}[prediction]
    return {
        "eps": ((1 / a, -b / a), (0, 1)),
        "x_0": ((0, 1), (1 / b, -a / b)),
        "v": ((a, -b), (b, a)),
        "score": ((1 / a, b**2 / a), (0, -b)),
    }[prediction]


def step_truth(prediction, s, t, sigma):
    """The weights of x_t and of the output in Song et al. 2021, eq. 12."""
    towards = root(max(1 - s - sigma**2, mpf(0)))
    return [
        root(s) * of_x_0 + towards * of_eps
        for of_x_0, of_eps in zip(*read(prediction, t), strict=True)
    ]


class Ones(torch.Generator):
    """A generator whose draws are replaced by 1 in the last row and 0 in the others."""


@pytest.fixture(autouse=True)
def _ones(monkeypatch):
    normal = torch.Tensor.normal_

    def marked(self, *law, generator=None):
        normal(self, *law, generator=generator)
        return (
            self.zero_().index_fill_(0, torch.tensor([2]), 1.0)
            if isinstance(generator, Ones)
            else self
        )

    monkeypatch.setattr(torch.Tensor, "normal_", marked)


def coefficients(sampler, schedule, dtype=torch.float32, **options):
    """For each step the weights of the sample, the output and the noise."""
    start = torch.tensor([[1.0], [0.0], [0.0]], dtype=dtype)
    output, seen = torch.tensor([[0.0], [1.0], [0.0]], dtype=dtype), []

    def callback(step):
        seen.append(step.x_s.ravel().tolist())
        step.x_s.copy_(start)

    sampler(lambda x, t: output, schedule, start, callback=callback, **options)
    return seen


def gap(got, want):
    """The largest error of a step's coefficients, in units of the largest of them."""
    largest = max(abs(w) for w in want)
    return float(max(abs(mpf(g) - w) for g, w in zip(got, want, strict=True)) / largest)


def posterior_deviation(s, t):
    return root((1 - s) / (1 - t) * (1 - t / s))


def downwards(schedule):
    """The pairs of levels (s, t) of the steps as they are taken."""
    levels = [mpf(level) for level in schedule.alpha_bar.tolist()]
    return list(pairwise(levels))[::-1]


FULL = {name: getattr(NoiseSchedule, name)() for name in FORMULAS}
STRIDES = [1, 7, 50]
WHOLE = {"linear": 999, "cosine": 1000}


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@each_kind
@each_name
def test_every_coefficient_of_ddim(name, prediction, eta):
    for S in STRIDES:
        schedule = FULL[name].strided(S)
        options = {"eta": eta, "prediction": prediction, "generator": Ones()}
        rows = coefficients(samplers.ddim, schedule, **options)
        assert len(rows) == S
        for row, (s, t) in zip(rows, downwards(schedule), strict=True):
            sigma = mpf(eta) * posterior_deviation(s, t)
            assert gap(row, [*step_truth(prediction, s, t, sigma), sigma]) <= 1e-7


@pytest.mark.parametrize("name", WHOLE)
def test_every_coefficient_of_a_whole_chain(name):
    schedule = FULL[name].strided(WHOLE[name])
    rows = coefficients(samplers.ddim, schedule, eta=0.3, generator=Ones())
    for row, (s, t) in zip(rows, downwards(schedule), strict=True):
        sigma = mpf(0.3) * posterior_deviation(s, t)
        assert gap(row, [*step_truth("eps", s, t, sigma), sigma]) <= 1e-7


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@each_kind
@each_name
def test_every_coefficient_of_ddpm(name, prediction, variance):
    """Ho et al. 2020, algorithm 2: the posterior's mean (eq. 7) at the predicted data."""
    for S in STRIDES:
        schedule = FULL[name].strided(S)
        options = {"variance": variance, "prediction": prediction, "generator": Ones()}
        rows = coefficients(samplers.ddpm, schedule, **options)
        for row, (s, t) in zip(rows, downwards(schedule), strict=True):
            of_x_t, of_x_0 = root(t / s) * (1 - s) / (1 - t), root(s) * (1 - t / s) / (1 - t)
            p, q = read(prediction, t)[0]
            noise = posterior_deviation(s, t) if variance == "posterior" else root(1 - t / s)
            want = [of_x_t + of_x_0 * p, of_x_0 * q, noise if s < 1 else mpf(0)]
            assert gap(row, want) <= 1e-7


@pytest.mark.parametrize("prediction", ["x_0", "v"])
@each_name
def test_every_coefficient_from_pure_noise(name, prediction):
    zero = FULL[name].zero_terminal()
    for S in (1, 7, 50):
        schedule = zero.strided(S)
        for eta in (0.0, 1.0):
            options = {"eta": eta, "prediction": prediction, "generator": Ones()}
            rows = coefficients(samplers.ddim, schedule, **options)
            for row, (s, t) in zip(rows, downwards(schedule), strict=True):
                sigma = mpf(eta) * posterior_deviation(s, t)
                assert gap(row, [*step_truth(prediction, s, t, sigma), sigma]) <= 1e-7


@each_name
def test_every_coefficient_of_a_table_of_sigmas(name):
    random = np.random.default_rng(0)
    for S in (2, 7, 50):
        schedule = FULL[name].strided(S)
        largest = np.sqrt(1 - schedule.alpha_bar[:-1])
        sigma = np.concatenate([[0.0], largest * random.uniform(0, 0.999, S)])
        rows = coefficients(samplers.ddim, schedule, sigma=sigma, generator=Ones())
        for row, (s, t), own in zip(rows, downwards(schedule), sigma[:0:-1], strict=True):
            assert gap(row, [*step_truth("eps", s, t, mpf(own)), mpf(own)]) <= 1e-7


@each_kind
@each_name
def test_every_coefficient_of_encode(name, prediction):
    """From s to t, the network told t: Song et al. 2021, eq. 12 with the levels exchanged."""
    for S in STRIDES:
        schedule = FULL[name].strided(S)
        rows = coefficients(samplers.encode, schedule, prediction=prediction)
        for row, (s, t) in zip(rows, reversed(downwards(schedule)), strict=True):
            of_x, of_output = read(prediction, t)[1]
            shift = root(1 - t) - root(t / s) * root(1 - s)
            want = [root(t / s) + shift * of_x, shift * of_output, mpf(0)]
            assert gap(row, want) <= 1e-7


@each_name
def test_the_coefficients_are_exact_in_float64_too(name):
    """What is a float32 table in between would show here."""
    schedule = FULL[name].strided(50)
    for prediction in KINDS:
        options = {"eta": 0.3, "prediction": prediction, "generator": Ones(), "dtype": torch.double}
        rows = coefficients(samplers.ddim, schedule, **options)
        for row, (s, t) in zip(rows, downwards(schedule), strict=True):
            sigma = mpf(0.3) * posterior_deviation(s, t)
            assert gap(row, [*step_truth(prediction, s, t, sigma), sigma]) <= 1e-14


def heun_truth(s, t):
    """Karras et al. 2022, algorithm 1, for x/√ᾱ: weights of x_t and the two answers of eps."""
    length = root((1 - s) / s) - root((1 - t) / t)
    if s == 1:
        return [1 / root(t), length, mpf(0)]
    return [root(s / t), root(s) * length / 2, root(s) * length / 2]


@each_name
def test_every_coefficient_of_heun(name):
    for S in STRIDES:
        schedule = FULL[name].strided(S)
        start, seen = torch.tensor([[1.0], [0.0], [0.0]]), []
        answers = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[:, :, None]
        calls = []

        def model(x, t, calls=calls, answers=answers):
            calls.append(int(t[0]))
            return answers[(len(calls) - 1) % 2]

        def callback(step, seen=seen, start=start):
            seen.append(step.x_s.ravel().tolist())
            step.x_s.copy_(start)

        samplers.heun(model, schedule, start, callback=callback)
        for row, (s, t) in zip(seen, downwards(schedule), strict=True):
            assert gap(row, heun_truth(s, t)) <= 1e-7
        told = [time for i in range(S, 0, -1) for time in schedule.times[[i, i - 1]].tolist()]
        assert calls == told[:-1]


def dpm_truth(before, t, s):
    """Lu et al. 2022, algorithm 2: weights of x_t, of the answer and of the one before, for x_0."""
    clock = [mpmath.inf if level == 1 else mpmath.log(level / (1 - level)) / 2 for level in (t, s)]
    if s == 1:
        return [mpf(0), mpf(1), mpf(0)]
    h = clock[1] - clock[0]
    of_x, of_data = root((1 - s) / (1 - t)), -root(s) * mpmath.expm1(-h)
    if before is None:
        return [of_x, of_data, mpf(0)]
    r = (clock[0] - mpmath.log(before / (1 - before)) / 2) / h
    return [of_x, of_data * (1 + 1 / (2 * r)), -of_data / (2 * r)]


@each_name
def test_every_coefficient_of_dpm_solver(name):
    """In float64, since two weights are multiplied in the samples' own type."""
    for S in STRIDES:
        schedule = FULL[name].strided(S)
        start, seen = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64), []
        calls = []

        def model(x, t, calls=calls):
            calls.append(t)
            now = len(calls) % 2  # the rows take turns: one sees this answer, one that before
            return torch.tensor([[0.0], [float(now)], [float(1 - now)]], dtype=torch.float64)

        def callback(step, seen=seen, start=start):
            seen.append(step.x_s.ravel().tolist())
            step.x_s.copy_(start)

        samplers.dpm_solver(model, schedule, start, prediction="x_0", callback=callback)
        pairs = downwards(schedule)
        for i, (row, (s, t)) in enumerate(zip(seen, pairs, strict=True)):
            before = pairs[i - 1][1] if i else None
            row = [row[0], *(row[1:] if i % 2 == 0 else row[:0:-1])]
            assert gap(row, dpm_truth(before, t, s)) <= 1e-9


# --- Whole runs with the perfect network ----------------------------------------------------------

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], [[[0.01]], [[0.09]]])
RUNS = {
    "linear 8": FULL["linear"].strided(8),
    "linear 7 linspace": FULL["linear"].strided(7, "linspace"),
    "cosine 20": FULL["cosine"].strided(20),
    "sigmoid uneven": FULL["sigmoid"].subsequence([990, 400, 90, 3]),
    "one step": FULL["scaled_linear"].strided(1),
}
each_run = pytest.mark.parametrize("run", RUNS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-4)])
@each_run
def test_ddim_takes_quantiles_to_quantiles(run, dtype, tolerance):
    """Without noise the sampler is an increasing map: it takes each quantile of the noise to that
    of the exact law of its output, and the density to the density."""
    schedule = RUNS[run]
    law = exact.ddim(MIXTURE, schedule)
    share = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    normal = torch.distributions.Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    x_T = normal.icdf(share)[:, None].to(dtype).requires_grad_()
    x_0 = samplers.ddim(MIXTURE.model(schedule), schedule, x_T, grad=True)
    (slope,) = torch.autograd.grad(x_0.sum(), x_T)
    x_0 = x_0.detach().ravel().double().contiguous()
    assert (exact._distribution_function(law, x_0) - share).abs().max() <= tolerance
    density = normal.log_prob(x_T.detach().double().ravel()).exp() / slope.double().ravel()
    there = torch.from_numpy(np.interp(x_0, law.x, law.density))
    assert ((density - there) / law.density.max()).abs().max() <= 2e-3  # of np.interp's chords


NOISY = {
    "eta 0.5": (exact.ddim, samplers.ddim, {"eta": 0.5}),
    "eta 1": (exact.ddim, samplers.ddim, {"eta": 1.0}),
    "posterior": (exact.ddpm, samplers.ddpm, {"variance": "posterior"}),
    "beta": (exact.ddpm, samplers.ddpm, {"variance": "beta"}),
}


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("run", ["cosine 20", "sigmoid uneven"])
def test_noisy_samplers_have_the_moments_and_shares_of_their_exact_law(run, name):
    """In float32, as users run them: three moments and nine shares, each within 4.8 deviations."""
    law_of, sampler, options = NOISY[name]
    schedule, n = RUNS[run], 40_000
    law = law_of(MIXTURE, schedule, **options)
    x_T = torch.randn(n, 1, generator=seeded(1))
    x_0 = sampler(MIXTURE.model(schedule), schedule, x_T, generator=seeded(2), **options)
    x_0 = x_0.double().ravel()
    for power in (1, 2, 3):
        draws = x_0**power
        truth = float((law.mass * law.x**power).sum())
        assert abs(float((draws.mean() - truth) / (draws.std() / math.sqrt(n)))) < 4.8
    for share in torch.linspace(0.1, 0.9, 9).tolist():
        place = law.x[torch.searchsorted(law.cdf, share)]
        p = float(exact._distribution_function(law, place[None]))
        z = (float((x_0 < place).double().mean()) - p) / math.sqrt(p * (1 - p) / n)
        assert abs(z) < 4.8


MEAN, VARIANCE = 0.3, 0.25


@pytest.mark.parametrize("S", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_solvers_move_gaussian_data_as_their_papers_say(name, S):
    """The perfect eps of Gaussian data is affine, so a run is an affine map, here in 50 digits."""
    schedule = FULL[name].strided(S)
    model = gaussian([MEAN], [[VARIANCE]]).model(schedule)
    x_T = torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)
    got = {f: getattr(samplers, f)(model, schedule, x_T) for f in ("heun", "dpm_solver")}

    def eps(x, level):
        V = level * mpf(VARIANCE) + 1 - level
        return root(1 - level) * (x - root(level) * mpf(MEAN)) / V

    for i, start in enumerate(x_T.ravel().tolist()):
        heun = dpm = mpf(start)
        before, last = None, None
        for s, t in downwards(schedule):
            here = eps(heun, t)
            a, b, c = heun_truth(s, t)
            if s == 1:
                heun = a * heun + b * here
            else:
                tried = root(s / t) * heun + 2 * b * here
                heun = a * heun + b * here + c * eps(tried, s)
            data = (dpm - root(1 - t) * eps(dpm, t)) / root(t)
            a, b, c = dpm_truth(before, t, s)
            dpm = a * dpm + b * data + (c * last if last is not None else 0)
            before, last = t, data
        assert float(got["heun"][i]) == pytest.approx(float(heun), rel=1e-10, abs=1e-12)
        assert float(got["dpm_solver"][i]) == pytest.approx(float(dpm), rel=1e-10, abs=1e-12)


# --- The bound ------------------------------------------------------------------------------------


def normal_kl(mean_p, p, mean_q, q):
    return (mpmath.log(q / p) + (p + (mean_p - mean_q) ** 2) / q - 1) / 2


def variance_of(choice, s, t):
    """What the model takes for its step's variance, from Nichol and Dhariwal 2021, eq. 15."""
    beta, posterior = 1 - t / s, (1 - s) / (1 - t) * (1 - t / s)
    share = {"posterior": 0, "beta": 1}.get(choice, mpf("0.3"))
    return mpmath.exp(share * mpmath.log(beta) + (1 - share) * mpmath.log(posterior))


def gap_in_theory(schedule, choice):
    """The mean bound less the entropy, for Gaussian data and the perfect network.

    Given x_t the data have one variance, which is the mean squared error of the best guess.
    """
    total, m, v = mpf(0), mpf(MEAN), mpf(VARIANCE)
    for s, t in downwards(schedule):
        error = v * (1 - t) / (t * v + 1 - t)
        if s == 1:
            sigma2 = 1 - t
            total += (mpmath.log(2 * mpmath.pi * sigma2) + error / sigma2) / 2
            continue
        sigma2, posterior = variance_of(choice, s, t), (1 - s) / (1 - t) * (1 - t / s)
        weight = root(s) * (1 - t / s) / (1 - t)
        total += normal_kl(mpf(0), posterior, mpf(0), sigma2) + weight**2 * error / sigma2 / 2
    t = mpf(float(schedule.alpha_bar[-1]))
    total += (t * (m**2 + v) - t - mpmath.log(1 - t)) / 2
    return float(total - mpmath.log(2 * mpmath.pi * mpmath.e * v) / 2)


def with_share(model, share):
    """The same network, with a learned variance that is everywhere the same."""
    return lambda x, t: torch.cat([model(x, t), torch.full_like(x, 2 * share - 1)], dim=1)


@pytest.mark.parametrize("choice", ["posterior", "beta", "learned"])
@pytest.mark.parametrize("run", ["linear 8", "cosine 20", "sigmoid uneven", "one step"])
def test_the_bound_less_the_entropy_is_that_of_theory(run, choice):
    schedule, target, n = RUNS[run], gaussian([MEAN], [[VARIANCE]]), 20_000
    x_0, model = target.sample(n, seeded(3)), target.model(schedule)
    model = with_share(model, 0.3) if choice == "learned" else model
    total = bound(model, schedule, x_0, variance=choice, generator=seeded(4)).total
    theory = gap_in_theory(schedule, choice)
    # The log-density as a control leaves less noise than the entropy's number.
    draws = total + target.log_prob(x_0)
    assert theory > 0
    assert abs(float((draws.mean() - theory) / (draws.std() / math.sqrt(n)))) < 4.8


@pytest.mark.parametrize("run", ["linear 8", "cosine 20", "sigmoid uneven"])
def test_with_the_best_learned_variance_only_the_prior_is_lost(run):
    """The reverse kernel of Gaussian data is Gaussian, so every step can be exact: what is left is
    that the last x_T is not quite the noise the sampler starts from."""
    schedule, target, n = RUNS[run], gaussian([MEAN], [[VARIANCE]]), 20_000
    table = [mpf(level) for level in schedule.alpha_bar.tolist()]
    said = {}
    for i in range(2, schedule.T + 1):
        s, t = table[i - 1], table[i]
        beta, posterior = 1 - t / s, (1 - s) / (1 - t) * (1 - t / s)
        best = (s * mpf(VARIANCE) + 1 - s) / (t * mpf(VARIANCE) + 1 - t) * beta
        share = mpmath.log(best / posterior) / mpmath.log(beta / posterior)
        said[int(schedule.times[i])] = float(2 * share - 1)
    perfect = target.model(schedule)

    def model(x, t):
        return torch.cat([perfect(x, t), torch.full_like(x, said.get(int(t[0]), 0.0))], dim=1)

    t = table[1]
    decoder = mpf(VARIANCE) * (1 - t) / (t * mpf(VARIANCE) + 1 - t)
    x_0 = target.sample(n, seeded(3))
    total = bound(
        model, schedule, x_0, variance="learned", decoder_variance=float(decoder),
        generator=seeded(4),
    ).total  # fmt: skip
    t = table[-1]
    lost = normal_kl(root(t) * mpf(MEAN), t * mpf(VARIANCE) + 1 - t, mpf(0), mpf(1))
    draws = total + target.log_prob(x_0)
    assert abs(float((draws.mean() - float(lost)) / (draws.std() / math.sqrt(n)))) < 4.8


@pytest.mark.parametrize("choice", ["posterior", "beta", "learned"])
@pytest.mark.parametrize("run", RUNS)
def test_the_bound_of_a_mixture_is_above_its_likelihood(run, choice):
    schedule, n = RUNS[run], 5_000
    x_0, model = MIXTURE.sample(n, seeded(3)), MIXTURE.model(schedule)
    model = with_share(model, 0.3) if choice == "learned" else model
    total = bound(model, schedule, x_0, variance=choice, generator=seeded(4)).total
    draws = total + MIXTURE.log_prob(x_0)
    assert float(draws.mean() / (draws.std() / math.sqrt(n))) > 4.8
