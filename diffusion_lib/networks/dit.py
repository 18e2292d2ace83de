"""A small diffusion transformer: the image in patches, which all look at one another.

After Peebles and Xie, `Scalable Diffusion Models with Transformers
<https://arxiv.org/abs/2212.09748>`_, the variant with adaLN-Zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network, check_images, check_options, check_sizes, zeroed
from .time_embedding import time_embedding


class Block(nn.Module):
    """Attention between patches, then a perceptron on each, both told the condition (adaLN-Zero).

    The condition shifts and scales what each branch sees and gates what it adds. Shift, scale and
    gate start at zero, so the block starts as the identity.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """h: (B, N, width) for N patches, condition: (B or 1, width) -> (B, N, width)."""
        modulation = self.modulation(condition)[:, None].chunk(6, dim=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation
        h = h + gate_1 * self.attention(modulated(h, shift_1, scale_1))
        h = h + gate_2 * self.mlp(modulated(h, shift_2, scale_2))
        return h

    def attention(self, h: Tensor) -> Tensor:
        """Every patch looks at every patch: (B, N, width) -> (B, N, width)."""
        b, n, width = h.shape
        qkv = self.qkv(h).reshape(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        h = self.mixed(mixed.reshape(b, n, width))
        return h


class DiT(Network):
    """The image cut into patches, ``depth`` blocks of a transformer on them, and an image again.

    It takes any image that can be cut into whole patches: where a patch lies is told by sinusoids
    of its row and column, computed for the size at hand.

    Args:
        channels: of the image, 1 for grey and 3 for colour.
        patch: side of a patch in pixels.
        width: numbers per patch, a multiple of 4 and of heads.
        depth: number of blocks.
        heads: of the attention.
        classes: K, for labels 0..K-1 and K for "no label"; None for a network without labels.
        learned_variance: predict v as well; the output then has twice the channels.

    Raises:
        ValueError: an argument is not of its kind or outside its range.
    """

    def __init__(
        self,
        channels: int = 1,
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        channels, patch, width, depth, heads = check_sizes(
            channels=channels, patch=patch, width=width, depth=depth, heads=heads
        )
        classes = check_options(classes, learned_variance)
        if width % math.lcm(4, heads):
            raise ValueError(
                f"width is {width}; it must be a multiple of {math.lcm(4, heads)}: of heads, "
                f"which is {heads}, and of 4, for sine and cosine of row and column."
            )
        config: dict[str, Any] = {
            "name": "dit",
            "channels": channels,
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
            "classes": classes,
            "learned_variance": learned_variance,
        }
        time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        super().__init__(config, time, condition=width)
        self.inp = nn.Conv2d(channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        pixels = patch**2 * (2 * channels if learned_variance else channels)
        self.out = zeroed(nn.Linear(width, pixels))

    def _check_samples(self, x_t: Tensor) -> None:
        patch = self.config["patch"]
        why = f"cuts images into patches of {patch} x {patch} pixels"
        check_images(x_t, "DiT", self.config["channels"], patch, why)

    def _predict(self, x_t: Tensor, condition: Tensor) -> Tensor:
        condition = F.silu(condition)
        patches = self.inp(x_t)  # (B, width, rows, columns)
        rows, columns = patches.shape[2:]
        where = position_embedding(rows, columns, self.config["width"], x_t.device)
        h = patches.flatten(2).transpose(1, 2) + where.to(patches.dtype)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        h = self.out(modulated(h, shift, scale))  # (B, N, pixels of a patch)
        h = h.transpose(1, 2).unflatten(2, (rows, columns))
        return F.pixel_shuffle(h, self.config["patch"])


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """h normalised over its last dimension, then scaled by 1 + scale and shifted."""
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
def position_embedding(rows: int, columns: int, dim: int, device: torch.device) -> Tensor:
    """Where each patch lies, row after row: float32 (rows · columns, dim), dim a multiple of 4.

    Half of the numbers are sinusoids of the patch's row, half of its column, those that
    `time_embedding` makes of a time. A compiled network holds them as a constant.
    """
    sinusoids = time_embedding(torch.arange(max(rows, columns), device=device), dim // 2)
    down = sinusoids[:rows].repeat_interleave(columns, dim=0)
    across = sinusoids[:columns].repeat(rows, 1)
    return torch.cat([down, across], dim=1)
