"""The library on a GPU: no waiting inside the loops, what they cost, and the card's limit.

    python -m benchmarks.gpu

Without a CUDA device it says so and stops. It prints, in this order:

1. Synchronisation. Sampling and training run with torch set to raise on any operation that makes
   the host wait for the device; then the profiler counts the waits and copies to the host. A loop
   may copy its result once after it has ended; inside there must be none.
2. Loops over bare calls, for the MLP and the U-Net, float32 and bfloat16.
3. The U-Net alone: floating-point operations a second, counted by torch, over what a large matrix
   product reaches in the same type on the same card; float32, bfloat16, channels_last, compiled,
   and as a CUDA graph.
4. Training steps, float32 and bfloat16, over bare steps.

Wall times, everyone in turn, median over the rounds with quartiles; the device's queue is empty
before and after each.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from diffusion_lib import samplers
from diffusion_lib.networks import MLP, UNet
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

STEPS = 50
ROUNDS = 15
SCHEDULE = NoiseSchedule.linear()
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")
Job = Callable[[], object]


def networks(device: torch.device) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The networks and the shapes of a batch for them."""
    torch.manual_seed(0)
    mlp, unet = MLP(dim=2), UNet(channels=3, width=128, multipliers=(1, 2, 2), blocks=2)
    for network in (mlp, unet):
        nn.init.normal_(network.out.weight, std=1e-3)
    return {
        "MLP": (mlp.to(device).eval(), (4096, 2)),
        "U-Net, 32 x 32": (unet.to(device).eval(), (64, 3, 32, 32)),
    }


# --- 1. synchronisation ---------------------------------------------------------------------------


def calls_of(network: nn.Module, job: Job) -> int:
    """How often a job asks the network."""
    with each_call(network) as calls:
        job()
    return len(calls)


@contextmanager
def each_call(
    network: nn.Module, look: Callable[[int], object] = lambda number: None
) -> Iterator[list[int]]:
    """look(1), look(2), ... just before the calls of the network; the list grows with them."""
    calls: list[int] = []

    def before(*_: object) -> None:
        calls.append(len(calls) + 1)
        look(calls[-1])

    hook = network.register_forward_pre_hook(before)
    try:
        yield calls
    finally:
        hook.remove()


def check_never_waits(network: nn.Module, job: Job) -> int:
    """Raise if from the first call of the network to the last anything makes the host wait.

    Outside it may: before the loop, tables travel to the device; after it, losses are read.
    """
    total = calls_of(network, job)

    def switch(number: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if number < total else "default")

    try:
        with each_call(network, switch):
            job()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return total


def waits(job: Job) -> dict[str, int]:
    """How often the profiler saw the host wait for the device, or copy from it."""
    job()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's own about its cycles
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            job()
    counts = dict.fromkeys(WAITS, 0)
    for event in seen.key_averages():
        for name in WAITS:
            if name in event.key:
                counts[name] += event.count
    return counts


def looked_at(
    network: nn.Module, shape: tuple[int, ...], device: torch.device
) -> Iterator[tuple[str, nn.Module, Job]]:
    """Every sampler and the trainer: a label, the network that is asked, and the run."""
    x_T, strided = torch.randn(shape, device=device), SCHEDULE.strided(STEPS)
    for kind in ("ddpm", "ddim", "heun", "dpm_solver"):
        yield kind, network, partial(getattr(samplers, kind), network, strided, x_T)
    data = torch.randn(4 * shape[0], *shape[1:], device=device)
    model = copy.deepcopy(network).train()
    trainer = Trainer(model, SCHEDULE, data, batch_size=shape[0], device=device)
    yield "training", model, partial(trainer.train, STEPS, progress=False)


# --- timing ---------------------------------------------------------------------------------------


