"""Step for step against other libraries: the same noise, network and step list, by max-abs.

The others run in an environment of their own, .venv-peers, which benchmarks/environment.py makes
where it is missing. Their side is tests/peers/trajectories.py, the cases are in peers/problem.py.
"""

import subprocess

import numpy as np
import pytest
import torch

from benchmarks.environment import peers_python
from diffusion_lib import samplers
from diffusion_lib.objectives import min_snr_loss
from notebooks import ROOT
from tests.peers.problem import CASES, SCHEDULES, SEED, WEIGHTED, Case, weighted_batch


@pytest.fixture(scope="session")
def theirs(tmp_path_factory):
    """The trajectories of the other libraries, by the name of the case."""
    file = tmp_path_factory.mktemp("peers") / "trajectories.npz"
    command = [str(peers_python()), "-m", "tests.peers.trajectories", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    return np.load(file)


def ours(case):
    """Every sample on our way from the same noise."""
    seen = []
    options = dict(case.options)
    if case.sampler in ("ddpm", "ddim"):
        options["generator"] = torch.Generator().manual_seed(SEED)

    def watch(step):
        seen.append(step.x_s.clone())

    sampler = getattr(samplers, case.sampler)
    sampler(case.network, case.kept, case.start(), callback=watch, **options)
    return torch.stack(seen).numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_step_is_theirs(case, theirs):
    difference = np.abs(ours(case) - theirs[case.name])
    assert difference.shape == (len(case.steps), 16, 2)
    assert difference.max() < case.bound


@pytest.mark.parametrize("prediction", WEIGHTED)
def test_the_min_snr_loss_is_theirs(prediction, theirs):
    case = Case("", "", 0.0, options={"prediction": prediction})
    x_0, t, eps = weighted_batch()

    def half(x_t, times):
        return case.network(x_t, times) / 2

    loss = min_snr_loss(half, SCHEDULES["linear"], x_0, prediction=prediction, t=t, eps=eps)
    assert loss.item() == pytest.approx(theirs[f"loss {prediction}"].item(), rel=1e-5)
