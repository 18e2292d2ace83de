"""What our samplers and those of other libraries are both given: noise, a network, a step list.

The network is the exact one of a Gaussian mixture, so the samples stay where data are and a whole
trajectory can be compared. Levels come from one float64 table; whether it is right is the business
of test_schedule.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture

SEED = 2
SCHEDULES = {"linear": NoiseSchedule.linear(), "cosine": NoiseSchedule.cosine()}
MIXTURE = GaussianMixture(
    weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
    means=torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64),
    covariances=torch.diag_embed(torch.tensor([[0.04, 0.09], [0.25, 0.01]], dtype=torch.float64)),
)
EVEN = {S: tuple(range(1000, 0, -1000 // S)) for S in (10, 50)}  # what others call trailing
UNEVEN = (1000, 871, 503, 200, 37, 5, 1)


class Case(NamedTuple):
    """One comparison.

    Attributes:
        peer: the other library, and its sampler; a key of PEERS in trajectories.py.
        sampler: ours, by name.
        bound: on the largest difference anywhere on the trajectory.
        steps: the network times that are visited, falling.
        options: of our sampler.
        schedule: a key of SCHEDULES.
        single: in float32 with the other library's own tables, instead of float64 with ours.
    """

    peer: str
    sampler: str
    bound: float
    steps: tuple[int, ...] = EVEN[50]
    options: dict[str, Any] = {}  # noqa: RUF012
    schedule: str = "linear"
    single: bool = False

    @property
    def name(self) -> str:
        said = [f"{key}={value}" for key, value in self.options.items()]
        kind = "float32" if self.single else "float64"
        words = [self.peer, self.sampler, *said, self.schedule, f"{len(self.steps)} steps", kind]
        return ", ".join(words)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.single else torch.float64

    @property
    def kept(self) -> NoiseSchedule:
        return SCHEDULES[self.schedule].subsequence(self.steps)

    def network(self, x_t: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The exact output for this case's kind of prediction."""
        prediction = self.options.get("prediction", "eps")
        return MIXTURE.model(SCHEDULES[self.schedule], prediction)(x_t, times)

    def start(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(SEED)
        return torch.randn(16, 2, dtype=torch.float64, generator=generator).to(self.dtype)


EXACT = 1e-11  # float64: what is left is rounding, grown along the trajectory
SINGLE = 2e-5  # float32: the other library's tables and steps, on samples of size 3
ROUNDED = 5e-6  # diffusers' multistep solver rounds every sample to float32, whatever it is given
CASES = [
    # diffusers adds noise on its last step wherever that is not at t = 1 (1e-10 of it with its
    # clamped posterior variance, a whole beta otherwise), so the lists it runs end at 1.
    Case("diffusers DDPM", "ddpm", EXACT, UNEVEN, {"variance": "posterior"}),
    Case("diffusers DDPM", "ddpm", EXACT, UNEVEN, {"variance": "beta"}),
    Case("diffusers DDPM", "ddpm", EXACT, UNEVEN, {"prediction": "v"}),
    Case("diffusers DDPM", "ddpm", EXACT, UNEVEN, {"prediction": "x_0", "clip": (-1.0, 1.0)}),
    Case("diffusers DDPM", "ddpm", EXACT, UNEVEN, {"variance": "beta"}, "cosine"),
    Case("diffusers DDPM", "ddpm", SINGLE, UNEVEN, {"variance": "posterior"}, single=True),
    Case("diffusers DDIM", "ddim", EXACT, options={"eta": 0.0}),
    Case("diffusers DDIM", "ddim", EXACT, options={"eta": 0.5}),
    Case("diffusers DDIM", "ddim", EXACT, options={"eta": 1.0, "prediction": "v"}),
    Case("diffusers DDIM", "ddim", EXACT, EVEN[10], {"eta": 0.0, "clip": (-1.0, 1.0)}),
    Case("diffusers DDIM", "ddim", EXACT, EVEN[10], {"eta": 0.2}, "cosine"),
    Case("diffusers DDIM", "ddim", SINGLE, options={"eta": 0.5}, single=True),
    Case("diffusers DPM-Solver++ 2M", "dpm_solver", ROUNDED, EVEN[10]),
    Case("diffusers DPM-Solver++ 2M", "dpm_solver", ROUNDED, UNEVEN, {"prediction": "v"}),
    Case("diffusers DPM-Solver++ 2M", "dpm_solver", ROUNDED, EVEN[50], {}, "cosine"),
    Case("diffusers DPM-Solver++ 2M", "dpm_solver", SINGLE, EVEN[10], single=True),
    Case("diffusers Heun", "heun", EXACT, EVEN[10]),
    Case("diffusers Heun", "heun", EXACT, EVEN[50], {"prediction": "v"}),
    Case("smalldiffusion", "ddpm", EXACT, UNEVEN),
    Case("smalldiffusion", "ddim", EXACT, UNEVEN),
    Case("smalldiffusion", "ddpm", EXACT, EVEN[50], {}, "cosine"),
    Case("smalldiffusion", "ddim", SINGLE, single=True),
    Case("azula", "ddpm", EXACT),
    Case("azula", "ddim", EXACT, options={"eta": 0.5}),
    Case("azula", "ddim", EXACT, options={"eta": 0.0}, schedule="cosine"),
    Case("denoising-diffusion-pytorch", "ddpm", SINGLE, tuple(range(1000, 0, -1)), single=True),
    Case("denoising-diffusion-pytorch", "ddim", SINGLE, options={"eta": 0.5}, single=True),
]

WEIGHTED = ("eps", "x_0", "v")  # predictions whose min-SNR loss is compared


def weighted_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Data, steps and noise of a batch to train on, float32."""
    generator = torch.Generator().manual_seed(SEED)
    t = torch.randint(1, 1001, (64,), generator=generator)
    eps = torch.randn(64, 2, generator=generator)
    return MIXTURE.sample(64, generator).float(), t, eps
