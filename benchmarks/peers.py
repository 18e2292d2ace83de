"""The other libraries as their documentation uses them, on our network and our noise levels.

`sampling` and `training` return, by name, what the bench runs; our own side is among them. Where a
library leaves a choice, it gets the faster one: progress bars are off, batches lie ready in memory,
nothing is logged or saved, and an Accelerator is made once. (Its conventions: others count network
times from 0, smalldiffusion and azula scale samples or ask for the data instead of the noise. The
few operations that translate are counted as theirs; a library whose network is made for it would
have them inside.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from diffusion_lib import samplers
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

from .others import azula, diffusers, ema_pytorch, smalldiffusion
from .others import denoising_diffusion_pytorch as lucidrains

STEPS = 50
SCHEDULE = NoiseSchedule.linear()
Sample = Callable[[], Tensor]
Train = Callable[[], object]


# --- sampling -----------------------------------------------------------------------------------


def sampling(kind: str, network: nn.Module, x_T: Tensor) -> dict[str, Sample]:
    """Everyone's loop of 50 steps from x_T; kind is "ddpm" or "ddim"."""
    return {
        "diffusion_lib": lambda: getattr(samplers, kind)(network, SCHEDULE.strided(STEPS), x_T),
        "smalldiffusion": small_sampler(kind, network, x_T),
        "diffusers": diffusers_sampler(kind, network, x_T),
        "denoising-diffusion-pytorch": lucidrains_sampler(kind, network, x_T),
        "azula": azula_sampler(kind, network, x_T),
    }


def diffusers_sampler(kind: str, network: nn.Module, x_T: Tensor) -> Sample:
    scheduler_class = {"ddpm": diffusers.DDPMScheduler, "ddim": diffusers.DDIMScheduler}[kind]
    scheduler = scheduler_class(clip_sample=False, timestep_spacing="trailing")

    @torch.no_grad()
    def run() -> Tensor:
        scheduler.set_timesteps(STEPS)
        x = x_T
        for t in scheduler.timesteps:
            output = network(x, (t + 1).expand(len(x)))
            x = scheduler.step(output, t, x).prev_sample
        return x

    return run


class Small(nn.Module, smalldiffusion.ModelMixin):
    """The network for smalldiffusion, which shows it x / sqrt(alpha_bar) and sigma."""

    def __init__(self, network: nn.Module, shape: torch.Size, sigmas: Tensor) -> None:
        super().__init__()
        self.network, self.input_dims = network, tuple(shape)
        self.register_buffer("sigmas", sigmas)  # of t = 1..T

    def forward(self, x: Tensor, sigma: Tensor, cond: None = None) -> Tensor:
        t = torch.searchsorted(self.sigmas, sigma.flatten()) + 1
        return self.network(x / (1 + sigma**2).sqrt(), t.expand(len(x)))


def small_sampler(kind: str, network: nn.Module, x_T: Tensor) -> Sample:
    schedule = smalldiffusion.ScheduleDDPM()
    sigmas = torch.cat([schedule.sample_sigmas(STEPS)[:-1], torch.zeros(1)])
    model = Small(network, x_T.shape[1:], schedule.sigmas)
    start = x_T * (1 + sigmas[0] ** 2).sqrt()
    accelerator = smalldiffusion.diffusion.Accelerator(cpu=True)

    def run() -> Tensor:
        mu = {"ddpm": 0.5, "ddim": 0.0}[kind]
        for x in smalldiffusion.samples(model, sigmas, mu=mu, xt=start, accelerator=accelerator):
            last = x
        return last

    return run


class Levels(azula.noise.Schedule):
    """Our levels on azula's time in 0..1."""

    def __init__(self) -> None:
        alpha_bar = torch.from_numpy(SCHEDULE.alpha_bar.copy())
        self.alpha, self.sigma = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        index = (t * SCHEDULE.T).round().long()
        return self.alpha[index], self.sigma[index]


class Denoiser(azula.denoise.Denoiser):
    """The network for azula, which asks for the mean of the data."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.schedule = network, Levels()

    def forward(self, x_t: Tensor, t: Tensor) -> azula.denoise.DiracPosterior:
        alpha, sigma = (a.reshape(-1, *[1] * (x_t.ndim - 1)) for a in self.schedule(t))
        eps = self.network(x_t, (t * SCHEDULE.T).round().long().expand(len(x_t)))
        return azula.denoise.DiracPosterior(mean=(x_t - sigma * eps) / alpha)

    def loss(self, x: Tensor, t: Tensor) -> Tensor:
        """As its own denoisers write it: the error of the data with the weight of the noise's."""
        alpha, sigma = (a.reshape(-1, *[1] * (x.ndim - 1)) for a in self.schedule(t))
        mean = self(alpha * x + sigma * torch.randn_like(x), t).mean
        return ((alpha / sigma) ** 2 * (mean - x).square()).mean()


