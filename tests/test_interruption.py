"""Killed at any moment, a run goes on from its last checkpoint and ends in the same bits.

A server imports torch once and forks the runs, so that dozens of them take seconds.
"""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_lib import checkpoint, training
from diffusion_lib.data import moons
from diffusion_lib.networks import MLP
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

STEPS, BETWEEN = 60, 3  # steps in all, and between two checkpoints
KILLS = 32
POINTS, LABELS = moons(70, seed=0), torch.arange(70) % 3

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "diffusion_lib.training", "sklearn.datasets"])

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks processes and kills them")


def fresh() -> Trainer:
    """fp16, so that there is a scale to lose; every third step is followed by a save."""
    torch.manual_seed(0)
    return Trainer(
        MLP(dim=2, width=64, depth=1, classes=3),
        NoiseSchedule.linear(),
        POINTS,
        labels=LABELS,
        batch_size=12,
        accumulate=2,
        precision="fp16",
        gradient_clip=1.0,
        device="cpu",
    )


def run(folder: Path, ready=None) -> None:
    """What `diffusion_lib train --resume` does: begin or go on, saving on the way."""
    torch.set_num_threads(1)
    training.BLOCK = BETWEEN  # and with it the callback
    path = folder / "run.safetensors"
    trainer = (
        Trainer.resume(path, POINTS, labels=LABELS, device="cpu") if path.exists() else fresh()
    )
    trainer.write_log(folder / "log.csv")
    logged = trainer.step
    if ready is not None:
        ready.set()

    def save(trainer: Trainer) -> None:
        nonlocal logged
        trainer.write_log(folder / "log.csv", since=logged)
        logged = trainer.step
        trainer.save(path)

    if trainer.step < STEPS:
        trainer.train(STEPS - trainer.step, progress=False, callback=save)


def content(path: Path) -> dict[str, torch.Tensor]:
    """Everything in a checkpoint but its schedule."""
    return checkpoint.read(path).tensors


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[dict[int, dict[str, torch.Tensor]], Path, float]:
    """Every checkpoint of the run that nothing interrupts, its folder, and how long it took."""
    folder = tmp_path_factory.mktemp("straight")
    found, save = {}, Trainer.save

    def kept(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        found[trainer.step] = content(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", kept)
        patch.setattr(training, "BLOCK", BETWEEN)
        begin = time.perf_counter()
        run(folder)
        seconds = time.perf_counter() - begin
    assert list(found) == list(range(BETWEEN, STEPS + 1, BETWEEN))
    return found, folder, seconds


def assert_no_half_file(folder: Path, found: dict[int, dict[str, torch.Tensor]]) -> int:
    """The checkpoint, if there is one yet, is that of its step; returned, 0 without one."""
    path = folder / "run.safetensors"
    if not path.exists():
        return 0
    step = checkpoint.read(path).info["step"]
    assert_same(content(path), found[step])
    return step


def test_killed_at_random_moments(straight, tmp_path) -> None:
    """32 SIGKILLs; each time the checkpoint is whole, and in the end nothing differs.

    The log, too, has every step once: a resumed run drops the lines past its checkpoint.
    """
    found, folder, seconds = straight
    rng = np.random.default_rng()  # other moments every time: every one must do
    kills, ended, stopped_at = 0, 0, []
    while kills < KILLS:
        here = tmp_path / str(ended)
        here.mkdir(exist_ok=True)
        ready = PROCESSES.Event()
        process = PROCESSES.Process(target=run, args=(here, ready))
        process.start()
        assert ready.wait(60)
        process.join(rng.exponential(seconds / 6))
        process.kill()
        process.join()
        step = assert_no_half_file(here, found)
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            stopped_at.append(step)
        else:
            assert process.exitcode == 0
            assert step == STEPS
        if step == STEPS:
            assert_same(content(here / "run.safetensors"), found[STEPS])
            ended += 1
    last = PROCESSES.Process(target=run, args=(here,))
    last.start()
    last.join(60)
    for finished in tmp_path.iterdir():
        assert_same(content(finished / "run.safetensors"), found[STEPS])
        assert (finished / "log.csv").read_text() == (folder / "log.csv").read_text()
    assert len(set(stopped_at)) > 5  # they were stopped all over the place


PLACES = ["before writing", "in the middle", "before fsync", "before rename", "after rename"]


def run_killed_at(folder: Path, place: str, save: int) -> None:
    """Kill itself at a place in the given save, which writes slowly, half by half."""
    saves, fsync, replace, opened = [], os.fsync, os.replace, open

    def die_at(reached: str) -> None:
        if reached == place and len(saves) == save:
            os.kill(os.getpid(), signal.SIGKILL)

    class Halves:
        def __init__(self, file) -> None:
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data: bytes) -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            die_at("in the middle")
            self.file.write(data[len(data) // 2 :])

    def open_slowly(*arguments, **options):
        saves.append(None)
        die_at("before writing")
        return Halves(opened(*arguments, **options))

    def fsync_slowly(number: int) -> None:
        die_at("before fsync")
        fsync(number)

    def replace_slowly(*names) -> None:
        die_at("before rename")
        replace(*names)
        die_at("after rename")

    checkpoint.open, os.fsync, os.replace = open_slowly, fsync_slowly, replace_slowly
    run(folder)


@pytest.mark.parametrize("place", PLACES)
def test_killed_while_saving(straight, tmp_path, place) -> None:
    """In the second save: the first, or from the rename on the second, is what remains."""
    found, _, _ = straight
    process = PROCESSES.Process(target=run_killed_at, args=(tmp_path, place, 2))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    step = assert_no_half_file(tmp_path, found)
    assert step == (2 if place == "after rename" else 1) * BETWEEN
    left = {file.name for file in tmp_path.iterdir()} - {"log.csv", "run.safetensors"}
    unfinished = place in ("in the middle", "before fsync", "before rename")
    assert left == ({"run.safetensors.part"} if unfinished else set())
    again = PROCESSES.Process(target=run, args=(tmp_path,))
    again.start()
    again.join(60)
    assert again.exitcode == 0
    assert_same(content(tmp_path / "run.safetensors"), found[STEPS])
    assert not (tmp_path / "run.safetensors.part").exists()


def test_two_processes_draw_the_same_bits(straight, tmp_path) -> None:
    """Same seed, same bits: in this process, and in another one."""
    found, _, _ = straight
    process = PROCESSES.Process(target=run, args=(tmp_path,))
    process.start()
    process.join(60)
    assert_same(content(tmp_path / "run.safetensors"), found[STEPS])
