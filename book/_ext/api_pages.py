r"""The library's pages, made from its docstrings; autodoc and napoleon do most of it.

`{room}` shows a module: its docstring, then its public names in the order and under the headings
of the source. `{rooms}` lists the modules, `{chapters-to-functions}` what each chapter speaks of.

In a docstring a name in single backticks is a link to its entry where it has one, and the numbers
of chapters and claims are links to them. On every other page ``closed_forms.posterior`` in code
leads to its entry, so a claim's card leads to the functions that it is bound to.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from ledger_page import chapter_title
from sphinx.addnodes import desc_content, desc_parameterlist, pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.roles import XRefRole
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

PACKAGE = "diffusion_lib"
BANNER = re.compile(r"# --- (.+?) -+$")
# "chapters 02 (claims F4, F10) and 03 (claim P12)": the numbers, and the names of the claims
CHAPTERS = re.compile(
    r"\b[Cc]hapters?\s+\d\d\b(?:\s*\([^)]*\))?(?:(?:,|,?\s+(?:and|or|to))\s+\d\d\b(?:\s*\([^)]*\))?)*"
)
CLAIMS = re.compile(r"\b[Cc]laims?\s+[A-Z]\d+\b(?:(?:,|,?\s+(?:and|or|to))\s+[A-Z]\d+\b)*")


# --- What there is ------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A public name: the heading above it in the source, the directive that shows it, the name."""

    heading: str
    directive: str
    name: str


def entries(room: str) -> list[Entry]:
    """The public functions, classes and documented constants of a room, in the order of the source.

    A package's names are those of its ``__all__``, file by file.
    """
    module = importlib.import_module(f"{PACKAGE}.{room}")
    if not hasattr(module, "__path__"):
        return list(_entries_in(module))
    files = dict.fromkeys([module, *(inspect.getmodule(x) for x in vars(module).values())])
    inside = [file for file in files if file and file.__name__.startswith(module.__name__)]
    found = [entry for file in inside for entry in _entries_in(file)]
    return [entry._replace(heading="") for entry in found if entry.name in module.__all__]


def _entries_in(module: ModuleType) -> Iterator[Entry]:
    lines = inspect.getsource(module).splitlines()
    body = ast.parse("\n".join(lines)).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if directive := _directive(node, following):
            name = node.name if hasattr(node, "name") else node.targets[0].id
            if not name.startswith("_"):
                yield Entry(_heading(lines[: node.lineno]), directive, name)


def _directive(node: ast.stmt, following: ast.stmt | None) -> str:
    """The directive that shows what a statement defines; a constant counts if it is described."""
    if isinstance(node, ast.FunctionDef):
        return "autofunction"
    if isinstance(node, ast.ClassDef):
        return "autoclass"
    described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    return "autodata" if isinstance(node, ast.Assign) and described else ""


def _heading(above: list[str]) -> str:
    banners = [match[1] for line in above if (match := BANNER.match(line))]
    return banners[-1][0].upper() + banners[-1][1:] if banners else ""


def rooms(root: Path) -> list[str]:
    """The rooms in the order of the table of contents."""
    return re.findall(r"^ *- file: book/api/(\w+)$", (root / "_toc.yml").read_text("utf-8"), re.M)


def chapters(root: Path) -> dict[str, Path]:
    """The notebooks by their numbers."""
    return {path.name[:2]: path for path in sorted((root / "notebooks").glob("[0-9]*.ipynb"))}


def chapters_named(docstring: str) -> set[str]:
    """The numbers of the chapters that a docstring speaks of."""
    return {n for run in CHAPTERS.findall(docstring) for n in re.findall(r"\b\d\d\b", run)}


# --- Directives ---------------------------------------------------------------------------------


class FromDocstrings(SphinxDirective):
    """Docstrings are reStructuredText, the pages are Markdown."""

    def parsed(self, lines: Iterable[str]) -> list[nodes.Node]:
        self.env.note_dependency(__file__)
        box = nodes.container()
        text = ["````{eval-rst}", *lines, "````"]
        source = str(self.env.doc2path(self.env.docname))
        self.state.nested_parse(StringList(text, source=source), 0, box)
        return box.children

    def listed(self, lines: Iterable[str]) -> list[nodes.Node]:
        (listing,) = self.parsed(lines)
        listing["classes"].append("api-list")
        return [listing]


class Room(FromDocstrings):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        room = self.arguments[0]
        full = f"{PACKAGE}.{room}"
        found: list[nodes.Node] = [*self.parsed([f".. automodule:: {full}", "   :no-members:"])]
        there = entries(room)
        for heading in dict.fromkeys(entry.heading for entry in there):
            here = [entry for entry in there if entry.heading == heading]
            shown = self.parsed(f".. {entry.directive}:: {full}.{entry.name}" for entry in here)
            if heading:
                section = nodes.section(ids=[nodes.make_id(heading)], names=[heading.lower()])
                section += [nodes.title(text=heading), *shown]
                shown = [section]
            found += shown
        return found


class Rooms(FromDocstrings):
    def run(self) -> list[nodes.Node]:
        lines = []
        for room in rooms(Path(self.env.srcdir)):
            module = importlib.import_module(f"{PACKAGE}.{room}")
            summary = " ".join(inspect.getdoc(module).split("\n\n")[0].split())
            lines += [f":doc:`{room} <api/{room}>`", f"   {summary}", ""]
        return self.listed(lines)


