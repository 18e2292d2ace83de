"""Change one sign in a closed form, and a proof fails and names its claim.

Where no claim speaks about a closed form yet, a unit test fails instead.
"""

import contextlib
import inspect
import io
import re
from collections import defaultdict
from functools import partial

import closed_forms_mutants
import ledger
import pytest
import test_closed_forms
import test_samplers
import test_schedule
import torch

from diffusion_lib import closed_forms, process
from diffusion_lib.schedule import NoiseSchedule
from notebooks import notebook_paths

CHAPTERS = {path.stem: path for path in notebook_paths()}


def test_score_of_noise_is_the_slope_of_its_log_density():
    """At x_0 = 0 the law of x_t is N(0, 1 - alpha_bar_t), which torch differentiates itself."""
    level = 0.3
    eps = torch.linspace(-2, 2, 5, dtype=torch.float64)
    x_t = (closed_forms.sqrt(1 - level) * eps).requires_grad_()
    density = torch.distributions.Normal(0.0, closed_forms.sqrt(1 - level))
    (slope,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    assert torch.allclose(closed_forms.score_from_eps(eps, level), slope)


inverts_velocity = partial(
    test_closed_forms.test_changes_of_variable_invert_each_other, closed_forms.velocity
)
# A closed form that no claim binds yet, and the unit test that keeps it right until one does.
NOT_YET_CLAIMED = {
    "normal_score": test_closed_forms.test_densities_agree_with_torch,
    "snr": test_schedule.test_tables_follow_their_definitions,
    "velocity": partial(inverts_velocity, closed_forms.x_0_from_velocity),
    "x_0_from_velocity": partial(inverts_velocity, closed_forms.x_0_from_velocity),
    "eps_from_velocity": partial(inverts_velocity, closed_forms.eps_from_velocity),
    "score_from_eps": test_score_of_noise_is_the_slope_of_its_log_density,
    "eps_from_score": test_closed_forms.test_tweedie_gives_the_mean_of_the_data,
    "x_0_from_score": test_closed_forms.test_tweedie_gives_the_mean_of_the_data,
    "ddim_sigma": partial(test_samplers.test_ddim_step_for_step, "cosine", 1.0),
    "bound_weight_eps": test_closed_forms.test_bound_weight_turns_a_mean_error_into_a_noise_error,
    "reverse_variance": test_closed_forms.test_total_variance_of_a_reverse_step,
    "interpolated_log_variance": test_closed_forms.test_learned_variance_is_between_its_extremes,
    "ddim_forward": test_closed_forms.test_ddim_forward_and_reverse_give_the_same_covariances,
    "data_eps_variance": test_closed_forms.test_variance_of_the_noise,
    "data_step": test_closed_forms.test_the_law_after_a_step_is_that_of_simulated_steps,
    "bound_weight_x_0": test_closed_forms.test_weight_of_a_data_error_is_half_the_drop_in_snr,
    "clock_frequency": test_closed_forms.test_clock_frequencies_are_a_geometric_row_from_1,
    "scaled_linear_beta": test_schedule.test_scaled_linear_table_has_betas_whose_roots_are_even,
    "sigmoid_alpha_bar": partial(
        test_schedule.test_sigmoid_table_follows_its_definition_until_the_cap, -3, 3, 1
    ),
    "linear_beta": test_schedule.test_linear_table_is_the_float64_nearest_to_the_definition,
    "cosine_alpha_bar": test_schedule.test_cosine_table_follows_its_definition_until_the_cap,
}
HELPERS = {"sqrt", "log", "exp", "coefficients"}  # no formulas of diffusion mathematics


def formulas():
    """The names of all closed forms."""
    functions = inspect.getmembers(closed_forms, inspect.isfunction)
    ours = {name for name, f in functions if f.__module__ == closed_forms.__name__}
    return {name for name in ours if not name.startswith("_")} - HELPERS


def chapters_that_bind():
    """The closed forms that claims speak about, with the chapters that settle those claims."""
    bound = defaultdict(dict)
    for chapter, card in ledger.collect(notebook_paths()):
        for name in card["binds"]:
            module, function = name.rsplit(".", 1)
            if module == closed_forms.__name__:
                bound[function][chapter] = CHAPTERS[chapter]
    return bound


def mutants(names):
    every = [mutant for name in sorted(names) for mutant in closed_forms_mutants.sign_mutants(name)]
    return pytest.mark.parametrize("mutant", every, ids=str)


BOUND = chapters_that_bind()


@mutants(BOUND)
def test_a_changed_sign_is_caught_by_name(mutant):
    for chapter in BOUND[mutant.function].values():
        with closed_forms_mutants.planted(mutant), contextlib.redirect_stdout(io.StringIO()):
            failure = closed_forms_mutants.first_failure(chapter)
        if failure is not None:
            break
    else:
        pytest.fail("no chapter noticed")
    assert re.match(r"[A-Z]\d+ \((holds|holds if|typo|false)\): ", failure), failure


def test_every_closed_form_is_bound_by_a_claim_or_listed_as_not_yet_claimed():
    assert formulas() - set(BOUND) == set(NOT_YET_CLAIMED)


@mutants(NOT_YET_CLAIMED)
def test_a_changed_sign_that_no_claim_can_catch_fails_a_unit_test(mutant):
    with (
        closed_forms_mutants.planted(mutant),
        pytest.raises((AssertionError, ValueError, IndexError, ZeroDivisionError)),
    ):
        NOT_YET_CLAIMED[mutant.function]()


@pytest.mark.parametrize("name", NOT_YET_CLAIMED)
def test_that_unit_test_passes_when_nothing_is_changed(name):
    """So it is the sign that fails it, and the originals are back after each mutant."""
    NOT_YET_CLAIMED[name]()


def test_tables_of_a_mutant_are_forgotten():
    schedule = NoiseSchedule.linear(3, 0.1, 0.3)
    x, t = torch.ones(3, 1), torch.arange(1, 4)
    before = process.posterior(schedule, x, x, t)
    for mutant in closed_forms_mutants.sign_mutants("posterior_variance"):
        with closed_forms_mutants.planted(mutant):
            assert not torch.equal(process.posterior(schedule, x, x, t).variance, before.variance)
        assert torch.equal(process.posterior(schedule, x, x, t).variance, before.variance)


def test_there_are_signs_to_change():
    assert sum(len(closed_forms_mutants.sign_mutants(name)) for name in formulas()) > 50
