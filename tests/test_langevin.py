"""The Langevin step, against torch's own gradients and against a simulation."""

import math

import pytest
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib.targets import GaussianMixture


def test_the_step_goes_half_a_step_uphill():
    """The drift is that of the definition, with the score that torch differentiates itself."""
    x = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    density = torch.distributions.Normal(0.5, 0.7)
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    law = cf.langevin_step(x.detach(), score, 0.1)
    assert torch.allclose(law.mean, x.detach() + 0.05 * (0.5 - x.detach()) / 0.49)
    assert law.variance == 0.1


@pytest.mark.parametrize("step", [0.02, 0.1])
def test_chains_keep_a_mixture_up_to_the_size_of_the_step(step):
    """From the target itself, one step changes no second moment by more than order step²."""
    target = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.5]], [[0.5]]])
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    x = target.sample(n, generator)
    law = cf.langevin_step(x, target.score(x), step)
    moved = law.mean + math.sqrt(law.variance) * torch.randn(
        n, 1, generator=generator, dtype=torch.float64
    )
    change = moved.square() - x.square()
    # E x² moves by step (E[x score] + 1) + step² E[score²] / 4, and E[x score] = -1 by parts.
    exact = step**2 * float(target.score(x).square().mean()) / 4
    z = (float(change.mean()) - exact) / float(change.std() / math.sqrt(n))
    assert abs(z) < 4.5
