"""The shape of the library: what may import what, and what must not be in it."""

import ast
import graphlib
import itertools
import re
import sys
import tomllib

import pytest

import diffusion_lib
from notebooks import LIBRARY, ROOT

TREES = {
    path.relative_to(LIBRARY).with_suffix(""): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(LIBRARY.rglob("*.py"))
}
MODULES = {path.parts[0] for path in TREES} - {"__init__"}  # a folder counts as one

# What a distribution is called, where that is not what its module is called.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
ONLY_IN_NOTEBOOKS = {"IPython"}  # Jupyter and Colab have it; without it nothing is displayed


def imports(path):
    """Full names of the modules that a file imports, wherever in it the import stands."""
    package = ["diffusion_lib", *path.parts[:-1]]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def ours(module):
    """The library's modules that one of them imports."""
    names = [n for path in TREES if path.parts[0] == module for n in imports(path)]
    found = {n.split(".")[1] for n in names if n.startswith("diffusion_lib.")}
    return (found & MODULES) - {module}


def documented_levels():
    """The order in the package's docstring: lowest first, the command line last."""
    chain = re.search(
        r"downwards only: (.*) ←\s+the command line\.", diffusion_lib.__doc__, re.DOTALL
    ).group(1)
    return [*(re.findall(r"`(\w+)`", part) for part in chain.split("←")), ["__main__"]]


LEVEL = {name: i for i, names in enumerate(documented_levels()) for name in names}


def test_the_documented_modules_are_there():
    assert LEVEL.keys() <= MODULES
    assert LEVEL["closed_forms"] == 0
    assert LEVEL["__main__"] == max(LEVEL.values()) >= 6


@pytest.mark.parametrize("module", LEVEL)
def test_imports_run_downwards(module):
    """From the modules beside the order only the command line imports: it draws pictures."""
    allowed = {name for name in LEVEL if LEVEL[name] <= LEVEL[module]}
    if module == "__main__":
        allowed |= MODULES
    assert ours(module) <= allowed


def test_no_imports_run_in_a_circle():
    graphlib.TopologicalSorter({module: ours(module) for module in MODULES}).prepare()


def test_closed_forms_need_nothing_but_python():
    (path,) = [path for path in TREES if path.name == "closed_forms"]
    assert {name.split(".")[0] for name in imports(path)} <= sys.stdlib_module_names
    assert ours("verify") == ours("figures") == set()


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = itertools.chain(*project["optional-dependencies"].values())
    lines = [*project["dependencies"], *optional]
    declared = {re.match(r"[\w.-]+", line).group() for line in lines}
    imported = {name.split(".")[0] for path in TREES for name in imports(path)}
    others = imported - sys.stdlib_module_names - {"diffusion_lib"} - ONLY_IN_NOTEBOOKS
    assert {DISTRIBUTIONS.get(name, name) for name in others} == declared


every_file = pytest.mark.parametrize("path", TREES, ids=str)


@every_file
def test_nothing_is_pickled(path):
    """Loading a pickle runs whatever is in it."""
    picklers = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name.split(".")[0] for name in imports(path)} & picklers
    for call in (node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)):
        assert ast.unparse(call.func) not in ("torch.load", "torch.save")
        if ast.unparse(call.func) == "np.load":
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            assert options.get("allow_pickle") == "False", ast.unparse(call)


# A standard deviation from a variance is no formula of diffusion mathematics, nor is an error bar.
ALLOWED_ROOTS = {
    "samplers": ["np.sqrt(variances[variance])"],
    "objectives": ["math.sqrt(len(values))"],
}


def roots(tree):
    """Every call of a function or method named for a square root, and every power with one."""
    for node in ast.walk(tree):
        is_root = (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] in ("sqrt", "rsqrt")
        ) or (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Pow)
            and ast.unparse(node.right) in ("0.5", "-0.5", "1 / 2")
        )
        if is_root:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "module", ["schedule", "prediction", "process", "targets", "objectives", "samplers"]
)
def test_no_root_is_taken_outside_closed_forms(module):
    """Nearly every formula of diffusion mathematics has one, so a second copy shows itself."""
    (path,) = [path for path in TREES if path.name == module]
    assert list(roots(TREES[path])) == ALLOWED_ROOTS.get(module, [])
