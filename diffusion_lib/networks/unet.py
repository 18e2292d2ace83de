"""A small U-Net for images: residual blocks on the way down, attention at the bottom, and up again.

After Ho et al., `Denoising Diffusion Probabilistic Models <https://arxiv.org/abs/2006.11239>`_,
appendix B, shrunk until it trains on a laptop's processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .time_embedding import distinct_times, time_embedding

GROUPS = 8  # of every GroupNorm, so every number of channels inside is a multiple of it


def _zeroed(layer: nn.Module) -> nn.Module:
    """The layer with weight and bias zero: its branch starts as the identity, its output as 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions with GroupNorm and SiLU; the time enters between them as a bias."""

    def __init__(self, c_in: int, c_out: int, c_time: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(c_time, c_out)
        self.norm2 = nn.GroupNorm(GROUPS, c_out)
        self.conv2 = _zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: (B, c_in, H, W), time: (B or 1, c_time) -> (B, c_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class SelfAttention(nn.Module):
    """Every pixel looks at every other pixel, added to what was there."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, C, H, W)."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(mixed.reshape(b, c, height, width))


class UNet(nn.Module):
    """Residual blocks at len(multipliers) resolutions, each half the one before.

    Args:
        channels: of the image, 1 for grey and 3 for colour.
        width: channels at full resolution, a multiple of 8.
        multipliers: channels at each resolution, in units of width; (1, 2) halves once.
        blocks: residual blocks per resolution on the way down (one more on the way up).
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 24,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if channels < 1 or blocks < 1:
            raise ValueError(f"channels is {channels} and blocks {blocks}; both must be positive.")
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"width is {width}; it must be a positive multiple of {GROUPS}.")
        if not multipliers or min(multipliers) < 1:
            raise ValueError(
                f"multipliers is {list(multipliers)}; it must hold at least one positive integer."
            )
        self.config: dict[str, Any] = {
            "name": "unet",
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
        }
        self.width = width
        c_time = 2 * width
        self.time = nn.Sequential(nn.Linear(width, c_time), nn.SiLU(), nn.Linear(c_time, c_time))
        self.inp = nn.Conv2d(channels, width, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, skips = width, [width]  # skips: the channels of everything handed across
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(ResidualBlock(c, multiplier * width, c_time))
                c = multiplier * width
                skips.append(c)
        self.middle = nn.ModuleList(
            [ResidualBlock(c, c, c_time), SelfAttention(c), ResidualBlock(c, c, c_time)]
        )
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(c + skips.pop(), multiplier * width, c_time))
                c = multiplier * width
            if level > 0:
                self.up.append(nn.Conv2d(c, c, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, c)
        self.out = _zeroed(nn.Conv2d(c, channels, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, C, H, W), t: (B,) int64 -> prediction: (B, C, H, W).

        Raises:
            ValueError: the channels differ, a side cannot be halved often enough, or t does not
                hold one time per image.
        """
        self._check(x_t, t)
        embedding = time_embedding(distinct_times(t), self.width)
        time = F.silu(self.time(embedding.to(x_t.dtype)))
        h = self.inp(x_t)
        skips = [h]
        for layer in self.down:
            h = layer(h, time) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time) if isinstance(layer, ResidualBlock) else layer(h)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), time)
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.out(F.silu(self.norm(h)))

    def _check(self, x_t: Tensor, t: Tensor) -> None:
        channels, halvings = self.config["channels"], len(self.config["multipliers"]) - 1
        if x_t.ndim != 4 or x_t.shape[1] != channels:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; this U-Net takes (B, {channels}, H, W)."
            )
        for side, size in zip(("height", "width"), x_t.shape[2:], strict=True):
            if size < 1 or size % 2**halvings:
                raise ValueError(
                    f"x_t has {side} {size}; this U-Net halves images {halvings} times, "
                    f"so {side} must be a multiple of {2**halvings}."
                )
        if t.shape != x_t.shape[:1]:
            raise ValueError(
                f"t has shape {tuple(t.shape)}; it must be ({len(x_t)},), one time per image."
            )
