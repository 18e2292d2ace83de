"""A residual multilayer perceptron for data that are vectors: 2-D points, or any dimension."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network, check_options, check_sizes, zeroed


class MLP(Network):
    """h = in(x_t), then h += layer(silu(h + condition)) for each layer, and a linear output.

    The output layer starts at zero, so an untrained network predicts zero: with noise as the
    target, a loss of exactly one on average, from where it can only learn.

    Args:
        dim: number of coordinates d of a point.
        width: number of hidden units.
        depth: number of hidden layers.
        classes: K, for labels 0..K-1 and K for "no label"; None for a network without labels.
        learned_variance: predict v as well; the output is then (B, 2 d).

    Raises:
        ValueError: an argument is not of its kind or not positive.
    """

    def __init__(
        self,
        dim: int = 2,
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        dim, width, depth = check_sizes(dim=dim, width=width, depth=depth)
        classes = check_options(classes, learned_variance)
        config: dict[str, Any] = {
            "name": "mlp",
            "dim": dim,
            "width": width,
            "depth": depth,
            "classes": classes,
            "learned_variance": learned_variance,
        }
        super().__init__(config, time=nn.Linear(width, width), condition=width)
        self.inp = nn.Linear(dim, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = zeroed(nn.Linear(width, 2 * dim if learned_variance else dim))

    def _check_samples(self, x_t: Tensor) -> None:
        dim = self.config["dim"]
        if x_t.ndim != 2 or x_t.shape[1] != dim:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this MLP takes (B, {dim}).")

    def _predict(self, x_t: Tensor, condition: Tensor) -> Tensor:
        h: Tensor = self.inp(x_t)
        for layer in self.layers:
            h = h + layer(F.silu(h + condition))
        h = self.out(F.silu(h))
        return h
