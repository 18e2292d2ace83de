r"""What a network predicts: the noise ε, the data x_0, the velocity v, or the score.

Each kind is a linear change of variables given by `closed_forms`; the four carry the same
information at every t ≥ 1. Chapter 04 proves all conversions inverse to each other (claim L13), and
that their squared errors differ by a factor of t alone (claim L11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import closed_forms
from .arguments import check_choice
from .closed_forms import Number


@dataclass(frozen=True)
class Prediction:
    """One kind of network output.

    Attributes:
        name: "eps", "x_0", "v" or "score".
        target: (x_0, eps, alpha_bar_t) -> what the network is trained to output.
        x_0: (x_t, output, alpha_bar_t) -> the data that the output implies.
        eps: (x_t, output, alpha_bar_t) -> the noise that the output implies.

    All three are linear in the samples.
    """

    name: str
    target: Callable[[Number, Number, Number], Number]
    x_0: Callable[[Number, Number, Number], Number]
    eps: Callable[[Number, Number, Number], Number]


EPS = Prediction(
    name="eps",
    target=lambda x_0, eps, alpha_bar_t: eps,
    x_0=closed_forms.x_0_from_eps,
    eps=lambda x_t, output, alpha_bar_t: output,
)
X_0 = Prediction(
    name="x_0",
    target=lambda x_0, eps, alpha_bar_t: x_0,
    x_0=lambda x_t, output, alpha_bar_t: output,
    eps=closed_forms.eps_from_x_0,
)
V = Prediction(
    name="v",
    target=closed_forms.velocity,
    x_0=closed_forms.x_0_from_velocity,
    eps=closed_forms.eps_from_velocity,
)
SCORE = Prediction(
    name="score",
    target=lambda x_0, eps, alpha_bar_t: closed_forms.score_from_eps(eps, alpha_bar_t),
    x_0=closed_forms.x_0_from_score,
    eps=lambda x_t, output, alpha_bar_t: closed_forms.eps_from_score(output, alpha_bar_t),
)

PREDICTIONS = {kind.name: kind for kind in (EPS, X_0, V, SCORE)}


def get_prediction(name: str) -> Prediction:
    """The prediction of that name. Proved in chapter 04 (claim L13).

    Raises:
        ValueError: if there is none.
    """
    return check_choice("prediction", name, PREDICTIONS)


def check_readable(kind: Prediction, alpha_bar_T: float) -> None:
    """Raise ValueError if the data cannot be read off this prediction at the noisiest level."""
    if alpha_bar_T == 0 and kind.name in ("eps", "score"):
        raise ValueError(
            f"prediction is {kind.name!r}, but the schedule ends in pure noise (alpha_bar_T = 0), "
            "where no x_0 can be read off it; train and sample with prediction 'v' or 'x_0'."
        )


def learned_variance(v: Number, alpha_bar_s: Number, alpha_bar_t: Number) -> Number:
    r"""The variance of a step from what the network says of it, v in about -1..1.

    -1 is :math:`\tilde\beta`, 1 is β, and between them the logarithm is interpolated. Source:
    Nichol and Dhariwal 2021, eq. 15. Proved in chapter 16.
    """
    share = (v + 1) / 2
    return closed_forms.exp(closed_forms.interpolated_log_variance(share, alpha_bar_s, alpha_bar_t))
