"""Samplers, against independent implementations, exact recursions and each other."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_lib import closed_forms, samplers
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

FULL = NoiseSchedule.linear()
SCHEDULES = {
    "all 1000": FULL,
    "50 of 1000": FULL.strided(50),
    "7 of 1000": FULL.strided(7),  # 7 does not divide 1000
    "uneven": FULL.subsequence([1, 2, 30, 500, 1000]),
    "one step": FULL.strided(1),
    "cosine": NoiseSchedule.cosine(60),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(x, t):
    """Any function of x_t and t will do where only the step is tested."""
    return torch.tanh(x + 0.001 * t.reshape(-1, *(1,) * (x.ndim - 1)))


# --- Step for step against another implementation -------------------------------------------------


def ddpm_of_the_paper(model, schedule, x, generator, variance):
    """Algorithm 2 of Ho et al. as printed, on neighbours of the schedule, in NumPy's float64."""
    for i in range(schedule.T, 0, -1):
        s, t = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        alpha = t / s
        eps = model(x, torch.full((len(x),), int(schedule.times[i])))
        x = (x - (1 - alpha) / math.sqrt(1 - t) * eps) / math.sqrt(alpha)
        if i > 1:
            share = (1 - s) / (1 - t) if variance == "posterior" else 1.0
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + math.sqrt(share * (1 - alpha)) * z
    return x


