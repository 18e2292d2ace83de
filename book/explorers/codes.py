"""A square between four digits: what lies between their codes, and between their pixels.

Decoding takes ten seconds, so the pictures are kept in `codes.json`. To compute them again:

    PYTHONPATH=book/_ext python book/explorers/codes.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from explorers import grey
from torch import Tensor

from diffusion_lib import data as datasets
from diffusion_lib import samplers
from diffusion_lib.training import load_pretrained

PICTURES = Path(__file__).with_suffix(".json")
CORNERS = [0, 12, 3, 18]  # in the data: a 0 and a 2 above, a 3 and an 8 below
SIDE = 7
STEPS = 15

Blend = Callable[[Tensor, Tensor, float], Tensor]


def square(corners: Tensor, blend: Blend) -> Tensor:
    """SIDE rows of SIDE blends: along the upper and the lower edge, then between the two."""
    above, below = corners[:2], corners[2:]
    shares = [i / (SIDE - 1) for i in range(SIDE)]
    edges = [[blend(*edge.split(1), share) for share in shares] for edge in (above, below)]
    rows = [[blend(*ends, share) for ends in zip(*edges, strict=True)] for share in shares]
    return torch.cat([sample for row in rows for sample in row])


def decoded_square() -> Tensor:
    """The square between the codes, decoded with the digits' network."""
    network, trained, _ = load_pretrained("digits", device="cpu")
    schedule = trained.strided(STEPS)
    codes = samplers.encode(network, schedule, datasets.digits()[CORNERS])
    return samplers.ddim(network, schedule, square(codes, samplers.interpolate))


def described(pictures: Tensor) -> dict[str, Any]:
    """The pictures as bytes, and the digit that each resembles most."""
    distances = torch.cdist(pictures.flatten(1), datasets.digits().flatten(1))
    return {
        "pixels": grey(pictures),
        "nearest": datasets.digit_labels()[distances.argmin(dim=1)].tolist(),
        "distance": [round(d, 2) for d in distances.amin(dim=1).tolist()],
    }


def data() -> dict[str, Any]:
    return {"side": SIDE, **json.loads(PICTURES.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    blended = square(datasets.digits()[CORNERS], torch.lerp)
    found = {"codes": described(decoded_square()), "pixels": described(blended)}
    PICTURES.write_text(json.dumps(found) + "\n", encoding="utf-8")
