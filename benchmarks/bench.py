"""What libraries cost on top of the network: ratios, all sides timed in turn in one run.

    python -m benchmarks [--write]

A sampling loop is compared with the same number of bare network calls, a training step with a bare
forward, backward and Adam step. Two baselines are given for each, so that no trick hides in the
choice:

- sampling: calls with a time for every sample, as most networks take it, and calls that are told
  that the whole batch has one time (an expanded tensor: one row of embedding serves all);
- training: torch's default Adam, and its fused Adam, which our trainer uses.

How close a trainer can come to a bare step at all, a step written out by hand shows: it draws what
a step needs, mixes it and keeps an average, and does nothing else.

The networks are trained, or samples would run away to values that slow down the network itself. A
time is the CPU time of the process, which other programs on the machine disturb least. In a round
everyone runs once, in an order that changes; a ratio is the median over the rounds, with quartiles.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import platform
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffusion_lib.data import digits, moons
from diffusion_lib.networks import MLP
from diffusion_lib.training import Trainer, load_pretrained

from .peers import SCHEDULE, STEPS, Batches, Levels, adam, sampling, training

PAGE = Path(__file__).resolve().parent.parent / "book" / "benchmarks.md"
LIBRARIES = ("diffusion_lib", "smalldiffusion", "diffusers", "denoising-diffusion-pytorch", "azula")
ROUNDS = 5, 31  # at least, at most
EACH, ONE = "a time for each sample", "one time for the batch"
DEFAULT, FUSED, HAND = "default Adam", "fused Adam", "by hand"

Job = Callable[[], object]
Times = dict[str, list[float]]


# --- what is timed --------------------------------------------------------------------------------


def points_network() -> nn.Module:
    """A 3 x 128 MLP on 2-D points, trained for a second: small enough that overhead shows."""
    torch.manual_seed(0)
    trainer = Trainer(MLP(dim=2, width=128, depth=3), SCHEDULE, moons(10_000), device="cpu")
    trainer.train(500, progress=False)
    return trainer.ema.requires_grad_(True)


def digits_network() -> nn.Module:
    """The U-Net that comes with the library, for digits of 8 x 8 pixels."""
    return load_pretrained("digits", device="cpu")[0].requires_grad_(True)


def bare_calls(network: nn.Module, x: Tensor) -> dict[str, Job]:
    """As many calls of the network as a loop makes, and nothing else."""
    one = torch.tensor(SCHEDULE.strided(STEPS).times[:0:-1].copy())[:, None].expand(-1, len(x))

    @torch.no_grad()
    def run(times: tuple[Tensor, ...]) -> None:
        for t in times:
            network(x, t)

    return {EACH: partial(run, one.contiguous().unbind()), ONE: partial(run, one.unbind())}


def bare_training(make: Callable[[], nn.Module], x: Tensor, steps: int) -> dict[str, Job]:
    """Forward, backward and Adam step on one batch, again and again."""
    t = torch.randint(1, SCHEDULE.T + 1, (len(x),))

    def run(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(steps):
            loss = torch.nn.functional.mse_loss(model(x, t), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    plain, fused = make(), make()
    return {
        DEFAULT: partial(run, plain, adam(plain)),
        FUSED: partial(run, fused, torch.optim.Adam(fused.parameters(), lr=1e-3, fused=True)),
    }


def written_out(model: nn.Module, loader: Batches) -> Job:
    """The least that a training step with noise, a fused Adam and a moving average can be."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    average = copy.deepcopy(model).requires_grad_(False)
    weights, averages = list(model.parameters()), list(average.parameters())
    signal, noise = Levels().alpha, Levels().sigma

    def run() -> None:
        for x_0 in loader:
            t = torch.randint(1, SCHEDULE.T + 1, (len(x_0),))
            eps = torch.randn(x_0.shape)
            rows = (-1, *(1,) * (x_0.ndim - 1))
            x_t = signal[t].reshape(rows) * x_0 + noise[t].reshape(rows) * eps
            loss = torch.nn.functional.mse_loss(model(x_t, t), eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 1e-3)

    return run


def sampling_jobs(kind: str, network: nn.Module, shape: tuple[int, ...]) -> dict[str, Job]:
    x_T = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return {**sampling(kind, network, x_T), **bare_calls(network, x_T)}


