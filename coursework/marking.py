"""Tests that teach: a wrong answer is held against known slips, and told which one it is.

The hidden tests of the ready assignments are made of these functions. What is right is always the
library's; the slips are the museum's exhibits, and what goes wrong with any formula: a root, a
sign, a factor, levels exchanged. Nothing here has a formula of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor, nn

from diffusion_lib import closed_forms as cf
from diffusion_lib import samplers
from diffusion_lib.evaluation import compare, energy_distance, sliced_wasserstein
from diffusion_lib.exhibits import EXHIBITS, planted
from diffusion_lib.objectives import simple_loss
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.verify import EVERYWHERE, Check, CheckFailed, Domain, agree, prove, sampled

Slips = Iterable[tuple[str, Callable[..., Any]]]
"""Sentences, each with the function of somebody who makes this slip."""

SAME = 1e-9  # how near two computations in float64 must come


def mark_formula(
    what: str,
    answer: Any,
    function: Callable[..., Any],
    *arguments: Any,
    given: Domain = EVERYWHERE,
    slips: Slips = (),
) -> Check:
    """An answer is the library's function at these symbols, in whatever form it is written.

    Raises:
        CheckFailed: it is not; with the name of the slip if it is a known one.
    """
    truth = function(*arguments)

    def same(wrong: Any) -> bool:
        try:
            prove(what, answer, wrong, given)
        except (CheckFailed, ValueError):
            return False
        return True

    try:
        return prove(what, answer, truth, given)
    except CheckFailed as refusal:
        known = ((text, slip(*arguments)) for text, slip in [*published(function), *slips])
        for sentence, wrong in [*known, *_usual(truth, arguments)]:
            if same(wrong):
                raise CheckFailed(f"{what}: {sentence}") from None
        if factor := _factor(answer, truth):
            raise CheckFailed(f"{what}: right up to the constant factor {factor}.") from None
        raise refusal


def mark_function(
    what: str,
    answer: Callable[..., Any],
    function: Callable[..., Any],
    grid: Sequence[Sequence[Any]],
    slips: Slips = (),
) -> Check:
    """A student's function gives the numbers of the library's, at every point of a grid.

    Raises:
        CheckFailed: it does not; with the name of the slip if it is a known one.
    """
    got, truth = _values(answer, grid), _values(function, grid)
    try:
        return agree(what, got, truth, SAME)
    except CheckFailed as refusal:
        for sentence, slip in [*published(function), *slips]:
            if _close(got, _values(slip, grid)):
                raise CheckFailed(f"{what}: {sentence}") from None
        raise refusal


def published(function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The museum's wrong forms of one of the library's closed forms."""
    if getattr(cf, function.__name__, None) is not function:
        return
    names = list(inspect.signature(function).parameters)
    for exhibit in EXHIBITS:
        same_place = exhibit.replaces == f"closed_forms.{function.__name__}"
        if same_place and list(inspect.signature(exhibit.wrong).parameters) == names:
            yield exhibit.slip, exhibit.wrong


def with_exhibits(function: Callable[..., Any], *names: str) -> Slips:
    """What the library computes while an exhibit is planted in it, for each of these exhibits."""
    for exhibit in EXHIBITS:
        if exhibit.name in names:

            def slipped(*arguments: Any, exhibit: Any = exhibit) -> Any:
                with planted(exhibit):
                    return function(*arguments)

            yield exhibit.slip, slipped


