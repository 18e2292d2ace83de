r"""How close samples are to the truth: distances between two sets, each beside its floor.

Every statistic here is biased by the number of rows, and none is at its ideal even between two sets
from the same source. So a number means something only beside the same statistic between **truth
and truth, of as many rows**. `measure` quotes it that way, and `compare` all of them at once::

    print(compare(samples, truth))

The truth is split at random into disjoint parts A and B of n rows, and n samples S are drawn
without repetition. The value is the mean of metric(S, A) over several splits, the floor that of
metric(B, A): S has taken the place of B and nothing else is different. New rows from the source
score the floor on average; copies of the rows of the truth score better than it.

A metric is any function (samples, truth) -> float of sets of shapes (m, ...) and (n, ...). Those
here compute in float64 on the CPU, hold only some rows of a matrix of distances at a time, give the
same number for the same input, and have no gradient. Bits per dimension are no comparison of
samples: they belong to the model, see `objectives.bound`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .arguments import check_callable, check_integer, check_number
from .objectives import evaluating
from .process import check_samples

Metric = Callable[[Tensor, Tensor], float]
"""(samples, truth) -> a number; `functools.partial` sets what else a metric takes."""

Features = Callable[..., Tensor]
"""A network or another function of samples, (B, ...) -> (B, ...), row by row."""

_BLOCK = 2**22  # distances held at a time, 32 MiB
_LARGEST = 1e100  # the squares of larger values would leave float64
_FEW = 16  # up to so many dimensions differences are taken one by one
_ROUNDING = 1e-7  # of a radius: what decides no more whether a point on a sphere is inside
_BANDWIDTH_ROWS = 2000  # rows whose distances give the median
_FEATURE_ROWS = 256  # rows in one call of the features


# --- Distances between two sets -------------------------------------------------------------------


def sliced_wasserstein(
    samples: Tensor, truth: Tensor, *, projections: int = 256, order: float = 1, seed: int = 0
) -> float:
    r"""The Wasserstein distance along a line, averaged over random directions.

    .. math:: \Big(\mathbb E_\theta\int_0^1
              |F_{\theta\cdot X}^{-1}(u)-F_{\theta\cdot Y}^{-1}(u)|^p\,du\Big)^{1/p},
              \qquad\theta\text{ uniform on the unit sphere}

    In the units of the data: how far mass has to be moved, seen along one direction. In one
    dimension it is the Wasserstein distance itself; in d it is smaller by about :math:`\sqrt d`. A
    translation by c gives :math:`|c|\,\mathbb E|\theta_1|`, in two dimensions :math:`2|c|/\pi`.

    Args:
        samples: shape (m, ...).
        truth: shape (n, ...), of samples of the same shape; m and n may differ.
        projections: the number of directions.
        order: p, at least 1.
        seed: of the directions, which are the same ones in every call.

    Raises:
        ValueError: an argument is outside its range, the shapes do not fit, there are fewer than 2
            rows, or values are not finite.

    Source: Rabin et al. 2011; Bonneel et al. 2015.
    """
    x, y = _pair(samples, truth)
    projections = check_integer("projections", projections)
    order = check_number("order", order, lambda order: 1 <= order < math.inf, "of 1 or more")
    seed = check_integer("seed", seed, 0, 2**63 - 1)
    generator = torch.Generator().manual_seed(seed)
    shape = projections, x.shape[1]
    directions = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    directions = torch.nn.functional.normalize(directions)
    # Both inverse distribution functions are constant between these levels, in units of 1/(mn).
    m, n = len(x), len(y)
    steps = torch.arange(m + 1, device="cpu") * n, torch.arange(n + 1, device="cpu") * m
    levels = torch.unique(torch.cat(steps))
    widths = levels.diff().double() / (m * n)
    total = 0.0
    for some in torch.split(directions, max(1, _BLOCK // len(widths))):
        along_x = (some @ x.mT).sort(dim=1).values[:, levels[:-1] // n]
        along_y = (some @ y.mT).sort(dim=1).values[:, levels[:-1] // m]
        total += float(((along_x - along_y).abs() ** order @ widths).sum())
    return float((total / projections) ** (1 / order))


def energy_distance(samples: Tensor, truth: Tensor) -> float:
    r"""The energy distance, :math:`\sqrt{2\,E|X-Y|-E|X-X'|-E|Y-Y'|}`, between the two sets.

    The means are over all pairs of rows, a row with itself included: it is the distance of the two
    empirical laws, zero only if they are equal, and in one dimension that of
    `scipy.stats.energy_distance`. Mind the root, which some leave out. Its square is above that of
    the sources by :math:`E|X-X'|/m+E|Y-Y'|/n` on average.

    Args:
        samples, truth: as in `sliced_wasserstein`.

    Raises:
        ValueError: as in `sliced_wasserstein`.

    Source: Székely and Rizzo 2013.
    """
    x, y = _pair(samples, truth)
    between, within_x, within_y = (_mean(lambda r: r, *sets) for sets in ((x, y), (x, x), (y, y)))
    return math.sqrt(max(0.0, 2 * between - within_x - within_y))


def mmd(samples: Tensor, truth: Tensor, *, bandwidth: float | None = None) -> float:
    r"""The *squared* maximum mean discrepancy, unbiased, with a Gaussian kernel.

    .. math:: \mathrm{MMD}^2=E\,k(X,X')+E\,k(Y,Y')-2\,E\,k(X,Y),
              \qquad k(x,y)=e^{-|x-y|^2/2h^2}

    No row is paired with itself, so the mean over many draws is the true MMD², zero for equal
    sources. One draw may be below zero; therefore there is no root.

    Args:
        samples, truth: as in `sliced_wasserstein`.
        bandwidth: h, above 0. Without it the median distance between two rows of the truth (of 2000
            rows spread over it, where it has more): the truth alone, so that samples are measured
            with the same kernel however bad they are.

    Raises:
        ValueError: as in `sliced_wasserstein`; or the median is 0.

    Source: Gretton et al. 2012, eq. 3; the median in sec. 8.
    """
    x, y = _pair(samples, truth)
    name = "bandwidth"
    if bandwidth is None:
        name, bandwidth = "bandwidth, the median distance in truth,", _median_distance(y)
    h = check_number(name, bandwidth, lambda h: 0 < h < math.inf, "above 0")

    def kernel(distance: Tensor) -> Tensor:
        return torch.exp(-((distance / h) ** 2) / 2)

    def within(rows: Tensor) -> float:
        n = len(rows)
        return (n * _mean(kernel, rows, rows) - 1) / (n - 1)  # less each row with itself, where k=1

    return within(x) + within(y) - 2 * _mean(kernel, x, y)


def precision(samples: Tensor, truth: Tensor, *, k: int = 3) -> float:
    """The share of the samples within the truth: how many look real.

    Within means: no farther from some row of the truth than that row's k-th nearest other row of
    the truth. 1 is best in principle, but new truth does not reach it either: see the floor, which
    here is a ceiling.

    Args:
        samples, truth: as in `sliced_wasserstein`.
        k: which neighbour, from 1 to n - 1.

    Raises:
        ValueError: as in `sliced_wasserstein`.

    Source: Kynkäänniemi et al. 2019, eq. 1 and 2; k = 3 is theirs.
    """
    return _share_within(*_pair(samples, truth), k, "truth")


def recall(samples: Tensor, truth: Tensor, *, k: int = 3) -> float:
    """The share of the truth within the samples: how much of it is reached.

    `precision` with the two sets exchanged. Samples that leave out a part of the truth have less
    recall at full precision.

    Args:
        samples, truth: as in `sliced_wasserstein`.
        k: which neighbour, from 1 to m - 1.

    Raises:
        ValueError: as in `sliced_wasserstein`.

    Source: Kynkäänniemi et al. 2019, eq. 1 and 2.
    """
    x, y = _pair(samples, truth)
    return _share_within(y, x, k, "samples")


def frechet_distance(samples: Tensor, truth: Tensor) -> float:
    r"""The Fréchet distance of two Gaussians with the means and covariances of the sets.

    .. math:: |\mu_X-\mu_Y|^2+\mathrm{tr}\,C_X+\mathrm{tr}\,C_Y
              -2\,\mathrm{tr}\big(C_X^{1/2}\,C_Y\,C_X^{1/2}\big)^{1/2}

    Squared, as it is always quoted: this is FID where the rows are features of Inception. For
    features of any kind give their values, or let `measure` or `compare` apply them. Covariances
    divide by n - 1. They see two moments alone, and fewer rows than dimensions leave them with
    directions of variance zero; the floor shows what that costs.

    Args:
        samples, truth: as in `sliced_wasserstein`.

    Raises:
        ValueError: as in `sliced_wasserstein`.

    Source: Dowson and Landau 1982; Heusel et al. 2017.
    """
    x, y = _pair(samples, truth)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    root_x, root_y = _covariance_root(x), _covariance_root(y)
    # The trace of the root is the sum of the singular values of C_X^{1/2} C_Y^{1/2}, and any other
    # roots with C = RᵀR have the same ones. Thus no covariance is squared, nor its root taken.
    shared = torch.linalg.svdvals(root_x @ root_y.mT).sum()
    squares = root_x.square().sum() + root_y.square().sum()
    return max(0.0, float(shift + squares - 2 * shared))


METRICS: dict[str, Metric] = {
    "sliced_wasserstein": sliced_wasserstein,
    "energy_distance": energy_distance,
    "mmd": mmd,
    "precision": precision,
    "recall": recall,
    "frechet_distance": frechet_distance,
}

# --- Beside the floor -----------------------------------------------------------------------------


class Measurement(NamedTuple):
    """A metric of samples against truth, beside that of truth against truth.

    Attributes:
        value: samples against truth, the mean over the splits.
        floor: truth against truth, the mean over the same splits.
        spread: the standard deviation of truth against truth from split to split. As many new rows
            from the source score within floor ± spread two times out of three or more often, and
            within two spreads nine times out of ten.
        rows: how many rows each side had, in value and floor alike.
    """

    value: float
    floor: float
    spread: float
    rows: int

    def __repr__(self) -> str:
        value, floor, spread = self._shown()
        return f"{value} (true against true {floor} ± {spread})"

    def _shown(self) -> tuple[str, str, str]:
        """The three numbers with two digits of the spread, or three of each if it is zero."""
        if not 0 < self.spread < math.inf:
            return f"{self.value:.3g}", f"{self.floor:.3g}", f"{self.spread:.3g}"
        places = 1 - math.floor(math.log10(self.spread))

        def shown(number: float) -> str:  # + 0.0, or a number just below zero would be -0
            return f"{round(number, places) + 0.0:.{max(places, 0)}f}"

        return shown(self.value), shown(self.floor), shown(self.spread)


class Comparison(dict[str, Measurement]):
    """Measurements by name; printed, or shown in a notebook, as a Markdown table.

    ``pandas.DataFrame(comparison.values(), index=comparison)`` makes a frame of it.
    """

    def __str__(self) -> str:
        lines = ["| metric | value | true against true | rows |", "|---|---|---|---|"]
        for name, measurement in self.items():
            value, floor, spread = measurement._shown()
            lines.append(f"| {name} | {value} | {floor} ± {spread} | {measurement.rows} |")
        return "\n".join(lines)

    _repr_markdown_ = __str__


def measure(
    metric: Metric,
    samples: Tensor,
    truth: Tensor,
    *,
    features: Features | None = None,
    rows: int | None = None,
    splits: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Measurement:
    """One metric beside its floor, as in `compare`.

    Args:
        metric: a function (samples, truth) -> float, of this module or your own.
        samples, truth, features, rows, splits, seed, progress: as in `compare`.

    Raises:
        ValueError: as in `compare`.
    """
    metrics = {"metric": metric}
    return compare(
        samples,
        truth,
        metrics=metrics,
        features=features,
        rows=rows,
        splits=splits,
        seed=seed,
        progress=progress,
    )["metric"]


def compare(
    samples: Tensor,
    truth: Tensor,
    *,
    metrics: Mapping[str, Metric] = METRICS,
    features: Features | None = None,
    rows: int | None = None,
    splits: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Samples against truth by several metrics, each beside truth against truth.

    How it is made fair is told at the head of this module. Statistics of different numbers of rows
    are not comparable: to compare two models whose numbers of samples differ, set ``rows``. The
    work grows with its square: a minute for 5000 rows of few dimensions, seconds for 1000.

    Args:
        samples: shape (m, ...), floating point, on any device.
        truth: shape (N, ...), of samples of the same shape. Data that the model has not seen in
            training are best: against those it has seen a model that copies them looks good.
        metrics: functions (samples, truth) -> float by name.
        features: what the metrics look at in place of the values themselves, a function of samples
            (B, ...) -> (B, ...), computed row by row. Called without gradients, a network in
            evaluation mode.
        rows: n, the number of rows on each side, at least 2. Without it all that there are: the
            smaller of m and N/2.
        splits: how often the truth is split, at least 2.
        seed: of the splits. PyTorch's own random numbers are not touched.
        progress: show a progress bar.

    Raises:
        ValueError: an argument is outside its range, the shapes do not fit, there are too few rows,
            values are not finite, or a metric gives no finite number.
    """
    splits = check_integer("splits", splits, 2)
    seed = check_integer("seed", seed, 0, 2**63 - 1)
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics is {metrics!r:.60}; it must be functions by name, as METRICS.")
    for name, metric in metrics.items():
        check_callable(f"metrics[{name!r}]", metric, "metric(samples, truth)")
    _pair(samples, truth)
    if len(truth) < 4:
        raise ValueError(f"truth has {len(truth)} rows; there must be 4, to split it in two parts.")
    x, y = _seen(features, "samples", samples), _seen(features, "truth", truth)
    most = min(len(x), len(y) // 2)
    n = most if rows is None else rows
    n = check_integer(
        "rows", n, 2, most, f" ({len(x)} samples, and half of {len(y)} rows of truth)"
    )
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[float]] = {name: [] for name in metrics}
    floors: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in tqdm(range(splits), disable=not progress, unit="split"):
        chosen = x[_permutation(len(x), generator)[:n]]
        mixed = _permutation(len(y), generator)
        part, other = y[mixed[:n]], y[mixed[n : 2 * n]]
        for name, metric in metrics.items():
            answer = f"metrics[{name!r}](samples, truth)"
            values[name].append(check_number(answer, metric(chosen, part)))
            floors[name].append(check_number(answer, metric(other, part)))
    return Comparison(
        {
            name: Measurement(
                float(np.mean(values[name])),
                float(np.mean(floors[name])),
                float(np.std(floors[name], ddof=1)),
                n,
            )
            for name in metrics
        }
    )


