"""The graph of what rests on what shows every settled claim and every foundation it names."""

import re

import claims_graph
import ledger
import pytest

from notebooks import LIBRARY, notebook_paths

CARDS = ledger.collect(notebook_paths())
ROWS = claims_graph.settled(ledger.entries(ledger.read_claims(LIBRARY / "claims.toml"), CARDS))
PICTURE = claims_graph.svg(ROWS, {path.stem: path.stem for path in notebook_paths()})
EDGES = {(below, card["id"]) for _, card in CARDS for below in card["rests_on"]}


def test_every_settled_claim_is_a_node_that_leads_to_its_proof():
    led = re.findall(r'<a href="\.\./notebooks/(\w+)\.html#(\w+)"', PICTURE)
    assert sorted(led) == sorted((chapter, card["id"]) for chapter, card in CARDS)


def test_every_foundation_is_a_line_and_nothing_else_is():
    drawn = re.findall(r'class="from-(\w+) to-(\w+)"', PICTURE)
    assert len(drawn) == len(EDGES)
    assert set(drawn) == EDGES


def test_within_a_chapter_lines_run_downwards_and_nodes_do_not_touch():
    for band in claims_graph.bands(ROWS):
        for below, name in EDGES:
            if below in band.centres and name in band.centres:
                assert band.centres[below][1] < band.centres[name][1]
        for name, (x, y) in band.centres.items():
            others = [c for other, c in band.centres.items() if other != name and c[1] == y]
            assert all(abs(x - other[0]) > claims_graph.PILL[0] for other in others)


def test_a_foundation_in_a_later_chapter_is_drawn_upwards():
    path = claims_graph.edge((10, 100), (50, 20))
    assert re.fullmatch(r"M10 89C10 60 50 60 50 31", path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_node_says_what_its_lines_say(row):
    (label,) = re.findall(rf'id="node-{row.id}" aria-label="(.+?)"', PICTURE)
    assert label.startswith(f"{row.id}, {row.verdict}, rests on ")
    assert all(name in label for name in row.card["rests_on"])
