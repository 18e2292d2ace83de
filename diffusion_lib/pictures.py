"""Pictures that the command line writes: a grid of images, a cloud of points, a loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .arguments import check_integer
from .data import to_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def image_grid(x: Tensor, columns: int | None = None) -> np.ndarray:
    """Images x, (N, C, H, W) in [-1, 1], side by side with a gap of one pixel; uint8 (h, w[, 3]).

    Raises:
        ValueError: x is not a batch of grey or colour images, or columns is not positive.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or len(x) == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; a grid needs (N, 1, H, W) or (N, 3, H, W) with N > 0."
        )
    n, c, height, width = x.shape
    columns = check_integer("columns", math.ceil(math.sqrt(n)) if columns is None else columns)
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + 1, width + 1, c), 128, dtype=np.uint8)
    cells[:n, :-1, :-1] = to_bytes(x).transpose(0, 2, 3, 1)
    grid = cells.reshape(rows, columns, height + 1, width + 1, c).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), c)[:-1, :-1]
    return grid[:, :, 0] if c == 1 else grid


def has_picture(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are grey or colour images, or points in the plane."""
    return tuple(shape) == (2,) or (len(shape) == 3 and shape[0] in (1, 3))


def prepare_output(path: str | Path, shape: Sequence[int]) -> None:
    """Make the folder of path, and see that samples of this shape can be written there.

    Raises:
        ValueError: path is a folder, its suffix is neither .npy nor that of a picture format, or
            the samples have no picture and the suffix is not .npy.
        OSError: its folder cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it.")
    if path.suffix != ".npy":
        if not has_picture(shape):
            raise ValueError(
                f"samples of shape {tuple(shape)} have no picture; write them to a .npy file."
            )
        if path.suffix.lower() not in _suffixes(shape):
            raise ValueError(
                f"{path} does not end in .npy or the suffix of a picture format, such as .png."
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}.") from error


def _suffixes(shape: Sequence[int]) -> set[str]:
    """The suffixes under which Pillow writes images, or Matplotlib figures."""
    if len(shape) == 3:
        from PIL import Image

        formats = Image.registered_extensions()
        return {suffix for suffix, name in formats.items() if name in Image.SAVE}
    from matplotlib.backend_bases import FigureCanvasBase

    return {f".{name}" for name in FigureCanvasBase.get_supported_filetypes()}


def save_samples(path: str | Path, x: Tensor) -> None:
    """Write samples as the suffix of path asks: .npy the numbers, anything else a picture.

    Images become a grid, enlarged if they are tiny; points (N, 2) become a scatter plot.

    Raises: as prepare_output.
    """
    path = Path(path)
    prepare_output(path, x.shape[1:])
    if path.suffix == ".npy":
        np.save(path, x.detach().cpu().numpy())
    elif x.ndim == 4:
        from PIL import Image

        picture = Image.fromarray(image_grid(x))
        zoom = max(1, 48 // x.shape[-1])
        picture.resize(
            (zoom * picture.width, zoom * picture.height), Image.Resampling.NEAREST
        ).save(path)
    else:
        figure, axes = _figure()
        axes.scatter(x[:, 0].detach().cpu(), x[:, 1].detach().cpu(), s=2, alpha=0.6)
        axes.set_aspect("equal")
        figure.savefig(path)


def save_loss_curve(path: str | Path, losses: Tensor) -> None:
    """Write the loss of every step, and its running mean, as a picture."""
    figure, axes = _figure()
    axes.plot(losses.numpy(), linewidth=0.5, alpha=0.4, label="loss of one batch")
    window = max(1, len(losses) // 50)
    if window > 1:
        total = torch.cat([torch.zeros(1), losses]).double().cumsum(0)
        mean = (total[window:] - total[:-window]) / window
        axes.plot(range(window - 1, len(losses)), mean.numpy(), label=f"mean of {window} batches")
    axes.set(xlabel="training step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(path)


def _figure() -> tuple[Figure, Axes]:
    """A figure that belongs to no window and leaves the caller's pyplot alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    return figure, figure.subplots()
