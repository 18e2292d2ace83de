"""Networks model(x_t, t) -> prediction, and how a checkpoint rebuilds one.

Each network carries ``config``, a dictionary of plain numbers that JSON can hold; ``build(config)``
makes an untrained twin. Any other callable with the same signature works everywhere in the library.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .mlp import MLP
from .time_embedding import time_embedding
from .unet import UNet

__all__ = ["MLP", "NETWORKS", "UNet", "build", "default_network", "time_embedding"]

NETWORKS: dict[str, type[nn.Module]] = {"mlp": MLP, "unet": UNet}


def build(config: dict) -> nn.Module:
    """The untrained network that config describes, e.g. ``{"name": "mlp", "dim": 2}``.

    Raises:
        ValueError: the name is not one of NETWORKS, or an option is not one that it takes.
    """
    if not isinstance(config, dict):
        raise ValueError(f"config is {config!r}; it must be a dictionary with a name.")
    options = dict(config)
    name = options.pop("name", None)
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; it must be one of {sorted(NETWORKS)}.")
    try:
        return NETWORKS[name](**options)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built from {options}: {error}.") from None


def default_network(shape: Sequence[int]) -> nn.Module:
    """A network of sensible size for samples of this shape: (d,) vectors or (C, H, W) images.

    Images are halved while both sides stay even and above 4, so that attention sees few pixels.

    Raises:
        ValueError: the shape is neither, or an image is too large for attention and cannot be
            halved any further.
    """
    if len(shape) not in (1, 3) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"shape is {tuple(shape)}; it must be (d,) or (C, H, W), positive integers."
        )
    if len(shape) == 1:
        return MLP(dim=shape[0])
    channels, height, width = shape
    multipliers = [1]
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        height, width = height // 2, width // 2
        multipliers.append(2)
    if height * width > 1024:
        raise ValueError(
            f"images of {shape[1]} x {shape[2]} pixels can be halved only to {height} x {width}; "
            "resize them so that both sides are multiples of 8 or 16."
        )
    return UNet(channels=channels, multipliers=multipliers)
