"""The library's pages: every public name is there, and every docstring says what is so."""

import builtins
import importlib
import inspect
import re

import api_pages
import ledger
import pytest
from sphinx.util.inventory import InventoryFile

import diffusion_lib
from notebooks import LIBRARY, ROOT, notebook_paths

ROOMS = api_pages.rooms(ROOT)
NO_ROOM = {"__init__", "__main__", "arguments", "exhibits", "pictures"}  # for the library alone


def public_things(room):
    """Every public function, class and method of a room, by full name: what Python itself says."""
    module = importlib.import_module(f"diffusion_lib.{room}")
    is_package = hasattr(module, "__path__")
    for name, thing in vars(module).items():
        ours = inspect.isclass(thing) or inspect.isfunction(thing)
        if name.startswith("_") or not ours or not thing.__module__.startswith(module.__name__):
            continue
        if is_package and name not in module.__all__:
            continue
        yield f"diffusion_lib.{room}.{name}", thing
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if not key.startswith("_") and inspect.isfunction(inner):
                yield f"diffusion_lib.{room}.{name}.{key}", inner


THINGS = {name: thing for room in ROOMS for name, thing in public_things(room)}
CLAIMS = {claim["id"] for claim in ledger.read_claims(LIBRARY / "claims.toml")}
CHAPTERS = api_pages.chapters(ROOT).keys()


# --- The pages ----------------------------------------------------------------------------------


def test_every_room_has_a_page_in_the_order_of_the_package():
    chain = re.search(r"downwards only: (.*?) ←\s+the command line", diffusion_lib.__doc__, re.S)
    in_order = [room for room in re.findall(r"`(\w+)`", chain[1]) if room not in NO_ROOM]
    assert [room for room in ROOMS if room in in_order] == in_order
    there = {path.stem for path in LIBRARY.glob("*.py")}
    there |= {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert set(ROOMS) == there - NO_ROOM


@pytest.fixture(scope="module")
def html(strict_build):
    source, _ = strict_build
    return source / "_build" / "html"


def page(html, name):
    return (html / f"{name}.html").read_text(encoding="utf-8")


def test_every_public_name_has_an_entry(html):
    with (html / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    entries = {
        name: where[2]
        for kind in ("function", "class", "exception", "method", "property")
        for name, where in inventory.get(f"py:{kind}", {}).items()
    }
    assert THINGS.keys() - entries.keys() == set()
    for name in THINGS:
        assert entries[name].startswith(f"book/api/{name.split('.')[1]}.html#")


def test_an_entry_leads_to_the_chapter_and_to_the_claim(html):
    """And says Number, "posterior" and x_t, s as the source does."""
    forms = page(html, "book/api/closed_forms")
    start = forms.index('id="diffusion_lib.closed_forms.posterior_mean"')
    entry = forms[start : forms.index(' id="diffusion_lib.', start)]
    assert 'href="../../notebooks/03_posterior.html"' in entry
    assert 'href="../ledger.html#P5"' in entry
    assert 'href="#diffusion_lib.closed_forms.Number"' in entry
    assert r"\frac{\sqrt{\alpha}\,(1-\bar\alpha_s)}{1-\bar\alpha_t}x_t" in entry
    assert '<span class="pre">&quot;posterior&quot;</span>' in page(html, "book/api/samplers")


def unbound(name):
    """The function of this name, of a class method the function inside."""
    function = ledger.function_named(name)
    return getattr(function, "__func__", getattr(function, "fget", function))


def test_the_ledger_and_the_chapters_lead_to_the_entries(html):
    """Every function that a card is bound to, from the page that shows the card."""
    shown = {path.stem: page(html, f"notebooks/{path.stem}") for path in notebook_paths()}
    rows = page(html, "book/ledger")
    cards = ledger.collect(notebook_paths())
    bound = {(chapter, name) for chapter, card in cards for name in card["binds"]}
    assert len(bound) > 50
    for chapter, name in bound:
        (entry,) = (key for key, thing in THINGS.items() if thing == unbound(name))
        assert f'#{entry}"' in rows, name
        assert f'#{entry}"' in shown[chapter], (chapter, name)


def test_the_chapters_are_listed_with_their_functions(html):
    listed = page(html, "book/api")
    for path in notebook_paths():
        assert f'href="../notebooks/{path.stem}.html"' in listed
    for name, thing in THINGS.items():
        if api_pages.chapters_named(inspect.getdoc(thing) or ""):
            assert f'#{name}"' in listed, name


# --- The docstrings -----------------------------------------------------------------------------


def complaints(name, thing):
    """What is wrong with a docstring, in words."""
    text = inspect.getdoc(thing) or ""
    first, *others = text.split("\n")
    if not first.endswith((".", ":")) or (others and others[0]):
        yield f"{name} does not begin with a sentence on a line of its own: {first!r}"
    yield from (f"{name} names chapter {n}" for n in api_pages.chapters_named(text) - CHAPTERS)
    claims = {c for run in api_pages.CLAIMS.findall(text) for c in re.findall(r"[A-Z]\d+", run)}
    yield from (f"{name} names claim {c}" for c in claims - CLAIMS)
    for word, pattern in (("chapter", api_pages.CHAPTERS), ("claim", api_pages.CLAIMS)):
        if len(re.findall(rf"\b{word}s?\s+[A-Z]?\d", text, re.I)) != len(pattern.findall(text)):
            yield f"{name} names a {word} in a way that does not become a link"
    yield from (f"{name} describes {wrong}, which it does not have" for wrong in misnamed(thing))


def misnamed(thing):
    """The parameters, attributes and exceptions that a docstring describes and that are not."""
    text = inspect.getdoc(thing) or ""
    home, code = vars(inspect.getmodule(thing)), inspect.getsource(thing)
    for name in named_in("Args", text):
        if name not in inspect.signature(thing).parameters:
            yield name
    for name in named_in("Attributes", text):
        if not re.search(rf"\bself\.{name}\b|\bdef {name}\b|^    {name}: ", code, re.M):
            yield name
    for name in named_in("Raises", text):
        if not isinstance(home.get(name) or getattr(builtins, name, None), type):
            yield name


def named_in(section, docstring):
    """The names before the colons of a section."""
    for body in re.findall(rf"^{section}:\n((?: {{4}}.*\n?|\n)+)", docstring, re.M):
        for names in re.findall(r"^ {4}(\S[^:\n]*):", body, re.M):
            yield from (part.strip().lstrip("*") for part in names.split(","))


@pytest.mark.parametrize("room", ROOMS)
def test_the_docstrings_of_a_room_say_what_is_so(room):
    module = importlib.import_module(f"diffusion_lib.{room}")
    things = {room: module} | dict(public_things(room))
    assert [wrong for name, thing in things.items() for wrong in complaints(name, thing)] == []


def test_what_is_wrong_with_a_docstring_is_seen():
    def function(x_t, t):
        """A summary that runs on
        in a second line. Proved in chapters 02 (claim F1) and 77 (claims F3, Q9), and chapter 3.

        Args:
            x_t, time: the first is there.

        Raises:
            ValueEror: never.
        """

    found = " ".join(complaints("f", function))
    for wrong in ("begin", "chapter 77", "claim Q9", "link", "describes time", "describes ValueEr"):
        assert wrong in found
    assert "F1" not in found
    assert "x_t" not in found
