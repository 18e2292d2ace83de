"""Plant a mistake in the library's mathematics and see who notices: a claim, or a unit test.

A mutant is one function with one thing changed: an operator, a sign, a root or a power dropped, a
constant moved by one, an argument exchanged for another, a comparison turned. Each one runs in a
process of its own, which imports the library with the mistake in it. First the claims that bind the
function run, each with only those statements of its chapter that it needs; a claim that fails says
its name. Where no claim notices, the unit tests run.

    python tools/mutants.py                 every mutant of every function that changed
    python tools/mutants.py --all           every mutant again
    python tools/mutants.py --sample 60     that many mutants that a claim or test noticed before

The outcome is stored in book/mutants.json, from which a page of the book is made.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import selectors
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from statements import names_bound, names_called_on, names_imported, names_read

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "diffusion_lib"
RESULTS = ROOT / "book" / "mutants.json"
SECONDS = 1200  # a mutant that loops for ever is noticed too
NEVER_ENDS = "test (it does not end)"

# The rooms that hold formulas or bring them to tensors, and the unit tests that watch each.
WATCHED_BY = {
    "closed_forms": [
        "closed_forms",
        "exhibits",
        "schedule",
        "samplers",
        "solvers",
        "objectives",
        "networks",
    ],
    "prediction": ["prediction", "closed_forms", "samplers", "solvers", "objectives"],
    "process": ["process", "objectives"],
    "derive": ["derive"],
    "networks.time_embedding": ["networks"],
}
# What only looks after arguments, types and places computes nothing.
PLUMBING = re.compile(
    r"__\w+__|_?check_?\w*|_demand\w*|_freeze|_library_of|_set|_of|to|_cast|_floating|_own_or_\w+"
)


class Mutant(NamedTuple):
    """One change of one function: where it is, what was changed, and the function as changed."""

    module: str
    function: str
    kind: str
    change: str
    code: ast.stmt

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}"

    def __str__(self) -> str:
        return f"{self.name}: {self.change}"


# --- Making mutants -------------------------------------------------------------------------------

SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add}
OPERATORS = {ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult}
COMPARISONS = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
ROOTS = {"sqrt", "log", "exp", "cos", "sin"}


def path_of(module: str) -> Path:
    return LIBRARY.joinpath(*module.split(".")).with_suffix(".py")


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def functions(module: str) -> dict[str, ast.stmt]:
    """A module's functions and methods that compute, and its constants made of functions."""
    found: dict[str, ast.stmt] = {}
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef))
            found |= {f"{node.name}.{part.name}": part for part in methods}
        elif isinstance(node, ast.Assign) and any(
            isinstance(x, ast.Lambda) for x in ast.walk(node)
        ):
            found[ast.unparse(node.targets[0])] = node
    return {name: f for name, f in found.items() if not PLUMBING.fullmatch(name.split(".")[-1])}


def fingerprint(node: ast.stmt) -> str:
    """Changes when the function's code does; its docstring does not count."""
    bare = copy.deepcopy(node)
    if isinstance(bare, ast.FunctionDef):
        bare.body = _without_docstring(bare.body) or [ast.Pass()]
    return hashlib.sha256(ast.unparse(bare).encode()).hexdigest()[:16]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    has_one = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if has_one else body


def mutants_of(module: str, function: str) -> list[Mutant]:
    """Every mutant of one function."""
    original = functions(module)[function]
    parameters = _parameters(original)
    found, seen = [], {ast.unparse(original)}
    for number, place in enumerate(_places(original)):
        for kind, change in _changes(place, parameters):
            code = copy.deepcopy(original)
            change(list(_places(code))[number])
            text = ast.unparse(code)
            if text not in seen:
                seen.add(text)
                shown = _difference(ast.unparse(original), text)
                found.append(Mutant(module, function, kind, shown, ast.fix_missing_locations(code)))
    return found


def _with(tree: Any, old: ast.stmt, new: ast.stmt) -> Any:
    """A module or class in which one function is exchanged; the rest is shared."""
    body = [
        new if part is old else _with(part, old, new) if isinstance(part, ast.ClassDef) else part
        for part in tree.body
    ]
    changed = copy.copy(tree)
    changed.body = body
    return changed


