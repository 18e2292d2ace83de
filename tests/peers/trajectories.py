"""What other libraries make of problem.CASES: run in .venv-peers by test_peers.py.

    python -m tests.peers.trajectories FILE.npz

Each function below runs the loop that its library documents and collects every new sample. Where a
library would use tables of its own, float64 cases put ours in their place, so that the comparison
is of the steps; float32 cases leave everything as it comes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.others import azula, diffusers, smalldiffusion
from benchmarks.others import denoising_diffusion_pytorch as lucidrains
from tests.peers.problem import CASES, SCHEDULES, SEED, WEIGHTED, Case, weighted_batch

PREDICTIONS = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}
VARIANCES = {"posterior": "fixed_small", "beta": "fixed_large"}
Trajectory = Iterator[torch.Tensor]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def scheduler_of(kind: type, case: Case, **options: object) -> object:
    """A scheduler of diffusers on the case's levels."""
    schedule = SCHEDULES[case.schedule]
    scheduler = kind(
        trained_betas=schedule.beta[1:],
        prediction_type=PREDICTIONS[case.options.get("prediction", "eps")],
        **options,
    )
    if not case.single:
        scheduler.alphas_cumprod = torch.from_numpy(schedule.alpha_bar[1:].copy())
    return scheduler


def diffusers_loop(scheduler: object, case: Case, x: torch.Tensor, **options: object) -> Trajectory:
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t)
        output = case.network(shown, t.long().expand(len(x)) + 1)
        x = scheduler.step(output, t, x, **options).prev_sample
        yield x


def diffusers_ddpm(case: Case) -> Trajectory:
    scheduler = scheduler_of(
        diffusers.DDPMScheduler,
        case,
        clip_sample="clip" in case.options,
        variance_type=VARIANCES[case.options.get("variance", "posterior")],
    )
    scheduler.set_timesteps(timesteps=[t - 1 for t in case.steps])
    return diffusers_loop(scheduler, case, case.start(), generator=generator())


