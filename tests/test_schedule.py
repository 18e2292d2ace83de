"""Schedules: exact tables, honest strides, errors that say what is wrong."""

import copy
import pickle

import mpmath
import numpy as np
import pytest

from diffusion_lib import closed_forms
from diffusion_lib.schedule import NoiseSchedule

SPACINGS = ["trailing", "linspace", "leading", "quadratic"]


def test_linear_table_is_the_float64_nearest_to_the_definition():
    with mpmath.workdps(50):
        product, table = mpmath.mpf(1), [mpmath.mpf(1)]
        for i in range(1000):
            slope = (mpmath.mpf(0.02) - mpmath.mpf(1e-4)) / 999
            product *= 1 - (mpmath.mpf(1e-4) + slope * i)
            table.append(product)
        worst = max(
            abs(mpmath.mpf(float(a)) / b - 1)
            for a, b in zip(NoiseSchedule.linear().alpha_bar, table, strict=True)
        )
    assert worst < 1.12e-16


def test_cosine_table_follows_its_definition_until_the_cap():
    schedule = NoiseSchedule.cosine(1000)
    with mpmath.workdps(50):

        def f(t):
            return (
                mpmath.cos(
                    (mpmath.mpf(t) / 1000 + mpmath.mpf(0.008))
                    / (1 + mpmath.mpf(0.008))
                    * mpmath.pi
                    / 2
                )
                ** 2
            )

        worst = max(
            abs(mpmath.mpf(float(schedule.alpha_bar[t])) / (f(t) / f(0)) - 1) for t in range(1000)
        )
    assert worst < 2e-16  # the cap of beta acts at t = 1000 alone
    assert schedule.beta[1000] == pytest.approx(0.999, rel=1e-9)
    assert schedule.alpha_bar[1000] > 0


def test_scaled_linear_table_has_betas_whose_roots_are_even():
    schedule = NoiseSchedule.scaled_linear(1000)
    with mpmath.workdps(50):
        first, last = mpmath.sqrt(mpmath.mpf(0.00085)), mpmath.sqrt(mpmath.mpf(0.012))
        product, worst = mpmath.mpf(1), mpmath.mpf(0)
        for i in range(1000):
            product *= 1 - (first + (last - first) * i / 999) ** 2
            worst = max(worst, abs(mpmath.mpf(float(schedule.alpha_bar[i + 1])) / product - 1))
    assert worst < 1.12e-16


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_zero_terminal_is_lin_et_als_algorithm_in_50_digits(name):
    """Roots shifted by the last, then scaled so that the first is what it was."""
    schedule = getattr(NoiseSchedule, name)(50)
    rescaled = schedule.zero_terminal()
    assert rescaled.alpha_bar[50] == 0
    assert rescaled.alpha_bar[0] == 1
    assert rescaled.beta[50] == 1
    with mpmath.workdps(50):
        roots = [mpmath.sqrt(mpmath.mpf(a)) for a in schedule.alpha_bar[1:].tolist()]
        scale = roots[0] / (roots[0] - roots[-1])
        truth = [((root - roots[-1]) * scale) ** 2 for root in roots[:-1]]
        pairs = zip(rescaled.alpha_bar[1:-1].tolist(), truth, strict=True)
        assert max(abs(got / want - 1) for got, want in pairs) < 1.2e-16
    assert rescaled.zero_terminal() == rescaled
    strided = rescaled.strided(7)
    assert strided.alpha_bar[-1] == 0
    with pytest.raises(ValueError, match="T is 1"):
        schedule.strided(1).zero_terminal()


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_every_schedule_has_a_thousand_steps_unless_said(name):
    assert getattr(NoiseSchedule, name)().T == 1000