def training_jobs(network: nn.Module, data: Tensor, batch: int, steps: int) -> dict[str, Job]:
    def make() -> nn.Module:
        return copy.deepcopy(network).train()

    return {
        **training(make, data, batch, steps),
        **bare_training(make, data[:batch], steps),
        HAND: written_out(make(), Batches(data, batch, steps)),
    }


# --- correctness first ----------------------------------------------------------------------------


def disagreements(network: nn.Module) -> dict[str, float]:
    """The largest difference of everyone's samples to ours, from the same noise."""
    x_T = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
    draw = torch.randn

    def given(*shape: object, **options: object) -> Tensor:
        """denoising-diffusion-pytorch draws its starting noise itself, as sequences."""
        return x_T[..., None] if shape == ((64, 2, 1),) else draw(*shape, **options)

    largest = dict.fromkeys(LIBRARIES, 0.0)
    for kind in ("ddpm", "ddim"):
        ends = {}
        for name, job in sampling(kind, network, x_T).items():
            torch.manual_seed(2)
            with patch("torch.randn", given):
                ends[name] = job()
        for name, end in ends.items():
            difference = (end - ends["diffusion_lib"]).abs().max().item()
            largest[name] = max(largest[name], difference)
    return largest


# --- timing ---------------------------------------------------------------------------------------


def timed(jobs: dict[str, Job], seconds: float) -> Times:
    """CPU seconds of every job in every round; as many rounds as fit."""
    for job in jobs.values():
        job()
    times: Times = {name: [] for name in jobs}
    names, spent, rounds = list(jobs), 0.0, 0
    while rounds < ROUNDS[0] or (rounds < ROUNDS[1] and spent < seconds):
        names = [*names[1:], names[0]]
        for name in names:
            start = time.process_time()
            jobs[name]()
            times[name].append(time.process_time() - start)
            spent += times[name][-1]
        rounds += 1
    return times


def ratio(times: Times, name: str, baseline: str) -> str:
    ratios = [a / b for a, b in zip(times[name], times[baseline], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})"


def table(rows: dict[str, tuple[Times, int]], baseline: str) -> list[str]:
    """Ratios to a baseline of everyone who was timed, and what one bare step takes."""
    timed_there = next(iter(rows.values()))[0]
    columns = [name for name in (*LIBRARIES, HAND) if name in timed_there]
    lines = [
        "{.numbers}",
        f"| | {' | '.join(columns)} | bare step, ms |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for label, (times, steps) in rows.items():
        cells = [ratio(times, name, baseline) for name in columns]
        bare = 1e3 * statistics.median(times[baseline]) / steps
        lines.append(f"| {label} | **{cells[0]}** | {' | '.join(cells[1:])} | {bare:.3f} |")
    return lines


# --- memory ---------------------------------------------------------------------------------------


def memory_of(task: str, library: str) -> float:
    """How far the process grows above what it holds before, at most, in MiB (Linux)."""

    def kibibytes(field: str) -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split(f"{field}:")[1].split()[0])

    if task == "sampling":
        job = sampling("ddim", digits_network(), torch.randn(256, 1, 8, 8))[library]
    else:
        job = training(digits_network, digits(), 256, 3)[library]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts here
    before = kibibytes("VmRSS")
    job()
    return (kibibytes("VmHWM") - before) / 1024


def memory() -> list[str]:
    """The table of memory, each number from a process of its own; empty where it is not Linux."""
    if platform.system() != "Linux":
        return []
    # With the system's own habits: here it matters that memory is given back.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    head = f"| MiB | {' | '.join(LIBRARIES)} |"
    lines = ["{.numbers}", head, "|---|" + "---|" * len(LIBRARIES)]
    for task in ("sampling", "training"):
        cells = []
        for library in LIBRARIES:
            command = [sys.executable, "-m", "benchmarks.bench", "--memory", task, library]
            cells.append(subprocess.check_output(command, text=True, env=clean).strip())
        lines.append(f"| {task}, U-Net, batch 256 | {' | '.join(cells)} |")
    return lines


# --- the page -------------------------------------------------------------------------------------


