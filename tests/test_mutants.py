"""Change one sign in a closed form, and a chapter's proof fails and names its claim."""

import contextlib
import io
import re
from collections import defaultdict

import closed_forms_mutants
import ledger
import pytest

from diffusion_lib import closed_forms
from notebooks import notebook_paths

CHAPTERS = {path.stem: path for path in notebook_paths()}


def chapters_that_bind():
    """The closed forms that claims speak about, with the chapters that settle those claims."""
    bound = defaultdict(dict)
    for chapter, card in ledger.collect(notebook_paths()):
        for name in card["binds"]:
            module, function = name.rsplit(".", 1)
            if module == closed_forms.__name__:
                bound[function][chapter] = CHAPTERS[chapter]
    return bound


BOUND = chapters_that_bind()
MUTANTS = [
    mutant for function in sorted(BOUND) for mutant in closed_forms_mutants.sign_mutants(function)
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_changed_sign_is_caught_by_name(mutant):
    for chapter in BOUND[mutant.function].values():
        with closed_forms_mutants.planted(mutant), contextlib.redirect_stdout(io.StringIO()):
            failure = closed_forms_mutants.first_failure(chapter)
        if failure is not None:
            break
    else:
        pytest.fail("no chapter noticed")
    assert re.match(r"[FPLNSIT]\d+ \((holds|holds if|typo|false)\): ", failure), failure


def test_there_are_signs_to_change_and_the_originals_are_back():
    assert len(MUTANTS) > 30
    assert closed_forms.posterior_variance(0.5, 0.25) == pytest.approx(1 / 3)