def timed(
    jobs: dict[str, Job], device: torch.device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Wall seconds of every job in every round, in an order that changes."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for job in jobs.values():
        job(), job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for _ in range(rounds):
        names = [*names[1:], names[0]]
        for name in names:
            wait()
            start = time.perf_counter()
            jobs[name]()
            wait()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(over: list[float], under: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def graphed(run: Callable[[Tensor], Tensor], x: Tensor) -> Job:
    """The whole of run(x) as one CUDA graph: the host launches once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(x)
    return graph.replay


# --- 2. loops over bare calls ---------------------------------------------------------------------


def bare_calls(network: nn.Module, x: Tensor, *, shared: bool) -> Job:
    """As many calls as a loop of DDPM or DDIM makes; shared: all samples are told one time."""
    one = torch.tensor(SCHEDULE.strided(STEPS).times[:0:-1].copy(), device=x.device)
    one = one[:, None].expand(-1, len(x))
    times = (one if shared else one.contiguous()).unbind()

    @torch.no_grad()
    def run() -> None:
        for t in times:
            network(x, t)

    return run


def loop_rows(name: str, network: nn.Module, x_T: Tensor, device: torch.device) -> list[str]:
    strided = SCHEDULE.strided(STEPS)
    rows = []
    for precision in (torch.float32, torch.bfloat16):
        same = copy.deepcopy(network).to(precision)
        x = x_T.to(precision)
        jobs: dict[str, Job] = {
            "each": bare_calls(same, x, shared=False),
            "one": bare_calls(same, x, shared=True),
        }
        for kind in ("ddpm", "ddim"):
            sampler = getattr(samplers, kind)
            jobs[kind] = partial(sampler, same, strided, x)
        times = timed(jobs, device)
        for kind in ("ddpm", "ddim"):
            each, one = (ratio(times[kind], times[bare]) for bare in ("each", "one"))
            label = f"{kind}, {name}, {str(precision).removeprefix('torch.')}"
            rows.append(f"  {label:34} {each:28} {one}")
    return rows


# --- 3. how far the U-Net is from the card's limit ------------------------------------------------


def operations(network: nn.Module, x: Tensor, t: Tensor) -> int:
    """Floating-point operations of one call, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, t)
    return int(counter.get_total_flops())


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int) -> float:
    """Operations a second of a square matrix product: what the card can do, measured."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = timed({"product": lambda: a @ b}, device)["product"]
    return 2 * size**3 / statistics.median(times)


def limit_rows(network: nn.Module, x: Tensor, device: torch.device, size: int) -> list[str]:
    t = torch.full((len(x),), 500, device=device)
    count = operations(network, x, t)
    rows = [f"  one call: {count / 1e9:.1f} GFLOP for {len(x)} images"]
    for dtype in (torch.float32, torch.bfloat16):
        for tf32 in (False, True) if dtype is torch.float32 else (False,):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            peak = matmul_rate(dtype, device, size)
            kind = f"{str(dtype).removeprefix('torch.')}{' (TF32)' if tf32 else ''}"
            rows.append(f"  {kind}: a matrix product reaches {peak / 1e12:.1f} TFLOP/s")
            variants = unet_variants(network.to(dtype), x.to(dtype), t, device)
            for name, times in timed(variants, device).items():
                rate = count / statistics.median(times)
                rows.append(f"    {name:34} {rate / 1e12:7.1f} TFLOP/s   {rate / peak:6.1%} of it")
            network.float()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return rows


def unet_variants(network: nn.Module, x: Tensor, t: Tensor, device: torch.device) -> dict[str, Job]:
    """The same call, plain and helped."""

    def call(module: Callable[..., Tensor], x: Tensor) -> Job:
        @torch.no_grad()
        def run() -> Tensor:
            return module(x, t)

        return run

    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    x_last = x.to(memory_format=torch.channels_last)
    compiled = torch.compile(last)
    variants = {
        "eager": call(network, x),
        "channels_last": call(last, x_last),
        "channels_last, compiled": call(compiled, x_last),
    }
    if device.type == "cuda":

        @torch.no_grad()
        def forward(x: Tensor) -> Tensor:
            return last(x, t)

        variants["channels_last, CUDA graph"] = graphed(forward, x_last)
        most = torch.compile(copy.deepcopy(last), mode="max-autotune")
        variants["channels_last, compiled to the limit"] = call(most, x_last)
    return variants


# --- 4. training ----------------------------------------------------------------------------------


def bare_training(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, t: Tensor, half: bool
) -> None:
    """Forward, backward and Adam step, again and again on one batch."""
    for _ in range(STEPS):
        with torch.autocast(x.device.type, torch.bfloat16) if half else nullcontext():
            loss = torch.nn.functional.mse_loss(model(x, t), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def training_rows(
    name: str, network: nn.Module, shape: tuple[int, ...], device: torch.device
) -> list[str]:
    data = torch.randn(4 * shape[0], *shape[1:], device=device)
    x, t = data[: shape[0]], torch.full((shape[0],), 500, device=device)
    rows = []
    for precision in ("fp32", "bf16"):
        trainer = Trainer(
            copy.deepcopy(network).train(),
            SCHEDULE,
            data,
            batch_size=shape[0],
            precision=precision,
            device=device,
        )
        model = copy.deepcopy(network).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

        half = precision == "bf16"
        bare = partial(bare_training, model, optimizer, x, t, half)
        ours = partial(trainer.train, STEPS, progress=False)
        times = timed({"ours": ours, "bare": bare}, device, rounds=5)
        per_step = 1e3 * statistics.median(times["ours"]) / STEPS
        rows.append(
            f"  {name}, {precision:28} {ratio(times['ours'], times['bare']):28} {per_step:.2f} ms"
        )
    return rows


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing is measured.")
        return
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    made = networks(device)

    print("\n1. Waiting for the device")
    for name, (network, shape) in made.items():
        for label, asked, job in looked_at(network, shape, device):
            total = check_never_waits(asked, job)
            print(f"  {label}, {name}: none between {total} calls; in all {waits(job)}")

    print(f"\n2. Loops of {STEPS} steps over bare calls\n  {'':34} {'a time each':28} one time")
    for name, (network, shape) in made.items():
        print("\n".join(loop_rows(name, network, torch.randn(shape, device=device), device)))

    print("\n3. The U-Net against the card")
    network, shape = made["U-Net, 32 x 32"]
    big = torch.randn(4 * shape[0], *shape[1:], device=device)
    print("\n".join(limit_rows(copy.deepcopy(network), big, device, 8192)))

    print("\n4. Training steps over bare steps with fused Adam")
    for name, (network, shape) in made.items():
        print("\n".join(training_rows(name, network, shape, device)))


if __name__ == "__main__":
    main()
