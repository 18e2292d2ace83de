"""Files of data: every format from bytes written by hand, and whatever can be wrong with it."""

import contextlib
import gzip
import io
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib import data
from diffusion_lib.data import arrays, files

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def small(monkeypatch):
    """From here on, samples of more than 8 bytes as float32 are large."""
    monkeypatch.setattr(arrays, "LARGE", 8)


def npy(array: np.ndarray, shape: str | None = None, order: str = "False") -> bytes:
    """A .npy file, format 1.0, by hand; with a shape, one that promises another."""
    description = (
        f"{{'descr': '{array.dtype.str}', 'fortran_order': {order}, 'shape': "
        f"{shape or array.shape}, }}"
    )
    header = description.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


def idx(array: np.ndarray, kind: int = 0x08) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    letter = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}[kind]
    return header + struct.pack(f">{array.size}{letter}", *array.ravel().tolist())


def same(x, values: np.ndarray) -> bool:
    """Whether samples are these 8-bit values, channels first, scaled once."""
    truth = torch.from_numpy((values / 127.5 - 1).astype(np.float32))
    return x[:].dtype == torch.float32 and x.shape == truth.shape and torch.allclose(x[:], truth)


def zipped(members: dict[str, bytes], method=zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


class TestNpy:
    def test_floats_are_untouched(self, tmp_path) -> None:
        array = RNG.normal(7, 3, (10, 3))
        (tmp_path / "x.npy").write_bytes(npy(array))
        x = data.load(tmp_path / "x.npy")
        assert isinstance(x, torch.Tensor)
        assert torch.equal(x, torch.from_numpy(array.astype(np.float32)))

    def test_bytes_are_scaled_once(self, tmp_path) -> None:
        images = RNG.integers(0, 256, (5, 4, 6, 3)).astype(np.uint8)
        (tmp_path / "x.npy").write_bytes(npy(images))
        x = data.load(tmp_path / "x.npy")
        assert same(x, images.transpose(0, 3, 1, 2))
        np.save(tmp_path / "y.npy", x.numpy())
        assert torch.equal(data.load(tmp_path / "y.npy"), x)

    def test_fortran_order_and_the_later_format(self, tmp_path) -> None:
        array = RNG.normal(size=(5, 3))
        (tmp_path / "x.npy").write_bytes(npy(array.T.copy(), "(5, 3)", order="True"))
        assert np.array_equal(data.load(tmp_path / "x.npy"), array.astype(np.float32))
        with open(tmp_path / "y.npy", "wb") as file:
            np.lib.format.write_array(file, array, version=(2, 0))
        assert np.array_equal(data.load(tmp_path / "y.npy"), array.astype(np.float32))

    def test_labels_beside(self, tmp_path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((3, 2)))
        assert data.load_labelled(tmp_path / "x.npy").labels is None
        (tmp_path / "x_labels.npy").write_bytes(npy(np.array([2, 0, 1], np.uint8)))
        found = data.load_labelled(tmp_path / "x.npy")
        assert found.samples.shape == (3, 2)
        assert found.labels.dtype == torch.int64
        assert found.labels.tolist() == [2, 0, 1]
        np.save(tmp_path / "x_labels.npy", np.zeros(4, int))
        with pytest.raises(ValueError, match=r"x\.npy have shape \(4,\), but there are 3 samples"):
            data.load_labelled(tmp_path / "x.npy")

    def test_a_large_file_is_mapped(self, tmp_path, small) -> None:
        images = RNG.integers(0, 256, (50, 3, 4, 4)).astype(np.uint8)
        (tmp_path / "x.npy").write_bytes(npy(images))
        x = data.load(tmp_path / "x.npy")
        assert isinstance(x, data.Stored)
        assert same(x, images)
        rows = torch.tensor([40, 3, 3])
        assert same(x[rows], images[rows])

    def test_a_file_larger_than_any_memory(self, tmp_path) -> None:
        """A terabyte of pictures with three that are not empty: only those and a few are read."""
        path, shape = tmp_path / "x.npy", (2**20, 3, 600, 600)
        picture = RNG.integers(0, 256, shape[1:]).astype(np.uint8)
        with open(path, "wb") as file:
            file.write(npy(np.zeros(0, np.uint8), str(shape)))
            start = file.tell()
            try:
                for row in (0, 777_777, shape[0] - 1):
                    file.seek(start + row * picture.size)
                    file.write(picture.tobytes())
            except OSError:
                pytest.skip("this file system has no files with holes")
        x = data.load(path)
        assert x.shape == shape
        assert same(x[torch.tensor([shape[0] - 1, 5, 777_777])][[0, 2]], np.stack([picture] * 2))
        assert x[5].unique().tolist() == [-1]

    def test_pickles_are_refused(self, tmp_path) -> None:
        """Neither read as a pickle nor mapped as addresses."""
        for name in ("x.npy", "y.npy"):
            np.save(tmp_path / name, np.array([{"a": 1}] * 5, dtype=object), allow_pickle=True)
        np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
        np.savez_compressed(tmp_path / "y.npz", np.array([{"a": 1}], dtype=object))
        for name in ("x.npy", "x.npz", "y.npz"):
            with pytest.raises(ValueError, match=f"{name}.*holds Python objects") as error:
                data.load(tmp_path / name)
            assert "allow_pickle" not in str(error.value)  # nobody is told to load it unsafely

    def test_truncated_and_foreign(self, tmp_path) -> None:
        whole = npy(np.zeros((100, 2)))
        two = whole + whole  # of which numpy.load would return the first
        for broken in (whole[:-5], whole[:40], whole[:4], b"", b"hello", b"PK\x03\x04zip", two):
            (tmp_path / "y.npy").write_bytes(broken)
            with pytest.raises(ValueError, match=r"y\.npy is not a whole \.npy file of numbers"):
                data.load(tmp_path / "y.npy")

    @pytest.mark.parametrize(
        "shape", ["(3, 2)", f"({2**62}, 8)", "(-1, 2)", "(-2, -2)", "((((", "'a'", "(1e3, 2)"]
    )
    def test_headers_that_promise_another_shape(self, tmp_path, shape) -> None:
        (tmp_path / "y.npy").write_bytes(npy(np.zeros((2, 2)), shape))
        with pytest.raises(ValueError, match=r"y\.npy (is not a whole|has shape)"):
            data.load(tmp_path / "y.npy")

    def test_what_was_found_is_said(self, tmp_path) -> None:
        (tmp_path / "y.npy").write_bytes(npy(np.zeros((100, 2)))[:-5])
        with pytest.raises(
            ValueError, match=r"1595 bytes of values, .* \(100, 2\), type float64, which are 1600"
        ):
            data.load(tmp_path / "y.npy")


class TestNpz:
    X = RNG.normal(size=(4, 3)).astype(np.float32)
    Y = np.array([3, 1, 0, 2])

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize("names", list(files.NPZ_NAMES.items()), ids=list(files.NPZ_NAMES))
    def test_pairs(self, tmp_path, names, method) -> None:
        """The other arrays come first, and the samples are behind something of odd length."""
        members = {"weights": b"odd", names[1]: npy(self.Y), names[0]: npy(self.X)}
        members = {f"{name}.npy": content for name, content in members.items()}
        (tmp_path / "x.npz").write_bytes(zipped(members, method))
        found = data.load_labelled(tmp_path / "x.npz")
        assert np.array_equal(found.samples, self.X)
        assert found.labels.tolist() == self.Y.tolist()

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_as_numpy_writes_them(self, tmp_path, save) -> None:
        images = RNG.integers(0, 256, (6, 4, 4)).astype(np.uint8)
        save(tmp_path / "x.npz", x_test=images[:2], y_test=self.Y[:2], x_train=images)
        samples, labels = data.load_labelled(tmp_path / "x.npz")
        assert same(samples, images[:, None])
        assert labels is None
        save(tmp_path / "y.npz", np.asfortranarray(self.X), self.Y)
        samples, labels = data.load_labelled(tmp_path / "y.npz")
        assert np.array_equal(samples, self.X)
        assert labels.tolist() == self.Y.tolist()

    def test_the_only_array(self, tmp_path) -> None:
        np.savez(tmp_path / "x.npz", celebrities=self.X)
        samples, labels = data.load_labelled(tmp_path / "x.npz")
        assert np.array_equal(samples, self.X)
        assert labels is None

    def test_a_large_file_is_mapped(self, tmp_path, small) -> None:
        images = RNG.integers(0, 256, (500, 3, 32, 32)).astype(np.uint8)
        np.savez(tmp_path / "x.npz", labels=np.arange(500), images=images)
        samples, labels = data.load_labelled(tmp_path / "x.npz")
        assert isinstance(samples, data.Stored)
        assert same(samples, images)
        assert torch.equal(labels, torch.arange(500))
        array, _ = data.read_npz(tmp_path / "x.npz")
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable

    def test_which_are_the_samples(self, tmp_path) -> None:
        np.savez(tmp_path / "x.npz", cats=self.X, dogs=self.X)
        with pytest.raises(ValueError, match=r"x\.npz holds cats, dogs; .* only .*samples, images"):
            data.load(tmp_path / "x.npz")
        (tmp_path / "y.npz").write_bytes(zipped({}))
        with pytest.raises(ValueError, match=r"y\.npz holds no array"):
            data.load(tmp_path / "y.npz")

    def test_truncated_and_foreign(self, tmp_path) -> None:
        whole = zipped({"x.npy": npy(self.X)})
        text = zipped({"readme.txt": b"no numbers"})
        short = zipped({"x.npy": npy(self.X)[:-1], "y.npy": npy(self.Y)})
        squeezed = zipped({"x.npy": npy(self.X)[:-1]}, zipfile.ZIP_DEFLATED)
        for broken in (whole[:-5], whole[60:], b"", b"hello", npy(self.X), text, short, squeezed):
            (tmp_path / "y.npz").write_bytes(broken)
            with pytest.raises(ValueError, match=r"y\.npz is not a whole \.npz file") as error:
                data.load(tmp_path / "y.npz")
            assert str(error.value).count("y.npz") == 1


class TestIdx:
    IMAGES = RNG.integers(0, 256, (7, 5, 4)).astype(np.uint8)
    LABELS = np.array([3, 1, 4, 1, 5, 9, 2])

    @pytest.mark.parametrize("packed", [(False, False), (True, True), (False, True), (True, False)])
    @pytest.mark.parametrize(
        ("images", "labels"),
        [
            ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
            ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
            ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"),
        ],
    )
    def test_images_and_labels(self, tmp_path, images, labels, packed) -> None:
        for name, array, pack in zip(
            (images, labels), (self.IMAGES, self.LABELS), packed, strict=True
        ):
            content = gzip.compress(idx(array)) if pack else idx(array)
            (tmp_path / (name + ".gz" * pack)).write_bytes(content)
        found = data.load_labelled(tmp_path / (images + ".gz" * packed[0]))
        assert same(found.samples, self.IMAGES[:, None])
        assert found.labels.dtype == torch.int64
        assert found.labels.tolist() == self.LABELS.tolist()

    def test_without_labels(self, tmp_path) -> None:
        """A file that was unpacked on its way and still is called .gz is read all the same."""
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(self.IMAGES))
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(self.LABELS))  # of other images
        found = data.load_labelled(tmp_path / "train-images-idx3-ubyte.gz")
        assert same(found.samples, self.IMAGES[:, None])
        assert found.labels is None

    @pytest.mark.parametrize("kind", [0x0D, 0x0E])
    def test_floats_are_untouched(self, tmp_path, kind) -> None:
        array = RNG.normal(size=(4, 3)).astype(np.float32)
        (tmp_path / "points.idx1").write_bytes(idx(array, kind))  # not its own labels
        samples, labels = data.load_labelled(tmp_path / "points.idx1")
        assert np.array_equal(samples, array)
        assert labels is None

    @pytest.mark.parametrize("kind", [0x09, 0x0B, 0x0C])
    def test_labels_of_other_types(self, tmp_path, kind) -> None:
        (tmp_path / "images-idx3").write_bytes(idx(self.IMAGES))
        (tmp_path / "labels-idx1").write_bytes(idx(self.LABELS, kind))
        assert data.load_labelled(tmp_path / "images-idx3").labels.tolist() == [*self.LABELS]

    def test_whole_numbers_that_are_no_bytes(self, tmp_path) -> None:
        (tmp_path / "images-idx3").write_bytes(idx(self.IMAGES, 0x0C))
        with pytest.raises(ValueError, match=r"images-idx3 has type >i4; it must be floating"):
            data.load(tmp_path / "images-idx3")

    def test_a_large_file_is_mapped(self, tmp_path, small) -> None:
        (tmp_path / "images-idx3").write_bytes(idx(self.IMAGES))
        (tmp_path / "labels-idx1").write_bytes(idx(self.LABELS))
        samples, labels = data.load_labelled(tmp_path / "images-idx3")
        assert isinstance(samples, data.Stored)
        assert same(samples[2:4], self.IMAGES[2:4, None])
        assert labels.tolist() == self.LABELS.tolist()
        array, _ = data.read_idx(tmp_path / "images-idx3")
        with contextlib.suppress(AttributeError):
            while not isinstance(array, np.memmap):
                array = array.base
        assert isinstance(array, np.memmap)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "starts with nothing; an IDX file starts with 00 00"),
            (b"\0\0\x08", "starts with 00 00 08; an"),
            (b"\x89PNG\r\n", "starts with 89 50 4e 47; an IDX"),
            (b"\0\0\x0a\x01\0\0\0\1a", "starts with 00 00 0a 01; an IDX"),
            (b"\0\0\x08\0", "starts with 00 00 08 00; an IDX"),
            (b"\0\0\x08\x05" + b"\0\0\0\1" * 5 + b"a", "starts with 00 00 08 05; .* 01 to 04"),
            (struct.pack(">BBBB4I", 0, 0, 8, 4, *[2**32 - 1] * 3, 0), "(has shape|is not a whole)"),
            (b"\0\0\x08\x03\0\0\0\1", "is not a whole IDX file"),
            (
                idx(IMAGES)[:-1],
                r"is not a whole IDX file: it has 139 bytes .* \(7, 5, 4\), .* are 140",
            ),
            (
                idx(IMAGES) + b"a",
                r"is not a whole IDX file: it has 141 bytes .* \(7, 5, 4\), .* are 140",
            ),
            (idx(IMAGES[:0]), r"has shape \(0, 5, 4\); it must be"),
            (
                struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
                "is not a whole IDX file: it has 0 bytes .* are 792281624589241053853001973",
            ),
            (gzip.compress(idx(IMAGES))[:-9], "is not a whole gzipped file"),
            (b"\x1f\x8bnonsense", "is not a whole gzipped file"),
            (gzip.compress(b"hello"), "starts with 68 65 6c 6c; an IDX"),
            (idx(LABELS), r"has shape \(7,\); it must be vectors"),
        ],
        ids=lambda value: "" if isinstance(value, bytes) else value[:30],
    )
    def test_errors(self, tmp_path, content, match) -> None:
        (tmp_path / "images-idx3").write_bytes(content)
        with pytest.raises(ValueError, match=f"images-idx3 {match}"):
            data.load(tmp_path / "images-idx3")

    def test_labels_of_other_images(self, tmp_path) -> None:
        (tmp_path / "images-idx3").write_bytes(idx(self.IMAGES))
        (tmp_path / "labels-idx1").write_bytes(idx(self.LABELS[:-1]))
        with pytest.raises(ValueError, match=r"images-idx3 have shape \(6,\), but there are 7 sam"):
            data.load_labelled(tmp_path / "images-idx3")
        (tmp_path / "labels-idx1").write_bytes(idx(self.LABELS)[:-1])
        with pytest.raises(ValueError, match=r"labels-idx1 is not .* 6 bytes of values, .* \(7,\)"):
            data.load_labelled(tmp_path / "images-idx3")


