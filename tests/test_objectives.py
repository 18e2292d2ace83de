"""The training loss, held against the loss that theory says the best network has."""

import pytest
import torch

from diffusion_lib.objectives import simple_loss
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import gaussian

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
