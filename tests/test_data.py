"""Data: exact scaling, once; toy sets with the geometry they claim; arrays too large to read.

tests/test_data_files.py has the files.
"""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from diffusion_lib import data
from diffusion_lib.data import arrays


class TestScaling:
    def test_bytes_survive_the_round_trip(self) -> None:
        values = np.arange(256, dtype=np.uint8)
        x = data.from_bytes(values)
        assert x.dtype == torch.float32
        assert x[0] == -1
        assert x[255] == 1
        assert np.array_equal(data.to_bytes(x), values)

    def test_correctly_rounded(self) -> None:
        """float(Fraction) is correctly rounded; no float64 near it rounds to another float32."""
        x = data.from_bytes(np.arange(256, dtype=np.uint8))
        truth = [np.float32(float(Fraction(2 * v - 255, 255))) for v in range(256)]
        assert x.tolist() == [float(value) for value in truth]

    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, np.float32, np.bool_])
    def test_only_bytes_are_scaled(self, dtype) -> None:
        with pytest.raises(ValueError, match=f"type {np.dtype(dtype)}; they must be 8-bit"):
            data.from_bytes(np.ones((2, 2), dtype))

    def test_never_twice_in_either_direction(self) -> None:
        values = np.arange(256, dtype=np.uint8)
        with pytest.raises(ValueError, match="type float32; they must be 8-bit"):
            data.from_bytes(data.from_bytes(values).numpy())
        with pytest.raises(ValueError, match=r"type torch\.uint8; it must be floating point"):
            data.to_bytes(torch.from_numpy(values))

    def test_nan_has_no_value(self) -> None:
        with pytest.raises(ValueError, match="not a number"):
            data.to_bytes(torch.tensor([0.0, torch.nan]))

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
        found = data.load_labelled("digits")
        assert torch.equal(found.samples, data.digits())
        assert torch.equal(found.labels, data.digit_labels())


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

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ((1,), "count is 1; it must be an integer of at least 2"),
            (("a",), "count is 'a'"),
            ((2.5,), "count is 2.5"),
            ((9, -1), r"seed is -1; it must be one of 0\.\.4294967295"),
            ((9, 2**32), "seed is 4294967296"),
            ((9, None), "seed is None"),
        ],
    )
    def test_errors(self, name, arguments, match) -> None:
        with pytest.raises(ValueError, match=match):
            data.TOYS[name](*arguments)


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

    @pytest.mark.parametrize("modes", [0, 2.0, "a"])
    def test_a_ring_has_at_least_one_spot(self, modes) -> None:
        for make in (data.ring, data.ring_labels):
            with pytest.raises(
                ValueError, match=f"modes is {modes!r}; it must be an integer of at"
            ):
                make(9, modes=modes)

    def test_circles_have_two_radii(self) -> None:
        radius = data.circles().norm(dim=1)
        outer, inner = radius[radius > radius.mean()], radius[radius <= radius.mean()]
        assert abs(inner.mean() / outer.mean() - 0.5) < 0.02
        assert len(inner) == len(outer)


class TestToyLabels:
    """Each label must say something about its own point that is true of it alone."""

    def test_ring(self) -> None:
        x, labels = data.load_labelled("ring")
        spot = (torch.atan2(x[:, 1], x[:, 0]) / (torch.pi / 4)).round().long() % 8
        assert torch.equal(spot, labels)
        assert torch.equal(data.ring_labels(50, seed=7, modes=3), self.nearest_of_three(50, 7))

    def nearest_of_three(self, count, seed) -> torch.Tensor:
        x = data.ring(count, seed=seed, modes=3)
        angle = torch.atan2(*(x - (x.amin(0) + x.amax(0)) / 2).flip(1).unbind(1))
        centres = torch.tensor([0, 2, -2]) * torch.pi / 3
        return (angle[:, None] - centres).abs().argmin(1)

    def test_circles(self) -> None:
        x, labels = data.load_labelled("circles")
        assert torch.equal(labels, (x.norm(dim=1) < x.norm(dim=1).mean()).long())

    def test_moons(self) -> None:
        """Before they were moved and scaled alike, one moon was on a circle around the origin and
        the other on one around (1, 1/2)."""
        x, labels = data.load_labelled("moons")
        y = x.double()
        upper, lower = y[labels == 0], y[labels == 1]
        scale = (upper[:, 0].max() - upper[:, 0].min()) / 2
        low, high = upper.amin(0), upper.amax(0)
        centre = torch.stack([(low[0] + high[0]) / 2, high[1] - scale])
        other = centre + scale * torch.tensor([1.0, 0.5])
        for points, middle in ((upper, centre), (lower, other)):
            assert ((points - middle).norm(dim=1) / scale - 1).abs().max() < 0.4

    @pytest.mark.parametrize("name", ["moons", "circles", "ring"])
    def test_type_and_seed(self, name) -> None:
        labels = data.LABELS[name](100, seed=3)
        assert (labels.dtype, labels.shape) == (torch.int64, (100,))
        assert torch.equal(labels, data.LABELS[name](100, seed=3))
        assert not torch.equal(labels, data.LABELS[name](100, seed=4))

    @pytest.mark.parametrize("name", ["spiral", "checkerboard"])
    def test_no_classes_no_labels(self, name) -> None:
        samples, labels = data.load_labelled(name)
        assert torch.equal(samples, data.TOYS[name]())
        assert labels is None


