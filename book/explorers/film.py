"""Ten digits drawn by DDIM with the model of the library, and its guesses on the way."""

from __future__ import annotations

from typing import Any

import torch
from explorers import grey, rounded

from diffusion_lib import samplers
from diffusion_lib.checkpoint import load_pretrained

DIGITS, EVERY = 10, 2


def data() -> dict[str, Any]:
    """Every second step of a run of 50: the samples and what the network takes them for."""
    model, schedule, _ = load_pretrained("digits", device="cpu")
    kept = schedule.strided(50)
    x_T = torch.randn(DIGITS, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    steps: list[samplers.Step] = []
    done = samplers.ddim(model, kept, x_T, callback=steps.append)
    samples = [x_T, *(step.x_s for step in steps)]
    guesses = [*(step.x_0 for step in steps), done]
    return {
        "digits": DIGITS,
        "every": EVERY,
        "t": kept.times[::-EVERY].tolist(),
        "alpha_bar": rounded(kept.alpha_bar[::-EVERY]),
        "x_t": grey(torch.stack(samples[::EVERY])),
        "x_0": grey(torch.stack(guesses[::EVERY])),
    }