class TestCifar:
    PICTURES = RNG.integers(0, 256, (6, 3, 32, 32)).astype(np.uint8)
    FINE = (99, 0, 42, 7, 8, 9)

    def ten(self, rows, labels) -> bytes:
        return b"".join(
            struct.pack("B3072B", label, *self.PICTURES[row].ravel())
            for row, label in zip(rows, labels, strict=True)
        )

    def hundred(self) -> bytes:
        return b"".join(
            struct.pack("BB3072B", row, self.FINE[row], *self.PICTURES[row].ravel())
            for row in range(6)
        )

    def test_ten(self, tmp_path) -> None:
        """The first pixel is the red one at the top left, the second to its right."""
        content = bytes([9]) + bytes(range(256)) * 4 + b"\x01" * 1024 + b"\x02" * 1024
        (tmp_path / "test_batch.bin").write_bytes(content)
        samples, labels = data.load_labelled(tmp_path / "test_batch.bin")
        assert samples.shape == (1, 3, 32, 32)
        stored = data.to_bytes(samples)[0]
        assert stored[0, 0, :3].tolist() == [0, 1, 2]
        assert stored[0, :3, 0].tolist() == [0, 32, 64]
        assert np.unique(stored[1]).tolist() == [1]
        assert np.unique(stored[2]).tolist() == [2]
        assert labels.tolist() == [9]

    def test_folder_of_ten(self, tmp_path) -> None:
        (tmp_path / "data_batch_2.bin").write_bytes(self.ten([2], [7]))
        (tmp_path / "data_batch_4.bin").write_bytes(self.ten([4], [9]))
        (tmp_path / "data_batch_1.bin").write_bytes(self.ten([0, 1], [5, 6]))
        (tmp_path / "data_batch_3.bin").write_bytes(self.ten([3], [0]))
        (tmp_path / "test_batch.bin").write_bytes(self.ten([5], [1]))
        (tmp_path / "batches.meta.txt").write_text("airplane\n")
        samples, labels = data.load_labelled(tmp_path)
        assert same(samples, self.PICTURES[:5])
        assert labels.dtype == torch.int64
        assert labels.tolist() == [5, 6, 7, 0, 9]

    def test_hundred(self, tmp_path) -> None:
        (tmp_path / "train.bin").write_bytes(self.hundred())
        for source in (tmp_path, tmp_path / "train.bin"):
            samples, labels = data.load_labelled(source)
            assert same(samples, self.PICTURES)
            assert labels.tolist() == [*self.FINE]

    def test_large_stays_as_bytes(self, tmp_path, small) -> None:
        (tmp_path / "train.bin").write_bytes(self.hundred())
        samples, labels = data.load_labelled(tmp_path)
        assert isinstance(samples, data.Stored)
        assert same(samples[torch.tensor([4, 1])], self.PICTURES[[4, 1]])
        assert labels.tolist() == [*self.FINE]

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"", "0 bytes"),
            (b"hello", "5 bytes and starts with 68 65"),
            (bytes(3073 * 2 - 1), "6145 bytes"),
            (bytes(3072), "3072 bytes"),  # no label
            (b"\x0a" + bytes(3072), "3073 bytes and starts with 0a 00"),
            (b"\x00\x64" + bytes(3072), "3074 bytes and starts with 00 64"),
        ],
        ids=["empty", "foreign", "truncated", "unlabelled", "label 10", "label 100"],
    )
    def test_errors(self, tmp_path, content, found) -> None:
        (tmp_path / "x.bin").write_bytes(content)
        with pytest.raises(ValueError, match=rf"x\.bin has {found}.*CIFAR-10 .* 3073 .* 3074"):
            data.load(tmp_path / "x.bin")

    def test_the_pickled_version_is_not_opened(self, tmp_path) -> None:
        (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
        with pytest.raises(ValueError, match="holds no pictures"):
            data.load(tmp_path)
        with pytest.raises(ValueError, match=r"holds neither data_batch_1\.bin .* nor train\.bin"):
            data.read_cifar(tmp_path)
        with pytest.raises(
            ValueError, match="data_batch_1 is of no kind that can be read; .*CIFAR"
        ):
            data.load(tmp_path / "data_batch_1")


class TestFolders:
    def save_pictures(self, folder, mode, sizes) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        arrays = []
        for i, (width, height) in enumerate(sizes):
            shape = (height, width) if mode == "L" else (height, width, 3)
            arrays.append(rng.integers(0, 256, shape).astype(np.uint8))
            Image.fromarray(arrays[-1]).save(folder / f"{i:02d}.png")
        return arrays

    @pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
    def test_folder(self, tmp_path, mode, channels) -> None:
        arrays = self.save_pictures(tmp_path, mode, [(6, 4)] * 3)
        (tmp_path / "notes.txt").write_text("not a picture")
        x = data.load(tmp_path)
        assert x.shape == (3, channels, 4, 6)
        truth = np.stack(arrays).reshape(3, 4, 6, channels).transpose(0, 3, 1, 2)
        assert np.array_equal(data.to_bytes(x), truth)

    def test_folder_of_many_sizes(self, tmp_path) -> None:
        self.save_pictures(tmp_path, "RGB", [(6, 4), (8, 8)])
        with pytest.raises(ValueError, match=r"00\.png is \(6, 4\).*01\.png is \(8, 8\)"):
            data.load(tmp_path)
        assert data.load(tmp_path, size=4).shape == (2, 3, 4, 4)

    def test_folder_errors(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="holds no pictures"):
            data.load(tmp_path)
        (tmp_path / "a.png").write_bytes(b"nonsense")
        with pytest.raises(ValueError, match=r"a\.png is not a whole picture"):
            data.load(tmp_path)

    def test_unknown_source_names_what_there_is(self) -> None:
        with pytest.raises(ValueError, match=r"'mooons'.*digits, moons.*\.npy, \.npz, IDX"):
            data.load("mooons")
        with pytest.raises(ValueError, match="size is 8"):
            data.load("digits", size=8)
        with pytest.raises(ValueError, match="data is 'mooons'"):
            data.load("mooons", size=8)
        with pytest.raises(ValueError, match="size is 0; it must be an integer of at least 1"):
            data.load(".", size=0)
        with pytest.raises(ValueError, match="size is '8'; it must be an integer"):
            data.load(".", size="8")

    def test_a_name_goes_before_a_folder(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "digits").mkdir()
        assert torch.equal(data.load("digits"), data.digits())
        with pytest.raises(ValueError, match="digits holds no pictures"):
            data.load("./digits")

    def test_what_is_skipped_in_a_folder(self, tmp_path) -> None:
        (array,) = self.save_pictures(tmp_path, "L", [(6, 4)])
        (tmp_path / "x.png").mkdir()
        (tmp_path / "._x.jpg").write_bytes(b"left by another system")
        (tmp_path / "x.pdf").write_bytes(b"can be written as a picture, not read")
        assert np.array_equal(data.to_bytes(data.load(tmp_path)), array[None, None])

    def test_a_folder_for_each_class(self, tmp_path) -> None:
        truth = []
        for name, count in (("b", 2), ("A", 1), ("c", 3)):
            (tmp_path / name).mkdir()
            truth += [
                (name, array)
                for array in self.save_pictures(tmp_path / name, "L", [(6, 4)] * count)
            ]
        (tmp_path / "aa").mkdir()  # no class, as there is no picture in it
        (tmp_path / ".hidden").mkdir()
        self.save_pictures(tmp_path / ".hidden", "L", [(3, 3)])
        truth.sort(key=lambda pair: pair[0])
        samples, labels = data.load_labelled(tmp_path)
        assert same(samples, np.stack([array for _, array in truth])[:, None])
        assert labels.dtype == torch.int64
        assert labels.tolist() == [0, 1, 1, 2, 2, 2]
        assert data.load_labelled(tmp_path / "c").labels is None
        self.save_pictures(tmp_path, "L", [(6, 4)])
        with pytest.raises(ValueError, match=r"holds pictures, and so does .*A; .* one for each"):
            data.load(tmp_path)

    def test_sizes_within_classes(self, tmp_path) -> None:
        for name, size in (("a", (6, 4)), ("b", (8, 8))):
            (tmp_path / name).mkdir()
            self.save_pictures(tmp_path / name, "RGB", [size])
        with pytest.raises(ValueError, match=r"a.00\.png is \(6, 4\).* b.00\.png is \(8, 8\)"):
            data.load(tmp_path)
        samples, labels = data.load_labelled(tmp_path, size=4)
        assert samples.shape == (2, 3, 4, 4)
        assert labels.tolist() == [0, 1]

    def test_many_stay_as_bytes(self, tmp_path, small) -> None:
        arrays = self.save_pictures(tmp_path, "RGB", [(6, 4)] * 3)
        x = data.load(tmp_path)
        assert isinstance(x, data.Stored)
        assert same(x, np.stack(arrays).transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_more_than_8_bits_are_refused(self, tmp_path, dtype) -> None:
        Image.fromarray(np.full((4, 4), 300, dtype)).save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match=r"a\.tif has more than 8 bits"):
            data.load(tmp_path)

    def test_16_bit_png(self, tmp_path) -> None:
        Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png has more than 8 bits"):
            data.load(tmp_path)

    @pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
    def test_transparency(self, tmp_path, mode) -> None:
        """Refused where there is some, and no matter where every pixel is opaque."""
        colours = np.random.default_rng(0).integers(1, 256, (4, 4)).astype(np.uint8)
        picture = Image.fromarray(colours).convert(mode)
        picture.save(tmp_path / "a.png")
        assert np.array_equal(data.to_bytes(data.load(tmp_path))[0, 0], colours)
        if mode == "P":
            picture.save(tmp_path / "a.png", transparency=int(np.asarray(picture)[0, 0]))
        else:
            picture.putpixel((0, 0), (9,) * (len(mode) - 1) + (100,))
            picture.save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png is transparent"):
            data.load(tmp_path)

    @pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.bin", "images-idx3"])
    def test_files_have_no_size(self, tmp_path, name) -> None:
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match="size is 8, but only a folder of pictures"):
            data.load(tmp_path / name, size=8)


