"""Registries: what a recipe names, and what users bring of their own by import path or entry point. One mechanism for all kinds."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from analysis.wording import near

GROUP = "karenina_sweep"  # entry points of group karenina_sweep.<kind>, e.g. karenina_sweep.activation

T = TypeVar("T")


class UnknownName(ValueError):
    """A name that is not among those there are, or an import path that leads nowhere."""


class Registry(Mapping[str, T], Generic[T]):
    """Built-in objects by name, those that installed packages declare as entry points, and the user's own by `package.module:name`.

    As a mapping it holds the built-in ones; `registry[name]` also resolves the others. `as_one` turns what an import path led to into what
    the registry holds, and raises ValueError with the reason where it cannot.
    """

    def __init__(self, kind: str, built_in: dict[str, T], as_one: Callable[[Any], T] | None = None) -> None:
        self.kind = kind
        self._built_in = built_in
        self._as_one = as_one or _function

    def __getitem__(self, name: str) -> T:
        return self._built_in[name] if name in self._built_in else self.resolve(name)

    def __contains__(self, name: object) -> bool:
        return name in self._built_in

    def __iter__(self) -> Iterator[str]:
        return iter(self._built_in)

    def __len__(self) -> int:
        return len(self._built_in)

    def is_own(self, name: str) -> bool:
        """Whether a name is not built in: an import path, or an installed package's entry point."""
        return name not in self._built_in and (":" in name or name in self._declared())

    def resolve(self, name: str) -> T:
        """The object of that name. Raises UnknownName, which names what is allowed and the nearest valid name."""
        if name in self._built_in:
            return self._built_in[name]
        found = self._imported(name)
        try:
            return self._as_one(found)
        except ValueError as error:
            raise UnknownName(f"{self.kind} {name!r} {error}") from error

    def fingerprint(self, name: str) -> str:
        """What stands for this object in a history: its name, and for a user's own a hash of the source it comes from.

        A user's function may change under its name, and training states that the older one made must not be taken for it. Hashed
        are the module that the path names and the one that defines the function, not what these import in turn.
        """
        if not self.is_own(name):
            return name
        return f"{name}#{_source_hash(importlib.import_module(self._path(name).partition(':')[0]), self._imported(name))}"

    def _declared(self) -> dict[str, EntryPoint]:
        return _entry_points(f"{GROUP}.{self.kind.replace(' ', '_')}", tuple(sys.path))

    def _path(self, name: str) -> str:
        """The import path of a name that is not built in. Raises UnknownName."""
        if ":" in name:
            return name
        declared = self._declared()
        if name in declared:
            return declared[name].value
        names = [*self._built_in, *declared]
        allowed = f"{', '.join(names)}, or " if names else ""
        raise UnknownName(f"unknown {self.kind} {name!r}; {near(name, names)}allowed: {allowed}your own as package.module:name")

    def _imported(self, name: str) -> Any:
        module_name, _, attribute = self._path(name).partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (Exception, SystemExit) as error:  # whatever the user's module does while it is imported
            raise UnknownName(f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _function(found: Any) -> Any:
    if not callable(found):
        raise ValueError(f"is {type(found).__name__}, not a function")
    return found


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """By name; `path` is where Python looks for packages now."""
    return {point.name: point for point in entry_points(group=group)}


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