class ChaptersToFunctions(FromDocstrings):
    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        told = {room: list(_docstrings(room)) for room in rooms(root)}
        lines = []
        for number, path in chapters(root).items():
            lines += [f":doc:`{chapter_title(path)} </notebooks/{path.stem}>`"]
            for room, docstrings in told.items():
                names = [name for name, text in docstrings if number in chapters_named(text)]
                links = ", ".join(f":name:`{name} <{room}.{name}>`" for name in names)
                lines += [f"   *{room}* {links}", ""] if links else []
        return self.listed(lines)


def _docstrings(room: str) -> Iterator[tuple[str, str]]:
    """The names of a room, methods among them, and what is said of each."""
    module = importlib.import_module(f"{PACKAGE}.{room}")
    for entry in entries(room):
        if entry.directive != "autodata":
            thing = getattr(module, entry.name)
            yield entry.name, inspect.getdoc(thing) or ""
            for name, member in vars(thing).items() if inspect.isclass(thing) else ():
                if not name.startswith("_"):
                    yield f"{entry.name}.{name}", inspect.getdoc(member) or ""


# --- Links --------------------------------------------------------------------------------------


class Name(XRefRole):
    """A name of the library in single backticks, looked up from where it stands."""

    def process_link(
        self, env: BuildEnvironment, refnode: Any, has_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        for scope in ("py:module", "py:class"):
            refnode[scope] = env.ref_context.get(scope)
        return title, target


class LinkNamesInCode(SphinxTransform):
    """Make ``closed_forms.posterior`` in the code of any page a link."""

    default_priority = 600
    # A room, a file in it if the room is a package, and what is defined there.
    pattern = re.compile(rf"(?:{PACKAGE}\.)?([a-z_]+)\.(?:[a-z_]+\.)?(\w+(?:\.\w+)?)")

    def apply(self, **_: Any) -> None:
        for code in list(self.document.findall(nodes.literal)):
            match = self.pattern.fullmatch(code.astext())
            if match and not isinstance(code.parent, pending_xref):
                link = pending_xref("", reftype="name", refdomain="", refdoc=self.env.docname)
                link["reftarget"] = f"{PACKAGE}.{match[1]}.{match[2]}"
                code.replace_self(link)
                link += code


class QuotedValues(SphinxTransform):
    """A value such as "eps" is set as code, or its quotation marks would not be Python's."""

    default_priority = 600
    pattern = re.compile(r'("[\w.-]+")')

    def apply(self, **_: Any) -> None:
        for entry in self.document.findall(desc_content):
            for text in list(entry.findall(nodes.Text)):
                if isinstance(text.parent, nodes.TextElement) and not isinstance(
                    text.parent, nodes.literal | nodes.FixedTextElement | nodes.math
                ):
                    parts = self.pattern.split(text)
                    pieces = [
                        nodes.literal(text=part) if odd else nodes.Text(part)
                        for part, odd in zip(parts, cycle([False, True]))
                    ]
                    text.parent.replace(text, pieces)


class LongSignatures(SphinxPostTransform):
    """What is longer than a line has one line for each parameter."""

    default_priority = 100  # once the types are as short as they are shown
    longest = 90

    def run(self, **_: Any) -> None:
        for parameters in self.document.findall(desc_parameterlist):
            length = len(parameters.parent.astext())
            parameters["multi_line_parameter_list"] = length > self.longest


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """The entry of a name or a type, or what stands there; the row of a claim, or an error.

    So the types of other libraries, for which there is no entry, need not be listed anywhere.
    """
    target, page = node["reftarget"], node.get("refdoc", env.docname)
    if node["reftype"] == "claim" and target in env.metadata["book/ledger"]["myst_slugs"]:
        return make_refnode(app.builder, page, "book/ledger", target, content)
    if node["reftype"] not in ("name", "class"):
        return None
    python = env.get_domain("py")
    found = python.resolve_any_xref(env, page, app.builder, target, node, content)
    return found[0][1] if len(found) == 1 else content


def link_chapters_and_claims(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Chapter 03 (claim P4) is a link to the chapter, and one to the row of the ledger."""
    there = chapters(Path(app.srcdir))

    def to_chapter(number: re.Match[str]) -> str:
        page = there[number[0]].stem if number[0] in there else f"no chapter {number[0]}"
        return f":doc:`{number[0]} </notebooks/{page}>`"

    def in_run(one: str, role: Any) -> Any:
        return lambda run: re.sub(one, role, run[0])

    text = CHAPTERS.sub(in_run(r"\b\d\d\b", to_chapter), "\n".join(lines))
    text = CLAIMS.sub(in_run(r"\b[A-Z]\d+\b", r":claim:`\g<0>`"), text)
    lines[:] = text.split("\n")


def skip_aliases(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Python's own words on the fields of a named tuple say nothing."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field") else None


def keep_names_of_types(app: Sphinx, config: Config) -> None:
    """A signature says Number, which is described, and not what Number is short for."""
    for room in rooms(Path(app.srcdir)):
        for entry in entries(room):
            if entry.directive == "autodata":
                config.autodoc_type_aliases[entry.name] = f"{PACKAGE}.{room}.{entry.name}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("room", Room)
    app.add_directive("rooms", Rooms)
    app.add_directive("chapters-to-functions", ChaptersToFunctions)
    app.add_role("name", Name(innernodeclass=nodes.literal))
    app.add_role("claim", XRefRole(innernodeclass=nodes.inline))
    app.add_transform(LinkNamesInCode)
    app.add_transform(QuotedValues)
    app.add_post_transform(LongSignatures)
    app.connect("config-inited", keep_names_of_types)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", link_chapters_and_claims)
    app.connect("autodoc-skip-member", skip_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
