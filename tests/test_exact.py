"""Exact output laws, held against closed recursions, simulation and independent integration."""

import math

import numpy as np
import pytest
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib import exact, samplers
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian
from diffusion_lib.verify import sampled

FULL = NoiseSchedule.linear()
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0], [0.8]], [[[0.01]], [[0.09]]])
MEAN, VARIANCE = 0.3, 0.25
ONE_HEAP = gaussian([MEAN], [[VARIANCE]])

SAMPLERS = {
    "eta 0": (exact.ddim, samplers.ddim, {"eta": 0.0}),
    "eta 0.01": (exact.ddim, samplers.ddim, {"eta": 0.01}),
    "eta 0.5": (exact.ddim, samplers.ddim, {"eta": 0.5}),
    "eta 1": (exact.ddim, samplers.ddim, {"eta": 1.0}),
    "beta": (exact.ddpm, samplers.ddpm, {"variance": "beta"}),
}
SCHEDULES = {
    "all": FULL,
    "trailing": FULL.strided(8),
    "linspace": FULL.strided(8, "linspace"),
    "uneven": FULL.subsequence([3, 40, 41, 700, 1000]),
    "one step": FULL.strided(1),
    "cosine": NoiseSchedule.cosine(30),
}


def normal(mean, deviation):
    """torch's own, in float64."""
    return torch.distributions.Normal(
        *(torch.tensor(x, dtype=torch.float64) for x in (mean, deviation))
    )


def gaussian_output(schedule, eta=None, variance=None):
    """The recursion of `data_step`, with the noise of the sampler named."""
    law = cf.Gaussian(0.0, 1.0)
    for i in reversed(range(schedule.T)):
        s, t = schedule.alpha_bar[i], schedule.alpha_bar[i + 1]
        sigma = cf.ddim_sigma(1.0 if eta is None else eta, s, t)
        deviation = sigma
        if variance == "beta":
            deviation = math.sqrt(1 - t / s) if i else 0.0
        law = cf.data_step(law, MEAN, VARIANCE, s, t, sigma, deviation)
    return law


COMBINATIONS = [(name, steps) for name in SAMPLERS for steps in SCHEDULES if steps != "all"]


@pytest.mark.parametrize(("name", "steps"), [*COMBINATIONS, ("eta 0", "all"), ("beta", "all")])
def test_gaussian_data_give_the_gaussian_of_the_recursion(name, steps):
    law_of, _, options = SAMPLERS[name]
    law = law_of(ONE_HEAP, SCHEDULES[steps], **options)
    truth = gaussian_output(SCHEDULES[steps], **options)
    deviation = math.sqrt(truth.variance)
    assert abs(law.mean - truth.mean) < 1e-9
    assert law.variance == pytest.approx(truth.variance, rel=1e-8)
    standard = normal(truth.mean, deviation)
    assert ((law.density - standard.log_prob(law.x).exp()) * deviation).abs().max() < 1e-8
    assert (law.cdf - standard.cdf(law.x)).abs().max() < 1e-8