def _usual(truth: Any, arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """What goes wrong with any formula."""
    if isinstance(truth, tuple):
        yield "the two are exchanged.", truth[::-1]
        return
    yield "this is the root of the right answer: a deviation for a variance?", cf.sqrt(truth)
    yield "this is the square of the right answer: a variance for a deviation?", truth**2
    yield "the fraction is upside down.", 1 / truth
    yield "the sign is wrong.", -truth
    levels = [x for x in arguments if isinstance(x, sp.Symbol) and "alpha" in x.name]
    if len(levels) == 2:
        exchanged = truth.subs(dict(zip(levels, levels[::-1], strict=True)), simultaneous=True)
        yield "the two levels are exchanged: s is the cleaner one, t the noisier.", exchanged


def _factor(answer: Any, truth: Any) -> sp.Expr | None:
    if not (isinstance(answer, sp.Expr) and isinstance(truth, sp.Expr)):
        return None
    ratio = sp.simplify(answer / truth)
    return ratio if ratio.is_number and ratio.is_finite and ratio != 0 else None


def _values(function: Callable[..., Any], grid: Sequence[Sequence[Any]]) -> np.ndarray:
    """All that a function gives over the grid, in one row."""
    values = (function(*point) for point in grid)
    return np.concatenate(
        [np.ravel(v.detach().numpy() if isinstance(v, Tensor) else v) for v in values]
    )


def _close(got: np.ndarray, wrong: np.ndarray) -> bool:
    try:
        agree("", got, wrong, SAME)
    except CheckFailed:
        return False
    return True


# --- DDIM -----------------------------------------------------------------------------------------

Model = Callable[[Tensor, Tensor], Tensor]


def ddim_step(
    x_t: Tensor, eps: Tensor, z: Tensor, alpha_bar_s: float, alpha_bar_t: float, sigma: float
) -> Tensor:
    """The library's step, from the network's answer."""
    return cf.reverse_step(cf.x_0_from_eps(x_t, eps, alpha_bar_t), eps, z, alpha_bar_s, sigma)


def source_of(x: Tensor, seed: int) -> Callable[[], Tensor]:
    """Fresh noise shaped like x at every call, the same again for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.empty_like(x).normal_(generator=generator)


def ddim_path(
    model: Model, schedule: NoiseSchedule, x_T: Tensor, eta: float, seed: int
) -> list[Tensor]:
    """Every sample on the way of `samplers.ddim`."""
    seen: list[Tensor] = []
    samplers.ddim(
        model,
        schedule,
        x_T,
        eta=eta,
        generator=torch.Generator().manual_seed(seed),
        callback=lambda step: seen.append(step.x_s.clone()),
    )
    return seen


def walk(
    model: Model,
    schedule: NoiseSchedule,
    x_T: Tensor,
    eta: float,
    seed: int,
    level_after: Callable[[int], float] | None = None,
    told: Callable[[int], int] | None = None,
) -> list[Tensor]:
    """The same way from `ddim_step`, where two slips have their place.

    ``level_after(i)`` is the level that step i goes to, ``told(i)`` the time that the network is
    told; without them they are the schedule's.
    """
    level_after = level_after or (lambda i: float(schedule.alpha_bar[i - 1]))
    told = told or (lambda i: int(schedule.times[i]))
    x, seen, noise = x_T, [], source_of(x_T, seed)
    for i in range(schedule.T, 0, -1):
        level_s, level_t = level_after(i), float(schedule.alpha_bar[i])
        sigma = float(cf.ddim_sigma(eta, level_s, level_t))
        eps = model(x, torch.full((len(x),), told(i)))
        z = noise() if sigma > 0 else torch.zeros_like(x)
        x = ddim_step(x, eps, z, level_s, level_t, sigma)
        seen.append(x)
    return seen


def mark_path(
    what: str,
    answer: list[Tensor],
    model: Model,
    full: NoiseSchedule,
    kept: NoiseSchedule,
    x_T: Tensor,
    eta: float,
    seed: int,
) -> Check:
    """A student's way is that of `samplers.ddim`, step for step.

    Raises:
        CheckFailed: it is not; with the name of the slip, or with the first step that is wrong.
    """
    if not isinstance(answer, list) or len(answer) != kept.T:
        size = f"{len(answer)} samples" if isinstance(answer, list) else type(answer).__name__
        raise CheckFailed(
            f"{what}: the loop gives {size}; it must give a list of {kept.T}, one for each step, "
            "of which the last goes to level 1."
        )
    truth = ddim_path(model, kept, x_T, eta, seed)
    slips = {
        "the step goes to the level of t - 1; over a stride it must go to that of the next kept "
        "step.": walk(
            model,
            kept,
            x_T,
            eta,
            seed,
            level_after=lambda i: float(full.alpha_bar[kept.times[i] - 1]),
        ),
        "the network is told the index of the step; it must be told its time, schedule.times[i].": (
            walk(model, kept, x_T, eta, seed, told=lambda i: i)
        ),
    }
    for i, (got, want) in enumerate(zip(answer, truth, strict=True)):
        try:
            check = agree(what, got, want, SAME)
        except CheckFailed as refusal:
            for sentence, wrong in slips.items():
                if _close(_stack(answer), _stack(wrong)):
                    raise CheckFailed(f"{what}: {sentence}") from None
            where = f"step {i + 1} of {kept.T} is the first wrong one."
            if i + 1 == kept.T:
                where = "only the last step is wrong. It ends at the data: no noise is added there."
            raise CheckFailed(f"{refusal}; {where}") from None
    return check


def _stack(path: list[Tensor]) -> np.ndarray:
    return torch.stack(path).detach().numpy()


# --- Training and evaluating ----------------------------------------------------------------------

STEPS, BATCH = 30, 128


class _Probe(nn.Module):
    """A small network that keeps the gradient of the last backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, dtype=torch.float64)
        nn.init.eye_(self.layer.weight)
        self.last: Tensor | None = None
        self.layer.weight.register_hook(self._keep)

    def _keep(self, gradient: Tensor) -> None:
        self.last = gradient.clone()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)


