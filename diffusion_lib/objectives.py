r"""The training objective :math:`L_{\mathrm{simple}}`.

The exact bound, term by term, belongs in this room too; its weights are in `closed_forms`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import closed_forms
from .prediction import get_prediction
from .process import check_samples, linear_at, network_times
from .schedule import NoiseSchedule

Model = Callable[[Tensor, Tensor], Tensor]
"""A network: (x_t of shape (B, ...), times of shape (B,)) -> a tensor shaped like x_t."""


def simple_loss(
    model: Model,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: str = "eps",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The objective :math:`L_{\mathrm{simple}}`, averaged over a batch.

    .. math:: \mathbb E_{t,x_0,\epsilon}\,\tfrac1d\|\epsilon-\epsilon_\theta(x_t,t)\|^2

    t is uniform on 1..T, ε standard normal. For another ``prediction`` the target is the data, the
    velocity or the score instead of ε. The square is averaged over the d dimensions and the batch,
    so a network that always answers 0 has loss 1 when it predicts ε.

    Args:
        model: called as ``model(x_t, times)``.
        schedule: the noise schedule.
        x_0: data of shape (B, ...), any number of dimensions.
        prediction: "eps", "x_0", "v" or "score".
        generator: the source of t and ε, on the device of x_0.

    Returns:
        The scalar loss, ready for ``backward``.

    Raises:
        ValueError: if the prediction is unknown, x_0 is empty or not of floating point, or the
            network's output is not a tensor shaped like x_0.

    Source: Ho et al. 2020, eq. 14. Used in chapter 15.
    """
    kind = get_prediction(prediction)
    check_samples(x_0=x_0)
    if len(x_0) == 0:
        raise ValueError("x_0 has no rows; the loss is a mean over at least one.")
    t = torch.randint(1, schedule.T + 1, x_0.shape[:1], generator=generator, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    x_t = linear_at(closed_forms.noised, schedule, t, (x_0, eps))
    output = model(x_t, network_times(schedule, t))
    check_output(output, x_0, "x_0")
    target = linear_at(kind.target, schedule, t, (x_0, eps))
    return torch.nn.functional.mse_loss(output, target)


def check_output(output: Tensor, like: Tensor, name: str) -> None:
    """Raise ValueError unless a network's output is a tensor shaped like the named one."""
    if not torch.is_tensor(output) or output.shape != like.shape:
        what = f"shape {tuple(output.shape)}" if torch.is_tensor(output) else f"type {type(output)}"
        raise ValueError(
            f"The network's output has {what}; "
            f"it must be a tensor of the shape {tuple(like.shape)} of {name}."
        )