def _seen(features: Features | None, name: str, x: Tensor) -> Tensor:
    """What the metrics look at: the samples, or their features, computed some rows at a time."""
    if features is None:
        return x
    check_callable("features", features, "features(samples)")
    parts, name = [], f"features({name})"
    with torch.no_grad(), evaluating(features):
        for some in torch.split(x, _FEATURE_ROWS):
            part = features(some)
            check_samples(**{name: part})
            if len(part) != len(some):
                raise ValueError(
                    f"{name} has shape {tuple(part.shape)} for {len(some)} rows; "
                    "it must have one row for each."
                )
            parts.append(part.cpu())
    seen = torch.cat(parts)
    _matrix(name, seen)
    return seen


# --- What the metrics are made of -----------------------------------------------------------------


def _pair(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets, checked, as matrices (rows, d) of float64 on the CPU."""
    check_samples(samples=samples, truth=truth)
    if samples.shape[1:] != truth.shape[1:] or samples.shape[1:].numel() == 0:
        raise ValueError(
            f"samples has shape {tuple(samples.shape)} and truth {tuple(truth.shape)}; "
            "they must be alike except for the number of rows, with at least one value in a row."
        )
    return _matrix("samples", samples), _matrix("truth", truth)


def _matrix(name: str, x: Tensor) -> Tensor:
    if len(x) < 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; there must be at least 2 rows.")
    matrix = x.detach().cpu().double().reshape(len(x), -1)
    bad = ~(matrix.abs() < _LARGEST).all(dim=1)  # NaN is not below either
    if bad.any():
        raise ValueError(
            f"{name} has {int(bad.sum())} of {len(x)} rows with values that are not finite (or not "
            f"below {_LARGEST:g}), the first of them {name}[{int(bad.nonzero()[0])}]."
        )
    return matrix


def _permutation(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator, device="cpu")


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """The matrix of the distances of rows, (len(x), len(y)), a few of its rows at a time."""
    few = x.shape[1] <= _FEW
    if not few:  # |x|² + |y|² - 2xy is far faster, and loses least near the origin
        centre = y.mean(0)
        x, y = x - centre, y - centre
    mode = "donot_use_mm_for_euclid_dist" if few else "use_mm_for_euclid_dist"
    for some in torch.split(x, max(1, _BLOCK // len(y))):
        yield torch.cdist(some, y, compute_mode=mode)


def _mean(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The mean of a function of the distance over all pairs of rows."""
    return sum(float(function(block).sum()) for block in _distances(x, y)) / (len(x) * len(y))


def _median_distance(x: Tensor) -> float:
    """The median distance of two different rows, of some of them spread over x."""
    some = x[:: math.ceil(len(x) / _BANDWIDTH_ROWS)]
    distances = torch.cat(list(_distances(some, some)))
    return float(distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].median())


def _share_within(points: Tensor, others: Tensor, k: int, name: str) -> float:
    """The share of the points in a ball around another, as far as its k-th neighbour."""
    k = check_integer("k", k, 1, len(others) - 1, f", below the {len(others)} rows of {name}")
    # The nearest of all is the row itself.
    blocks = _distances(others, others)
    radii = torch.cat([block.topk(k + 1, largest=False).values[:, k] for block in blocks])
    reach = radii + _ROUNDING * radii.mean()
    within = [(block <= reach).any(dim=1) for block in _distances(points, others)]
    return float(torch.cat(within).double().mean())


def _covariance_root(x: Tensor) -> Tensor:
    """An R with RᵀR the covariance of the rows."""
    root: Tensor = torch.linalg.qr(x - x.mean(0), mode="r").R
    return root / math.sqrt(len(x) - 1)
