"""What all networks share: how they are told the time and the label, and what they refuse."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, int64, nn

from ..arguments import check_integer
from .time_embedding import distinct_times, time_embedding

Layer = TypeVar("Layer", bound=nn.Module)


class Network(nn.Module):
    """A prediction from a noisy sample, its time and, with classes, its label.

    The sinusoids of the time pass through ``time``; with classes a learned row for the label is
    added. The sum, the condition, is what every layer is told besides the sample. There are
    ``classes + 1`` rows: the last stands for "no label", as classifier-free guidance needs it
    (Ho and Salimans, `Classifier-Free Diffusion Guidance <https://arxiv.org/abs/2207.12598>`_).

    Args:
        config: what `build` makes a twin from; holds ``width``, the number of sinusoids,
            ``classes`` and ``learned_variance``.
        time: from the sinusoids to the condition.
        condition: its number of coordinates.
    """

    config: dict[str, Any]
    inp: nn.Linear | nn.Conv2d

    def __init__(self, config: dict[str, Any], time: nn.Module, condition: int) -> None:
        super().__init__()
        self.config = config
        self.time = time
        self.condition = condition
        classes = config["classes"]
        self.label = None if classes is None else nn.Embedding(classes + 1, condition)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """x_t: (B, ...), t: (B,) int64, labels: (B,) int64 -> prediction: (B, ...).

        Args:
            x_t: noisy samples.
            t: their times; or rows that `embed_times` made of them, one per sample or one for all.
            labels: 0..K-1, or K for "no label", with K classes; None is K for all.

        Returns:
            The prediction, shaped like x_t. With learned_variance it has twice the coordinates or
            channels: first the prediction, then v, whose share (v + 1) / 2 places the
            log-variance (`closed_forms.interpolated_log_variance`).

        Raises:
            ValueError: x_t has a shape that this network does not take, t does not hold one time
                per sample, or labels are not one integer of 0..K per sample. The values of labels
                are looked at only on the CPU: to read them from another device would make it
                wait. There, and in a compiled network, torch itself stops at a label out of range.
        """
        self._check_samples(x_t)
        return self._predict(x_t, self._condition(len(x_t), t, labels))

    def embed_times(self, t: Tensor) -> Tensor:
        """What layers are told about the time alone: t (B,) -> (B, c), or (1, c) if t is expanded.

        A sampler embeds all its times in one call before its loop and passes one row a step.

        Raises:
            ValueError: t is not one-dimensional.
        """
        sinusoids = time_embedding(distinct_times(t), self.config["width"])
        rows: Tensor = self.time(sinusoids.to(self.inp.weight.dtype))
        return rows

    def _check_samples(self, x_t: Tensor) -> None:
        """Raise ValueError for a shape that this network does not take."""
        raise NotImplementedError

    def _predict(self, x_t: Tensor, condition: Tensor) -> Tensor:
        """x_t: (B, ...), condition: (B, c), or (1, c) for all samples -> prediction."""
        raise NotImplementedError

    def _condition(self, batch: int, t: Tensor, labels: Tensor | None) -> Tensor:
        """What the layers are told: (batch, c), or (1, c) where it is the same for all samples."""
        shape = t.shape if isinstance(t, Tensor) else None
        embedded = shape in ((1, self.condition), (batch, self.condition)) and t.is_floating_point()
        if shape != (batch,) and not embedded:
            raise ValueError(
                f"t is {described(t)}; it must be ({batch},), one time per sample, "
                f"or ({batch}, {self.condition}) or (1, {self.condition}), rows of embed_times."
            )
        rows = t if embedded else self.embed_times(t)
        if self.label is not None:
            return rows + self._label_rows(self.label, batch, labels)
        if labels is not None:
            raise ValueError("labels are given, but this network has no classes (classes=None).")
        return rows

    def _label_rows(self, label: nn.Embedding, batch: int, labels: Tensor | None) -> Tensor:
        none = label.num_embeddings - 1
        if labels is None:
            return label.weight[none:]
        if not isinstance(labels, Tensor) or labels.dtype != int64 or labels.shape != (batch,):
            raise ValueError(f"labels is {described(labels)}; it must be int64, shape ({batch},).")
        try:
            return F.embedding(labels, label.weight)
        except IndexError:
            low, high = labels.min().item(), labels.max().item()
            raise ValueError(
                f"labels has values from {low} to {high}; they must be in 0..{none - 1}, "
                f"or {none} for no label."
            ) from None


def described(x: object) -> str:
    """A few words on what was given where a tensor was expected."""
    return f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"{x!r:.60}"


def check_sizes(**sizes: object) -> list[int]:
    """The sizes as ints; ValueError unless each is a positive integer."""
    return [check_integer(name, value) for name, value in sizes.items()]


def check_options(classes: object, learned_variance: object) -> int | None:
    """The classes as an int or None; ValueError unless both are what all networks take."""
    if not isinstance(learned_variance, bool):
        raise ValueError(f"learned_variance is {learned_variance!r:.60}; it must be True or False.")
    return None if classes is None else check_integer("classes", classes)


def check_images(x_t: Tensor, network: str, channels: int, multiple: int, why: str) -> None:
    """Raise ValueError unless x_t is (B, channels, H, W) with sides that are multiples."""
    if x_t.ndim != 4 or x_t.shape[1] != channels:
        raise ValueError(
            f"x_t has shape {tuple(x_t.shape)}; this {network} takes (B, {channels}, H, W)."
        )
    for side, size in zip(("height", "width"), x_t.shape[2:], strict=True):
        if size < 1 or size % multiple:
            raise ValueError(
                f"x_t has {side} {size}; this {network} {why}, "
                f"so {side} must be a multiple of {multiple}."
            )


def zeroed(layer: Layer) -> Layer:
    """The layer with weight and bias zero: its branch starts as the identity, its output as 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