@pytest.mark.parametrize(("start", "end", "tau"), [(-3, 3, 1), (0, 3, 0.7)])
def test_sigmoid_table_follows_its_definition_until_the_cap(start, end, tau):
    schedule = NoiseSchedule.sigmoid(1000, start, end, tau)
    with mpmath.workdps(50):

        def logistic(t):
            # 1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2
            x = (start + (end - start) * mpmath.mpf(t) / 1000) / mpmath.mpf(tau)
            return (1 + mpmath.tanh(x / 2)) / 2

        last, first = logistic(1000), logistic(0)
        worst = max(
            abs(
                mpmath.mpf(float(schedule.alpha_bar[t])) * (last - first) / (last - logistic(t)) - 1
            )
            for t in range(1000)
        )
    assert worst < 2e-16
    assert schedule.beta[1000] == pytest.approx(0.999, rel=1e-9)
    assert closed_forms.sigmoid_alpha_bar(0.0, 1000, start, end, tau) == 1
    assert closed_forms.sigmoid_alpha_bar(1000.0, 1000, start, end, tau) == 0


def test_tables_follow_their_definitions():
    betas = [0.1, 0.25, 0.5]
    schedule = NoiseSchedule.from_betas(betas)
    assert schedule.alpha_bar == pytest.approx([1, 0.9, 0.675, 0.3375], rel=1e-15)
    assert schedule.beta == pytest.approx([0, *betas], rel=1e-14)
    assert schedule.alpha == pytest.approx([1, 0.9, 0.75, 0.5], rel=1e-14)
    assert schedule.posterior_variance == pytest.approx(
        [0, 0, 0.1 / 0.325 * 0.25, 0.325 / 0.6625 * 0.5]
    )
    assert schedule.snr == pytest.approx([np.inf, 9, 0.675 / 0.325, 0.3375 / 0.6625])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [1, 2, 7, 50, 137])
def test_every_stride_has_exactly_the_steps_asked_for(T, spacing):
    schedule = NoiseSchedule.cosine(T)
    for S in range(1, T + 1):
        strided = schedule.strided(S, spacing)
        assert strided.T == S
        assert strided.times[0] == 0
        assert strided.alpha_bar[0] == 1
        assert (np.diff(strided.times) > 0).all()
        assert np.array_equal(strided.alpha_bar, schedule.alpha_bar[strided.times])
        if spacing != "leading":
            assert strided.times[-1] == T


def test_a_stride_of_all_steps_is_the_schedule():
    schedule = NoiseSchedule.linear(40)
    for spacing in SPACINGS:
        assert schedule.strided(40, spacing) == schedule


def test_trailing_starts_at_full_noise_where_a_float_stride_would_not():
    assert NoiseSchedule.linear().strided(50).times[[1, -2, -1]].tolist() == [20, 980, 1000]
    assert NoiseSchedule.linear().strided(1).times.tolist() == [0, 1000]


def test_a_subsequence_of_a_subsequence_keeps_network_times():
    schedule = NoiseSchedule.linear(100).subsequence([90, 50, 10])
    assert schedule.times.tolist() == [0, 10, 50, 90]
    assert schedule.subsequence([1, 3]).times.tolist() == [0, 10, 90]


def test_neighbours_of_a_stride_give_the_stride_its_own_beta():
    schedule = NoiseSchedule.linear(100)
    strided = schedule.subsequence([20, 70])
    kept = np.prod(1 - schedule.beta[21:71])
    assert strided.beta[2] == pytest.approx(1 - kept, rel=1e-12)