class _Place(NamedTuple):
    """A node, and how to put another in its place."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None

    def put(self, new: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


NOT_CODE = {"annotation", "returns", "decorator_list", "type_params"}


def _places(node: ast.stmt) -> Iterator[_Place]:
    """Every expression of a function that computes something: no text, no types, no messages."""
    stack: list[ast.AST] = [node]
    while stack:
        parent = stack.pop()
        for field, value in ast.iter_fields(parent):
            if field in NOT_CODE:
                continue
            if isinstance(value, list):
                children = list(enumerate(value))
                if field == "body" and isinstance(parent, ast.FunctionDef):
                    children = children[len(value) - len(_without_docstring(value)) :]
            else:
                children = [(None, value)]
            for index, child in children:
                if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr):
                    continue
                if isinstance(child, ast.Assert | ast.ImportFrom) or _looks_after(child):
                    continue
                if isinstance(child, ast.expr):
                    yield _Place(child, parent, field, index)
                stack.append(child)


def _looks_after(node: ast.AST) -> bool:
    """Whether a statement only calls what looks after arguments."""
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and bool(PLUMBING.fullmatch(_called(call)))


def _parameters(node: ast.stmt) -> list[str]:
    """The names of its arguments; those of the lambdas of a constant."""
    whole = [node] if isinstance(node, ast.FunctionDef) else ast.walk(node)
    every = [
        argument.arg
        for part in whole
        if isinstance(part, ast.FunctionDef | ast.Lambda)
        for argument in (*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs)
    ]
    return [name for name in dict.fromkeys(every) if name not in ("self", "cls")]


def _changes(
    place: _Place, parameters: list[str]
) -> Iterator[tuple[str, Callable[[_Place], None]]]:
    """The changes that make sense at a place, each with its kind."""
    node = place.node
    if isinstance(node, ast.BinOp):
        for kind, table in (("sign", SIGNS), ("operator", OPERATORS)):
            if new := table.get(type(node.op)):
                yield kind, lambda at, new=new: setattr(at.node, "op", new())
        if isinstance(node.op, ast.Pow):
            yield "power dropped", lambda at: at.put(at.node.left)
        if isinstance(node.op, ast.Div):
            yield "divisor dropped", lambda at: at.put(at.node.left)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", lambda at: at.put(at.node.operand)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        for i, operator in enumerate(node.ops):
            new = COMPARISONS[type(operator)]
            yield "comparison", lambda at, i=i, new=new: at.node.ops.__setitem__(i, new())
    elif isinstance(node, ast.Call):
        if _called(node) in ROOTS and len(node.args) == 1:
            yield f"{_called(node)} dropped", lambda at: at.put(at.node.args[0])
        for i in range(len(node.args) - 1):
            if not any(isinstance(a, ast.Starred) for a in node.args[i : i + 2]):
                yield "arguments swapped", lambda at, i=i: _swap(at.node.args, i)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant", lambda at: setattr(at.node, "value", at.node.value + 1)
        yield "constant", lambda at: setattr(at.node, "value", at.node.value - 1)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in parameters:
        for other in _others(node.id, parameters):
            yield "argument", lambda at, other=other: setattr(at.node, "id", other)


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _swap(arguments: list[ast.expr], i: int) -> None:
    arguments[i], arguments[i + 1] = arguments[i + 1], arguments[i]


def _others(name: str, parameters: list[str]) -> list[str]:
    """The next parameter, and for a noise level also the other level."""
    following = parameters[(parameters.index(name) + 1) % len(parameters)]
    levels = [p for p in parameters if p.startswith("alpha_bar") and name.startswith("alpha_bar")]
    return [other for other in dict.fromkeys([following, *levels]) if other != name]


def _difference(before: str, after: str) -> str:
    """`old → new` of the line that changed."""
    for a, b in zip(before.splitlines(), after.splitlines(), strict=False):
        if a != b:
            return f"{a.strip()}  →  {b.strip()}"
    return f"{before}  →  {after}"


# --- The claims, each with what it needs ----------------------------------------------------------


class Claim(NamedTuple):
    """A claim block of a chapter: its id, the functions it binds, the code that runs it alone."""

    id: str
    chapter: str
    binds: tuple[str, ...]
    source: str


@cache
def claims() -> tuple[Claim, ...]:
    """Every claim of every chapter; what each binds is read from its stored card."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    import ledger
    import nbformat

    from notebooks import notebook_paths

    bound = {card["id"]: tuple(card["binds"]) for _, card in ledger.collect(notebook_paths())}
    found = []
    for path in notebook_paths():
        statements = [
            statement
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", [])
            for statement in ast.parse(cell.source).body
        ]
        for position, statement in enumerate(statements):
            for name in _claims_opened(statement):
                source = _slice(statements[: position + 1])
                found.append(Claim(name, path.stem, bound.get(name, ()), source))
    return tuple(found)


