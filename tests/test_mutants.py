"""Mistakes planted in the library's mathematics are noticed, and the record of it is current.

`make mutants` plants every mistake and takes a while. Here its record is held against the code, and
a sample of the mistakes is planted again.
"""

import ast
import inspect
import re
import subprocess
import sys

import ledger
import mutants
import mutants_page
import pytest

from diffusion_lib import closed_forms
from notebooks import ROOT, notebook_paths

RECORD = mutants.stored()
HELPERS = {"sqrt", "log", "exp", "erf", "coefficients"}  # no formulas of diffusion mathematics
# What the notes claim nothing about; chapter 16 proves it.
BEYOND_THE_NOTES = {
    "guided_eps",
    "log_bin_probability",
    "half_log_snr",
    "extrapolated_x_0",
    "zero_terminal_alpha_bar",
}


def formulas():
    """The names of all closed forms."""
    members = inspect.getmembers(closed_forms, inspect.isfunction)
    ours = {name for name, f in members if f.__module__ == closed_forms.__name__}
    return {name for name in ours if not name.startswith("_")} - HELPERS


# --- The record -----------------------------------------------------------------------------------


def test_the_record_is_of_the_code_as_it_is():
    assert not mutants.stale(), "run `make mutants`"


@pytest.mark.parametrize("name", mutants.every_function())
def test_every_mistake_is_on_record(name):
    recorded = [mutant["change"] for mutant in RECORD[name]["mutants"]]
    assert recorded == [m.change for m in mutants.mutants_of(*mutants.every_function()[name])]


def test_every_mistake_that_nobody_noticed_is_explained():
    reasons = mutants_page.read_reasons(ROOT / "book" / "survivors.toml")
    assert not mutants_page.unexplained(RECORD, reasons)


def test_a_survivor_without_a_reason_and_a_reason_without_a_survivor_are_reported():
    record = {"closed_forms.snr": {"mutants": [{"change": "a  →  b", "noticed_by": ""}]}}
    other = {"function": "closed_forms.snr", "change": "c  →  d", "reason": "because"}
    assert len(mutants_page.unexplained(record, [])) == 1
    assert len(mutants_page.unexplained(record, [other])) == 2


def test_every_closed_form_is_bound_by_a_claim():
    bound = {name for _, card in ledger.collect(notebook_paths()) for name in card["binds"]}
    unbound = {name for name in formulas() if f"diffusion_lib.closed_forms.{name}" not in bound}
    assert unbound == BEYOND_THE_NOTES


@pytest.mark.parametrize("name", sorted(formulas() - BEYOND_THE_NOTES))
def test_a_claim_notices_most_mistakes_in_a_closed_form(name):
    """The proofs carry the closed forms; unit tests only catch what is left."""
    whom = [mutant["noticed_by"] for mutant in RECORD[f"closed_forms.{name}"]["mutants"]]
    assert sum(answer.startswith("claim") for answer in whom) > len(whom) / 2


# --- The sample -----------------------------------------------------------------------------------


def test_a_sample_of_the_mistakes_is_noticed_again():
    command = [sys.executable, str(ROOT / "tools" / "mutants.py"), "--sample", "15"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "15 of 15 mutants noticed" in run.stdout


# --- What is planted ------------------------------------------------------------------------------


def changes(function):
    return {m.change.split("→")[1].strip() for m in mutants.mutants_of("closed_forms", function)}


def test_signs_operators_constants_and_arguments_are_changed():
    assert changes("snr") == {
        "return alpha_bar_t * (1 - alpha_bar_t)",
        "return alpha_bar_t",
        "return alpha_bar_t / (1 + alpha_bar_t)",
        "return alpha_bar_t / (2 - alpha_bar_t)",
        "return alpha_bar_t / (0 - alpha_bar_t)",
    }


def test_roots_and_powers_are_dropped_and_levels_exchanged():
    assert "return eta * posterior_variance(alpha_bar_s, alpha_bar_t)" in changes("ddim_sigma")
    assert "return eta * sqrt(posterior_variance(alpha_bar_t, alpha_bar_s))" in changes(
        "ddim_sigma"
    )
    assert any("sigma)" in change for change in changes("reverse_mean"))


def test_leading_signs_are_dropped():
    assert "return eps / sqrt(1 - alpha_bar_t)" in changes("score_from_eps")


@pytest.mark.parametrize("name", sorted(formulas()))
def test_every_sign_of_a_closed_form_is_changed(name):
    tree = ast.parse(inspect.getsource(getattr(closed_forms, name)))
    signs = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub))
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub))
    ]
    kinds = [mutant.kind for mutant in mutants.mutants_of("closed_forms", name)]
    assert kinds.count("sign") == len(signs)


def test_text_and_types_are_left_alone():
    for module in mutants.WATCHED_BY:
        for name in mutants.functions(module):
            for mutant in mutants.mutants_of(module, name):
                assert not re.search(r"raise |f\"|f'", mutant.change.split("→")[1])
