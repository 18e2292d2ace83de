"""Readers of the files that data come in. Reading can execute nothing: no pickle is ever opened.

Each reader returns what it found, not scaled, and only mapped where a file allows it: the array of
the samples, and the array of their labels or None. A file is compared with what its header promises
before its values are used; what does not fit is a ValueError that names the file.
"""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from tqdm import tqdm

from ..arguments import check_integer

if TYPE_CHECKING:
    from PIL import Image

Found = tuple[np.ndarray, np.ndarray | None]


def read(path: Path, size: int | None = None) -> Found:
    """What the file or folder at path holds, by its name; size is that of read_pictures.

    Raises:
        ValueError: there is no reader for such a file, or its reader refuses it.
    """
    if holds_pictures(path):
        return read_pictures(path, size)
    if path.is_dir() or path.suffix == ".bin":
        return read_cifar(path)
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".npz":
        return read_npz(path)
    if "idx" in path.name:
        return read_idx(path)
    raise ValueError(
        f"{path} is of no kind that can be read; it must be .npy, .npz, an IDX file such as "
        "train-images-idx3-ubyte, a CIFAR .bin, or a folder of pictures."
    )


def holds_pictures(path: Path) -> bool:
    """Whether path is a folder, and not one of CIFAR's."""
    return path.is_dir() and not _cifar_files(path)


@contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    """Whatever a foreign or damaged file leads to inside the block is said in one sentence."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # there is hardly one that a crafted header cannot lead to
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the file cannot be read at all
        reason = " ".join(str(error).split()).rstrip(".") or "it ends too early"
        raise ValueError(f"{path} is not a whole {expected}: {reason}.") from None


def _check_length(found: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    promised = math.prod(shape) * dtype.itemsize
    if found != promised:
        raise ValueError(
            f"it has {found} bytes of values, and a header that says shape {shape}, type {dtype}, "
            f"which are {promised}"
        )


# --- NumPy's files ------------------------------------------------------------------------------


def read_npy(path: str | Path) -> Found:
    """A ``.npy`` file, mapped; labels are in ``NAME_labels.npy`` beside ``NAME.npy``, if anywhere.

    Format: `numpy.lib.format
    <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>`_.
    """
    path = Path(path)
    labels = path.with_name(f"{path.stem}_labels.npy")
    return _npy(path), _npy(labels) if labels.is_file() else None


def _npy(path: Path) -> np.ndarray:
    with _reading(path, ".npy file of numbers, as numpy.save writes it"), open(path, "rb") as file:
        return _mapped(file, path.stat().st_size)


def _mapped(file: BinaryIO, stop: int) -> np.ndarray:
    """The array that begins here in a file and ends at byte stop; it is read when it is used."""
    shape, order, dtype = _npy_header(file)
    _check_length(stop - file.tell(), shape, dtype)
    return np.memmap(file, dtype, "r", file.tell(), shape, order)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type of the array that begins here; its values come next in file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, "F" if fortran else "C", dtype


# What the samples in an .npz file can be called, and their labels then.
NPZ_NAMES = {
    "samples": "labels",
    "images": "labels",
    "data": "labels",
    "x": "y",
    "x_train": "y_train",
    "train_images": "train_labels",
    "arr_0": "arr_1",
}


def read_npz(path: str | Path) -> Found:
    """A ``.npz`` file: its first pair of NPZ_NAMES, labels or not, or else its only array.

    Arrays that numpy.savez wrote are mapped, those of numpy.savez_compressed are read.
    """
    path = Path(path)
    with _reading(path, ".npz file, as numpy.savez writes it"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        names = [*NPZ_NAMES, *members] if len(members) == 1 else [*NPZ_NAMES]
        name = next((name for name in names if name in members), None)
        if name is None:
            raise ValueError(
                f"{path} holds {', '.join(members) or 'no array'}; the samples must be its only "
                f"array, or be called {', '.join(NPZ_NAMES)}."
            )
        samples, labels = members[name], members.get(NPZ_NAMES.get(name, ""))
        return _member(archive, samples), None if labels is None else _member(archive, labels)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an .npz file: mapped where it is stored as it is, else unpacked."""
    path = Path(archive.filename or "")
    with _reading(path, f".npz file with numbers in {info.filename}"):
        if info.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as file:
                file.seek(info.header_offset + 26)
                name, extra = struct.unpack("<2H", file.read(4))  # lengths of what comes next
                start = file.seek(name + extra, os.SEEK_CUR)
                return _mapped(file, start + info.file_size)
        with archive.open(info) as member:
            shape, order, dtype = _npy_header(member)
            values = member.read()
            _check_length(len(values), shape, dtype)
            return np.ndarray(shape, dtype, values, order=order)


# --- IDX and CIFAR ------------------------------------------------------------------------------


def _contents(path: Path) -> np.ndarray:
    """The bytes of a file, mapped; those of a gzipped file, unpacked."""
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)  # there is nothing to map
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    if content[:2].tobytes() != b"\x1f\x8b":
        return content
    with _reading(path, "gzipped file"):
        return np.frombuffer(gzip.decompress(content.tobytes()), np.uint8)


IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> Found:
    """An IDX file such as MNIST's ``train-images-idx3-ubyte``, gzipped or not, and its labels.

    These are in the file of the same name with labels for images and idx1 for idx3, gzipped or not,
    if it is there. The bytes of an IDX file: two zeros, the type, the number of dimensions; their
    lengths, 32 bits each; the values, the last dimension fastest. Highest byte first throughout.

    Source: LeCun, Cortes and Burges, `The MNIST database of handwritten digits
    <http://yann.lecun.com/exdb/mnist/>`_.
    """
    path = Path(path)
    if "images" not in path.name:
        return _idx(path), None
    labels = re.sub(r"idx\d", "idx1", path.name.replace("images", "labels")).removesuffix(".gz")
    beside = [path.with_name(labels + suffix) for suffix in ("", ".gz")]
    found = [file for file in beside if file.is_file()]
    return _idx(path), _idx(found[0]) if found else None


