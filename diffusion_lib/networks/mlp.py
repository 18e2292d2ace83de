"""A residual multilayer perceptron for data that are vectors: 2-D points, or any dimension."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .time_embedding import distinct_times, time_embedding


class MLP(nn.Module):
    """h = in(x_t), then h += layer(silu(h + time(t))) for each layer, and a linear output.

    The output layer starts at zero, so an untrained network predicts zero: with noise as the
    target, a loss of exactly one on average, from where it can only learn.

    Args:
        dim: number of coordinates d of a point.
        width: number of hidden units.
        depth: number of hidden layers.
    """

    def __init__(self, dim: int = 2, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        for name, value in {"dim": dim, "width": width, "depth": depth}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be a positive integer.")
        self.config: dict[str, Any] = {"name": "mlp", "dim": dim, "width": width, "depth": depth}
        self.width = width
        self.time = nn.Linear(width, width)
        self.inp = nn.Linear(dim, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t: (B, d), t: (B,) int64 -> prediction: (B, d).

        Raises:
            ValueError: x_t is not a batch of d-vectors, or t does not hold one time per vector.
        """
        if x_t.ndim != 2 or x_t.shape[1] != self.config["dim"]:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; this MLP takes (B, {self.config['dim']})."
            )
        if t.shape != x_t.shape[:1]:
            raise ValueError(
                f"t has shape {tuple(t.shape)}; it must be ({len(x_t)},), one time per sample."
            )
        embedding = time_embedding(distinct_times(t), self.width)
        time = self.time(embedding.to(x_t.dtype))  # (B, width), or (1, width) for one shared time
        h = self.inp(x_t)
        for layer in self.layers:
            h = h + layer(F.silu(h + time))
        return self.out(F.silu(h))