def diffusers_ddim(case: Case) -> Trajectory:
    clip = "clip" in case.options
    scheduler = scheduler_of(
        diffusers.DDIMScheduler, case, clip_sample=clip, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(len(case.steps))
    return diffusers_loop(
        scheduler,
        case,
        case.start(),
        eta=case.options["eta"],
        use_clipped_model_output=clip,
        generator=generator(),
    )


def sigmas_of(case: Case) -> torch.Tensor:
    r""":math:`\sqrt{(1-\bar\alpha)/\bar\alpha}` of the steps, falling, 0 last."""
    alpha_bar = torch.from_numpy(case.kept.alpha_bar[::-1].copy())
    return (1 / alpha_bar - 1).sqrt()


def diffusers_dpm_solver(case: Case) -> Trajectory:
    scheduler = scheduler_of(diffusers.DPMSolverMultistepScheduler, case)
    scheduler.set_timesteps(timesteps=[t - 1 for t in case.steps])
    if not case.single:
        scheduler.sigmas = sigmas_of(case)
    return diffusers_loop(scheduler, case, case.start())


def diffusers_heun(case: Case) -> Trajectory:
    scheduler = scheduler_of(diffusers.HeunDiscreteScheduler, case, timestep_spacing="trailing")
    scheduler.set_timesteps(len(case.steps))
    sigmas = sigmas_of(case)
    inner = sigmas[1:-1].repeat_interleave(2)
    scheduler.sigmas = torch.cat([sigmas[:1], inner, sigmas[-1:]])
    # It works with x / sqrt(alpha_bar), and a step is two of its own: only the last stands alone.
    scales = np.sqrt(case.kept.alpha_bar[::-1])
    halves = list(diffusers_loop(scheduler, case, case.start() / scales[0]))
    return (x * scale for x, scale in zip([*halves[1::2], halves[-1]], scales[1:], strict=True))


class Small(smalldiffusion.ModelMixin):
    """The network as smalldiffusion calls it, with x / sqrt(alpha_bar) and one sigma for all."""

    def __init__(self, case: Case, sigmas: torch.Tensor) -> None:
        self.case, self.sigmas, self.generator = case, sigmas, generator()

    def eval(self) -> None:
        pass

    def rand_input(self, batchsize: int) -> torch.Tensor:
        return torch.randn(batchsize, 2, generator=self.generator, dtype=self.case.dtype)

    def predict_eps_cfg(self, x, sigma, cond, cfg_scale) -> torch.Tensor:
        step = (self.sigmas - sigma).abs().argmin()
        times = torch.tensor(self.case.steps)[step].expand(len(x))
        return self.case.network(x / (1 + sigma**2).sqrt(), times)


def small(case: Case) -> Trajectory:
    sigmas = sigmas_of(case)
    if case.single:
        own = smalldiffusion.ScheduleDDPM().sample_sigmas(len(case.steps))
        sigmas = torch.cat([own[:-1], torch.zeros(1)])  # it stops at its smallest sigma, we at 0
    scales = (1 + sigmas**2).sqrt()
    x_T = case.start() * scales[0]
    mu = {"ddpm": 0.5, "ddim": 0.0}[case.sampler]
    samples = smalldiffusion.samples(Small(case, sigmas), sigmas, mu=mu, xt=x_T)
    return (x / scale for x, scale in zip(samples, scales[1:], strict=True))


class Table(azula.noise.Schedule):
    """Our levels for azula: its time is in 0..1."""

    def __init__(self, case: Case) -> None:
        self.alpha_bar = torch.from_numpy(SCHEDULES[case.schedule].alpha_bar.copy())

    def __call__(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level = self.alpha_bar[(t * 1000).round().long()]
        return level.sqrt(), (1 - level).sqrt()


class Exact(azula.denoise.Denoiser):
    """The network as azula calls it: asked for the mean of the data."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.schedule = case, Table(case)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> azula.denoise.DiracPosterior:
        alpha, sigma = self.schedule(t)
        eps = self.case.network(x_t, (t * 1000).round().long().expand(len(x_t)))
        return azula.denoise.DiracPosterior(mean=(x_t - sigma * eps) / alpha)


def azula_sampler(case: Case) -> Trajectory:
    options = {"steps": len(case.steps), "silent": True, "dtype": case.dtype}
    if case.sampler == "ddim":
        # It scales the variance of the noise by eta, where the paper scales the deviation.
        sampler = azula.sample.DDIMSampler(Exact(case), eta=case.options["eta"] ** 2, **options)
    else:
        sampler = azula.sample.DDPMSampler(Exact(case), **options)
    torch.manual_seed(SEED)  # it draws from torch's own generator
    x = case.start()
    for t, s in pairwise(sampler.timesteps):
        x = sampler.step(x, t, s)
        yield x


class Watched(torch.nn.Module):
    """The network as denoising-diffusion-pytorch calls it; keeps every sample it is shown."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.seen = case, []

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append(x[:, :, 0])
        return self.case.network(x[:, :, 0], t + 1)[:, :, None]


def lucidrains_sampler(case: Case) -> Trajectory:
    """denoising-diffusion-pytorch; its DDIM returns the end only, so the network looks on."""
    network = Watched(case)
    diffusion = lucidrains.GaussianDiffusion1D(
        network,
        seq_length=1,
        channels=2,
        self_condition=False,
        beta_schedule="linear",
        auto_normalize=False,
        sampling_timesteps=len(case.steps),
        ddim_sampling_eta=case.options.get("eta", 0.0),
    )
    x = case.start()[:, :, None]
    torch.manual_seed(SEED)  # it draws from torch's own generator
    if case.sampler == "ddpm":
        for t in reversed(range(diffusion.num_timesteps)):
            x, _ = diffusion.p_sample(x, t, clip_denoised=False)
            yield x[:, :, 0]
        return
    with patch("torch.randn", return_value=x):  # its only other use there is the starting noise
        end = diffusion.ddim_sample(x.shape, clip_denoised=False)
    yield from [*network.seen[1:], end[:, :, 0]]


def lucidrains_weighted_loss(prediction: str) -> torch.Tensor:
    """The min-SNR loss of a network that is wrong by half, on images of one by two pixels."""

    class Network(torch.nn.Module):
        channels = out_dim = 1
        self_condition = False

        def forward(self, x: torch.Tensor, t: torch.Tensor, x_self_cond: None) -> torch.Tensor:
            return case.network(x[:, 0, 0], t + 1)[:, None, None] / 2

    case = Case("", "", 0.0, options={"prediction": prediction})
    diffusion = lucidrains.GaussianDiffusion(
        Network(),
        image_size=(1, 2),
        beta_schedule="linear",
        objective={"eps": "pred_noise", "x_0": "pred_x0", "v": "pred_v"}[prediction],
        min_snr_loss_weight=True,
    )
    x_0, t, eps = weighted_batch()
    return diffusion.p_losses(x_0[:, None, None], t - 1, noise=eps[:, None, None])


PEERS = {
    "diffusers DDPM": diffusers_ddpm,
    "diffusers DDIM": diffusers_ddim,
    "diffusers DPM-Solver++ 2M": diffusers_dpm_solver,
    "diffusers Heun": diffusers_heun,
    "smalldiffusion": small,
    "azula": azula_sampler,
    "denoising-diffusion-pytorch": lucidrains_sampler,
}

if __name__ == "__main__":
    np.savez(
        sys.argv[1],
        **{case.name: torch.stack(list(PEERS[case.peer](case))).numpy() for case in CASES},
        **{f"loss {kind}": lucidrains_weighted_loss(kind).item() for kind in WEIGHTED},
    )
