"""Networks model(x_t, t, labels=None) -> prediction, and how a checkpoint rebuilds one.

Each network carries ``config``, a dictionary of plain values that JSON can hold; ``build(config)``
makes an untrained twin. Any other callable with the same signature works everywhere in the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import check_choice, check_integers
from .dit import DiT
from .mlp import MLP
from .network import Network
from .time_embedding import time_embedding
from .unet import UNet

__all__ = [
    "MLP",
    "NETWORKS",
    "DiT",
    "Network",
    "UNet",
    "build",
    "default_network",
    "time_embedding",
]

NETWORKS: dict[str, type[Network]] = {"mlp": MLP, "unet": UNet, "dit": DiT}


def build(config: dict[str, Any]) -> Network:
    """The untrained network that config describes, e.g. ``{"name": "mlp", "dim": 2}``.

    Raises:
        ValueError: the name is not one of NETWORKS, or an option is not one that it takes.
    """
    if not isinstance(config, dict):
        raise ValueError(f"config is {config!r}; it must be a dictionary with a name.")
    options = dict(config)
    network = check_choice("network", options.pop("name", None), NETWORKS)
    try:
        return network(**options)
    except TypeError as error:
        raise ValueError(f"network {config!r} cannot be built: {error}.") from None


def default_network(shape: Sequence[int], **options: Any) -> Network:
    """A network of sensible size for samples of this shape: (d,) vectors or (C, H, W) images.

    Vectors get an `MLP`, images a `UNet` that halves them while both sides stay even and above 4,
    so that attention sees few pixels.

    Args:
        shape: of one sample.
        options: further options of that network, such as ``classes=10``.

    Raises:
        ValueError: the shape is neither, an image is too large for attention and cannot be
            halved any further, or an option is not one that the network takes.
    """
    shape = check_integers("shape", shape)
    if len(shape) not in (1, 3):
        raise ValueError(f"shape is {tuple(shape)}; it must be (d,) or (C, H, W).")
    if len(shape) == 1:
        return build({"name": "mlp", "dim": shape[0], **options})
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
    return build({"name": "unet", "channels": channels, "multipliers": multipliers, **options})
