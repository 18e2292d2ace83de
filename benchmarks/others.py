"""The other libraries, imported: works in .venv-peers only (see environment.py).

torchvision and pytorch-fid are not there; a stand-in that can do nothing takes their place, because
two libraries import them for image folders and for the FID. diffusers comes first: it looks whether
torchvision is installed, and does without.
"""

# ruff: noqa: E402

import sys
from unittest.mock import MagicMock

import diffusers
import diffusers.training_utils

for absent in ("torchvision", "pytorch_fid", "pytorch_fid.fid_score", "pytorch_fid.inception"):
    sys.modules[absent] = MagicMock()

import azula
import azula.denoise
import azula.noise
import azula.sample
import denoising_diffusion_pytorch
import ema_pytorch
import smalldiffusion

__all__ = ["azula", "denoising_diffusion_pytorch", "diffusers", "ema_pytorch", "smalldiffusion"]