class TestArrays:
    def test_floats_are_not_touched(self) -> None:
        array = np.random.default_rng(0).normal(7, 3, (10, 4))
        assert torch.equal(data.from_array(array), torch.from_numpy(array.astype(np.float32)))

    def test_float_images_are_not_scaled_again(self) -> None:
        once = data.from_array(np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
        assert torch.equal(data.from_array(once.numpy()), once)

    def test_an_array_is_not_shared(self) -> None:
        array = np.zeros((4, 2), np.float32)
        x = data.from_array(array)
        array[:] = 7
        assert x.abs().max() == 0

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">f8"])
    def test_every_float_becomes_float32(self, dtype) -> None:
        array = np.array([[0.5, -0.25], [3, 2]], dtype)
        x = data.from_array(array)
        assert x.dtype == torch.float32
        assert x.tolist() == [[0.5, -0.25], [3, 2]]

    def test_images_scaled_to_0_1_are_taken_with_a_warning(self) -> None:
        """torchvision's ToTensor leaves them so; they may be meant, and are never changed."""
        array = np.random.default_rng(0).random((5, 3, 4, 4), np.float32)
        with pytest.warns(UserWarning, match=r"images from .* to 0\.9.*ToTensor.*2 \* array - 1"):
            assert np.array_equal(data.from_array(array), array)
        for quiet in (2 * array - 1, array.reshape(5, -1), np.zeros((2, 3, 4, 4), np.float32)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert np.array_equal(data.from_array(quiet), quiet)

    def test_bright_bytes_are_no_unscaled_floats(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert data.from_array(np.full((2, 4, 4), 255, np.uint8)).unique().tolist() == [1]

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
    @pytest.mark.filterwarnings("error")
    def test_errors(self, array, match) -> None:
        with pytest.raises(ValueError, match=match):
            data.from_array(array)


class TestStored:
    IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)

    @pytest.mark.parametrize(
        "array",
        [
            IMAGES,  # channels last
            IMAGES.transpose(0, 3, 1, 2),
            IMAGES[..., 0],
            IMAGES[:, 0, :, 0],
            IMAGES[..., :1],
            IMAGES / 100.0 - 1,
            (IMAGES / 100 - 1).astype(">f4"),
            np.asfortranarray(IMAGES),
        ],
        ids=["last", "first", "grey", "vectors", "last grey", "floats", "big-endian", "fortran"],
    )
    def test_rows_are_those_of_the_tensor(self, array) -> None:
        stored, whole = data.Stored(array), data.from_array(array)
        assert stored.shape == whole.shape
        assert stored.ndim == whole.ndim
        assert len(stored) == len(whole) == 6
        for rows in (torch.tensor([4, 0, 0, -1]), slice(1, 5, 2), slice(None), slice(3, 3), 2):
            x = stored[rows]
            assert x.dtype == torch.float32
            assert x.is_contiguous()
            assert torch.equal(x, whole[rows])
        assert stored[torch.empty(0, dtype=torch.int64)].shape == (0, *whole.shape[1:])

    def test_floats_are_untouched_even_if_they_look_like_bytes(self) -> None:
        array = np.arange(-4.0, 252).reshape(64, 4).astype(np.float32)
        assert np.array_equal(data.Stored(array)[:], array)

    def test_only_the_rows_are_read(self) -> None:
        array = np.full((1000, 2), np.nan)
        array[np.linspace(0, 999, num=16, dtype=np.int64)] = 0.5  # at which it looks
        array[10:20] = -0.5
        stored = data.Stored(array, "points")  # a pass over all rows would meet one without values
        assert torch.equal(stored[torch.arange(10, 20)], torch.full((10, 2), -0.5))
        with pytest.raises(ValueError, match="points holds values that are not finite"):
            stored[torch.tensor([10, 21])]

    def test_the_array_stays_where_it_is(self) -> None:
        array = np.zeros((4, 2), np.float32)
        stored = data.Stored(array)
        array[3] = 7
        x = stored[torch.tensor([3])]
        assert x.tolist() == [[7, 7]]
        x.zero_()  # what was read is the reader's own
        assert array[3].tolist() == [7, 7]
        stored[2:4].fill_(5)
        assert array[2:].tolist() == [[0, 0], [7, 7]]

    def test_unscaled_images_are_seen_at_once(self) -> None:
        with pytest.raises(ValueError, match=r"images from 0 to 255; scale them"):
            data.Stored(np.linspace(0, 255, 6400).reshape(100, 8, 8))
        with pytest.warns(UserWarning, match="ToTensor"):
            data.Stored(np.linspace(0, 1, 6400).reshape(100, 8, 8))

    @pytest.mark.parametrize(
        "rows",
        [torch.tensor([True] * 6), torch.tensor([0.0]), torch.tensor(1), torch.tensor([[0]]), "0"],
        ids=["bool", "float", "scalar", "matrix", "text"],
    )
    def test_rows_of_another_kind(self, rows) -> None:
        with pytest.raises(ValueError, match=r"rows is .*; it must be an int64 tensor \(B,\)"):
            data.Stored(self.IMAGES)[rows]

    def test_rows_that_are_not_there(self) -> None:
        stored = data.Stored(self.IMAGES)
        for rows in (torch.tensor([6]), torch.tensor([-7]), 6):
            with pytest.raises(IndexError, match="out of bounds"):
                stored[rows]

    def test_arrays_that_are_no_samples(self) -> None:
        with pytest.raises(ValueError, match="type int64"):
            data.Stored(np.zeros((3, 2), np.int64))
        with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
            data.Stored(np.zeros((0, 2)))

    def test_a_data_set_for_pytorch(self) -> None:
        whole = data.from_array(self.IMAGES)
        batches = list(torch.utils.data.DataLoader(data.Stored(self.IMAGES), batch_size=4))
        assert torch.equal(torch.cat(batches), whole)
        assert torch.equal(torch.stack(list(data.Stored(self.IMAGES))), whole)

    def test_what_is_large(self, monkeypatch) -> None:
        """The limit is that of the samples in float32, whatever they are stored as."""
        size = 4 * self.IMAGES.size
        monkeypatch.setattr(arrays, "LARGE", size)
        assert isinstance(data.labelled(self.IMAGES, None).samples, torch.Tensor)
        monkeypatch.setattr(arrays, "LARGE", size - 1)
        assert isinstance(data.labelled(self.IMAGES, None).samples, data.Stored)


class TestLabels:
    ARRAY = np.zeros((3, 2))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i4", np.uint64])
    def test_integers_of_every_width(self, dtype) -> None:
        labels = data.labelled(self.ARRAY, np.array([2, 0, 200 % 128], dtype)).labels
        assert labels.dtype == torch.int64
        assert labels.tolist() == [2, 0, 72]

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            (
                np.zeros(3),
                r"the labels of mine are float64; they must be a NumPy array of integers",
            ),
            (np.array([True, False, True]), "are bool"),
            ([0, 1, 2], "are list"),
            (np.zeros(4, int), r"shape \(4,\), but there are 3 samples; it must be \(3,\)"),
            (np.zeros((3, 1), int), r"shape \(3, 1\), but there are 3"),
            (np.array([0, -1, 2]), "a label of mine is -1; it must be 0 or more"),
            (np.array([0, 2**64 - 5, 2], np.uint64), "a label of mine is -5"),
        ],
        ids=["float", "bool", "list", "count", "column", "negative", "too large"],
    )
    def test_errors(self, labels, match) -> None:
        with pytest.raises(ValueError, match=match):
            data.labelled(self.ARRAY, labels, "mine")
