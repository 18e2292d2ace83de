"""Distances between sets, held against closed forms and other libraries, and their floors."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
import sklearn.metrics.pairwise
import torch

from diffusion_lib import evaluation
from diffusion_lib.evaluation import (
    METRICS,
    Comparison,
    Measurement,
    compare,
    energy_distance,
    frechet_distance,
    measure,
    mmd,
    precision,
    recall,
    sliced_wasserstein,
)

SHAPES = [(2,), (40,)]  # distances by differences, and by products
every_metric = pytest.mark.parametrize("name", METRICS)


def normal(rows, *shape, seed=0, mean=0.0, deviation=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(rows, *shape, generator=generator, dtype=torch.float64)


def z_score(draws, truth):
    draws = np.asarray(draws)
    return (draws.mean() - truth) / (draws.std(ddof=1) / len(draws) ** 0.5)


# --- Sliced Wasserstein ---------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(50, 50), (50, 100), (37, 90), (2, 3)])
def test_on_a_line_it_is_the_wasserstein_distance(m, n):
    x, y = normal(m, 1), normal(n, 1, seed=1, mean=0.3, deviation=2.0)
    truth = scipy.stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sliced_wasserstein(x, y) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("order", [1, 1.5, 2, 4])
def test_its_order_on_a_line(order):
    x, y = normal(50), normal(50, seed=1, deviation=3.0)  # shape (B,): one value a sample
    gaps = (x.sort().values - y.sort().values).abs()
    truth = float((gaps**order).mean()) ** (1 / order)
    assert sliced_wasserstein(x, y, order=order) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("d", [2, 3, 10])
def test_of_a_translation_it_is_the_mean_of_a_cosine(d):
    projections = 4000
    x = normal(20, d)
    c = torch.linspace(-1, 2, d, dtype=torch.float64)
    length = float(c.norm())
    cosine = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    error = length * math.sqrt((1 / d - cosine**2) / projections)
    assert (
        abs(sliced_wasserstein(x, x + c, projections=projections) / error - length * cosine / error)
        < 4.5
    )
    second = sliced_wasserstein(x, x + c, projections=projections, order=2)
    assert second == pytest.approx(length / math.sqrt(d), rel=0.05)


def test_more_directions_than_memory_holds_at_a_time(monkeypatch):
    x, y = normal(50, 3), normal(70, 3, seed=1)
    at_once = sliced_wasserstein(x, y, projections=100)
    monkeypatch.setattr(evaluation, "_BLOCK", 500)
    assert sliced_wasserstein(x, y, projections=100) == pytest.approx(at_once, rel=1e-13)


def test_its_directions_follow_the_seed():
    x, y = normal(50, 3), normal(50, 3, seed=1)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y, seed=0)
    assert sliced_wasserstein(x, y) != sliced_wasserstein(x, y, seed=1)


# --- Energy distance ------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(50, 50), (37, 90)])
def test_on_a_line_it_is_the_energy_distance_of_scipy(m, n):
    x, y = normal(m, 1), normal(n, 1, seed=1, mean=0.3, deviation=2.0)
    truth = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert energy_distance(x, y) == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_distance_by_its_definition(shape):
    x, y = normal(37, *shape), normal(50, *shape, seed=1, mean=0.3)
    mean = {
        pair: scipy.spatial.distance.cdist(*(s.numpy() for s in sets)).mean()
        for pair, sets in {"xy": (x, y), "xx": (x, x), "yy": (y, y)}.items()
    }
    truth = math.sqrt(2 * mean["xy"] - mean["xx"] - mean["yy"])
    assert energy_distance(x, y) == pytest.approx(truth, rel=1e-7)
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-7)


def folded_mean(mean, deviation):
    """E|Z| of a normal Z."""
    ratio = mean / (deviation * math.sqrt(2))
    tail = deviation * math.sqrt(2 / math.pi) * math.exp(-(ratio**2))
    return tail + mean * math.erf(ratio)


def test_energy_distance_of_two_gaussians():
    m, n, mean, deviation = 15, 20, 0.7, 2.0
    within_x, within_y = folded_mean(0, math.sqrt(2)), folded_mean(0, deviation * math.sqrt(2))
    between = folded_mean(mean, math.hypot(1, deviation))
    truth = 2 * between - within_x - within_y + within_x / m + within_y / n
    xs, ys = normal(2000, m, 1), normal(2000, n, 1, seed=1, mean=mean, deviation=deviation)
    squares = [energy_distance(x, y) ** 2 for x, y in zip(xs, ys, strict=True)]
    assert abs(z_score(squares, truth)) < 4.5


# --- Maximum mean discrepancy ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_mmd_by_its_definition(shape):
    x, y = normal(37, *shape), normal(50, *shape, seed=1, mean=0.3)
    h = 3.0

    def kernel(a, b):
        return sklearn.metrics.pairwise.rbf_kernel(a.numpy(), b.numpy(), gamma=1 / (2 * h * h))

    def without_diagonal(matrix):
        return matrix[~np.eye(len(matrix), dtype=bool)].mean()

    truth = without_diagonal(kernel(x, x)) + without_diagonal(kernel(y, y))
    truth -= 2 * kernel(x, y).mean()
    assert mmd(x, y, bandwidth=h) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_mmd_of_two_gaussians_on_average(mean):
    """At mean 0 the sources are equal and the average is zero, with rows as few as five."""
    d, h = 2, 1.3

    def kernel_mean(shift):
        width = h * h + 2  # each difference of two rows has variance 2
        return (h * h / width) ** (d / 2) * math.exp(-d * shift**2 / (2 * width))

    xs, ys = normal(3000, 5, d), normal(3000, 7, d, seed=1, mean=mean)
    draws = [mmd(x, y, bandwidth=h) for x, y in zip(xs, ys, strict=True)]
    assert abs(z_score(draws, 2 * kernel_mean(0) - 2 * kernel_mean(mean))) < 4.5
    assert min(draws) < 0


def test_the_bandwidth_is_the_median_distance_of_the_truth():
    truth = normal(60, 3, deviation=2.0)  # 1770 pairs: the lower one of the two in the middle
    h = float(np.sort(scipy.spatial.distance.pdist(truth.numpy()))[60 * 59 // 4 - 1])
    for samples in (normal(50, 3, seed=1), normal(50, 3, seed=2, deviation=100.0)):
        assert mmd(samples, truth) == pytest.approx(mmd(samples, truth, bandwidth=h), abs=1e-14)


def test_the_bandwidth_of_many_rows_looks_at_all_parts_of_the_truth(monkeypatch):
    """Sorted by class, as files often are."""
    truth = torch.cat([normal(100, 2), normal(100, 2, seed=1, mean=50.0)])
    samples, by_all = normal(50, 2, seed=2), evaluation._median_distance(truth)
    monkeypatch.setattr(evaluation, "_BANDWIDTH_ROWS", 60)
    assert evaluation._median_distance(truth) == pytest.approx(by_all, rel=0.05)
    assert math.isfinite(mmd(samples, truth))


# --- Precision and recall -------------------------------------------------------------------------


def share_within_slowly(points, others, k):
    """The definition of Kynkäänniemi et al., one pair after the other, on whole numbers."""
    inside = 0
    for point in points:
        for i, other in enumerate(others):
            squares = sorted(
                sum((a - b) ** 2 for a, b in zip(other, third, strict=True))
                for j, third in enumerate(others)
                if j != i
            )
            if sum((a - b) ** 2 for a, b in zip(other, point, strict=True)) <= squares[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(("d", "reach"), [(1, 40), (2, 9), (40, 2)])
def test_precision_and_recall_by_their_definition(d, reach, k):
    """Whole numbers: many rows lie exactly on a sphere, and some are there twice."""
    generator = torch.Generator().manual_seed(d)
    x = torch.randint(-reach, reach + 1, (40, d), generator=generator)
    y = torch.randint(-reach // 2, reach + 1, (30, d), generator=generator)
    x[:4], y[1] = y[:4], y[0]
    samples, truth = 0.1 * x.double() + 0.7, 0.1 * y.double() + 0.7
    right = share_within_slowly(x.tolist(), y.tolist(), k)
    assert 0 < right < 1
    assert precision(samples, truth, k=k) == right
    assert recall(samples, truth, k=k) == share_within_slowly(y.tolist(), x.tolist(), k)


def test_sets_that_do_not_touch_have_neither():
    x, y = normal(100, 2), normal(80, 2, seed=1, mean=50.0)
    assert precision(x, y) == recall(x, y) == 0


def test_a_lost_mode_costs_recall_alone():
    centres = 20 * torch.eye(4, dtype=torch.float64)
    truth = normal(800, 4) + centres[torch.arange(800) % 4]
    samples = normal(800, 4, seed=1) + centres[torch.arange(800) % 3]
    same = normal(800, 4, seed=2) + centres[torch.arange(800) % 4]
    kept, lost = precision(samples, truth), recall(samples, truth)
    assert kept == pytest.approx(precision(same, truth), abs=0.05)
    assert lost == pytest.approx(0.75 * recall(same, truth), abs=0.05)


def test_invented_samples_cost_precision_alone():
    truth = normal(600, 2)
    samples = torch.cat([normal(600, 2, seed=1), normal(200, 2, seed=2, mean=40.0)])
    assert precision(samples, truth) == pytest.approx(0.75, abs=0.05)
    assert recall(samples, truth) > 0.9


# --- Fréchet distance -----------------------------------------------------------------------------


def with_moments(rows, mean, covariance, seed):
    """Rows whose mean and covariance, divided by rows - 1, are exactly these."""
    x = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    x -= x.mean(axis=0)
    x = scipy.linalg.solve_triangular(np.linalg.cholesky(np.cov(x.T)), x.T, lower=True).T
    return torch.from_numpy(x @ np.linalg.cholesky(covariance).T + mean)


def test_frechet_distance_of_given_moments():
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((2, 5, 5))
    c_x, c_y = (root @ root.T + 0.1 * np.eye(5) for root in roots)
    mean_x, mean_y = rng.standard_normal((2, 5))
    cross = np.trace(scipy.linalg.sqrtm(c_x @ c_y)).real
    truth = ((mean_x - mean_y) ** 2).sum() + np.trace(c_x) + np.trace(c_y) - 2 * cross
    samples, data = with_moments(12, mean_x, c_x, 1), with_moments(30, mean_y, c_y, 2)
    assert frechet_distance(samples, data) == pytest.approx(truth, rel=1e-12)


def test_frechet_distance_by_hand():
    """Deviations 1 and 2 against 3 and 5 on the same axes, means apart by (3, 4)."""
    samples = with_moments(10, [0.0, 0.0], np.diag([1.0, 4.0]), 1)
    truth = with_moments(20, [3.0, 4.0], np.diag([9.0, 25.0]), 2)
    assert frechet_distance(samples, truth) == pytest.approx(25 + 2**2 + 3**2, rel=1e-12)
    assert frechet_distance(samples, samples + 1e-6) == pytest.approx(2e-12, rel=1e-2)


def test_frechet_distance_with_fewer_rows_than_dimensions():
    x, y = normal(10, 30), normal(14, 30, seed=1, deviation=1.5)
    c_x, c_y = np.cov(x.T.numpy()), np.cov(y.T.numpy())
    values, vectors = np.linalg.eigh(c_x)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ c_y @ root).clip(0)).sum()
    shift = float((x.mean(0) - y.mean(0)).square().sum())
    truth = shift + np.trace(c_x) + np.trace(c_y) - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-6)


# --- All of them ----------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("shape", SHAPES)
def test_order_of_rows_and_place_do_not_matter(name, shape):
    x, y = normal(60, *shape, mean=0.2), normal(50, *shape, seed=1)
    metric, value = METRICS[name], METRICS[name](x, y)
    shuffled = metric(x[torch.randperm(60)], y[torch.randperm(50)])
    assert shuffled == pytest.approx(value, rel=1e-9)
    assert metric(x + 1e4, y + 1e4) == pytest.approx(value, rel=1e-6)


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_any_shape_and_type_counts_as_its_values(name, dtype):
    x, y = normal(30, 2, 3, 2).to(dtype), normal(25, 2, 3, 2, seed=1).to(dtype)
    metric = METRICS[name]
    assert metric(x, y) == metric(x.double().flatten(1), y.double().flatten(1))
    assert metric(x.requires_grad_(), y) == metric(x.detach(), y)


@pytest.mark.parametrize("name", ["sliced_wasserstein", "energy_distance", "frechet_distance"])
def test_distances_have_two_equal_sides(name):
    x, y = normal(30, 3), normal(40, 3, seed=1, mean=1.0)
    assert METRICS[name](x, y) == pytest.approx(METRICS[name](y, x), rel=1e-12)


@pytest.mark.parametrize("name", ["energy_distance", "mmd", "precision", "recall"])
@pytest.mark.parametrize("shape", SHAPES)
def test_large_sets_are_taken_in_parts(name, shape, monkeypatch):
    x, y = normal(90, *shape, mean=0.2), normal(70, *shape, seed=1)
    at_once = METRICS[name](x, y)
    sizes, cdist = [], torch.cdist

    def recorded(*arguments, **options):
        block = cdist(*arguments, **options)
        sizes.append(block.numel())
        return block

    monkeypatch.setattr(evaluation, "_BLOCK", 500)
    monkeypatch.setattr(torch, "cdist", recorded)
    assert METRICS[name](x, y) == pytest.approx(at_once, rel=1e-9)
    assert max(sizes) <= 500


# --- Beside the floor -----------------------------------------------------------------------------


@every_metric
def test_the_true_source_scores_the_floor(name):
    """Over many draws: value and floor have one mean, and the spread covers the value."""
    metric = partial(sliced_wasserstein, projections=16) if "sliced" in name else METRICS[name]
    source = normal(150, 150, 2)  # 150 times: 50 samples and 100 rows of truth
    found = [measure(metric, x[:50], x[50:], splits=6) for x in source]
    assert {m.rows for m in found} == {50}
    assert abs(z_score([m.value - m.floor for m in found], 0.0)) < 4.5
    spread = np.array([m.spread for m in found])
    errors = np.array([m.value - m.floor for m in found]) / spread.mean()
    # One draw of truth has deviation 1; the mean over several splits has a little less.
    assert 0.5 < errors.std() < 1.15
    assert (abs(errors) < 2).mean() > 0.9


@pytest.mark.parametrize("name", ["sliced_wasserstein", "energy_distance", "frechet_distance"])
def test_a_floor_is_not_zero_and_falls_with_more_rows(name):
    x, y = normal(400, 4), normal(800, 4, seed=1)
    few, many = measure(METRICS[name], x, y, rows=50), measure(METRICS[name], x, y)
    assert (few.rows, many.rows) == (50, 400)
    assert few.floor > 1.5 * many.floor > 0


@every_metric
def test_wrong_samples_do_not_score_the_floor(name):
    deviation = 0.5 if name == "recall" else 1.5
    found = measure(METRICS[name], normal(300, 6, deviation=deviation), normal(600, 6, seed=1))
    better = found.value < found.floor
    assert abs(found.value - found.floor) > 5 * found.spread
    assert better == (name in ("precision", "recall"))


def test_copies_of_the_truth_score_below_the_floor():
    truth = normal(400, 40)
    found = measure(energy_distance, truth, truth)
    assert found.value < found.floor - 3 * found.spread


def test_value_and_floor_compare_sets_made_alike():
    """n rows each; part and other of the truth disjoint; one part for both; no row twice."""
    samples = torch.arange(1000.0, 1030.0)[:, None, None].expand(-1, 2, 1)
    truth = torch.arange(50.0)[:, None, None].expand(-1, 2, 1)
    seen = []

    def metric(x, y):
        assert x.shape == y.shape == (20, 2, 1)  # as they are, not flattened
        seen.append((set(x[:, 0, 0].tolist()), set(y[:, 0, 0].tolist())))
        return 0.0

    assert measure(metric, samples, truth, rows=20, splits=7) == (0, 0, 0, 20)
    assert len(seen) == 14
    for (chosen, part), (other, same_part) in zip(seen[::2], seen[1::2], strict=True):
        assert part == same_part
        assert len(chosen) == len(part) == len(other) == 20
        assert min(chosen) >= 1000 > max(part | other)
        assert not part & other
    assert len({frozenset(part) for _, part in seen}) == 7


def test_the_numbers_are_means_and_a_deviation_over_the_splits():
    answers = iter([10.0, 1.0, 20.0, 2.0, 60.0, 6.0])
    found = measure(lambda x, y: next(answers), normal(5), normal(10), splits=3)
    assert found == (30, 3, pytest.approx(math.sqrt(7)), 5)


def test_the_same_seed_gives_the_same_numbers():
    x, y = normal(40, 2), normal(100, 2, seed=1)
    before = torch.get_rng_state()
    first = compare(x, y, splits=3)
    torch.manual_seed(5)
    assert first == compare(x, y, splits=3) != compare(x, y, splits=3, seed=1)
    torch.set_rng_state(before)
    compare(x, y, splits=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_metric_is_measured_as_in_the_comparison():
    x, y = normal(40, 3), normal(90, 3, seed=1)
    table = compare(x, y, features=torch.sin, rows=30, splits=3, seed=4)
    assert list(table) == list(METRICS)
    for name, metric in METRICS.items():
        alone = measure(metric, x, y, features=torch.sin, rows=30, splits=3, seed=4)
        assert alone == table[name] != measure(metric, x, y, rows=30, splits=3, seed=4)


def test_features_are_what_the_metrics_see(monkeypatch):
    """A network in evaluation mode, some rows at a time, left as it was."""
    monkeypatch.setattr(evaluation, "_FEATURE_ROWS", 7)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.Dropout())
    x, y = normal(40, 2, 6).float(), normal(90, 2, 6, seed=1).float()
    sizes = []
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    found = measure(frechet_distance, x, y, features=network)
    assert network.training
    assert max(sizes) == 7
    assert sum(sizes) == 130
    with torch.no_grad():
        seen_x, seen_y = (network[1](z.flatten(1)) for z in (x, y))
    assert found == pytest.approx(measure(frechet_distance, seen_x, seen_y), rel=1e-4)


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.0312, 0.0119, 0.0032), "0.0312 (true against true 0.0119 ± 0.0032)"),
        ((0.5, -1e-9, 0.01), "0.500 (true against true 0.000 ± 0.010)"),
        ((12345.6, 1234.5, 123.4), "12350 (true against true 1230 ± 120)"),
        ((1.0, 1.0, 0.0), "1 (true against true 1 ± 0)"),
    ],
)
def test_a_measurement_reads_as_a_sentence(numbers, shown):
    assert repr(Measurement(*numbers, 50)) == str(Measurement(*numbers, 50)) == shown


def test_a_comparison_prints_as_a_table():
    table = Comparison({"mmd": Measurement(0.0312, 0.0119, 0.0032, 50)})
    assert str(table).splitlines() == [
        "| metric | value | true against true | rows |",
        "|---|---|---|---|",
        "| mmd | 0.0312 | 0.0119 ± 0.0032 | 50 |",
    ]
    assert table._repr_markdown_() == str(table)
    assert table["mmd"].value == 0.0312


# --- Bad input ------------------------------------------------------------------------------------

X, Y = normal(10, 3), normal(12, 3, seed=1)
NAN, INFINITE = X.clone(), Y.clone()
NAN[4, 1] = math.nan
INFINITE[:2, 0] = math.inf

BAD_PAIRS = {
    "no tensor": (X.numpy(), Y, "samples is"),
    "whole numbers": (X, Y.long(), "truth is torch.int64"),
    "other shape": (X, Y[:, :2], r"samples has shape \(10, 3\) and truth \(12, 2\)"),
    "other rank": (X, Y[:, :, None], r"truth \(12, 3, 1\)"),
    "would broadcast": (X[:, :1], Y, r"samples has shape \(10, 1\)"),
    "no values": (X[:, :0], Y[:, :0], "at least one value in a row"),
    "one row": (X, Y[:1], r"truth has shape \(1, 3\); there must be at least 2 rows"),
    "empty": (X[:0], Y, r"samples has shape \(0, 3\)"),
    "NaN": (NAN, Y, r"samples has 1 of 10 rows .* samples\[4\]"),
    "infinite": (X, INFINITE, r"truth has 2 of 12 rows .* truth\[0\]"),
    "huge": (X * 1e200, Y, "not below 1e\\+100"),
}


@every_metric
@pytest.mark.parametrize("what", BAD_PAIRS)
def test_sets_that_cannot_be_compared(name, what):
    samples, truth, message = BAD_PAIRS[what]
    with pytest.raises(ValueError, match=message):
        METRICS[name](samples, truth)
    with pytest.raises(ValueError, match=message):
        compare(samples, truth, metrics={name: METRICS[name]})


BAD_ARGUMENTS = {
    "projections": (sliced_wasserstein, {"projections": 0}, "projections is 0"),
    "projections 2.0": (sliced_wasserstein, {"projections": 2.0}, "projections is 2.0"),
    "order": (sliced_wasserstein, {"order": 0.5}, "order is 0.5; it must be a number of 1 or"),
    "order beyond floats": (sliced_wasserstein, {"order": 10**400}, "order is 1000*; it must be"),
    "order True": (sliced_wasserstein, {"order": True}, "order is True"),
    "order NaN": (sliced_wasserstein, {"order": math.nan}, "order is nan"),
    "seed": (sliced_wasserstein, {"seed": -1}, r"seed is -1; it must be one of 0\.\.9"),
    "seed beyond torch": (sliced_wasserstein, {"seed": 2**64}, "seed is 18446744073709551616; it"),
    "bandwidth": (mmd, {"bandwidth": 0.0}, "bandwidth is 0.0; it must be a number above 0"),
    "bandwidth text": (mmd, {"bandwidth": "median"}, "bandwidth is 'median'"),
    "k": (precision, {"k": 12}, "k is 12; .* one of 1..11, below the 12 rows of truth"),
    "k 0": (precision, {"k": 0}, "k is 0"),
    "k of the samples": (recall, {"k": 10}, "k is 10; .* below the 10 rows of samples"),
    "splits": (compare, {"splits": 1}, "splits is 1; it must be an integer of at least 2"),
    "rows": (
        compare,
        {"rows": 7},
        r"rows is 7; .* one of 2\.\.6 \(10 samples, and half of 12 rows",
    ),
    "rows 1": (compare, {"rows": 1}, "rows is 1"),
    "seed of the splits": (compare, {"seed": True}, "seed is True"),
    "seed of the splits beyond torch": (
        compare,
        {"seed": 2**63},
        "seed is 9223372036854775808; it",
    ),
    "no features": (
        compare,
        {"features": 3},
        r"features is 3; .* callable, as features\(samples\)",
    ),
    "no metrics": (compare, {"metrics": [mmd]}, r"metrics is \[.*; it must be functions by name"),
    "no metric": (compare, {"metrics": {"mine": 3}}, r"metrics\['mine'\] is 3; .* be callable, as"),
    "a metric without an answer": (
        compare,
        {"metrics": {"mine": lambda x, y: None}},
        r"metrics\['mine'\]\(samples, truth\) is None; it must be a number",
    ),
    "features lose rows": (
        compare,
        {"features": lambda x: x[:1]},
        r"features\(samples\) has shape",
    ),
    "features are NaN": (compare, {"features": torch.log}, r"features\(samples\) has \d+ of 10"),
    "features are none": (compare, {"features": lambda x: None}, r"features\(samples\) is None"),
    "a metric is NaN": (
        compare,
        {"metrics": {"mine": lambda x, y: math.nan}},
        r"metrics\['mine'\]\(samples, truth\) is nan",
    ),
}


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_arguments_outside_their_range(what):
    function, arguments, message = BAD_ARGUMENTS[what]
    with pytest.raises(ValueError, match=message):
        function(X, Y, **arguments)


def test_measure_refuses_what_is_no_metric():
    with pytest.raises(ValueError, match="is 3; it must be callable"):
        measure(3, X, Y)


def test_numbers_of_numpy_are_numbers():
    assert sliced_wasserstein(X, Y, order=np.int64(2)) == sliced_wasserstein(X, Y, order=2)
    assert mmd(X, Y, bandwidth=np.int64(2)) == mmd(X, Y, bandwidth=2)


def test_a_truth_that_is_mostly_one_point_has_no_median():
    with pytest.raises(
        ValueError, match="bandwidth, the median distance in truth, is 0.0; it must"
    ):
        mmd(X, torch.cat([Y[:2], torch.zeros(12, 3)]))


def test_a_truth_too_small_to_be_split():
    with pytest.raises(ValueError, match="truth has 3 rows; there must be 4"):
        compare(X, Y[:3])