def _claims_opened(statement: ast.stmt) -> list[str]:
    """The ids in `with claim("P4", ...)`, wherever in the statement."""
    return [
        item.context_expr.args[0].value
        for node in ast.walk(statement)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and _called(item.context_expr) == "claim"
        and item.context_expr.args
        and isinstance(item.context_expr.args[0], ast.Constant)
    ]


def _slice(statements: list[ast.stmt]) -> str:
    """The last statement, and those before it that give its names their values."""
    *earlier, last = statements
    needed, kept = names_read(last), [last]
    imported = set().union(*(names_imported(statement) for statement in earlier))
    for statement in reversed(earlier):
        # figures.show(...) changes no module; values.append(...) changes values.
        changed = names_bound(statement) | (names_called_on(statement) - imported)
        if changed & needed:
            kept.append(statement)
            needed |= names_read(statement)
    return "\n".join(ast.unparse(statement) for statement in reversed(kept))


# --- Planting and noticing ------------------------------------------------------------------------


def in_processes(jobs: list[Callable[[], str]], workers: int) -> Iterator[tuple[int, str]]:
    """The number and answer of each job, as they come.

    Each job runs in a copy of this process that is then thrown away. This process has one thread:
    a copy made beside other threads may wait for a lock that nobody will ever open.
    """
    waiting = list(enumerate(jobs))[::-1]
    with selectors.DefaultSelector() as running:
        while waiting or running.get_map():
            while waiting and len(running.get_map()) < workers:
                number, job = waiting.pop()
                child, pipe = _start(job)
                running.register(pipe, selectors.EVENT_READ, (number, child))
            for key, _ in running.select():
                number, child = key.data
                with os.fdopen(key.fd, "rb") as pipe_end:
                    running.unregister(key.fd)
                    answer = pipe_end.read().decode()
                _, status = os.waitpid(child, 0)
                yield number, NEVER_ENDS if os.WIFSIGNALED(status) else answer


def _start(job: Callable[[], str]) -> tuple[int, int]:
    """A child at work on the job, and the end of the pipe from which its answer will come."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    signal.alarm(SECONDS)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            answer = job()
        except BaseException:
            answer = f"test (error) {traceback.format_exc(limit=-1).splitlines()[-1]}"
    os.write(writing, answer.encode()[:4000])
    os._exit(0)


def noticed_by(mutant: Mutant, first: str = "") -> str:
    """Who notices a mutant: "claim P4", "test tests/test_x.py::test_y", or "" for nobody.

    "claim P4 (ValueError)" is a claim that the mutant stops before its check can be made.
    ``first`` is tried before the others. The library must not be imported yet.
    """
    _plant(mutant)
    mine = [claim for claim in claims() if f"diffusion_lib.{mutant.name}" in claim.binds]
    mine.sort(key=lambda claim: not _is_named(claim, first))
    stopped = ""
    for claim in mine if not first.startswith("test") else []:
        outcome = _outcome(claim)
        if outcome == "CheckFailed":
            return f"claim {claim.id}"
        stopped = stopped or (outcome and f"claim {claim.id} ({outcome})")
    return stopped or _failing_test(mutant, first)


def _is_named(claim: Claim, answer: str) -> bool:
    return answer.split()[:2] == ["claim", claim.id]


def error_of(claim: Claim) -> str:
    """What is wrong with a claim when nothing is planted."""
    try:
        _check(claim)
    except Exception as error:
        return repr(error)
    return ""


def _plant(mutant: Mutant) -> None:
    """Import the library with the mutant in it."""
    name = f"diffusion_lib.{mutant.module}"
    assert not any(module.startswith("diffusion_lib") for module in sys.modules), "too late"
    original = functions(mutant.module)[mutant.function]
    sys.meta_path.insert(0, _Finder(name, _with(parsed(mutant.module), original, mutant.code)))


class _Finder:
    """Finds one module, with its code exchanged."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        loader.get_code = lambda _: compile(self.tree, str(spec.origin), "exec")
        return spec


def _outcome(claim: Claim) -> str:
    """CheckFailed if the claim's own check fails, the name of what stops it before, or nothing."""
    from diffusion_lib.verify import CheckFailed

    try:
        _check(claim)
    except CheckFailed as failure:
        return "CheckFailed" if str(failure).startswith(f"{claim.id} (") else ""
    except Exception as error:
        return type(error).__name__
    return ""


