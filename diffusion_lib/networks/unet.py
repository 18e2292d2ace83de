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

from ..arguments import check_integers
from .network import Network, check_images, check_options, check_sizes, zeroed

GROUPS = 8  # of every GroupNorm, so every number of channels inside is a multiple of it


class ResidualBlock(nn.Module):
    """Two convolutions with GroupNorm and SiLU; the condition enters between them as a bias.

    With ``attention`` a `SelfAttention` follows.
    """

    def __init__(self, c_in: int, c_out: int, condition: int, attention: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(condition, c_out)
        self.norm2 = nn.GroupNorm(GROUPS, c_out)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = SelfAttention(c_out) if attention else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (B, c_in, H, W), condition: (B or 1, c) -> (B, c_out, H, W)."""
        h: Tensor = self.conv1(F.silu(self.norm1(x))) + self.time(condition)[:, :, None, None]
        h = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        h = self.attention(h)
        return h


class SelfAttention(nn.Module):
    """Every pixel looks at every other pixel, added to what was there."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, C, H, W)."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, H W, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        h: Tensor = x + self.out(mixed.reshape(b, c, height, width))
        return h


class UNet(Network):
    """Residual blocks at len(multipliers) resolutions, each half the one before.

    It takes any image that can be halved that often. At the lowest resolution every pixel looks at
    every other; ``attention`` adds that at others, where it costs the square of their pixels.

    Args:
        channels: of the image, 1 for grey and 3 for colour.
        width: channels at full resolution, a multiple of 8.
        multipliers: channels at each resolution, in units of width; (1, 2) halves once.
        blocks: residual blocks per resolution on the way down (one more on the way up).
        attention: the resolutions whose blocks are each followed by attention, as numbers of
            halvings: 0 is full resolution, len(multipliers) - 1 the lowest.
        classes: K, for labels 0..K-1 and K for "no label"; None for a network without labels.
        learned_variance: predict v as well; the output then has twice the channels.

    Raises:
        ValueError: an argument is not of its kind or outside its range.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 24,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        channels, width, blocks = check_sizes(channels=channels, width=width, blocks=blocks)
        classes = check_options(classes, learned_variance)
        if width % GROUPS:
            raise ValueError(f"width is {width}; it must be a positive multiple of {GROUPS}.")
        multipliers = check_integers("multipliers", multipliers)
        if not multipliers:
            raise ValueError("multipliers is []; it must hold at least one integer.")
        why = f", since multipliers has {len(multipliers)} resolutions"
        attention = check_integers("attention", attention, 0, len(multipliers) - 1, why)
        config: dict[str, Any] = {
            "name": "unet",
            "channels": channels,
            "width": width,
            "multipliers": multipliers,
            "blocks": blocks,
            "attention": attention,
            "classes": classes,
            "learned_variance": learned_variance,
        }
        told = 2 * width
        time = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told))
        super().__init__(config, time, condition=told)
        self.inp = nn.Conv2d(channels, width, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, skips = width, [width]  # skips: the channels of everything handed across
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(ResidualBlock(c, multiplier * width, told, level in attention))
                c = multiplier * width
                skips.append(c)
        self.middle = nn.ModuleList(
            [ResidualBlock(c, c, told), SelfAttention(c), ResidualBlock(c, c, told)]
        )
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                c_in, c = c + skips.pop(), multiplier * width
                self.up.append(ResidualBlock(c_in, c, told, level in attention))
            if level > 0:
                self.up.append(nn.Conv2d(c, c, 3, padding=1))
        self.norm = nn.GroupNorm(GROUPS, c)
        c_out = 2 * channels if learned_variance else channels
        self.out = zeroed(nn.Conv2d(c, c_out, 3, padding=1))

    def _check_samples(self, x_t: Tensor) -> None:
        halvings = len(self.config["multipliers"]) - 1
        why = f"halves images {halvings} times"
        check_images(x_t, "U-Net", self.config["channels"], 2**halvings, why)

    def _predict(self, x_t: Tensor, condition: Tensor) -> Tensor:
        condition = F.silu(condition)
        h: Tensor = self.inp(x_t)
        skips = [h]
        for layer in self.down:
            h = layer(h, condition) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, condition) if isinstance(layer, ResidualBlock) else layer(h)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = layer(torch.cat([h, skips.pop()], dim=1), condition)
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.out(F.silu(self.norm(h)))
        return h
