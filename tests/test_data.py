"""Data: exact scaling, seeded toy sets with the geometry they claim, and errors that say why."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from diffusion_lib import data


class TestScaling:
    def test_bytes_survive_the_round_trip(self) -> None:
        values = np.arange(256, dtype=np.uint8)
        x = data.from_bytes(values)
        assert x.dtype == torch.float32
        assert x[0] == -1
        assert x[255] == 1
        assert np.array_equal(data.to_bytes(x), values)

    def test_out_of_range_is_clipped(self) -> None:
        assert data.to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


class TestDigits:
    def test_values_are_those_of_scikit_learn(self) -> None:
        x = data.digits()
        assert x.shape == (1797, 1, 8, 8)
        assert x.dtype == torch.float32
        assert np.array_equal((x[:, 0].numpy() + 1) * 8, load_digits().images)

    def test_labels_belong_to_the_images(self) -> None:
        assert torch.equal(data.digit_labels(), torch.from_numpy(load_digits().target))


@pytest.mark.parametrize("name", data.TOYS)
class TestToys:
    def test_seeded_and_standardised(self, name) -> None:
        make = data.TOYS[name]
        x = make(5000, seed=3)
        assert x.shape == (5000, 2)
        assert x.dtype == torch.float32
        assert torch.equal(x, make(5000, seed=3))
        assert not torch.equal(x, make(5000, seed=4))
        assert x.double().mean(0).abs().max() < 1e-6
        assert abs(x.double().square().mean() - 1) < 1e-6

    def test_too_few_points(self, name) -> None:
        with pytest.raises(ValueError, match="count is 1"):
            data.TOYS[name](1)


class TestToyGeometry:
    def test_checkerboard_fills_the_dark_squares_only(self) -> None:
        x = data.checkerboard(20_000).double()
        # Undo the standardisation: uniform squares of side 1 on 0..4 span almost exactly 4.
        unit = (x.max(0).values - x.min(0).values).mean() / 4
        square = ((x - x.min(0).values) / unit).clamp(1e-9, 4 - 1e-9).floor().long()
        dark = (square.sum(1) % 2) == 0
        assert dark.double().mean() > 0.998  # a point within 1e-3 of an edge may fall outside
        counts = torch.bincount(4 * square[dark][:, 0] + square[dark][:, 1], minlength=16)
        expected = dark.sum() / 8
        kept = counts[counts > 100].double()
        assert len(kept) == 8
        assert ((kept - expected) / expected.sqrt()).abs().max() < 4.5

    def test_ring_has_eight_equal_spots(self) -> None:
        x = data.ring(16_000).double()
        assert (x.norm(dim=1) - x.norm(dim=1).mean()).abs().max() < 0.5
        spot = (torch.atan2(x[:, 1], x[:, 0]) / (torch.pi / 4)).round().long() % 8
        counts = torch.bincount(spot, minlength=8).double()
        assert ((counts - 2000) / 2000**0.5).abs().max() < 4.5

    def test_circles_have_two_radii(self) -> None:
        radius = data.circles().norm(dim=1)
        outer, inner = radius[radius > radius.mean()], radius[radius <= radius.mean()]
        assert abs(inner.mean() / outer.mean() - 0.5) < 0.02
        assert len(inner) == len(outer)


class TestArrays:
    def test_floats_are_not_touched(self) -> None:
        array = np.random.default_rng(0).normal(7, 3, (10, 4))
        assert torch.equal(data.from_array(array), torch.from_numpy(array.astype(np.float32)))

    def test_float_images_are_not_scaled_again(self) -> None:
        once = data.from_array(np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
        assert torch.equal(data.from_array(once.numpy()), once)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_layouts_of_images(self, channels) -> None:
        images = np.random.default_rng(0).integers(0, 256, (5, channels, 6, 8)).astype(np.uint8)
        truth = images / 127.5 - 1
        for array in (images, images.transpose(0, 2, 3, 1)):
            x = data.from_array(array)
            assert x.shape == (5, channels, 6, 8)
            assert np.abs(x.numpy() - truth).max() < 1e-7
        assert data.from_array(images[:, 0]).shape == (5, 1, 6, 8)

    @pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 8, 4, 4), (2, 3, 5, 4)])
    def test_other_numbers_of_channels_come_first(self, shape) -> None:
        assert data.from_array(np.zeros(shape)).shape == shape

    @pytest.mark.parametrize(
        ("array", "match"),
        [
            (np.zeros((3, 2), dtype=np.int64), "type int64.*floating point, or uint8"),
            (np.zeros(3), r"shape \(3,\)"),
            (np.zeros((0, 2)), r"shape \(0, 2\)"),
            (np.array([[1.0, np.nan]]), "not finite"),
            (np.array([[1e300, 0.0]]), "not finite"),
            ([[1.0]], "array is list; it must be a NumPy array"),
            (torch.ones(1, 2), "array is Tensor"),
            (np.linspace(0, 255, 64).reshape(1, 8, 8), r"images from 0 to 255; scale them to"),
            (np.zeros((2, 8, 8, 4)), r"\(2, 8, 8, 4\); put the 4 channels first"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:overflow")
    def test_errors(self, array, match) -> None:
        with pytest.raises(ValueError, match=match):
            data.from_array(array)


class TestFiles:
    def test_npy(self, tmp_path) -> None:
        array = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
        np.save(tmp_path / "x.npy", array)
        assert torch.equal(data.load(tmp_path / "x.npy"), torch.from_numpy(array))

    def test_pickles_are_refused(self, tmp_path) -> None:
        np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match=r"x\.npy is not a whole \.npy file of num") as error:
            data.from_file(tmp_path / "x.npy")
        assert "allow_pickle" not in str(error.value)  # nobody is told to load it unsafely

    def test_truncated_and_foreign(self, tmp_path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((100, 2)))
        content = (tmp_path / "x.npy").read_bytes()
        for broken in (content[:-5], content[:4], b"", b"hello", b"PK\x03\x04zip"):
            (tmp_path / "y.npy").write_bytes(broken)
            with pytest.raises(ValueError, match=r"y\.npy is not"):
                data.from_file(tmp_path / "y.npy")

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
            data.from_folder(tmp_path)
        assert data.from_folder(tmp_path, size=4).shape == (2, 3, 4, 4)

    def test_folder_errors(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="holds no pictures"):
            data.load(tmp_path)
        (tmp_path / "a.png").write_bytes(b"nonsense")
        with pytest.raises(ValueError, match=r"a\.png cannot be read"):
            data.load(tmp_path)

    def test_unknown_source_names_what_there_is(self) -> None:
        with pytest.raises(ValueError, match=r"'mooons'.*digits, moons.*\.npy"):
            data.load("mooons")
        with pytest.raises(ValueError, match="size is 8"):
            data.load("digits", size=8)
        with pytest.raises(ValueError, match="size is 0; it must be a positive integer"):
            data.from_folder(".", size=0)

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

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_more_than_8_bits_are_refused(self, tmp_path, dtype) -> None:
        Image.fromarray(np.full((4, 4), 300, dtype)).save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match=r"a\.tif has more than 8 bits"):
            data.from_folder(tmp_path)

    def test_16_bit_png(self, tmp_path) -> None:
        Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png has more than 8 bits"):
            data.from_folder(tmp_path)

    @pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
    def test_transparency(self, tmp_path, mode) -> None:
        """Refused where there is some, and no matter where every pixel is opaque."""
        colours = np.random.default_rng(0).integers(1, 256, (4, 4)).astype(np.uint8)
        picture = Image.fromarray(colours).convert(mode)
        picture.save(tmp_path / "a.png")
        assert np.array_equal(data.to_bytes(data.from_folder(tmp_path))[0, 0], colours)
        if mode == "P":
            picture.save(tmp_path / "a.png", transparency=int(np.asarray(picture)[0, 0]))
        else:
            picture.putpixel((0, 0), (9,) * (len(mode) - 1) + (100,))
            picture.save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png is transparent"):
            data.from_folder(tmp_path)
