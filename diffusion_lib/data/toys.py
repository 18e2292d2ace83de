"""Data that need no file: the digits of scikit-learn, and points in the plane.

The points are seeded by 0..2**32 - 1, and both axes scaled alike, to mean zero and mean square 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_integer


def digits() -> Tensor:
    """The 1797 handwritten digits of scikit-learn, shape (1797, 1, 8, 8), in [-1, 1].

    Pixels are counts 0..16 (Alpaydin and Kaynak, `Optical Recognition of Handwritten Digits
    <https://doi.org/10.24432/C50P49>`_); 0 becomes -1 and 16 becomes 1.
    """
    from sklearn.datasets import load_digits

    images = load_digits().images  # float64 (1797, 8, 8)
    return torch.from_numpy((images / 8.0 - 1.0).astype(np.float32)).unsqueeze(1)


def digit_labels() -> Tensor:
    """The class 0..9 of each image of digits(), int64, shape (1797,)."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().target.astype(np.int64))


# --- points in the plane ------------------------------------------------------------------------


def _standardised(points: np.ndarray) -> Tensor:
    """Points (N, 2) moved to mean zero and scaled, both axes alike, to mean square 1 per axis."""
    points = points - points.mean(axis=0)
    return torch.from_numpy((points / np.sqrt((points**2).mean())).astype(np.float32))


def _checked(count: int, seed: int) -> tuple[int, int]:
    return check_integer("count", count, 2), check_integer("seed", seed, 0, 2**32 - 1)


def _moons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_moons

    count, seed = _checked(count, seed)
    points, half = make_moons(count, noise=0.05, random_state=seed)
    return points, half


def moons(count: int = 10_000, seed: int = 0) -> Tensor:
    """Two interleaved half circles with a little noise, shape (count, 2)."""
    return _standardised(_moons(count, seed)[0])


def moon_labels(count: int = 10_000, seed: int = 0) -> Tensor:
    """The half circle of each point of moons(count, seed): 0 the upper, 1 the lower; (count,)."""
    return torch.from_numpy(_moons(count, seed)[1])


def spiral(count: int = 10_000, seed: int = 0) -> Tensor:
    """One arm that winds outwards one and a half times, shape (count, 2)."""
    from sklearn.datasets import make_swiss_roll

    count, seed = _checked(count, seed)
    roll = make_swiss_roll(count, noise=0.3, random_state=seed)[0]
    return _standardised(roll[:, [0, 2]])


def _circles(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_circles

    count, seed = _checked(count, seed)
    points, circle = make_circles(count, noise=0.04, factor=0.5, random_state=seed)
    return points, circle


def circles(count: int = 10_000, seed: int = 0) -> Tensor:
    """Two concentric circles with a little noise, shape (count, 2)."""
    return _standardised(_circles(count, seed)[0])


def circle_labels(count: int = 10_000, seed: int = 0) -> Tensor:
    """The circle of each point of circles(count, seed): 0 the outer, 1 the inner; (count,)."""
    return torch.from_numpy(_circles(count, seed)[1])


def _spots(count: int, seed: int, modes: int) -> tuple[np.ndarray, np.random.Generator]:
    count, seed = _checked(count, seed)
    rng = np.random.default_rng(seed)
    return rng.integers(check_integer("modes", modes), size=count), rng


def ring(count: int = 10_000, seed: int = 0, modes: int = 8) -> Tensor:
    """Equally likely Gaussian spots around a circle, shape (count, 2)."""
    spot, rng = _spots(count, seed, modes)
    angle = 2 * math.pi * spot / modes
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _standardised(centres + 0.05 * rng.standard_normal(centres.shape))


def ring_labels(count: int = 10_000, seed: int = 0, modes: int = 8) -> Tensor:
    """The spot of each point of ring(count, seed, modes), 0 to the right, then anticlockwise."""
    return torch.from_numpy(_spots(count, seed, modes)[0])


def checkerboard(count: int = 10_000, seed: int = 0) -> Tensor:
    """Uniform on the eight dark squares of a 4 x 4 board, shape (count, 2)."""
    count, seed = _checked(count, seed)
    rng = np.random.default_rng(seed)
    column = rng.integers(4, size=count)
    row = 2 * rng.integers(2, size=count) + column % 2  # every second square of the column
    return _standardised(np.stack([column, row], axis=1) + rng.random((count, 2)))


TOYS: dict[str, Callable[..., Tensor]] = {
    "moons": moons,
    "spiral": spiral,
    "circles": circles,
    "ring": ring,
    "checkerboard": checkerboard,
}