def _idx(path: Path) -> np.ndarray:
    content = _contents(path)
    magic = content[:4].tobytes()
    if (
        len(magic) < 4
        or magic[:2] != b"\0\0"
        or magic[2] not in IDX_TYPES
        or not 1 <= magic[3] <= 4
    ):
        raise ValueError(
            f"{path} starts with {magic.hex(' ') or 'nothing'}; an IDX file starts with 00 00, a "
            "type 08, 09, or 0b to 0e, and a number of dimensions 01 to 04."
        )
    start = 4 + 4 * magic[3]
    dtype = np.dtype(IDX_TYPES[magic[2]])
    with _reading(path, "IDX file"):
        shape = struct.unpack(f">{magic[3]}I", content[4:start].tobytes())
        _check_length(len(content) - start, shape, dtype)
        return content[start:].view(dtype).reshape(shape)


# The bytes before the pixels, and the number of classes that the last of them can be.
CIFAR_KINDS = ((1, 10), (2, 100))
CIFAR_SHAPE = (3, 32, 32)


def read_cifar(path: str | Path) -> Found:
    """CIFAR-10 or CIFAR-100, binary version: a ``.bin`` file, or a folder with the training files.

    These are ``data_batch_1.bin`` to ``data_batch_5.bin``, or ``train.bin``. Each picture is its
    label (CIFAR-100: the coarse label, then the fine one, which is kept) and 3 x 32 x 32 bytes, red
    first, row by row.

    Source: Krizhevsky, `Learning Multiple Layers of Features from Tiny Images
    <https://www.cs.toronto.edu/~kriz/cifar.html>`_, 2009.
    """
    path = Path(path)
    files = _cifar_files(path) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds neither data_batch_1.bin and so on, nor train.bin.")
    images, labels = zip(*map(_cifar, files), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _cifar_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("data_batch_*.bin")) or sorted(folder.glob("train.bin"))


def _cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _contents(path)
    for before, classes in CIFAR_KINDS:
        length = before + math.prod(CIFAR_SHAPE)
        if len(content) and len(content) % length == 0:
            pictures = content.reshape(-1, length)
            if pictures[:, before - 1].max() < classes:
                return pictures[:, before:].reshape(-1, *CIFAR_SHAPE), pictures[:, before - 1]
    raise ValueError(
        f"{path} has {len(content)} bytes and starts with {content[:2].tobytes().hex(' ')}; a "
        "binary CIFAR-10 file has 3073 for each picture, the first a label of 0 to 9, a CIFAR-100 "
        "file 3074, the second a label of 0 to 99."
    )


# --- pictures -----------------------------------------------------------------------------------


def read_pictures(path: str | Path, size: int | None = None) -> Found:
    """Every picture in a folder, in order of name, (N, H, W) if all are grey, else (N, H, W, 3).

    Pictures in folders of the folder are labelled: each folder is a class, numbered from 0 in order
    of name. Pictures in the folder itself have no labels. With size, each picture is cropped to its
    central square and resized to size x size; without, all must already have one size. Hidden files
    and files that are no pictures by name are skipped.

    Raises:
        ValueError: size is not positive, there are no pictures, or some both in the folder and in
            folders of it; one cannot be read, has more than 8 bits or is transparent; sizes differ.
    """
    from PIL import ImageOps

    if size is not None:
        size = check_integer("size", size)
    path = Path(path)
    files = _picture_files(path)
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] != "."
    )
    classes = [found for found in map(_picture_files, folders) if found]
    if files and classes:
        raise ValueError(
            f"{path} holds pictures, and so does {classes[0][0].parent}; pictures must be all in "
            "the folder, without labels, or all in folders of it, one for each class."
        )
    labels = None if files else np.repeat(np.arange(len(classes)), [len(each) for each in classes])
    files = files or [file for each in classes for file in each]
    if not files:
        raise ValueError(f"{path} holds no pictures (files such as .png or .jpg).")
    pictures: list[Image.Image] = []
    for file in tqdm(files, desc="reading", unit="picture", delay=2):
        picture = _picture(file)
        pictures.append(ImageOps.fit(picture, (size, size)) if size else picture)
        if pictures[-1].size != pictures[0].size:
            raise ValueError(
                f"{files[0].relative_to(path)} is {pictures[0].size} pixels and "
                f"{file.relative_to(path)} is {picture.size}; give a size, and every picture is "
                "cropped and resized to it."
            )
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    return np.stack([np.asarray(picture.convert(mode)) for picture in pictures]), labels


def _picture_files(folder: Path) -> list[Path]:
    from PIL import Image

    formats = Image.registered_extensions()
    readable = {suffix for suffix, name in formats.items() if name in Image.OPEN}
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in readable and not file.name.startswith(".") and file.is_file()
    )


def _picture(file: Path) -> Image.Image:
    """The picture in a file, upright, of mode L or RGB; what would lose something is refused."""
    from PIL import Image, ImageOps

    with _reading(file, "picture"), Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise ValueError(f"{file} has more than 8 bits a pixel; save it as an 8-bit picture.")
    bands = picture.getbands()
    if ("A" in bands or "a" in bands or "transparency" in picture.info) and (
        picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    ):
        raise ValueError(f"{file} is transparent in places; save it on a background.")
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
