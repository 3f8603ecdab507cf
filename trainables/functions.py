"""A registry of functions that a recipe names, and user functions by import path."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


class UnknownName(ValueError):
    """A name that no registry knows, or an import path that leads nowhere."""


class Registry(Mapping[str, Callable[..., Any]]):
    """Built-in functions by name; `package.module:name` reaches the user's own."""

    def __init__(self, kind: str, functions: dict[str, Callable[..., Any]]) -> None:
        self.kind = kind
        self._functions = functions

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def resolve(self, name: str) -> Callable[..., Any]:
        """The function of that name. Raises UnknownName, which names what is allowed and the nearest valid name."""
        if name in self._functions:
            return self._functions[name]
        if ":" not in name:
            near = difflib.get_close_matches(name, self._functions, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownName(
                f"unknown {self.kind} {name!r}; {hint}allowed: {', '.join(self._functions)}, or your own as package.module:name"
            )
        module_name, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (Exception, SystemExit) as error:  # whatever the user's module does while it is imported
            raise UnknownName(f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise UnknownName(f"{self.kind} {name!r} is {type(found).__name__}, not a function")
        return found

    def fingerprint(self, name: str) -> str:
        """What stands for this function in a history: its name, and for a user's function a hash of the source it comes from.

        A user's function may change under its name, and training states that the older one made must not be taken for it. Hashed
        are the module that the path names and the one that defines the function, not what these import in turn.
        """
        if name in self._functions:
            return name
        return f"{name}#{_source_hash(importlib.import_module(name.partition(':')[0]), self.resolve(name))}"


@cache
def _source_hash(*holders: Any) -> str:
    """12 digits over the sources of a module that was imported and of the one that defines what was found there."""
    modules = dict.fromkeys(inspect.getmodule(holder) for holder in holders)
    return hashlib.sha256(b"".join(_source(module) for module in modules if module is not None)).hexdigest()[:12]


def _source(module: ModuleType) -> bytes:
    """What a module is made of: its source, its compiled file, or for a part of Python itself its name and Python's version."""
    try:
        return inspect.getsource(module).encode()
    except (TypeError, OSError):
        file = getattr(module, "__file__", None)
        return Path(file).read_bytes() if file else f"{module.__name__} {sys.version}".encode()
