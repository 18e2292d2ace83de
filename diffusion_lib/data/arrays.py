"""Arrays as samples: scaled once, channels first, in memory or where they are stored."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Samples that would take more bytes than this as float32 stay where they are, as a Stored.
LARGE = 2**30


def from_bytes(values: np.ndarray) -> Tensor:
    """8-bit values v = 0..255 -> (2 v - 255) / 255 in float32, correctly rounded; any shape.

    0 and 255 become exactly -1 and 1, and to_bytes gives every value back.

    Raises:
        ValueError: values are not of type uint8, as those that are scaled already.
    """
    values = np.asarray(values)
    if values.dtype != np.uint8:
        raise ValueError(f"values have type {values.dtype}; they must be 8-bit values, type uint8.")
    x = values.astype(np.float32, order="C")
    x *= 2
    x -= 255
    x /= 255  # the only operation that rounds
    return torch.from_numpy(x)


def to_bytes(x: Tensor) -> np.ndarray:
    """The nearest 8-bit values of x in [-1, 1], the inverse of from_bytes; x outside is clipped.

    Raises:
        ValueError: x is not floating point, as what is 8-bit already, or is not a number somewhere.
    """
    if not x.is_floating_point():
        raise ValueError(f"x has type {x.dtype}; it must be floating point, in [-1, 1].")
    if x.isnan().any():
        raise ValueError("x holds values that are not a number; they have no 8-bit value.")
    scaled = (x.detach().cpu().double() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()


def from_array(array: np.ndarray, name: str = "array") -> Tensor:
    """A user's array as samples: vectors (N, d), or images in any of the usual layouts.

    Images are (N, C, H, W), (N, H, W) for grey, or (N, H, W, C) with C = 1 or 3 last. Values of
    type uint8 are scaled from 0..255 to [-1, 1]; floating-point values are not touched, so they
    should be of order one. The samples share no memory with the array.

    Warns:
        UserWarning: floating-point images are all in [0, 1], as torchvision's ToTensor leaves
            them. They are not touched either, but pictures of samples are made from [-1, 1].

    Raises:
        ValueError: the type is neither, the shape fits no layout, there are no samples, a value
            is not finite, or floating-point images have no negative values but some above 1, as
            pixels 0..255 do.
    """
    _check_array(array, name)
    x = _values(array, name)
    if array.dtype != np.uint8:
        _check_range(x, name)
    return _channels_first(x)


class Stored:
    """Samples that stay where they are, on disk or as 8-bit values, and are read by the batch.

    ``stored[rows]`` reads these rows only and is what ``from_array(array)[rows]`` would be: float32
    on the CPU, channels first, 8-bit values scaled. rows is an int64 tensor (B,), a slice, or one
    int, so that a Stored is also a data set for PyTorch's DataLoader.

    Args:
        array: as from_array takes it; to read from disk, a memory map such as
            ``numpy.load(path, mmap_mode="r")``.
        name: what errors call the array.

    Raises:
        ValueError: as from_array. Values that are not finite, however, are found when they are
            read, and unscaled images by a look at 16 rows.
    """

    def __init__(self, array: np.ndarray, name: str = "array") -> None:
        _check_array(array, name)
        self._array, self._name = np.asarray(array), name  # no longer a memmap: faster to index
        look = np.linspace(0, len(array) - 1, num=16, dtype=np.int64)
        read = from_array(self._array[look], name)
        self.shape = torch.Size([len(array), *read.shape[1:]])  # (N, d) or (N, C, H, W)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        if isinstance(rows, int):
            return self[torch.tensor([rows], device="cpu")][0]
        if isinstance(rows, Tensor) and rows.dtype == torch.int64 and rows.ndim == 1:
            return _channels_first(_values(self._array[rows.cpu().numpy()], self._name))
        if isinstance(rows, slice):
            return _channels_first(_values(self._array[rows], self._name))
        raise ValueError(f"rows is {rows!r}; it must be an int64 tensor (B,), a slice or an int.")

    def __repr__(self) -> str:
        return f"Stored({self._name}, shape={tuple(self.shape)})"


class Labelled(NamedTuple):
    """Samples, and the class of each: labels (N,), int64, 0 or more, or None without classes."""

    samples: Tensor | Stored
    labels: Tensor | None


def _check_array(array: np.ndarray, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is {type(array).__name__}; it must be a NumPy array.")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{name} has type {array.dtype}; it must be floating point, or uint8 for 8-bit images."
        )
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape}; it must be vectors (N, d) or images (N, H, W), "
            "(N, C, H, W) or (N, H, W, C), none of the lengths zero."
        )
    # (N, 8, 4, 4) has 8 channels, but (N, 8, 8, 4) is rather a picture with transparency.
    if (
        array.ndim == 4
        and array.shape[3] == 4 != array.shape[2]
        and array.shape[1] not in (1, 3, 4)
    ):
        raise ValueError(
            f"{name} has shape {array.shape}; put the 4 channels first, (N, 4, H, W), or leave "
            "transparency out with array[..., :3]."
        )


def _values(array: np.ndarray, name: str) -> Tensor:
    """A copy in float32: 8-bit values scaled, others as they are, all of them finite."""
    if array.dtype == np.uint8:
        return from_bytes(array)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        x = torch.from_numpy(array.astype(np.float32, order="C"))
    if not x.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite in float32.")
    return x


def _check_range(x: Tensor, name: str) -> None:
    """Images with no negative value are not in [-1, 1] as they should be."""
    low, high = (float(end) for end in x.aminmax())
    if x.ndim == 2 or low < 0 or high <= 0:
        return
    found = f"{name} holds floating-point images from {low:g} to {high:g}"
    if high > 1:
        raise ValueError(f"{found}; scale them to [-1, 1], or give 8-bit values as uint8.")
    warnings.warn(
        f"{found}, and they are used as they are; if they are scaled to [0, 1], as torchvision's "
        "ToTensor does, give 2 * array - 1.",
        stacklevel=3,
    )


def _channels_first(x: Tensor) -> Tensor:
    """Images (N, H, W), (N, H, W, C) or (N, C, H, W) -> (N, C, H, W); vectors stay vectors."""
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def labelled(array: np.ndarray, labels: np.ndarray | None, name: str = "array") -> Labelled:
    """Samples as from_array or, where they are LARGE, Stored makes them, and their labels checked.

    Raises:
        ValueError: as from_array, or labels are not integers, 0 or more, one for each sample.
    """
    samples = (Stored if 4 * array.size > LARGE else from_array)(array, name)
    if labels is None:
        return Labelled(samples, None)
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer):
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(
            f"the labels of {name} are {kind}; they must be a NumPy array of integers."
        )
    if labels.shape != (len(samples),):
        raise ValueError(
            f"the labels of {name} have shape {labels.shape}, but there are {len(samples)} "
            f"samples; it must be ({len(samples)},)."
        )
    classes = torch.from_numpy(labels.astype(np.int64))
    if classes.min() < 0:
        raise ValueError(f"a label of {name} is {classes.min()}; it must be 0 or more.")
    return Labelled(samples, classes)