class _Watched(torch.optim.SGD):
    """An optimizer that looks at what it is given."""

    def __init__(self, network: _Probe) -> None:
        super().__init__(network.parameters(), lr=1e-3)
        self.network, self.taken, self.added_up = network, 0, False

    def step(self, closure: Any = None) -> None:
        gradient, last = self.network.layer.weight.grad, self.network.last
        self.taken += 1
        if gradient is not None and last is not None:
            self.added_up |= not torch.allclose(gradient, last, rtol=1e-9, atol=0)
        super().step(closure)


def _watch(train: Callable[..., Any], data: Tensor) -> tuple[_Watched, list[tuple[Tensor, ...]]]:
    """Let a training loop run, and note what it gives the loss."""
    network = _Probe()
    optimizer, asked = _Watched(network), []

    def loss(network: Model, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Any:
        asked.append((x_0.clone(), t.clone(), eps.clone()))
        return simple_loss(network, schedule, x_0, t=t.clamp(1), eps=eps)

    schedule = NoiseSchedule.linear(10)
    generator = torch.Generator().manual_seed(4)
    train(network, optimizer, loss, schedule, data, STEPS, generator)
    return optimizer, asked


def mark_training(train: Callable[..., Any]) -> None:
    """A training loop draws what it should, and leads the optimizer as it should.

    Raises:
        CheckFailed: it does not.
    """
    data = torch.randn(1000, 2, generator=torch.Generator().manual_seed(3)).double()
    optimizer, asked = _watch(train, data)
    _demand(len(asked) == STEPS, f"the loss is asked {len(asked)} times in {STEPS} steps.")
    x_0, t, eps = (torch.stack(part) for part in zip(*asked, strict=True))
    _demand(
        tuple(x_0.shape) == tuple(eps.shape) == (STEPS, BATCH, 2) and t.shape == x_0.shape[:2],
        f"x_0, t and eps have the shapes {(*x_0.shape[1:],)}, {(*t.shape[1:],)} and "
        f"{(*eps.shape[1:],)} in a step; they must be (128, 2), (128,) and (128, 2).",
    )
    _demand(bool((x_0[0] != x_0[1]).any()), "every step sees the same rows of the data.")
    _demand(bool((t != t[:, :1]).any()), "all rows of a batch have one step t; draw one for each.")
    _demand(int(t.min()) > 0, "t = 0 is drawn, which has no noise; the steps are 1 to T.")
    _demand(int(t.max()) == 10, f"the last step T is never drawn; the largest t is {int(t.max())}.")
    _demand(bool((eps[0] != eps[1]).any()), "every step has the same noise.")
    try:
        moments = torch.stack([eps, eps**2], dim=-1).reshape(-1, 2)
        sampled("the noise is standard normal", moments, [0, 1])
    except CheckFailed as refusal:
        uniform = next(e.slip for e in EXHIBITS if e.name == "uniform noise")
        known = float(eps.min()) >= 0 and float(eps.max()) <= 1
        raise CheckFailed(f"the loop: {uniform}" if known else f"the loop: {refusal}") from None
    gradient = optimizer.network.last
    _demand(
        gradient is not None, "nothing is ever differentiated: loss(...).backward() is missing."
    )
    _demand(optimizer.taken == STEPS, f"optimizer.step() is called {optimizer.taken} times.")
    _demand(
        not optimizer.added_up,
        "the gradients of earlier steps are added up: optimizer.zero_grad() is missing.",
    )
    _, again = _watch(train, data)
    same = all(bool((a == b).all()) for a, b in zip(asked[-1], again[-1], strict=True))
    _demand(same, "the same generator gives another run: draw everything from it.")


def mark_evaluation(evaluate: Callable[..., Any]) -> None:
    """The samples are compared with data that were held out.

    Raises:
        CheckFailed: they are not.
    """
    points = torch.randn(1200, 2, generator=torch.Generator().manual_seed(8)).double()
    samples, training, held_out = points[:200] * 1.1, points[200:700], points[700:]
    metrics = {"sliced_wasserstein": sliced_wasserstein, "energy_distance": energy_distance}
    got = evaluate(samples, training, held_out)
    if not isinstance(got, dict) or list(got) != list(metrics):
        raise CheckFailed("the evaluation: it must return what compare says by the two metrics.")
    slips = {
        "the samples are compared with the training data, against which a network that copies them "
        "looks perfect.": (samples, training),
        "the two sides are exchanged: the samples are not the truth.": (held_out, samples),
        "the training data are compared, not the samples.": (training, held_out),
    }

    def row(measured: Any) -> list[float]:
        return [number for m in measured.values() for number in m]

    truth = row(compare(samples, held_out, metrics=metrics))
    try:
        agree("the evaluation", row(got), truth, SAME)
    except CheckFailed:
        for sentence, sides in slips.items():
            if _close(np.array(row(got)), np.array(row(compare(*sides, metrics=metrics)))):
                raise CheckFailed(f"the evaluation: {sentence}") from None
        raise


def _demand(met: bool, sentence: str) -> None:
    if not met:
        raise CheckFailed(f"the loop: {sentence}")