class TestDamage:
    """However a file is cut or changed: an error that names it, or numbers of the right kind."""

    @pytest.mark.parametrize(
        "name",
        ["x.npy", "x.npz", "packed.npz", "images-idx3", "idx.gz", "x.bin"]
        + [f"picture.{kind}" for kind in ("png", "jpg", "tif")],
    )
    def test_changed_and_cut(self, tmp_path, name) -> None:
        images = RNG.integers(0, 256, (3, 4, 4)).astype(np.uint8)
        if name.startswith("picture"):
            Image.fromarray(images[0].repeat(8, 0).repeat(8, 1)).save(tmp_path / name)
            content = (tmp_path / name).read_bytes()
        else:
            content = {
                "x.npy": npy(images),
                "x.npz": zipped({"x.npy": npy(images)}),
                "packed.npz": zipped({"x.npy": npy(images)}, zipfile.ZIP_DEFLATED),
                "images-idx3": idx(images),
                "idx.gz": gzip.compress(idx(images)),
                "x.bin": bytes(3073),
            }[name]
        path, rng = tmp_path / name, np.random.default_rng(1)
        for _ in range(100):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            path.unlink(missing_ok=True)  # the last one may still be mapped
            path.write_bytes(damaged[: rng.choice([len(content), rng.integers(len(content))])])
            said = None
            try:
                samples = data.load(tmp_path if name.startswith("picture") else path)
            except ValueError as error:
                said = str(error)
            if said is None:
                assert samples.dtype == torch.float32
                assert samples.isfinite().all()
            else:
                assert name in said
                assert "\n" not in said
