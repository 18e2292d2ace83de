"""The four kinds of network output say the same thing, at clean and at noisy levels."""

import itertools

import mpmath
import pytest

from diffusion_lib import closed_forms as cf
from diffusion_lib.prediction import PREDICTIONS, get_prediction

KINDS = list(PREDICTIONS.values())
LEVELS = ["0.9999", "0.5", "0.00004"]
each_pair = pytest.mark.parametrize(
    ("source", "goal"),
    list(itertools.permutations(KINDS, 2)),
    ids=lambda kind: kind.name,
)


def convert(x_t, output, level, source, goal):
    estimates = (read(x_t, output, level) for read in (source.x_0, source.eps))
    return goal.target(*estimates, level)


@each_pair
@pytest.mark.parametrize("level", LEVELS)
def test_a_target_becomes_the_other_target(source, goal, level):
    with mpmath.workdps(50):
        level, x_0, eps = mpmath.mpf(level), mpmath.mpf("0.7"), mpmath.mpf("-1.3")
        x_t = cf.noised(x_0, eps, level)
        found = convert(x_t, source.target(x_0, eps, level), level, source, goal)
        assert mpmath.almosteq(found, goal.target(x_0, eps, level), rel_eps=mpmath.mpf("1e-40"))


@each_pair
@pytest.mark.parametrize("level", LEVELS)
def test_any_output_comes_back_from_the_other_kind(source, goal, level):
    """Also an output that is wrong: x_t and the output need not belong together."""
    with mpmath.workdps(50):
        level, x_t, output = mpmath.mpf(level), mpmath.mpf("0.4"), mpmath.mpf("2.5")
        there = convert(x_t, output, level, source, goal)
        back = convert(x_t, there, level, goal, source)
        assert mpmath.almosteq(back, output, rel_eps=mpmath.mpf("1e-40"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("level", [float(level) for level in LEVELS])
def test_what_an_output_implies_fits_x_t(kind, level):
    x_t, output = 0.4, 2.5
    implied = cf.noised(kind.x_0(x_t, output, level), kind.eps(x_t, output, level), level)
    assert implied == pytest.approx(x_t, rel=1e-11)


@pytest.mark.parametrize("level", [float(level) for level in LEVELS])
def test_velocity_is_the_only_kind_that_magnifies_no_error(level):
    """An error of 1 in an output of x_t = 0 is what the linear maps make of it."""
    worst = {
        kind.name: max(abs(kind.x_0(0.0, 1.0, level)), abs(kind.eps(0.0, 1.0, level)))
        for kind in KINDS
    }
    assert worst["v"] <= 1
    assert worst["eps"] == pytest.approx(max(1.0, cf.snr(level) ** -0.5))
    assert worst["x_0"] == pytest.approx(max(1.0, cf.snr(level) ** 0.5))


@pytest.mark.parametrize("name", ["eps", "x_0", "v", "score"])
def test_a_kind_is_found_by_its_name(name):
    assert get_prediction(name).name == name


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="'noise'; it must be one of eps, x_0, v, score"):
        get_prediction("noise")
