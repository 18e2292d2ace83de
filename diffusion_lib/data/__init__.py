"""Training data: digits, 2-D toy sets, and readers for the files that data usually come in.

Samples are float32, vectors (N, d) or images (N, C, H, W); labels are int64, (N,), 0 or more.
Images are stored by everyone as whole numbers and trained on in [-1, 1]; the scaling happens once,
in `arrays`, and only for 8-bit values. What is already floating point is taken as it is, but images
that look unscaled are refused. What would fill the memory is not read but becomes a Stored, from
which a batch is read at a time.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .arrays import Labelled, Stored, from_array, from_bytes, labelled, to_bytes
from .files import holds_pictures, read, read_cifar, read_idx, read_npy, read_npz, read_pictures
from .toys import (
    TOYS,
    checkerboard,
    circle_labels,
    circles,
    digit_labels,
    digits,
    moon_labels,
    moons,
    ring,
    ring_labels,
    spiral,
)

__all__ = [
    "TOYS",
    "Labelled",
    "Stored",
    "checkerboard",
    "circle_labels",
    "circles",
    "digit_labels",
    "digits",
    "from_array",
    "from_bytes",
    "labelled",
    "load",
    "load_labelled",
    "moon_labels",
    "moons",
    "read_cifar",
    "read_idx",
    "read_npy",
    "read_npz",
    "read_pictures",
    "ring",
    "ring_labels",
    "spiral",
    "to_bytes",
]

NAMED = {"digits": digits, **TOYS}
LABELS = {
    "digits": digit_labels,
    "moons": moon_labels,
    "circles": circle_labels,
    "ring": ring_labels,
}


def load(source: str | Path, size: int | None = None) -> Tensor | Stored:
    """The samples of load_labelled(source, size), without the labels."""
    return load_labelled(source, size).samples


def load_labelled(source: str | Path, size: int | None = None) -> Labelled:
    """Training data by name or by path, and their labels where there are any.

    ============================  =======================================  =====================
    source                        samples                                  labels
    ============================  =======================================  =====================
    digits                        (1797, 1, 8, 8)                          the digit
    moons, circles, ring          (10000, 2)                               which half, circle or
                                                                           spot
    spiral, checkerboard          (10000, 2)                               none
    ``.npy`` file                 as from_array, see read_npy              ``NAME_labels.npy``
    ``.npz`` file                 as from_array, see read_npz              labels, y, y_train ...
    IDX file, gzipped or not      as from_array, see read_idx              the file of labels
    CIFAR ``.bin``, or a folder   (N, 3, 32, 32), see read_cifar           of 10 or 100 classes
    folder of pictures            (N, C, size, size), see read_pictures    by folder
    ============================  =======================================  =====================

    A name goes before a file or folder called the same, which is ``./digits``. Samples that would
    take more than 1 GiB as float32 are a Stored instead of a tensor.

    Args:
        source: one of these names, or a path.
        size: side in pixels to which the pictures of a folder are cropped and resized.

    Raises:
        ValueError: source is none of these, or a file is damaged or foreign; samples are refused
            by from_array; labels are not integers, 0 or more, one for each sample; or size is given
            where nothing can be resized.
    """
    name, path = str(source), Path(source)
    if name not in NAMED and not path.exists():
        raise ValueError(
            f"data is {name!r}; it must be {', '.join(NAMED)}, or an existing file (.npy, .npz, "
            "IDX or CIFAR's .bin) or folder of pictures."
        )
    if size is not None and (name in NAMED or not holds_pictures(path)):
        raise ValueError(f"size is {size}, but only a folder of pictures can be resized.")
    if name in NAMED:
        return Labelled(NAMED[name](), LABELS[name]() if name in LABELS else None)
    return labelled(*read(path, size), name)
