"""The forward process and its posterior on tensors, against 50 digits."""

import mpmath
import pytest
import torch

from diffusion_lib import closed_forms, process
from diffusion_lib.schedule import NoiseSchedule

SCHEDULES = {
    "linear": NoiseSchedule.linear(),
    "cosine": NoiseSchedule.cosine(),
    "strided": NoiseSchedule.linear().strided(7),
}


def levels(schedule, t):
    return mpmath.mpf(float(schedule.alpha_bar[t - 1])), mpmath.mpf(float(schedule.alpha_bar[t]))


def worst(got, want):
    """The largest error, in units of the largest value of each row's formula."""
    return max(abs(float(g) - float(w)) / scale for g, (w, scale) in zip(got, want, strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_add_noise_is_exact_to_rounding_at_every_step(name):
    schedule = SCHEDULES[name]
    t = torch.arange(schedule.T + 1)
    x_0 = torch.linspace(-1, 1, len(t))[:, None]
    eps = torch.linspace(2, -2, len(t))[:, None]
    got = process.add_noise(schedule, x_0, t, eps)
    with mpmath.workdps(50):
        want = []
        for a, e, i in zip(x_0, eps, t.tolist(), strict=True):
            level = mpmath.mpf(float(schedule.alpha_bar[i]))
            signal, noise = mpmath.sqrt(level) * float(a), mpmath.sqrt(1 - level) * float(e)
            want.append((signal + noise, max(abs(signal), abs(noise))))
    assert worst(got, want) < 2e-7


@pytest.mark.parametrize("name", SCHEDULES)
def test_posterior_is_exact_to_rounding_at_every_step(name):
    schedule = SCHEDULES[name]
    t = torch.arange(1, schedule.T + 1)
    x_t = torch.linspace(2, -1, len(t))[:, None]
    x_0 = torch.linspace(-1, 1, len(t))[:, None]
    got = process.posterior(schedule, x_t, x_0, t)
    with mpmath.workdps(50):
        means, variances = [], []
        for a, b, i in zip(x_t, x_0, t.tolist(), strict=True):
            s, level = levels(schedule, i)
            alpha = level / s
            from_t = mpmath.sqrt(alpha) * (1 - s) / (1 - level) * float(a)
            from_0 = mpmath.sqrt(s) * (1 - alpha) / (1 - level) * float(b)
            means.append((from_t + from_0, max(abs(from_t), abs(from_0))))
            variance = (1 - s) / (1 - level) * (1 - alpha)
            variances.append((variance, variance or 1))
    assert worst(got.mean, means) < 2e-7
    assert worst(got.variance, variances) < 1e-7
    assert got.variance[0] == 0  # the step to the data is certain


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 8, 8), (4, 1, 2, 3, 5)])
def test_any_shape_each_row_at_its_own_step(shape):
    schedule = NoiseSchedule.linear(10)
    x_0, eps = torch.randn(shape), torch.randn(shape)
    t = torch.tensor([0, 1, 5, 10])
    got = process.add_noise(schedule, x_0, t, eps)
    assert got.shape == shape
    assert torch.equal(got[0], x_0[0])  # t = 0 is the data, untouched
    alone = process.add_noise(schedule, x_0[2:3], t[2:3], eps[2:3])
    assert torch.equal(got[2:3], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_still_adds_noise(dtype):
    """Coefficients and sums are float32 inside: the first step must not vanish for most entries."""
    schedule = NoiseSchedule.linear()
    x_0 = torch.zeros(1000, 1, dtype=dtype)
    eps = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = process.add_noise(schedule, x_0, torch.ones(1000, dtype=torch.int64), eps)
    assert got.dtype == dtype
    assert torch.allclose(got.float(), 0.01 * eps.float(), rtol=1e-2)


def test_network_times_are_those_of_the_full_schedule():
    schedule = NoiseSchedule.linear(100).subsequence([10, 60, 90])
    assert process.network_times(schedule, torch.tensor([0, 3, 1])).tolist() == [0, 90, 10]


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([-5, 1]), "from -5 to 1"),
        (torch.tensor([1, 11]), r"one of 0\.\.10"),
        (torch.tensor([1.0, 2.0]), "must hold one integer"),
        (torch.tensor([1]), "for each of the 2 rows"),
        (torch.tensor(3), "must hold one integer"),
    ],
)
def test_steps_outside_the_schedule_get_a_sentence(t, message):
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=message):
        process.add_noise(NoiseSchedule.linear(10), x, t, x)


def test_samples_that_are_not_floating_point_get_a_sentence():
    """Integers would be rounded to nothing."""
    schedule, t = NoiseSchedule.linear(10), torch.tensor([5, 5])
    whole = torch.zeros(2, 3, dtype=torch.int64)
    for call in (process.add_noise, lambda s, x, t, e: process.posterior(s, x, e, t)):
        with pytest.raises(ValueError, match=r"int64 of shape \(2, 3\); it must be a floating"):
            call(schedule, whole, t, torch.zeros(2, 3))


def test_shapes_that_would_broadcast_into_nonsense_get_a_sentence():
    with pytest.raises(ValueError, match=r"eps has shape \(2, 1\)"):
        process.add_noise(
            NoiseSchedule.linear(10), torch.zeros(2, 2), torch.tensor([1, 2]), torch.zeros(2, 1)
        )
    with pytest.raises(ValueError, match=r"0 to 2; every step must be one of 1\.\.10"):
        process.posterior(
            NoiseSchedule.linear(10), torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([0, 2])
        )


def test_the_posterior_has_one_variance_a_row_of_the_type_of_x_t():
    x_t = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    law = process.posterior(SCHEDULES["linear"], x_t, x_t.float(), torch.tensor([1, 500, 1000]))
    assert law.mean.shape == x_t.shape
    assert law.variance.shape == (3, 1, 1, 1)
    assert law.mean.dtype == law.variance.dtype == torch.float64


def test_a_coefficient_that_is_the_same_at_every_step():
    """The library has 0 and 1 of these; a formula of one's own may have any."""
    t, one = torch.tensor([0, 1000]), torch.ones(2, 1)
    schedule = SCHEDULES["linear"]

    def value(formula, *samples):
        return process.linear_at(formula, schedule, t, samples).ravel().tolist()

    assert value(lambda x, level: 3 * x, 2 * one) == [6, 6]
    assert value(lambda x, level: -x, 2 * one) == [-2, -2]
    assert value(lambda x, level: x, 2 * one) == [2, 2]
    assert value(lambda x, y, level: 2 * x + 0 * y, one, torch.full((2, 1), torch.nan)) == [2, 2]


def test_the_first_sample_decides_the_type():
    t, ones = torch.tensor([1, 1000]), torch.ones(2, 1)
    noised = process.linear_at(
        closed_forms.noised, SCHEDULES["linear"], t, (ones.double(), ones.float())
    )
    assert noised.dtype == torch.float64


def test_levels_have_every_digit_of_the_table():
    """In float32, 1 - alpha_bar would have lost four of seven digits at t = 1."""
    t = torch.tensor([2, 1000])
    schedule = SCHEDULES["linear"]
    before, here = process.levels_at(schedule, t, torch.zeros(2, 3))
    assert before.shape == here.shape == (2, 1)
    assert before.flatten().tolist() == schedule.alpha_bar[[1, 999]].tolist()
    assert here.flatten().tolist() == schedule.alpha_bar[[2, 1000]].tolist()