def test_equal_schedules_are_equal_and_hash_alike():
    a, b = NoiseSchedule.linear(10), NoiseSchedule.linear(10)
    assert a == b
    assert hash(a) == hash(b)
    assert a != NoiseSchedule.cosine(10)
    assert a != a.strided(5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_equal_and_as_immutable(copied):
    schedule = NoiseSchedule.linear(10)
    twin = copied(schedule)
    assert twin == schedule
    assert hash(twin) == hash(schedule)
    assert not twin.alpha_bar.flags.writeable


def test_a_schedule_cannot_be_changed():
    schedule = NoiseSchedule.linear(10)
    with pytest.raises(AttributeError, match="immutable"):
        schedule.T = 3
    with pytest.raises(ValueError, match="read-only"):
        schedule.alpha_bar[3] = 0.5
    given = np.linspace(1, 0.1, 5)
    kept = NoiseSchedule(given)
    given[2] = 0.9
    assert kept.alpha_bar[2] == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseSchedule.from_betas([0.1, 1.0]), r"betas\[1\] is 1"),
        (lambda: NoiseSchedule.from_betas([0.1, 2.0]), r"betas\[1\] is 2"),
        (lambda: NoiseSchedule.from_betas([0.0]), r"betas\[0\] is 0"),
        (lambda: NoiseSchedule.from_betas([0.1, float("nan")]), r"betas\[1\] is nan"),
        (lambda: NoiseSchedule.from_betas([]), "betas has shape"),
        (lambda: NoiseSchedule.from_betas([10**400]), r"betas is \[1000*; it must be one row of"),
        (lambda: NoiseSchedule([0.9, 0.5]), "alpha_bar_0 = 1"),
        (lambda: NoiseSchedule([1.0, 0.5, 0.6]), r"alpha_bar\[2\] is 0.6"),
        (lambda: NoiseSchedule([1.0, 0.5, -0.1]), r"alpha_bar\[2\] is -0.1"),
        (lambda: NoiseSchedule([1.0, 0.0, 0.0]), r"alpha_bar\[2\] is 0"),
        (lambda: NoiseSchedule([1.0, 0.5], times=[0, 0]), r"times\[1\] is 0"),
        (lambda: NoiseSchedule([1.0, 0.5], times=[1, 2]), r"times\[0\] is 1"),
        (lambda: NoiseSchedule([1.0, 0.5], times=[0, 1, 2]), "times has 3 entries; it must"),
        (lambda: NoiseSchedule([1.0, 0.5], times=[0, True]), r"times\[1\] is True"),
        (lambda: NoiseSchedule([1.0, 0.5], times=[0, 2**63]), r"times\[1\] is 9223372036854775808"),
        (lambda: NoiseSchedule([1.0, 0.5], times=1), "times is 1; it must be a sequence"),
        (lambda: NoiseSchedule.linear(1), "T is 1"),
        (lambda: NoiseSchedule.linear(10, 0.1, 1.5), "beta_end is 1.5"),
        (lambda: NoiseSchedule.scaled_linear(10, -0.1, 0.5), "beta_start is -0.1"),
        (lambda: NoiseSchedule.sigmoid(10, 3, -3), "start is 3 and end -3"),
        (lambda: NoiseSchedule.sigmoid(10, tau=0), "tau is 0"),
        (lambda: NoiseSchedule.sigmoid(10, max_beta=1), "max_beta is 1"),
        (lambda: NoiseSchedule.cosine(10, s=-1), "s is -1"),
        (lambda: NoiseSchedule.cosine(10, s=10**400), "s is 1000*; it must be a number of 0 or"),
        (lambda: NoiseSchedule.cosine(10, max_beta=1.0), "max_beta is 1"),
        (lambda: NoiseSchedule.linear(10).strided(11), r"S is 11; it must be one of 1\.\.10"),
        (lambda: NoiseSchedule.linear(10).strided(0), "S is 0"),
        (lambda: NoiseSchedule.linear(10).strided(2.5), "S is 2.5"),
        (lambda: NoiseSchedule.linear(10).strided(5, "even"), "spacing is 'even'"),
        (lambda: NoiseSchedule.linear(10).subsequence([0, 3]), r"steps\[0\] is 0"),
        (lambda: NoiseSchedule.linear(10).subsequence([3, 3]), r"steps\[1\] is 3"),
        (lambda: NoiseSchedule.linear(10).subsequence([3, 9, 5]), r"steps\[2\] is 5"),
        (lambda: NoiseSchedule.linear(10).subsequence([3, 11]), r"steps\[1\] is 11"),
        (lambda: NoiseSchedule.linear(10).subsequence([]), r"steps is \[\]; it must hold"),
        (lambda: NoiseSchedule.linear(10).subsequence([1, True]), r"steps\[1\] is True"),
        (lambda: NoiseSchedule.linear(10).subsequence([[3]]), r"steps\[0\] is \[3\]"),
        (lambda: NoiseSchedule.linear(10).subsequence(3), "steps is 3; it must be a sequence"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