def azula_sampler(kind: str, network: nn.Module, x_T: Tensor) -> Sample:
    sampler_class = {"ddpm": azula.sample.DDPMSampler, "ddim": azula.sample.DDIMSampler}[kind]
    options = {} if kind == "ddpm" else {"eta": 0.0}
    sampler = sampler_class(Denoiser(network).eval(), steps=STEPS, silent=True, **options)
    return lambda: sampler(x_T)


class Shaped(nn.Module):
    """The network for denoising-diffusion-pytorch: of images, or of points as short sequences."""

    self_condition = False

    def __init__(self, network: nn.Module, shape: torch.Size) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)
        self.channels = self.out_dim = shape[0]

    def forward(self, x: Tensor, t: Tensor, x_self_cond: None = None) -> Tensor:
        return self.network(x.view(-1, *self.shape), t + 1).view(x.shape)


def lucidrains_diffusion(network: nn.Module, shape: torch.Size, eta: float) -> nn.Module:
    options = {
        "sampling_timesteps": STEPS,
        "objective": "pred_noise",
        "beta_schedule": "linear",
        "ddim_sampling_eta": eta,
        "auto_normalize": False,
    }
    if len(shape) == 1:
        return lucidrains.GaussianDiffusion1D(Shaped(network, shape), seq_length=1, **options)
    return lucidrains.GaussianDiffusion(
        Shaped(network, shape), image_size=tuple(shape[1:]), **options
    )


def lucidrains_sampler(kind: str, network: nn.Module, x_T: Tensor) -> Sample:
    """Its loop for fewer steps than it was trained with is DDIM's; at eta = 1 it is DDPM's.

    It draws the starting noise itself, so x_T gives the shape only.
    """
    eta = {"ddpm": 1.0, "ddim": 0.0}[kind]
    diffusion = lucidrains_diffusion(network, x_T.shape[1:], eta).eval()
    if x_T.ndim == 2:
        shape = (*x_T.shape, 1)
        return lambda: diffusion.ddim_sample(shape, clip_denoised=False).reshape(x_T.shape)
    return lambda: diffusion.ddim_sample(tuple(x_T.shape))  # always clips to -1..1


# --- training -----------------------------------------------------------------------------------


class Batches:
    """What a loader gives in an epoch of so many steps, without the cost of one."""

    def __init__(self, data: Tensor, batch: int, steps: int) -> None:
        self.data, self.batch, self.steps = data, batch, steps

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.steps):
            yield self.data[torch.randint(len(self.data), (self.batch,))]


def training(
    make: Callable[[], nn.Module], data: Tensor, batch: int, steps: int
) -> dict[str, Train]:
    """Everyone's training for so many steps, each with a network of its own."""
    ours = Trainer(make(), SCHEDULE, data, batch_size=batch, device="cpu")
    loader = Batches(data, batch, steps)
    return {
        "diffusion_lib": lambda: ours.train(steps, progress=False),
        "smalldiffusion": small_training(make(), loader),
        "diffusers": diffusers_training(make(), loader),
        "denoising-diffusion-pytorch": lucidrains_training(make(), loader),
        "azula": azula_training(make(), loader),
    }


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def diffusers_training(model: nn.Module, loader: Batches) -> Train:
    scheduler, optimizer = diffusers.DDPMScheduler(), adam(model)
    ema = diffusers.training_utils.EMAModel(model.parameters(), foreach=True)

    def run() -> None:
        for x_0 in loader:
            noise = torch.randn(x_0.shape)
            t = torch.randint(0, scheduler.config.num_train_timesteps, (len(x_0),))
            output = model(scheduler.add_noise(x_0, noise, t), t + 1)
            loss = torch.nn.functional.mse_loss(output, noise)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.step(model.parameters())

    return run


def small_training(network: nn.Module, loader: Batches) -> Train:
    schedule = smalldiffusion.ScheduleDDPM()
    model = Small(network, loader.data.shape[1:], schedule.sigmas)
    accelerator = smalldiffusion.diffusion.Accelerator(cpu=True)

    def run() -> None:
        for _ in smalldiffusion.training_loop(loader, model, schedule, accelerator, epochs=1):
            pass

    return run


def lucidrains_training(network: nn.Module, loader: Batches) -> Train:
    """The body of its trainer's loop, whose class reads images from a folder."""
    diffusion = lucidrains_diffusion(network, loader.data.shape[1:], 0.0)
    optimizer, ema = adam(diffusion), ema_pytorch.EMA(diffusion, beta=0.995, update_every=10)

    def run() -> None:
        for x_0 in loader:
            loss = diffusion(x_0[:, :, None] if x_0.ndim == 2 else x_0)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.update()

    return run


def azula_training(network: nn.Module, loader: Batches) -> Train:
    denoiser = Denoiser(network)
    optimizer = adam(denoiser)

    def run() -> None:
        for x_0 in loader:
            loss = denoiser.loss(x_0, torch.rand(len(x_0)).clamp(min=1 / SCHEDULE.T))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run
