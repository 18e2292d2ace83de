r"""Data distributions whose every answer is known: the Gaussian and the Gaussian mixture.

When x_0 follows a Gaussian mixture, so does every x_t, and so does x_s given x_t. Log-density,
score, :math:`\mathbb E[\epsilon\mid x_t]` and the reverse kernel are exact. Chapters draw these as
truth; tests hold the library against them. Each component is worked in the eigenbasis of its
covariance, where the one-dimensional formulas of `closed_forms` apply coordinate by coordinate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import closed_forms
from .arguments import check_integer, check_number
from .prediction import check_readable, get_prediction
from .process import check_samples
from .schedule import NoiseSchedule, check_schedule

Level = float | Tensor
"""One noise level, or one for each row of x."""


class GaussianMixture:
    r""":math:`\sum_k w_k\,\mathcal N(\mu_k,\Sigma_k)` on :math:`\mathbb R^d`, the law of x_0.

    Args:
        weights: shape (K,), positive, summing to 1.
        means: shape (K, d).
        covariances: shape (K, d, d), symmetric, no negative eigenvalue.

    Computes in float64 unless tensors of another floating type are given; in float32 at least.

    Raises:
        ValueError: if a shape does not fit, an entry is not finite, a weight is not positive, the
            weights do not sum to 1, or a covariance is not symmetric and positive semidefinite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        weights, means, covariances = _floating(
            weights=weights, means=means, covariances=covariances
        )
        K, d = means.shape if means.ndim == 2 else (0, 0)
        if K * d == 0 or weights.shape != (K,) or covariances.shape != (K, d, d):
            raise ValueError(
                f"weights, means and covariances have shapes {tuple(weights.shape)}, "
                f"{tuple(means.shape)} and {tuple(covariances.shape)}; "
                "they must be (K,), (K, d) and (K, d, d)."
            )
        if not (means.isfinite().all() and covariances.isfinite().all()):
            raise ValueError("means or covariances hold an entry that is not finite.")
        if not (weights > 0).all() or abs(float(weights.detach().sum()) - 1) > 1e-6:
            raise ValueError(f"weights is {weights.tolist()}; it must be positive and sum to 1.")
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("covariances holds a matrix that is not symmetric.")
        variances, basis = torch.linalg.eigh(covariances)
        if not (variances >= -1e-9 * variances.abs().max()).all():
            raise ValueError(
                f"covariances has the eigenvalue {float(variances.min())}; none may be negative."
            )
        self._set(weights.log(), _rotate(means, basis), variances.clamp(min=0), basis)

    def _set(self, log_weights: Tensor, centres: Tensor, variances: Tensor, basis: Tensor) -> None:
        # centres and variances live in the eigenbasis; leading dimensions are a batch of mixtures.
        self._log_weights = log_weights  # (..., K)
        self._centres = centres  # (..., K, d)
        self._variances = variances  # (..., K, d)
        self._basis = basis  # (K, d, d), eigenvectors in columns

    @classmethod
    def _of(cls, *parts: Tensor) -> GaussianMixture:
        mixture = cls.__new__(cls)
        mixture._set(*parts)
        return mixture

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> GaussianMixture:
        """The same mixture on another device or in another floating type (MPS has no float64)."""
        parts = (self._log_weights, self._centres, self._variances, self._basis)
        return self._of(*(part.to(device=device, dtype=dtype) for part in parts))

    # --- The law itself ---------------------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., d)."""
        centres = _rotate_back(self._centres, self._basis)
        return (self._log_weights.exp()[..., None] * centres).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """The covariance matrix, shape (..., d, d)."""
        offsets = _rotate_back(self._centres, self._basis) - self.mean[..., None, :]
        within = torch.einsum(
            "kid,...kd,kjd->...kij", self._basis, self._variances.expand_as(offsets), self._basis
        )
        spread = within + offsets[..., :, None] * offsets[..., None, :]
        return (self._log_weights.exp()[..., None, None] * spread).sum(-3)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density at x of shape (..., d), in nats, shape (...)."""
        return self._log_joint(x).logsumexp(-1)

    def score(self, x: Tensor) -> Tensor:
        r""":math:`\nabla_x\log p(x)`, shaped like x."""
        share = self._log_joint(x).softmax(-1)
        here = _rotate(self._cast(x)[..., None, :], self._basis)
        scores = closed_forms.normal_score(here, self._centres, self._variances)
        return (share[..., None] * _rotate_back(scores, self._basis)).sum(-2).to(x)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` independent draws, shape (count, ..., d).

        Raises:
            ValueError: if count is not a positive integer.
        """
        count = check_integer("count", count)
        weights = self._log_weights.exp()
        K, d = self._centres.shape[-2:]
        which = torch.multinomial(
            weights.reshape(-1, K), count, replacement=True, generator=generator
        )
        which = which.T.reshape(count, *weights.shape[:-1])
        eps = torch.randn(
            (*which.shape, d), generator=generator, dtype=weights.dtype, device=weights.device
        )
        index = which[..., None, None].expand(*which.shape, 1, d)
        shape = (*which.shape, K, d)
        law = closed_forms.Gaussian(
            *(
                x.expand(shape).gather(-2, index)[..., 0, :]
                for x in (self._centres, self._variances)
            )
        )
        return torch.einsum("...ij,...j->...i", self._basis[which], closed_forms.draw(law, eps))

    # --- The same law under noise -----------------------------------------------------------------

    def at(self, alpha_bar_t: Level) -> GaussianMixture:
        """The law of x_t. A tensor of levels of shape (B,) gives a batch of B laws.

        Proved in chapter 02 (claim F7): a mixture under noise is a mixture.

        Raises:
            ValueError: if a level is not in 0..1.
        """
        alpha_bar_t = _level("alpha_bar_t", alpha_bar_t)
        centres, variances = closed_forms.data_marginal(
            self._centres, self._variances, _against_components(alpha_bar_t, self._centres)
        )
        return self._of(self._log_weights, centres, variances, self._basis)

    def eps(self, x_t: Tensor, alpha_bar_t: Level) -> Tensor:
        r""":math:`\epsilon^*(x_t)=\mathbb E[\epsilon\mid x_t]`, shaped like x_t.

        The network that minimises :math:`L_{\mathrm{simple}}` computes this. Proved in chapter 04,
        through the score (claim L13).
        """
        like, x_t = x_t, self._cast(x_t)
        level = _level("alpha_bar_t", alpha_bar_t)
        if torch.is_tensor(level):
            if level.shape not in ((), x_t.shape[:-1]):
                raise ValueError(
                    f"alpha_bar_t has shape {tuple(level.shape)}; it must be one level, or one for "
                    f"each row of x_t, whose shape is {tuple(x_t.shape)}."
                )
            level = level.to(x_t)
        score = self.at(level).score(x_t)
        return closed_forms.eps_from_score(score, _against_coordinates(level)).to(like)

    def reverse_kernel(
        self, x_t: Tensor, alpha_bar_s: Level, alpha_bar_t: Level
    ) -> GaussianMixture:
        r"""The exact :math:`q(x_s\mid x_t)` for x_t of shape (..., d): a batch of mixtures.

        Proved in chapter 03 (claims P1, P11, P13, I19) for its components; their shares are Bayes'
        rule.

        Raises:
            ValueError: unless 0 <= alpha_bar_t < alpha_bar_s <= 1.
        """
        alpha_bar_s = _level("alpha_bar_s", alpha_bar_s)
        alpha_bar_t = _level("alpha_bar_t", alpha_bar_t)
        if not torch.all(torch.as_tensor(alpha_bar_t < alpha_bar_s)):
            raise ValueError(
                f"alpha_bar_t is {alpha_bar_t} and alpha_bar_s {alpha_bar_s}; "
                "the step goes from t to a cleaner s, where alpha_bar is larger."
            )
        here = _rotate(self._cast(x_t)[..., None, :], self._basis)
        centres, variances = closed_forms.data_reverse(
            here,
            self._centres,
            self._variances,
            _against_components(alpha_bar_s, self._centres),
            _against_components(alpha_bar_t, self._centres),
        )
        log_shares = self.at(alpha_bar_t)._log_joint(x_t).log_softmax(-1)
        return self._of(log_shares, centres, variances, self._basis)

    def model(
        self, schedule: NoiseSchedule, prediction: str = "eps"
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The perfect network: ``model(x_t, times)`` for x_t of shape (B, d), for any sampler.

        Raises:
            ValueError: if the prediction is unknown, or says nothing about the data in pure noise
                where the schedule ends in it.
        """
        kind = get_prediction(prediction)
        check_schedule(schedule)
        check_readable(kind, schedule.alpha_bar[-1])
        pure_noise = schedule.alpha_bar[-1] == 0
        like = self._centres
        levels = torch.tensor(schedule.alpha_bar, dtype=like.dtype, device=like.device)
        known = torch.tensor(schedule.times, device=like.device)

        def exact(x_t: Tensor, times: Tensor) -> Tensor:
            x = self._cast(x_t)
            if not torch.is_tensor(times) or times.shape != x.shape[:1]:
                raise ValueError(f"times is {times!r:.60}; it must be a tensor of {len(x)} times.")
            times = times.to(levels.device)
            index = torch.searchsorted(known, times.contiguous()).clamp(max=len(known) - 1)
            if (known[index] != times).any():
                raise ValueError(f"times is {times.tolist()}; every entry must be of the schedule.")
            level = levels[index]
            eps = self.eps(x, level)
            if pure_noise:  # nothing can be read off ε there; the data's own law still answers
                x_0 = self.reverse_kernel(x, 1.0, level).mean
            else:
                x_0 = closed_forms.x_0_from_eps(x, eps, level[:, None])
            return kind.target(x_0, eps, level[:, None]).to(x_t)

        return exact

    def _log_joint(self, x: Tensor) -> Tensor:
        """log w_k + log N(x; μ_k, Σ_k), shape (..., K)."""
        here = _rotate(self._cast(x)[..., None, :], self._basis)
        log_density = closed_forms.normal_log_density(here, self._centres, self._variances)
        return self._log_weights + log_density.sum(-1)

    def _cast(self, x: Tensor) -> Tensor:
        check_samples(x=x)
        d = self._centres.shape[-1]
        if x.shape[-1:] != (d,):
            raise ValueError(f"x has shape {tuple(x.shape)}; its last dimension must be {d}.")
        return x.to(self._centres)


def gaussian(mean: Tensor, covariance: Tensor) -> GaussianMixture:
    """The Gaussian N(mean, covariance) with mean of shape (d,) and covariance of shape (d, d)."""
    mean, covariance = _floating(mean=mean, covariance=covariance)
    return GaussianMixture(mean.new_ones(1), mean[None], covariance[None])


def _floating(**values: Tensor) -> list[Tensor]:
    """Tensors of one floating type: their own, or float64 for lists and integers."""
    tensors = [_as_tensor(name, x) for name, x in values.items()]
    common = torch.float32
    for x in tensors:
        common = torch.promote_types(common, x.dtype)
    return [x.to(common) for x in tensors]


def _as_tensor(name: str, x: object) -> Tensor:
    if torch.is_tensor(x) and x.is_floating_point():
        return x
    try:
        if not (torch.is_tensor(x) and x.is_complex()):
            return torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ValueError(f"{name} is {x!r:.60}; it must be a tensor of real numbers.")


def _rotate(x: Tensor, basis: Tensor) -> Tensor:
    return torch.einsum("kij,...ki->...kj", basis, x.expand(*x.shape[:-2], *basis.shape[:2]))


def _rotate_back(y: Tensor, basis: Tensor) -> Tensor:
    return torch.einsum("kij,...kj->...ki", basis, y)


def _level(name: str, level: Level) -> Level:
    """The level as a float, or as the tensor it is; ValueError if one does not exist."""
    if not torch.is_tensor(level):
        return check_number(name, level, lambda level: 0 <= level <= 1, "in 0..1")
    if level.ndim > 1 or level.dtype == torch.bool:
        raise ValueError(
            f"{name} is {level.dtype} of shape {tuple(level.shape)}; it must hold one level, or "
            "one for each row."
        )
    bad = level[~((level >= 0) & (level <= 1))]
    if bad.numel():
        raise ValueError(f"{name} holds {float(bad.ravel()[0]):g}; each level must lie in 0..1.")
    return level


def _against_coordinates(level: Level) -> Level:
    return level[..., None] if torch.is_tensor(level) else level


def _against_components(level: Level, like: Tensor) -> Level:
    return level.to(like)[..., None, None] if torch.is_tensor(level) else level
