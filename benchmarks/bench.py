"""What the library costs on top of the network: ratios, both sides timed in turn in one run.

    python -m benchmarks

A sampling loop is compared with the same number of bare network calls, a training step with a bare
forward, backward and Adam step. The network is a 3 x 128 MLP on 2-D points in float32, small enough
that overhead shows. Two baselines are given for each, so that no trick hides in the choice:

- sampling: calls that get the times as our samplers pass them (one row of embedding serves the
  batch), and calls with a time for every sample, as other libraries make them;
- training: torch's fused Adam, which the trainer uses, and torch's default Adam.

The two sides alternate, and so does which comes first. A ratio is the median over 9 to 31 pairs,
as many as fit in a few seconds, with the quartiles behind it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from tqdm.auto import tqdm

from diffusion_lib.data import moons
from diffusion_lib.networks import MLP
from diffusion_lib.samplers import ddim, ddpm
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

STEPS = 50
PAIRS = 9, 31  # at least, at most
ENOUGH = 4.0  # seconds for the pairs of one row
SCHEDULE = NoiseSchedule.linear()

Job = Callable[[], object]


def network(device: torch.device) -> MLP:
    """The network of every row, with a random output layer so that nothing is trivially zero."""
    torch.manual_seed(0)
    model = MLP(dim=2, width=128, depth=3).to(device)
    torch.nn.init.normal_(model.out.weight, std=0.1)
    return model


def seconds(job: Job, device: torch.device) -> float:
    """Wall time of one call, the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(ours: Job, bare: Job, device: torch.device) -> str:
    """Our time, the bare time, and the ratio with its quartiles, over alternating repetitions."""
    seconds(ours, device), seconds(bare, device)
    pairs: list[tuple[float, float]] = []
    while len(pairs) < PAIRS[0] or (len(pairs) < PAIRS[1] and sum(map(sum, pairs)) < ENOUGH):
        if len(pairs) % 2:
            mine, theirs = seconds(ours, device), seconds(bare, device)
        else:
            theirs, mine = seconds(bare, device), seconds(ours, device)
        pairs.append((mine, theirs))
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    per_step = [1e3 * statistics.median(side) / STEPS for side in zip(*pairs, strict=True)]
    return f"{per_step[0]:9.3f} {per_step[1]:9.3f}   {middle:5.2f}  ({low:.2f} to {high:.2f})"


def sampling_jobs(
    sampler: Callable, batch: int, device: torch.device
) -> dict[str, tuple[Job, Job]]:
    """Our loop and its bare network calls, for both kinds of times."""
    model = network(device).eval()
    schedule = SCHEDULE.strided(STEPS)
    x_T = torch.randn(batch, 2, device=device)
    shared = torch.tensor(schedule.times[:0:-1].copy(), device=device)[:, None].expand(-1, batch)

    def calls(times: tuple[torch.Tensor, ...]) -> Job:
        def run() -> None:
            with torch.no_grad():
                for t in times:
                    model(x_T, t)

        return run

    def ours() -> torch.Tensor:
        return sampler(model, schedule, x_T)

    return {
        "one time for the batch": (ours, calls(shared.unbind())),
        "a time for each sample": (ours, calls(shared.contiguous().unbind())),
    }


def training_jobs(batch: int, device: torch.device) -> dict[str, tuple[Job, Job]]:
    """Steps of the trainer, moving average included, and bare steps with either Adam."""
    data = moons(10_000)
    trainer = Trainer(network(device), SCHEDULE, data, batch_size=batch, device=device)
    x = data[:batch].to(device)
    t = torch.randint(1, SCHEDULE.T + 1, (batch,), device=device)

    def bare(**options: bool) -> Job:
        model = network(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

        def run() -> None:
            for _ in range(STEPS):
                loss = torch.nn.functional.mse_loss(model(x, t), x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    def ours() -> torch.Tensor:
        return trainer.train(STEPS, progress=False)

    return {"fused Adam": (ours, bare(fused=True)), "default Adam": (ours, bare())}


def main() -> None:
    """Print one table for each device that is present."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print("milliseconds are per step; ratio = ours / bare, median (quartiles)")
    for device in devices:
        named = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        rows = [
            (f"{sampler.__name__} loop", batch, sampling_jobs(sampler, batch, device))
            for sampler in (ddpm, ddim)
            for batch in (1, 64, 4096)
        ] + [("training step", batch, training_jobs(batch, device)) for batch in (64, 256)]
        lines = [
            f"{what:14} {batch:5}  {against:23} {compare(*jobs, device)}"
            for what, batch, baselines in tqdm(rows, desc=named, leave=False)
            for against, jobs in baselines.items()
        ]
        print(f"\n{named}\n{'':14} batch  {'bare side':23} {'ours ms':>9} {'bare ms':>9}   ratio")
        print("\n".join(lines))
