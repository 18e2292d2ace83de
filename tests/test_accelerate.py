"""Two processes through Accelerate against one: the same run, up to the rounding of sums."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from diffusion_lib import checkpoint
from diffusion_lib.__main__ import LAUNCHED, main
from diffusion_lib.data import moons
from diffusion_lib.networks import MLP
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

pytest.importorskip("accelerate")

# After 20 steps of Adam the weights have moved by 5e-3 or so. Sums of float32 in another order
# differ by 1e-7 of their size, and Adam divides a gradient by its own size, so where one nearly
# cancels the difference shows more; 6e-8 was seen. A sample counted twice changes 1e-4 and more.
BOUND = 1e-5
CLOSE = {"rtol": 1e-4, "atol": BOUND, "equal_nan": True}

TRAIN = ["train", "--data", "moons", "--conditional", "--label-dropout", "0.3", "--device", "cpu"]
# 30 is 8 + 7 + 8 + 7: the parts differ in size, so their means may not simply be averaged.
TRAIN += ["--batch-size", "30", "--accumulate", "2", "--learning-rate", "1e-3"]


def launch(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """accelerate launch --num_processes 2 ..., for the CPU.

    (With --cpu it would leave starting the processes to mpirun. Its launcher for GPUs starts them
    itself, and what they run says that it wants the CPU.)
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", str(processes), "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("TQDM_DISABLE", None)
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **CLOSE, msg=name)


def test_the_command_line_in_two_processes(tmp_path) -> None:
    """12 steps in two processes, then 8 in one, are 20 in one; the first process alone writes."""
    out = tmp_path / "two"
    done = launch("-m", "diffusion_lib", *TRAIN, "--out", out, "--steps", 12)
    assert done.returncode == 0, done.stderr
    assert checkpoint.read(out / "checkpoint.safetensors").info["processes"] == 2
    assert done.stdout.count("wrote ") == 1
    assert done.stderr.count(" 0/12 ") == 1
    names = {"checkpoint.safetensors", "model.safetensors", "losses.png", "samples.png", "log.csv"}
    assert {file.name for file in out.iterdir()} == names
    log = np.loadtxt(out / "log.csv", delimiter=",", skiprows=1)
    assert log[:, 0].tolist() == list(range(1, 13))

    assert main([*TRAIN, "--out", str(tmp_path / "one"), "--steps", "20"]) == 0
    assert main([*TRAIN, "--out", str(out), "--steps", "20", "--resume"]) == 0
    two, one = (tensors(tmp_path / name / "checkpoint.safetensors") for name in ("two", "one"))
    assert_close(two, one)
    torch.manual_seed(0)
    start = MLP(2, classes=2).state_dict()
    assert max((two[f"model.{name}"] - start[name]).abs().max() for name in start) > 100 * BOUND


SCRIPT = """
import sys
import torch
from accelerate import Accelerator
from diffusion_lib.data import moons
from diffusion_lib.networks import MLP
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.training import Trainer

class Rows:
    def __init__(self, data):
        self.data, self.shape, self.read = data, data.shape, []
    def __len__(self):
        return len(self.data)
    def __getitem__(self, rows):
        self.read.append(rows)
        return self.data[rows]

accelerator = Accelerator(cpu=True)
here, data = accelerator.process_index, moons(70, seed=0)

def same_everywhere(*values):
    flat = torch.cat([value.flatten().double() for value in values])
    both = accelerator.gather(flat[None])
    return len(both) == 2 and torch.equal(both[0], both[1])

# The weights are those of the first process, whatever the others begin with.
torch.manual_seed(here)
rows, calls = Rows(data), []
common = {"batch_size": 15, "accelerator": accelerator}
trainer = Trainer(MLP(2, 16, 1), NoiseSchedule.linear(), rows, **common)
rows.read.clear()
trainer.train(20, progress=False, callback=calls.append)
assert trainer.writes == (here == 0) and calls == [trainer]
assert same_everywhere(*trainer.model.parameters(), *trainer.ema.parameters(), trainer.losses)
assert {len(read) for read in rows.read} == {7 + here}
trainer.save(f"{sys.argv[1]}/new.safetensors" if here == 0 else "/nowhere/at/all")

# A run that one process began.
resumed = Trainer.resume(f"{sys.argv[1]}/begun.safetensors", data, accelerator=accelerator)
resumed.train(12, progress=False)
resumed.save(f"{sys.argv[1]}/resumed.safetensors")

# One bad sample, in the slice of one process alone, stops both.
bad = Rows(data.clone())
spoiled = Trainer(MLP(2, 16, 1), NoiseSchedule.linear(), bad, **common)
bad.data[spoiled._rows(3)[0]] = torch.nan
try:
    spoiled.train(10, progress=False)
except FloatingPointError as error:
    with open(f"{sys.argv[1]}/error-{here}", "w") as file:
        file.write(str(error))
accelerator.wait_for_everyone()

for options, message in (
    ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
    ({"device": "cpu"}, "device is 'cpu'; the accelerator decides it"),
):
    try:
        Trainer(MLP(), NoiseSchedule.linear(), data, accelerator=accelerator, **options)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)
"""


def test_the_library_in_two_processes(tmp_path) -> None:
    data, script = moons(70, seed=0), tmp_path / "script.py"
    script.write_text(SCRIPT)

    def fresh() -> Trainer:
        torch.manual_seed(0)
        model = MLP(2, 16, 1)
        return Trainer(model, NoiseSchedule.linear(), data, batch_size=15, device="cpu")

    begun = fresh()
    begun.train(8, progress=False)
    begun.save(tmp_path / "begun.safetensors")
    done = launch(script, tmp_path)
    assert done.returncode == 0, done.stderr
    for process in range(2):
        error = (tmp_path / f"error-{process}").read_text()
        assert error.startswith("the loss became nan at step 4; no checkpoint was saved before.")
    straight = fresh()
    straight.train(20, progress=False)
    straight.save(tmp_path / "one.safetensors")
    one, new, resumed = (
        tensors(tmp_path / f"{name}.safetensors") for name in ("one", "new", "resumed")
    )
    assert_close(new, one)
    assert_close(resumed, one)


def test_mixed_precision_is_asked_of_the_trainer(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv(LAUNCHED[0], "bf16")
    assert main([*TRAIN, "--out", str(tmp_path), "--steps", "1"]) == 2
    assert "launched with mixed precision bf16" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LAUNCHED)
def test_without_accelerate_no_two_runs_write_to_one_folder(
    name, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv(name, "no" if name == LAUNCHED[0] else "1")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main([*TRAIN, "--out", str(tmp_path), "--steps", "1"]) == 2
    assert "several processes need accelerate: pip install" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_accelerate_is_imported_only_when_it_launched(tmp_path) -> None:
    program = (
        "import sys; from diffusion_lib.__main__ import main;"
        f"code = main(['train', '--data', 'moons', '--steps', '1', '--out', {str(tmp_path)!r}]);"
        "assert 'accelerate' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
