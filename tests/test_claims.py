"""The claims file: complete, well-formed, and free of verdicts."""

import re
import tomllib
from collections import Counter
from importlib.resources import files

import pytest

from notebooks import notebook_paths

CLAIMS = tomllib.loads((files("diffusion_lib") / "claims.toml").read_text("utf-8"))["claim"]
SETTLED = [claim for claim in CLAIMS if not claim.get("topic")]
TOPICS = [claim for claim in CLAIMS if claim.get("topic")]
FAMILY_SIZES = {"F": 12, "P": 13, "L": 16, "N": 1, "S": 4, "I": 19, "T": 6}
every_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim["id"])


def _groups_close(math: str) -> bool:
    """Whether the braces of a formula close, every opened one and no other."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", math):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_71_claims_and_6_topics_each_once():
    numbered = [f"{family}{i}" for family, n in FAMILY_SIZES.items() for i in range(1, n + 1)]
    assert len(numbered) == 71
    assert [claim["id"] for claim in SETTLED] == numbered
    assert [claim["id"] for claim in TOPICS] == [f"O{i}" for i in range(1, 7)]


def test_a_family_has_one_name_and_one_letter():
    pairs = {(claim["id"][0], claim["family"]) for claim in CLAIMS}
    assert len(pairs) == 8
    assert max(Counter(letter for letter, _ in pairs).values()) == 1
    assert max(Counter(name for _, name in pairs).values()) == 1


@every_claim
def test_the_statement_is_a_sentence_with_closed_formulas(claim):
    statement = claim["statement"]
    assert statement == statement.strip()
    assert statement.endswith(".")
    assert statement.count("$") % 2 == 0
    for math in statement.split("$")[1::2]:
        assert math == math.strip() != ""
        assert _groups_close(math)
    for prose in statement.split("$")[0::2]:
        assert not re.search(r"[\\_^{}]", prose), f"LaTeX outside the dollar signs: {prose!r}"


@every_claim
def test_the_statement_survives_a_table_cell(claim):
    """One line, and no character that Markdown tables or HTML would take for their own."""
    assert not re.search(r"[\n|<>&]", claim["statement"])


@every_claim
def test_the_source_is_a_sorted_list_of_known_notes(claim):
    source = claim["source"]
    assert source == sorted(set(source))
    assert set() < set(source) <= set("ABCDE")


@every_claim
def test_the_keys_are_the_documented_ones(claim):
    required = {"id", "family", "source", "statement"}
    if claim.get("topic"):
        assert set(claim) == required | {"topic", "where"}
        assert re.search(r"later part|[Cc]hapter \d", claim["where"])
    else:
        assert required <= set(claim) <= required | {"chapter"}


@every_claim
def test_the_statement_gives_no_verdict(claim):
    verdicts = r"\b(wrong|false|typo|incorrect|mistake|should (be|read)|counterexample|true)\b"
    assert not re.search(verdicts, claim["statement"], re.IGNORECASE)


@pytest.mark.parametrize("claim", SETTLED, ids=lambda claim: claim["id"])
def test_the_claim_is_settled_in_a_chapter(claim):
    assert claim["chapter"] in {path.stem for path in notebook_paths()}