def ddim_of_the_paper(model, schedule, x, generator, eta):
    """Equation 12 of Song et al. as printed, with their alpha."""
    for i in range(schedule.T, 0, -1):
        a_prev, a = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        sigma = eta * math.sqrt((1 - a_prev) / (1 - a)) * math.sqrt(1 - a / a_prev)
        eps = model(x, torch.full((len(x),), int(schedule.times[i])))
        predicted = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        x = math.sqrt(a_prev) * predicted + math.sqrt(max(0.0, 1 - a_prev - sigma**2)) * eps
        if sigma > 0:
            x = x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm_step_for_step(name, variance):
    schedule, x_T = SCHEDULES[name], torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    got = samplers.ddpm(network, schedule, x_T, variance=variance, generator=seeded(2))
    want = ddpm_of_the_paper(network, schedule, x_T, seeded(2), variance)
    assert (got - want).abs().max() <= 1e-10 * want.abs().max()


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_step_for_step(name, eta):
    schedule, x_T = SCHEDULES[name], torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    got = samplers.ddim(network, schedule, x_T, eta=eta, generator=seeded(2))
    want = ddim_of_the_paper(network, schedule, x_T, seeded(2), eta)
    assert (got - want).abs().max() <= 1e-10 * want.abs().max()


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_at_eta_one_is_ddpm(name):
    x_T = torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    a = samplers.ddim(network, SCHEDULES[name], x_T, eta=1.0, generator=seeded(2))
    b = samplers.ddpm(network, SCHEDULES[name], x_T, generator=seeded(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_float32_stays_close_to_float64(sampler):
    """One step at a time, so that a step's own rounding is seen, not the network's echo of it."""
    for t in (1, 2, 10, 500, 1000):
        schedule = FULL.subsequence([t])
        x_T = torch.randn(64, 3, generator=seeded(1))
        eps = 0.9 * x_T
        single = sampler(lambda x, t, eps=eps: eps, schedule, x_T)
        double = sampler(lambda x, t, eps=eps: eps.double(), schedule, x_T.double())
        largest = x_T.abs().max() / math.sqrt(schedule.alpha_bar[1])
        assert (single - double).abs().max() <= 3e-7 * largest


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_every_step_coefficient_is_exact_to_rounding(prediction, eta):
    """Read a step's two weights off its action on 0 and 1, for 60 random pairs of steps."""
    random = np.random.default_rng(0)
    for _ in range(60):
        s, t = sorted(random.choice(np.arange(1, 1001), size=2, replace=False).tolist())
        got = []
        for x_value, output_value in ((1.0, 0.0), (0.0, 1.0)):
            seen = []
            samplers.ddim(
                lambda x, t, value=output_value: torch.full_like(x, value),
                FULL.subsequence([s, t]),
                torch.full((1, 1), x_value),
                eta=eta,
                prediction=prediction,
                generator=NoNoise(),
                callback=seen.append,
            )
            got.append(float(seen[0].x_s))
        with mpmath.workdps(50):
            a, b = (mpmath.mpf(float(FULL.alpha_bar[i])) for i in (t, s))
            sigma = eta * mpmath.sqrt((1 - b) / (1 - a) * (1 - a / b))
            signal, noise, direction = (
                mpmath.sqrt(b),
                mpmath.sqrt(1 - a),
                mpmath.sqrt(1 - b - sigma**2),
            )
            of_x_0, of_eps = {  # the weights of x_t and of the output in x_0 and in eps
                "eps": ((1 / mpmath.sqrt(a), -noise / mpmath.sqrt(a)), (0, 1)),
                "x_0": ((0, 1), (1 / noise, -mpmath.sqrt(a) / noise)),
                "v": ((mpmath.sqrt(a), -noise), (noise, mpmath.sqrt(a))),
            }[prediction]
            want = [signal * p + direction * q for p, q in zip(of_x_0, of_eps, strict=True)]
            largest = max(abs(w) for w in want)
        assert max(abs(g - float(w)) for g, w in zip(got, want, strict=True)) <= 1e-7 * largest


class NoNoise(torch.Generator):
    """A generator whose draws are replaced by 0, so that a step shows its mean."""


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch):
    normal = torch.Tensor.normal_

    def quiet(self, *law, generator=None):
        normal(self, *law, generator=generator)
        return self.zero_() if isinstance(generator, NoNoise) else self

    monkeypatch.setattr(torch.Tensor, "normal_", quiet)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_samples_have_the_right_width(dtype):
    """In half the network answers in half, but 1000 small steps must not be lost to rounding."""
    target = gaussian([0.0], [[0.25]])
    x_T = torch.randn(4000, 1, generator=seeded()).to(dtype)
    x = samplers.ddim(target.model(FULL), FULL, x_T)
    assert x.dtype == dtype
    assert float(x.float().std()) == pytest.approx(0.5, rel=0.03)


class NoReadingBack(TorchDispatchMode):
    """Fails when a tensor's value is read by Python (a GPU would have to wait) or is float64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(function), "a value is read back"
        result = function(*args, **(kwargs or {}))
        if torch.is_tensor(result):
            assert result.dtype != torch.float64, f"{function} makes float64, which MPS lacks"
        return result


def test_the_loop_reads_nothing_back_and_makes_no_float64():
    x_T = torch.randn(8, 2)
    with NoReadingBack():
        samplers.ddpm(lambda x, t: 0.5 * x, FULL.strided(5), x_T, clip=(-2.0, 2.0))
        samplers.ddim(lambda x, t: 0.5 * x, FULL.strided(5), x_T)
        samplers.encode(lambda x, t: 0.5 * x, FULL.strided(5), x_T)


# --- Exact recursions on Gaussian data ------------------------------------------------------------


@pytest.mark.parametrize("S", [1, 3, 10, 50])
def test_ddim_moves_gaussian_data_exactly_as_the_recursion_says(S):
    """With the perfect network a step is affine; its slope follows from Song et al., eq. 12."""
    mean, v, schedule = 0.8, 0.3, FULL.strided(S)
    target = gaussian(torch.tensor([mean]), torch.tensor([[v]], dtype=torch.float64))
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    got = samplers.ddim(target.model(schedule), schedule, x_T)
    # In x' = (x - √ᾱ μ) the network is ε = √(1-ᾱ) x' / (ᾱ v + 1 - ᾱ).
    offset = x_T - math.sqrt(schedule.alpha_bar[-1]) * mean
    for i in range(S, 0, -1):
        s, t = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        V = t * v + 1 - t
        offset = offset * (math.sqrt(s * t) * v + math.sqrt((1 - s) * (1 - t))) / V
    assert torch.allclose(got, offset + mean, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_output_variance_of_any_eta_follows_the_recursion(eta):
    v, schedule, n = 0.3, FULL.strided(10), 200_000
    target = gaussian(torch.zeros(1), torch.tensor([[v]], dtype=torch.float64))
    x_T = torch.randn(n, 1, dtype=torch.float64, generator=seeded(1))
    got = samplers.ddim(target.model(schedule), schedule, x_T, eta=eta, generator=seeded(2))
    variance = 1.0
    for i in range(10, 0, -1):
        s, t = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        V = t * v + 1 - t
        noise = eta**2 * (1 - s) / (1 - t) * (1 - t / s)
        slope = math.sqrt(s * t) * v / V + math.sqrt((1 - s - noise) * (1 - t)) / V
        variance = slope**2 * variance + noise
    z = (got.square().mean() - variance) / (got.square().std() / math.sqrt(n))
    assert abs(float(z)) < 4.5


def test_many_steps_recover_the_mixture():
    mixture, n = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.01]]]), 20_000
    x_T = torch.randn(n, 1, generator=seeded(1))
    x = samplers.ddpm(mixture.model(FULL), FULL, x_T, generator=seeded(2))
    left = (x < 0).double()
    z = (left.mean() - 0.3) / (left.std() / math.sqrt(n))
    assert abs(float(z)) < 4.5
    assert float(x[x < 0].std()) == pytest.approx(0.2, rel=0.05)
    assert float(x[x > 0].std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("prediction", ["x_0", "v", "score"])
@pytest.mark.parametrize("clip", [None, (-3.0, 3.0)])
def test_every_prediction_samples_the_same(prediction, clip):
    mixture = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.01]]])
    schedule, x_T = FULL.strided(20), torch.randn(6, 1, dtype=torch.float64, generator=seeded(1))
    runs = [
        samplers.ddpm(
            mixture.model(schedule, kind),
            schedule,
            x_T,
            prediction=kind,
            clip=clip,
            generator=seeded(2),
        )
        for kind in ("eps", prediction)
    ]
    assert torch.allclose(*runs, atol=1e-9)


# --- Encoding: the same step towards the noise ----------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_every_coefficient_of_encoding_is_exact_to_rounding(prediction):
    """As above for 60 random pairs of steps, s = 0 among them, where x_s is clean."""
    random = np.random.default_rng(0)
    for i in range(60):
        s, t = sorted(random.choice(np.arange(1, 1001), size=2, replace=False).tolist())
        s = s if i % 3 else 0
        got = []
        for x_value, output_value in ((1.0, 0.0), (0.0, 1.0)):
            seen = []
            code = samplers.encode(
                lambda x, t, value=output_value: torch.full_like(x, value),
                NoiseSchedule([1, FULL.alpha_bar[t]] if s == 0 else FULL.alpha_bar[[0, s, t]]),
                torch.full((1, 1), x_value),
                prediction=prediction,
                callback=lambda step, seen=seen, x=x_value: (
                    seen.append(float(step.x_s)),
                    step.x_s.fill_(x),  # each step starts from the same sample
                ),
            )
            assert float(code) == x_value
            got.append(seen[-1])
        with mpmath.workdps(50):
            a, b = (mpmath.mpf(float(FULL.alpha_bar[i])) for i in (s, t))
            # What the network says about the noise at level t: weights of x_s and its output.
            of_x, of_output = {
                "eps": (0, 1),
                "x_0": (1 / mpmath.sqrt(1 - b), -mpmath.sqrt(b) / mpmath.sqrt(1 - b)),
                "v": (mpmath.sqrt(1 - b), mpmath.sqrt(b)),
            }[prediction]
            weight = mpmath.sqrt(1 - b) - mpmath.sqrt(b / a) * mpmath.sqrt(1 - a)
            want = [mpmath.sqrt(b / a) + weight * of_x, weight * of_output]
            largest = max(abs(w) for w in want)
        assert max(abs(g - float(w)) for g, w in zip(got, want, strict=True)) <= 1e-7 * largest


def encode_by_hand(model, schedule, x):
    """From s to t with x_0 and eps read off x_s, the network told the time of t."""
    for i in range(1, schedule.T + 1):
        s, t = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        eps = model(x, torch.full((len(x),), int(schedule.times[i])))
        predicted = (x - math.sqrt(1 - s) * eps) / math.sqrt(s)
        x = math.sqrt(t) * predicted + math.sqrt(1 - t) * eps
    return x


@pytest.mark.parametrize("name", SCHEDULES)
def test_encode_step_for_step(name):
    """The network depends on the time, so an index in its place would show ("uneven", "7 of")."""
    schedule, x_0 = SCHEDULES[name], torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    got = samplers.encode(network, schedule, x_0)
    want = encode_by_hand(network, schedule, x_0)
    assert (got - want).abs().max() <= 1e-12 * want.abs().max()


@pytest.mark.parametrize("name", SCHEDULES)
def test_decoding_undoes_encoding_when_the_network_gives_the_same_answer(name):
    """A network that hears only the time: what one direction does the other undoes."""
    schedule, x_0 = SCHEDULES[name], torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))

    def deaf(x, t):
        return torch.sin(0.01 * t.to(x))[:, None].expand_as(x)

    code = samplers.encode(deaf, schedule, x_0)
    assert (code - x_0).abs().max() > 0.1
    assert (samplers.ddim(deaf, schedule, code) - x_0).abs().max() <= 1e-9


@pytest.mark.parametrize("S", [1, 3, 10, 50])
def test_encoding_gaussian_data_is_the_exact_affine_map(S):
    """With the perfect network a step is affine in x_s: its slope and offset by hand."""
    mean, v, schedule = 0.8, 0.3, FULL.strided(S)
    target = gaussian(torch.tensor([mean]), torch.tensor([[v]], dtype=torch.float64))
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    got = samplers.encode(target.model(schedule), schedule, x)
    for i in range(1, S + 1):
        s, t = schedule.alpha_bar[i - 1], schedule.alpha_bar[i]
        weight = math.sqrt(1 - t) - math.sqrt(t / s) * math.sqrt(1 - s)
        gain = weight * math.sqrt(1 - t) / (t * v + 1 - t)
        x = (math.sqrt(t / s) + gain) * x - gain * math.sqrt(t) * mean
    assert torch.allclose(got, x, atol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 0.8])
def test_the_round_trip_error_falls_with_the_number_of_steps(mean):
    """Ten times as many steps, a tenth of the error."""
    target = gaussian(torch.tensor([mean]), torch.tensor([[0.3]], dtype=torch.float64))
    x_0 = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    errors = []
    for S in (100, 1000):
        schedule = FULL.strided(S)
        model = target.model(schedule)
        back = samplers.ddim(model, schedule, samplers.encode(model, schedule, x_0))
        errors.append(float((back - x_0).abs().max()))
    assert errors[0] < 0.1
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_the_code_of_gaussian_data_tends_to_the_quantile_map():
    mean, v = 0.8, 0.3
    target = gaussian(torch.tensor([mean]), torch.tensor([[v]], dtype=torch.float64))
    x_0 = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    level = FULL.alpha_bar[-1]
    spread = math.sqrt((level * v + 1 - level) / v)
    quantiles = math.sqrt(level) * mean + spread * (x_0 - mean)
    errors = []
    for S in (100, 1000):
        schedule = FULL.strided(S)
        code = samplers.encode(target.model(schedule), schedule, x_0)
        errors.append(float((code - quantiles).abs().max()))
    assert errors[1] < 0.01
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("prediction", ["x_0", "v", "score"])
def test_every_prediction_encodes_the_same(prediction):
    mixture = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.01]]])
    schedule, x_0 = FULL.strided(20), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    eps_model = mixture.model(schedule)

    def model(x_s, times):
        """The same network, asked for another output: it believes that x_s is of level t."""
        level = torch.tensor(FULL.alpha_bar)[times][:, None]
        eps = eps_model(x_s, times)
        clean = closed_forms.x_0_from_eps(x_s, eps, level)
        return {
            "x_0": clean,
            "v": closed_forms.velocity(clean, eps, level),
            "score": closed_forms.score_from_eps(eps, level),
        }[prediction]

    want = samplers.encode(eps_model, schedule, x_0)
    assert torch.allclose(
        samplers.encode(model, schedule, x_0, prediction=prediction), want, atol=1e-11
    )


def test_encoding_tells_the_network_the_noisier_time_and_never_time_0():
    told, steps = [], []

    def model(x, t):
        told.append(t.clone())
        return x

    samplers.encode(model, FULL.strided(4), torch.randn(3, 2), callback=steps.append)
    assert [row.tolist() for row in told] == [[t] * 3 for t in (250, 500, 750, 1000)]
    assert all(row.dtype == torch.int64 for row in told)
    assert [(step.number, step.t, step.s) for step in steps] == [
        (0, 0, 250), (1, 250, 500), (2, 500, 750), (3, 750, 1000)
    ]  # fmt: skip


def test_encoding_shows_the_data_its_step_was_made_from():
    """The first step starts from clean data, whose prediction is the data themselves."""
    steps, x_0 = [], torch.randn(3, 2, dtype=torch.float64)
    code = samplers.encode(network, FULL.strided(4), x_0, callback=steps.append)
    assert torch.equal(steps[0].x_0, x_0)
    assert torch.equal(steps[-1].x_s, code)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_codes_have_the_right_width(dtype):
    target = gaussian([0.0], [[0.25]])
    x_0 = target.sample(4000, seeded()).to(dtype)
    code = samplers.encode(target.model(FULL), FULL, x_0)
    assert code.dtype == dtype
    assert float(code.float().std()) == pytest.approx(1, rel=0.04)


def test_encoding_draws_no_random_number_and_leaves_its_arguments():
    x_0 = torch.randn(3, 2, generator=seeded())
    kept = x_0.clone()
    model = Dropping().train()
    model.frozen.eval()
    before = torch.get_rng_state()
    first, second = (samplers.encode(model, FULL.strided(3), x_0) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert torch.equal(x_0, kept)
    assert model.training
    assert not model.frozen.training


def test_encoding_shows_its_progress_when_asked_for(capsys):
    samplers.encode(network, FULL.strided(3), torch.randn(2, 2), progress=True)
    shown = capsys.readouterr().err
    assert "encoding" in shown
    assert "3/3" in shown


# --- Between two codes ----------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 0.5, math.pi / 2, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_interpolation_walks_along_the_circle(share, angle):
    """In the plane the arc from angle 0 to angle θ passes angle wθ after the share w of the way."""
    a = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    b = 2 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    want = 2 * torch.tensor([[math.cos(share * angle), math.sin(share * angle)]])
    assert torch.allclose(samplers.interpolate(a, b, share), want.double(), atol=1e-6)


def test_interpolation_treats_each_sample_as_one_vector_and_keeps_its_norm():
    a, b = torch.randn(2, 5, 1, 8, 8, generator=seeded())
    b *= (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
    middle = samplers.interpolate(a, b, 0.5)
    alone = samplers.interpolate(a[3:4], b[3:4], 0.5)
    assert middle.shape == a.shape
    assert middle.dtype == a.dtype
    assert torch.allclose(middle.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    assert torch.allclose(middle[3:4], alone)
    assert ((a + b) / 2).flatten(1).norm(dim=1).mean() < 0.8 * middle.flatten(1).norm(dim=1).mean()


def test_interpolation_between_equal_codes_stays_there():
    a = torch.randn(4, 3, generator=seeded())
    assert torch.allclose(samplers.interpolate(a, a, 0.3), a)
    assert torch.equal(samplers.interpolate(a * 0, a * 0, 0.3), a * 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4), 0.5), r"shapes \(2, 3\) and \(2, 4\)"),
        ((torch.ones(2, 3), torch.ones(2, 3), 1.5), r"share is 1.5; it must be a number in 0\.\.1"),
        ((torch.ones(2, 3), torch.ones(2, 3), "half"), "share is 'half'"),
        ((torch.ones(2, 3).long(), torch.ones(2, 3), 0.5), "x_a is torch.int64"),
        ((torch.ones(2, 3), -2 * torch.ones(2, 3), 0.5), "opposite codes"),
    ],
)
def test_interpolation_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        samplers.interpolate(*arguments)


# --- The end of the chain, clipping, randomness ---------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_step_to_the_data_adds_no_noise(variance):
    x_T = torch.randn(4, 2, generator=seeded())
    runs = [
        samplers.ddpm(network, FULL.strided(1), x_T, variance=variance, generator=seeded(seed))
        for seed in (0, 1)
    ]
    assert torch.equal(*runs)


def test_the_last_step_lands_on_the_predicted_data():
    steps = []
    x = samplers.ddpm(network, FULL.strided(5), torch.randn(4, 2), callback=steps.append)
    assert torch.allclose(steps[-1].x_0, x, atol=1e-6)
    assert [(step.number, step.t, step.s) for step in steps] == [
        (0, 1000, 800), (1, 800, 600), (2, 600, 400), (3, 400, 200), (4, 200, 0)
    ]  # fmt: skip


def test_a_range_that_never_binds_changes_nothing():
    x_T = torch.randn(5, 2, dtype=torch.float64, generator=seeded())
    for eta in (0.0, 1.0):
        free, clipped = (
            samplers.ddim(network, FULL.strided(9), x_T, eta=eta, clip=clip, generator=seeded(1))
            for clip in (None, (-1e9, 1e9))
        )
        assert torch.allclose(free, clipped, rtol=1e-9)


def test_clipping_bounds_the_data_and_derives_the_noise_again():
    """One step by hand: x_0 is clipped, then eps is what remains of x_t."""
    schedule = FULL.subsequence([100, 900])
    x_T = torch.tensor([[3.0]], dtype=torch.float64)
    seen = []
    samplers.ddim(
        lambda x, t: torch.zeros_like(x), schedule, x_T, clip=(-1, 1), callback=seen.append
    )
    s, t = schedule.alpha_bar[1], schedule.alpha_bar[2]
    eps = (3.0 - math.sqrt(t)) / math.sqrt(1 - t)
    assert float(seen[0].x_0) == 1.0
    assert float(seen[0].x_s) == pytest.approx(math.sqrt(s) + math.sqrt(1 - s) * eps, rel=1e-12)
    assert seen[-1].x_s.abs().max() <= 1


def test_ddim_draws_no_random_number():
    generator, before = seeded(), torch.get_rng_state()
    state = generator.get_state()
    samplers.ddim(
        network, FULL.strided(10), torch.randn(3, 2, generator=seeded(1)), generator=generator
    )
    assert torch.equal(state, generator.get_state())
    assert torch.equal(before, torch.get_rng_state())


def test_sample_i_does_not_depend_on_its_batch():
    x_T = torch.randn(6, 2, dtype=torch.float64, generator=seeded(1))
    together = samplers.ddpm(
        network, FULL.strided(10), x_T, generator=[seeded(i) for i in range(6)]
    )
    alone = samplers.ddpm(network, FULL.strided(10), x_T[4:5], generator=[seeded(4)])
    assert torch.allclose(together[4:5], alone, atol=1e-13)


# --- Good manners ---------------------------------------------------------------------------------


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.drop = torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)
        self.frozen = torch.nn.Dropout(0.5).eval()

    def forward(self, x, t):
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.drop(self.linear(x))


def test_the_model_is_evaluated_and_left_as_it_was():
    model = Dropping().train()
    model.frozen.eval()
    x_T = torch.randn(3, 2)
    kept = x_T.clone()
    first, second = (samplers.ddim(model, FULL.strided(3), x_T) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x_T, kept)
    assert model.training
    assert not model.frozen.training


def test_the_mode_is_restored_when_the_model_fails():
    model = Dropping().train()
    model.linear = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        samplers.ddim(model, FULL.strided(3), torch.randn(3, 2))
    assert model.training
    assert torch.is_grad_enabled()


def test_samples_can_be_used_in_a_loss():
    x = samplers.ddim(network, FULL.strided(3), torch.randn(3, 2))
    weight = torch.ones(2, requires_grad=True)
    (weight * x).sum().backward()
    assert torch.allclose(weight.grad, x.sum(0))


def test_a_network_that_returns_its_input_is_not_overwritten():
    kept = []

    def remembers(x, t):
        kept.append((x, x.clone()))
        return x

    samplers.ddpm(remembers, FULL.strided(5), torch.randn(3, 2))
    assert all(torch.equal(a, b) for a, b in kept)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 8, 8)])
def test_any_shape_in_any_order_of_memory(shape):
    x_T = torch.randn(shape, generator=seeded()).double()
    once = samplers.ddim(network, FULL.strided(4), x_T)
    turned = samplers.ddim(
        network, FULL.strided(4), x_T.mT.contiguous().mT if len(shape) > 1 else x_T
    )
    assert once.shape == shape
    assert torch.allclose(once, turned)


def test_the_network_is_told_the_time_of_each_step_for_every_row():
    told = []

    def model(x, t):
        told.append(t.clone())
        return x

    samplers.ddim(model, FULL.strided(4), torch.randn(3, 2))
    assert [row.tolist() for row in told] == [[t] * 3 for t in (1000, 750, 500, 250)]
    assert all(row.dtype == torch.int64 for row in told)


def test_progress_is_shown_only_when_asked_for(capsys):
    samplers.ddim(network, FULL.strided(3), torch.randn(2, 2))
    assert capsys.readouterr() == ("", "")
    samplers.ddim(network, FULL.strided(3), torch.randn(2, 2), progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: samplers.ddim(network, FULL, x, eta=5),
            r"eta is 5; it must be a number in 0\.\.1",
        ),
        (lambda x: samplers.ddim(network, FULL, x, eta=float("nan")), "eta is nan"),
        (lambda x: samplers.ddpm(network, FULL, x, variance="small"), "variance is 'small'"),
        (lambda x: samplers.ddim(network, FULL, x, prediction="noise"), "prediction is 'noise'"),
        (lambda x: samplers.ddim(network, FULL, x, clip=(1, -1)), "clip is"),
        (lambda x: samplers.ddim(network, FULL, x.long()), "floating-point tensor"),
        (
            lambda x: samplers.ddpm(network, FULL, x, generator=[seeded()]),
            "generator has 1 entries",
        ),
        (lambda x: samplers.ddim(lambda x, t: x[:, :1], FULL, x), r"output has shape \(2, 1\)"),
        (lambda x: samplers.ddim(lambda x, t: (x, x), FULL, x), "output has type <class 'tuple'>"),
        (lambda x: samplers.ddim(network, "linear", x), "schedule is 'linear'"),
        (lambda x: samplers.ddim(network, FULL, x, eta="1"), "eta is '1'"),
        (lambda x: samplers.ddim(network, FULL, x, clip=1.0), "clip is 1.0"),
        (lambda x: samplers.ddim(network, FULL, x, generator=0), "generator is 0"),
        (
            lambda x: samplers.ddpm(network, NoiseSchedule([1, 0.99, 0.9, 1e-300]), x),
            "too close to each other, to 0 or to 1",
        ),
        (lambda x: samplers.encode(network, FULL, x.long()), "x_0 is torch.int64"),
        (lambda x: samplers.encode(network, "linear", x), "schedule is 'linear'"),
        (lambda x: samplers.encode(network, FULL, x, prediction="noise"), "prediction is 'noise'"),
        (lambda x: samplers.encode(lambda x, t: x[:, :1], FULL, x), r"shape \(2, 3\) of x_0"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3))


def test_numpy_coefficients_never_warn():
    with np.errstate(all="raise"):
        for schedule in SCHEDULES.values():
            for eta in (0.0, 0.5, 1.0):
                samplers.ddim(network, schedule, torch.randn(2, 2), eta=eta)
            for prediction in ("eps", "x_0", "v", "score"):
                samplers.encode(network, schedule, torch.randn(2, 2), prediction=prediction)


@pytest.mark.parametrize(
    "sample", [samplers.ddpm, samplers.ddim, samplers.dpm_solver, samplers.heun, samplers.encode]
)
def test_tensors_are_made_where_the_samples_are(sample):
    """Whatever the caller's default device is; meta stands for a GPU, and gives no value back."""
    schedule = NoiseSchedule.linear(12)
    x, model = torch.randn(4, 3), lambda x_t, t: x_t * t[:, None] / 12

    def run():
        options = {"generator": torch.Generator().manual_seed(0)} if sample is samplers.ddpm else {}
        return sample(model, schedule, x, **options)

    with torch.device("meta"):
        there = run()
    assert torch.equal(there, run())