def _check(claim: Claim) -> None:
    from diffusion_lib import figures

    figures.show = lambda *_, **__: None
    namespace: dict[str, Any] = {"display": lambda *_: None, "__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(claim.source, claim.chapter, "exec"), namespace)


def _failing_test(mutant: Mutant, first: str) -> str:
    import pytest

    class Listener:
        failed = ""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed and not self.failed:
                self.failed = report.nodeid.split("[")[0]

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed and not self.failed:
                self.failed = report.nodeid

    listener = Listener()
    files = [f"tests/test_{name}.py" for name in WATCHED_BY[mutant.module]]
    nodes = [first.removeprefix("test ")] if first.startswith("test tests") else files
    there = [node for node in nodes if (ROOT / node.split("::")[0]).exists()]
    pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:nbval", "-p", "no:xdist", *there],
        plugins=[listener],
    )
    return f"test {listener.failed}" if listener.failed else ""


# --- The command ----------------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}


def every_function() -> dict[str, tuple[str, str]]:
    return {
        f"{module}.{name}": (module, name)
        for module in WATCHED_BY
        if path_of(module).exists()
        for name in functions(module)
    }


def stale() -> list[str]:
    """The functions whose code is not the one that was tried."""
    known = stored()
    return [
        name
        for name, (module, function) in every_function().items()
        if known.get(name, {}).get("code") != fingerprint(functions(module)[function])
    ]


def _warm_up() -> None:
    """Import, before any fork, what the mutants cannot touch."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import hypothesis  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import mpmath  # noqa: F401
    import scipy.stats  # noqa: F401
    import sympy  # noqa: F401
    import torch

    torch.set_num_threads(1)
    claims()


def _run(names: list[str], workers: int) -> None:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would be copied with every child
    todo = [m for name in names for m in mutants_of(*every_function()[name])]
    left = Counter(mutant.name for mutant in todo)
    answers: dict[int, str] = {}
    jobs = [partial(noticed_by, mutant) for mutant in todo]
    for number, answer in tqdm(in_processes(jobs, workers), total=len(todo)):
        answers[number] = answer
        name = todo[number].name
        left[name] -= 1
        if not answer:
            tqdm.write(f"nobody noticed {todo[number]}")
        if not left[name]:
            entries = [
                {"kind": mutant.kind, "change": mutant.change, "noticed_by": answers[i]}
                for i, mutant in enumerate(todo)
                if mutant.name == name
            ]
            _store({name: entries})
    _store({name: [] for name in names if name not in left})


def _store(outcome: dict[str, list[dict[str, str]]]) -> None:
    there = every_function()
    results = {name: entry for name, entry in stored().items() if name in there}
    for name, mutants in outcome.items():
        module, function = there[name]
        code = fingerprint(functions(module)[function])
        results[name] = {"code": code, "mutants": mutants}
    text = json.dumps(
        {name: results[name] for name in there if name in results}, indent=1, ensure_ascii=False
    )
    RESULTS.write_text(text + "\n", encoding="utf-8")


def _sample(count: int, seed: int, workers: int) -> int:
    """Try again a sample of what was noticed, by whoever noticed it."""
    pairs = []
    for name, (module, function) in every_function().items():
        answers = {m["change"]: m["noticed_by"] for m in stored()[name]["mutants"]}
        mutants = mutants_of(module, function)
        noticed = [(m, answers[m.change]) for m in mutants if answers.get(m.change)]
        pairs += [(m, answer) for m, answer in noticed if answer != NEVER_ENDS]
    chosen = random.Random(seed).sample(pairs, min(count, len(pairs)))
    alone = [claim for claim in claims() if any(_is_named(claim, a) for _, a in chosen)]
    jobs = [partial(noticed_by, *pair) for pair in chosen]
    answers = dict(in_processes([*jobs, *(partial(error_of, c) for c in alone)], workers))
    missed = [mutant for i, (mutant, _) in enumerate(chosen) if not answers[i]]
    broken = [claim.id for i, claim in enumerate(alone, len(chosen)) if answers[i]]
    for mutant in missed:
        print(f"nobody noticed {mutant}")
    for name in broken:
        print(f"claim {name} fails without a mistake in the library")
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutants noticed")
    return 1 if missed or broken else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="functions, as closed_forms.snr; all if none")
    parser.add_argument("--all", action="store_true", help="also what did not change")
    parser.add_argument("--sample", type=int, metavar="N", help="try N of the noticed ones again")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4))
    chosen = parser.parse_args(arguments)
    _warm_up()
    if chosen.sample:
        return _sample(chosen.sample, chosen.seed, chosen.workers)
    names = chosen.names or (list(every_function()) if chosen.all else stale())
    _run(names, chosen.workers)
    mutants = [m for entry in stored().values() for m in entry["mutants"]]
    unnoticed = sum(not m["noticed_by"] for m in mutants)
    print(f"{len(mutants)} mutants, {unnoticed} that nobody noticed; see {RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