@pytest.mark.parametrize("steps", ["trailing", "linspace"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mixture_gives_the_law_of_simulated_samples(name, steps):
    law_of, sampler, options = SAMPLERS[name]
    law = law_of(MIXTURE, SCHEDULES[steps], **options)
    generator = torch.Generator().manual_seed(0)
    x_T = torch.randn(50_000, 1, dtype=torch.float64, generator=generator)
    model = MIXTURE.model(SCHEDULES[steps])
    x_0 = sampler(model, SCHEDULES[steps], x_T, generator=generator, **options)
    places = torch.searchsorted(law.cdf, torch.linspace(0.02, 0.98, 25, dtype=torch.float64))
    sampled("distribution function", x_0 < law.x[places], law.cdf[places])


@pytest.mark.parametrize(("name", "steps"), COMBINATIONS)
def test_no_mass_is_lost_and_the_four_columns_agree(name, steps):
    law = SAMPLERS[name][0](MIXTURE, SCHEDULES[steps], **SAMPLERS[name][2])
    assert abs(float(law.mass.sum()) - 1) < 1e-8
    assert abs(float(law.cdf[-1]) - 1) < 1e-8
    assert abs(float(law.cdf[0])) < 1e-8
    assert (law.x.diff() > 0).all()
    assert (law.cdf.diff() > -1e-12).all()
    steps_of_cdf = torch.cat([law.mass[:1], (law.mass[1:] + law.mass[:-1]) / 2])
    assert (law.cdf.diff() - steps_of_cdf[1:]).abs().max() < 1e-3


def test_eta_1_is_ddpm():
    one, other = (
        exact.ddim(MIXTURE, SCHEDULES["uneven"], eta=1),
        exact.ddpm(MIXTURE, SCHEDULES["uneven"]),
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_longer_reach_changes_nothing():
    for options in ({"eta": 0.0}, {"eta": 0.5}):
        near = exact.ddim(MIXTURE, SCHEDULES["linspace"], reach=9.0, **options)
        far = exact.ddim(MIXTURE, SCHEDULES["linspace"], reach=20.0, **options)
        assert near.mean == pytest.approx(far.mean, abs=1e-8)
        assert near.variance == pytest.approx(far.variance, rel=1e-7)
        assert exact.kl(near, MIXTURE) == pytest.approx(exact.kl(far, MIXTURE), rel=1e-5)
        assert exact.wasserstein(near, far) < 1e-5


def test_many_small_steps_arrive_at_the_data():
    target = exact.of_target(MIXTURE)
    for eta in (0.0, 1.0):
        coarse, fine = (
            exact.wasserstein(exact.ddim(MIXTURE, FULL.strided(S, "linspace"), eta=eta), target)
            for S in (25, 100)
        )
        assert 2.5 < coarse / fine < 5  # the error goes as 1 / S


def test_the_target_is_its_own_law():
    law = exact.of_target(MIXTURE)
    assert law.mean == pytest.approx(float(MIXTURE.mean), abs=1e-12)
    assert law.variance == pytest.approx(float(MIXTURE.covariance), rel=1e-12)
    assert abs(exact.kl(law, MIXTURE)) < 1e-10
    assert abs(exact.total_variation(law, MIXTURE)) < 1e-10
    assert exact.wasserstein(law, law) == 0
    heaps = (normal(m, s) for m, s in ((-1.0, 0.1), (0.8, 0.3)))
    truth = sum(w * heap.cdf(law.x) for w, heap in zip((0.3, 0.7), heaps, strict=True))
    assert (law.cdf - truth).abs().max() < 1e-10


def test_distances_between_gaussians_are_the_known_ones():
    wide, narrow = gaussian([0.2], [[0.25]]), gaussian([-0.1], [[0.16]])
    law, other = exact.of_target(wide), exact.of_target(narrow)
    known = cf.gaussian_kl(cf.Gaussian(0.2, 0.25), cf.Gaussian(-0.1, 0.16))
    assert exact.kl(law, narrow) == pytest.approx(known, rel=1e-8)
    x = np.linspace(-6, 6, 400_001)
    p, q = (
        np.exp(-((x - m) ** 2) / 2 / s**2) / s / 2.5066282746 for m, s in ((0.2, 0.5), (-0.1, 0.4))
    )
    assert exact.total_variation(law, narrow) == pytest.approx(
        np.abs(p - q).sum() * (x[1] - x[0]) / 2, rel=1e-4
    )
    # One quantile function minus the other is 0.3 + 0.1 z.
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert exact.wasserstein(law, other) == pytest.approx(float((0.3 + 0.1 * z).abs().mean()), 2e-3)
    shifted = exact.of_target(gaussian([5.0], [[0.25]]))
    assert exact.wasserstein(law, shifted) == pytest.approx(4.8, rel=1e-6)  # hardly any overlap


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exact.ddim(MIXTURE, FULL.strided(3), eta=1.5), "eta is 1.5"),
        (lambda: exact.ddim(MIXTURE, FULL.strided(3), eta="1"), "eta is '1'"),
        (lambda: exact.ddpm(MIXTURE, FULL.strided(3), variance="learned"), "variance is 'learned'"),
        (lambda: exact.ddim(gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]), FULL), "shape (2,)"),
        (lambda: exact.ddim(MIXTURE, FULL.strided(3), reach=-1.0), "reach is -1.0"),
        (lambda: exact.ddim(MIXTURE, FULL.strided(3), reach=4.0), "reach is 4.0"),
        (lambda: exact.of_target(gaussian([0.0], [[1e-9]])), "too narrow"),
        (lambda: exact.ddim(gaussian([0.5], [[0.0]]), FULL.strided(3)), "without density"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        call()


def test_weight_of_a_noise_error_is_the_divergence_of_two_steps():
    """Against torch's divergence between the step with the true noise and with another."""
    s, t, sigma, x_t, eps, other = 0.75, 0.4, 0.3, 0.9, -0.6, 1.1

    def step(noise):
        x_0 = (x_t - math.sqrt(1 - t) * noise) / math.sqrt(t)
        return normal(math.sqrt(s) * x_0 + math.sqrt(1 - s - sigma**2) * noise, sigma)

    divergence = float(torch.distributions.kl_divergence(step(eps), step(other)))
    weight = cf.ddim_bound_weight_eps(s, t, sigma)
    assert weight * (eps - other) ** 2 == pytest.approx(divergence, rel=1e-12)
