"""Put another function in the place of one of the library's, for a while."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

LIBRARY = "diffusion_lib"


@contextmanager
def replaced(function: FunctionType, by: Callable[..., Any] | CodeType) -> Iterator[None]:
    """Another function, or other code, in the place of a function, inside the block.

    The function's code is exchanged, so whoever holds the function runs the other one, whatever
    name it was imported by. Tables that the library remembers are forgotten on both ways.

    Args:
        function: a plain Python function that closes over nothing.
        by: anything that takes the same arguments; or code made for the function.

    Raises:
        ValueError: if the function is not a plain one.
    """
    if not isinstance(function, FunctionType) or function.__code__.co_freevars:
        raise ValueError(f"function is {function!r:.80}; it must be a plain Python function.")
    before = function.__code__
    _forget_tables()
    function.__code__ = by if isinstance(by, CodeType) else _code_that_calls(by)
    try:
        yield
    finally:
        function.__code__ = before
        _forget_tables()


_PLACE = "what is called"


def _call(*args: Any, **kwargs: Any) -> Any:
    target: Any = "what is called"
    return target(*args, **kwargs)


def _code_that_calls(target: Callable[..., Any]) -> CodeType:
    """Code that calls the target, which is one of its constants: it needs no name to find it."""
    code = _call.__code__
    constants: tuple[Any, ...] = tuple(target if x == _PLACE else x for x in code.co_consts)
    return code.replace(co_consts=constants)


def _forget_tables() -> None:
    """Empty every cache of the library."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == LIBRARY:
            for value in list(vars(module).values()):
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


def named(path: str) -> Any:
    """What "module.function" or "module.Class.function" names in the library."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join([LIBRARY, *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = inspect.getattr_static(found, part)
        return found
    raise ValueError(f"path is {path!r}; it must name a function of the library.")


def unwrapped(found: Any) -> Any:
    if isinstance(found, property):
        return found.fget
    return inspect.unwrap(getattr(found, "__func__", found))


def copy_of(function: Any) -> Any:
    """The function as it is now, which a slip may call while it stands in its place."""
    f = unwrapped(function)
    twin = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    twin.__kwdefaults__ = f.__kwdefaults__
    return twin
