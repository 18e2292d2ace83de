r"""Sinusoidal embedding of the time step.

.. math:: \text{out} = [\cos(t f_0), \dots, \cos(t f_{h-1}), \sin(t f_0), \dots, \sin(t f_{h-1})]

with h = dim // 2, :math:`f_i` from `closed_forms.clock_frequency`, and one zero appended when dim
is odd (claim N1, chapter 13). The layout is that of
improved-diffusion's ``timestep_embedding``; the idea is the positional encoding of Vaswani et al.,
`Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, section 3.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import check_integer, check_number
from ..closed_forms import clock_frequency


def time_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Embed the times t, shape (B,), as float32 rows, shape (B, dim).

    Each frequency is `closed_forms.clock_frequency`. Proved in chapter 13 (claim N1).

    The angles t f_i reach thousands of radians, where float32 has lost four digits, so they are
    formed in float64 and the result is cast last. Apple's MPS has no float64: there the angles
    are float32, and an entry may be off by about t * 1e-7.

    Raises:
        ValueError: dim is not positive, max_period is not above 1, or t is not one-dimensional.
    """
    dim = check_integer("dim", dim)
    max_period = check_number("max_period", max_period, lambda x: 1 < x < math.inf, "above 1")
    if t.ndim != 1:
        raise ValueError(f"t has shape {tuple(t.shape)}; it must be (B,), one time each.")
    dtype = torch.float32 if t.device.type == "mps" else torch.float64
    half = dim // 2
    angles = t.to(dtype)[:, None] * frequencies(half, max_period, dtype, t.device)
    zero = angles.new_zeros(len(t), dim % 2)
    return torch.cat([angles.cos(), angles.sin(), zero], dim=1).float()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
def frequencies(half: int, max_period: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """All angular frequencies, shape (half,); a compiled network holds them as a constant."""
    row: Tensor = clock_frequency(torch.arange(half, dtype=dtype, device=device), half, max_period)
    return row


def distinct_times(t: Tensor) -> Tensor:
    """One entry of t where all B entries are one number in memory (an expanded tensor), else t.

    A sampler has the whole batch at the same time and says so by passing ``t.expand(B)``. Then one
    row of embedding serves all samples by broadcasting, and nothing has to be read back from the
    device to know it.
    """
    return t[:1] if t.ndim == 1 and len(t) > 1 and t.stride(0) == 0 else t
