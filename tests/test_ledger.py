"""The ledger says no more than the chapters have checked, and its guards bite."""

import copy

import ledger
import pytest

from notebooks import LIBRARY, notebook_paths

CLAIMS = ledger.read_claims(LIBRARY / "claims.toml")
CARDS = ledger.collect(notebook_paths())


def test_nothing_is_wrong_with_the_ledger():
    found = ledger.problems(CLAIMS, CARDS)
    assert not found, "\n".join(found)


def test_every_claim_is_settled():
    numbered = {claim["id"] for claim in CLAIMS if not claim.get("topic")}
    assert len(numbered) == 71
    assert {card["id"] for _, card in CARDS} == numbered


def test_every_claim_has_one_row_and_every_card_is_shown():
    rows = ledger.entries(CLAIMS, CARDS)
    assert [row.id for row in rows] == [claim["id"] for claim in CLAIMS]
    assert sum(row.card is not None for row in rows) == len(CARDS)


# --- Every guard bites ----------------------------------------------------------------------------


def card(name, **changes):
    return {
        "id": name,
        "verdict": "holds",
        "rests_on": [],
        "binds": ["diffusion_lib.closed_forms.posterior_variance"],
        "checks": [{"kind": "proved", "what": "it is so", "detail": ""}],
        **changes,
    }


@pytest.fixture
def claims():
    """Two claims settled in one chapter, and one that is open."""
    settled = [{"id": name, "statement": name, "chapter": "03_posterior"} for name in ("P4", "P5")]
    return [*settled, {"id": "L1", "statement": "open"}]


@pytest.fixture
def cards(monkeypatch):
    def knows_both():
        """Proved as P4 and P5."""

    monkeypatch.setattr(ledger, "function_named", lambda name: knows_both)
    return [("03_posterior", card("P4")), ("03_posterior", card("P5", rests_on=["P4"]))]


def test_a_sound_ledger_has_no_problems(claims, cards):
    assert ledger.problems(claims, cards) == []


def found(claims, cards, words):
    return any(words in problem for problem in ledger.problems(claims, cards))


def test_unknown_id(claims, cards):
    assert found(claims, [*cards, ("03_posterior", card("P99"))], "does not know")


def test_duplicate_id_in_the_file(claims, cards):
    assert found([*claims, copy.deepcopy(claims[0])], cards, "2 times")


def test_duplicate_card(claims, cards):
    assert found(claims, [*cards, cards[0]], "2 cards")


def test_card_that_is_missing_from_its_chapter(claims, cards):
    assert found(claims, cards[1:], "no card there")


def test_card_that_the_file_does_not_record(claims, cards):
    assert found(claims, [*cards, ("05_bound", card("L1"))], "claims.toml says")


def test_card_in_another_chapter(claims, cards):
    assert found(claims, [("05_bound", cards[0][1]), cards[1]], "claims.toml says")


def test_verdict_without_checks(claims, cards):
    cards[0][1]["checks"] = []
    assert found(claims, cards, "without a check")


def test_unknown_verdict(claims, cards):
    cards[0][1]["verdict"] = "probably"
    assert found(claims, cards, "probably")


@pytest.mark.parametrize("verdict", ["holds if", "typo", "false"])
def test_contradiction_without_refutation(claims, cards, verdict):
    cards[0][1]["verdict"] = verdict
    assert found(claims, cards, "refutes")


def test_unbound_card(claims, cards):
    cards[0][1]["binds"] = []
    assert found(claims, cards, "no library function")


def test_foundation_that_is_unknown(claims, cards):
    cards[0][1]["rests_on"] = ["P99"]
    assert found(claims, cards, "rests on P99")


def test_circle(claims, cards):
    cards[0][1]["rests_on"] = ["P5"]
    assert found(claims, cards, "in a circle")


def test_function_that_does_not_exist(claims):
    broken = card("P4", binds=["diffusion_lib.closed_forms.no_such_formula"])
    assert found(claims, [("03_posterior", broken)], "there is no diffusion_lib")


def test_function_outside_the_library(claims):
    assert found(claims, [("03_posterior", card("P4", binds=["math.sqrt"]))], "there is no math")


def test_docstring_that_does_not_name_the_claim(claims):
    # P44 must not pass for P4.
    assert found(claims, [("03_posterior", card("P44"))], "does not name P44")


def test_functions_and_methods_are_found_by_name():
    assert callable(ledger.function_named("diffusion_lib.closed_forms.posterior_variance"))
    assert callable(ledger.function_named("diffusion_lib.schedule.NoiseSchedule.linear"))
    assert ledger.function_named("no_such_package.anything") is None
