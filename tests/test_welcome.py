"""The welcome page keeps its word: its code runs, its chapters exist, its verdicts agree."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest

from diffusion_lib import verify
from diffusion_lib.verify import PAYLOAD

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "index.md").read_text("utf-8")
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def test_the_code_runs_from_top_to_bottom():
    names = {}
    proof, library, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)  # the last is README's
    for block in (proof, library):
        exec(block, names)
    assert names["x_t"].shape == (4, 1, 8, 8)


def test_the_answer_on_the_page_is_the_answer(monkeypatch):
    checks, prove = [], verify.prove
    monkeypatch.setattr(verify, "prove", lambda *a, **k: checks.append(prove(*a, **k)))
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})
    printed = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)
    assert printed == [check._repr_markdown_()[0] for check in checks]


@pytest.mark.parametrize(("right", "wrong"), [("(1 - beta)", "(1 + beta)"), ("step.mean", "x_0")])
def test_the_proof_can_fail(right, wrong):
    proof = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert right in proof
    with pytest.raises(AssertionError, match="not proved"):
        exec(proof.replace(right, wrong), {})


def test_every_chapter_is_listed_and_no_other():
    rows = re.findall(r"^\| (\d+) \| \[.+?\]\(\.\./notebooks/(\w+)\.ipynb\)", PAGE, re.MULTILINE)
    assert rows == [(str(int(path.stem[:2])), path.stem) for path in CHAPTERS]


def test_the_number_of_claims_is_the_number_of_claims():
    claims = tomllib.loads((ROOT / "diffusion_lib" / "claims.toml").read_text("utf-8"))["claim"]
    said = re.findall(r"(\d+) claims", PAGE)
    assert set(said) == {str(sum("topic" not in claim for claim in claims))}


def test_the_example_verdicts_are_those_of_the_chapters():
    verdicts = {
        output.data[PAYLOAD]["id"]: output.data[PAYLOAD]["verdict"]
        for path in CHAPTERS
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if PAYLOAD in output.get("data", {})
    }
    examples = re.findall(
        r"^\| \*\*(.+)\*\* \| .+ \| \[(\w+)\]\(ledger\.md#\2\),", PAGE, re.MULTILINE
    )
    assert len(examples) == 4
    assert all(verdicts[claim] == verdict for verdict, claim in examples)
