"""The code in the README, run as it is written there."""

import re

import torch

from diffusion_lib import data
from diffusion_lib.evaluation import energy_distance
from notebooks import ROOT


def readme_code():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return code


def test_from_a_tensor_to_samples_in_seven_lines():
    code = readme_code()
    assert len(code.strip().splitlines()) <= 7
    torch.manual_seed(0)
    names = {}
    exec(code, names)
    samples, truth = names["samples"].cpu(), data.moons(1000, seed=1)
    assert samples.shape == (1000, 2)
    # Two sets of true points are 0.015 apart, a Gaussian of the same mean and spread is at 0.22.
    assert energy_distance(samples, truth) < 0.12
    assert energy_distance(torch.randn(1000, 2), truth) > 0.2


def test_the_welcome_page_has_the_same_lines():
    assert readme_code() in (ROOT / "book" / "index.md").read_text("utf-8")
