"""Training data as tensors: digits, 2-D toy sets, and a reader for a user's own files.

Every function returns float32 samples, vectors (N, d) or images (N, C, H, W). Images are stored by
everyone as whole numbers and trained on in [-1, 1]; the scaling happens here, once, and only for
8-bit values. What is already floating point is taken as it is, but images that look unscaled are
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


def from_bytes(values: np.ndarray) -> Tensor:
    """8-bit values 0..255 -> float32 in [-1, 1]; 0 and 255 become exactly -1 and 1."""
    return torch.from_numpy((np.asarray(values) / 127.5 - 1.0).astype(np.float32))


def to_bytes(x: Tensor) -> np.ndarray:
    """The nearest 8-bit values of x in [-1, 1], the inverse of from_bytes; x outside is clipped."""
    scaled = (x.detach().cpu().double() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()


# --- digits -------------------------------------------------------------------------------------


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


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"count is {count}; a toy set needs at least 2 points.")


def moons(count: int = 10_000, seed: int = 0) -> Tensor:
    """Two interleaved half circles with a little noise, shape (count, 2)."""
    from sklearn.datasets import make_moons

    _check_count(count)
    return _standardised(make_moons(count, noise=0.05, random_state=seed)[0])


def spiral(count: int = 10_000, seed: int = 0) -> Tensor:
    """One arm that winds outwards one and a half times, shape (count, 2)."""
    from sklearn.datasets import make_swiss_roll

    _check_count(count)
    roll = make_swiss_roll(count, noise=0.3, random_state=seed)[0]
    return _standardised(roll[:, [0, 2]])


def circles(count: int = 10_000, seed: int = 0) -> Tensor:
    """Two concentric circles with a little noise, shape (count, 2)."""
    from sklearn.datasets import make_circles

    _check_count(count)
    return _standardised(make_circles(count, noise=0.04, factor=0.5, random_state=seed)[0])


def ring(count: int = 10_000, seed: int = 0, modes: int = 8) -> Tensor:
    """Equally likely Gaussian spots around a circle, shape (count, 2)."""
    _check_count(count)
    rng = np.random.default_rng(seed)
    angle = 2 * math.pi * rng.integers(modes, size=count) / modes
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _standardised(centres + 0.05 * rng.standard_normal((count, 2)))


def checkerboard(count: int = 10_000, seed: int = 0) -> Tensor:
    """Uniform on the eight dark squares of a 4 x 4 board, shape (count, 2)."""
    _check_count(count)
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

# --- a user's own files -------------------------------------------------------------------------


def from_array(array: np.ndarray, name: str = "array") -> Tensor:
    """A user's array as samples: vectors (N, d), or images in any of the usual layouts.

    Images are (N, C, H, W), (N, H, W) for grey, or (N, H, W, C) with C = 1 or 3 last. Values of
    type uint8 are scaled from 0..255 to [-1, 1]; floating-point values are not touched, so they
    should be of order one.

    Raises:
        ValueError: the type is neither, the shape fits no layout, there are no samples, a value
            is not finite, or floating-point images have no negative values but some above 1, as
            pixels 0..255 do.
    """
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
    if array.dtype == np.uint8:
        x = from_bytes(array)
    else:
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} holds values that are not finite in float32.")
        if x.ndim > 2 and x.min() >= 0 and x.max() > 1:
            raise ValueError(
                f"{name} holds floating-point images from {x.min():g} to {x.max():g}; scale them "
                "to [-1, 1], or give 8-bit values as uint8."
            )
    if x.ndim == 3:
        x = x.unsqueeze(1)
    elif x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    return x.contiguous()


def from_file(path: str | Path) -> Tensor:
    """The samples of a ``.npy`` file, read as from_array does; pickled objects are refused."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(
            f"{path} is not a whole .npy file of numbers; write one with numpy.save."
        ) from None
    return from_array(array, str(path))


def from_folder(path: str | Path, size: int | None = None) -> Tensor:
    """Every picture in a folder, in order of file name, shape (N, C, H, W), in [-1, 1].

    C is 1 when all pictures are grey and 3 otherwise. With size, each picture is cropped to its
    central square and resized to size x size; without, all must already have one size. Hidden
    files and files that are no pictures by name are skipped.

    Raises:
        ValueError: size is not positive, there are no pictures, one cannot be read, has more than
            8 bits or is transparent, or their sizes differ.
    """
    from PIL import Image, ImageOps

    if size is not None and size < 1:
        raise ValueError(f"size is {size}; it must be a positive integer.")
    formats = Image.registered_extensions()
    readable = {suffix for suffix, name in formats.items() if name in Image.OPEN}
    files = sorted(
        file
        for file in Path(path).iterdir()
        if file.suffix.lower() in readable and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise ValueError(f"{path} holds no pictures (files such as .png or .jpg).")
    pictures = []
    for file in files:
        picture = _picture(file)
        pictures.append(ImageOps.fit(picture, (size, size)) if size else picture)
        if pictures[-1].size != pictures[0].size:
            raise ValueError(
                f"{files[0].name} is {pictures[0].size} pixels and {file.name} is {picture.size}; "
                "give a size, and every picture is cropped and resized to it."
            )
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    stacked = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    return from_array(stacked, str(path))


def _picture(file: Path) -> Image.Image:
    """The picture in a file, upright, of mode L or RGB; what would lose something is refused."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a picture: {error}.") from None
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise ValueError(f"{file} has more than 8 bits a pixel; save it as an 8-bit picture.")
    bands = picture.getbands()
    if ("A" in bands or "a" in bands or "transparency" in picture.info) and (
        picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    ):
        raise ValueError(f"{file} is transparent in places; save it on a background.")
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def load(source: str | Path, size: int | None = None) -> Tensor:
    """Training data by name or by path: digits, one of TOYS, a .npy file, or a folder of pictures.

    A name goes before a file or folder called the same, which is ``./digits``.

    Raises:
        ValueError: source is none of these, or size is given where nothing can be resized.
    """
    named = {"digits": digits, **TOYS}
    path = Path(source)
    if str(source) not in named and path.is_dir():
        return from_folder(path, size)
    if size is not None:
        raise ValueError(f"size is {size}, but only a folder of pictures can be resized.")
    if str(source) in named:
        return named[str(source)]()
    if path.is_file():
        return from_file(path)
    raise ValueError(
        f"data is {str(source)!r}; it must be {', '.join(named)}, "
        "an existing .npy file, or an existing folder of pictures."
    )