def page(seconds: float) -> str:
    """Everything, as Markdown."""
    points, pictures = points_network(), digits_network()
    agree = disagreements(points)
    if max(agree.values()) > 1e-4:
        raise SystemExit(f"The samples differ, so there is nothing to compare: {agree}")
    plan: dict[str, Callable[[], dict[str, Job]]] = {}
    for kind in ("ddpm", "ddim"):
        for batch in (1, 64, 4096):
            label = f"{kind.upper()}, MLP, batch {batch}"
            plan[label] = partial(sampling_jobs, kind, points, (batch, 2))
        label = f"{kind.upper()}, U-Net, batch 16"
        plan[label] = partial(sampling_jobs, kind, pictures, (16, 1, 8, 8))
    trained: dict[str, Callable[[], dict[str, Job]]] = {
        "MLP, batch 64": partial(training_jobs, points, moons(10_000), 64, STEPS),
        "MLP, batch 256": partial(training_jobs, points, moons(10_000), 256, STEPS),
        "U-Net, batch 64": partial(training_jobs, pictures, digits(), 64, 5),
    }
    progress = tqdm(total=len(plan) + len(trained), disable=False, leave=False)
    loops, steps = {}, {}
    for label, jobs in plan.items():
        loops[label] = timed(jobs(), seconds), STEPS
        progress.update()
    for label, jobs in trained.items():
        steps[label] = timed(jobs(), seconds), 5 if label.startswith("U-Net") else STEPS
        progress.update()
    progress.close()
    said = ", ".join(f"{name} {agree[name]:.0e}" for name in LIBRARIES[1:])
    return "\n".join(
        [
            *introduction(agree=said),
            "## Sampling",
            "",
            "The time of a loop of 50 steps over the time of 50 calls of the network, which get a",
            "time for each sample.",
            "",
            *table(loops, EACH),
            "",
            "The same over calls that are told that the whole batch has one time.",
            "",
            *table(loops, ONE),
            "",
            "## Training",
            "",
            "A training step over a bare forward, backward and Adam step on a batch at hand.",
            "The trainers of diffusion_lib, diffusers and denoising-diffusion-pytorch keep a",
            "moving average of the weights meanwhile; the last does so at every tenth step.",
            '"By hand" is a loop with a fused Adam that draws, mixes, learns and averages, and',
            "does nothing else: about as near to a bare step as a trainer comes.",
            "",
            *table(steps, DEFAULT),
            "",
            "The same with torch's fused Adam in the bare step, which our trainer uses.",
            "",
            *table(steps, FUSED),
            "",
            "## Memory",
            "",
            "How far the resident memory of a process grows, at its peak, above what it was with",
            "everything loaded; each number from a process of its own, MiB.",
            "",
            *memory(),
            "",
        ]
    )


INTRODUCTION = """\
What a library costs on top of the network, as ratios: 1.00 would be a library that costs nothing,
and below 1 it saves work that bare calls do twice. Each entry is the median over the rounds of one
run, with the quartiles; in a round everyone runs once. Times are CPU times. Ratios hold from
machine to machine far better than times, but not to the last digit.

`make bench` writes this page. Here it ran on {machine}, with one thread, in float32, with
{versions}.

Everyone samples with the same trained network from the same levels, by the loop that its
documentation shows. Before anything is timed, the samples that come from one noise are compared
with ours; the largest differences were {agree}. (Every step of every sampler is compared in the
tests.) Progress bars are off for everyone. The MLP has three hidden layers of 128 for 2-D points,
so small that overhead shows; the U-Net is that of the digits, 8 by 8 pixels.

Where ours is below 1, this is why: in a sampler the time is the same for the whole batch, and all
times are known before the loop, so the embeddings of all steps are computed in one call.
"""


def introduction(agree: str) -> list[str]:
    text = INTRODUCTION.format(machine=machine(), versions=versions(), agree=agree)
    lines = ["# Against other libraries", ""]
    for paragraph in text.strip().split("\n\n"):
        lines += [*textwrap.wrap(paragraph, 100, break_on_hyphens=False), ""]
    return lines


def machine() -> str:
    return f"a {os.cpu_count()}-core CPU ({platform.machine()}, {platform.system()})"


def versions() -> str:
    names = ("torch", *LIBRARIES[1:])
    listed = ", ".join(f"{name} {version(name)}" for name in names)
    today = datetime.date.today()
    return f"Python {platform.python_version()}, {listed}, on {today:%d} {today:%B} {today.year}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--write", action="store_true", help="write the page of the book, too")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU time for one row")
    parser.add_argument("--memory", nargs=2, metavar=("TASK", "LIBRARY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(f"{memory_of(*options.memory):.0f}")
        return
    text = page(options.seconds)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
