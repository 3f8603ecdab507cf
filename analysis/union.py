"""Several result folders read as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from analysis import tables
from analysis.storage import Store

# Keys of the base recipe that one analysis can compare over: its tables are laid out by the others.
_VARIABLE = ("data.train_size", "data.label_noise")
_FIXED = ("training.epochs", "training.replicas", "training.first_seed")
_FREE = ("data.root", "data.download")  # where the data lie, not what they are


class Union(Store):
    """The tables of several stores, read as those of one sweep that varies what their sweep files differ in.

    A family that several have is read from the first. What is written, and what the analysis derives, lies `into` another store, which
    may be None to read only. Raises ValueError where the stores cannot be one sweep, and names the key that they differ in.
    """

    def __init__(self, stores: Sequence[Store], into: Store | None = None) -> None:
        self.stores, self.into = list(stores), into
        first = self.stores[0]
        for store in [*self.stores, *([into] if into else [])]:
            if not first.filesystem.equals(store.filesystem):
                raise ValueError(f"{first.root} and {store.root} lie on different file systems; copy one beside the other")
            if store is not into and not tables.names(store, "trials"):
                raise FileNotFoundError(f"{store.root}: no results of a sweep, there is no file in trials/")
        if into is not None and into.base in [store.base for store in self.stores]:
            raise ValueError(f"{into.root} is one of the results; the analysis of all goes into a folder of its own")
        self.filesystem, self.is_local = first.filesystem, first.is_local
        self.base = into.base if into else first.base
        self.root = into.root if into else " + ".join(store.root for store in self.stores)
        self._owners: dict[str, dict[str, Store]] = {}
        self.sweep = self._combined()

    def _combined(self) -> dict[str, Any]:
        """The first sweep file, with what the others have otherwise as axes over the base recipe."""
        files = [yaml.safe_load(store.read("sweep.yaml")) or {} if store.exists("sweep.yaml") else {} for store in self.stores]
        flat = [{f"{part}.{key}": value for part in _PARTS for key, value in (file.get(part) or {}).items()} for file in files]
        keys = dict.fromkeys(key for one in flat for key in one)
        differing = [key for key in keys if any(_given(one, key) != _given(flat[0], key) for one in flat)]
        axes: dict[str, list[Any]] = {}
        for file in files:
            for key, axis in ((file.get("space") or {}).get("recipe") or {}).items():
                axes.setdefault(key, []).append(axis)
        for key in differing:
            part = key.partition(".")[0]
            if key in _FREE or key in axes:
                continue
            if part == "probes" or key in _FIXED or (part == "data" and key not in _VARIABLE):
                values = "; ".join(f"{store.root}: {one.get(key)!r}" for store, one in zip(self.stores, flat, strict=True))
                raise ValueError(
                    f"{key} differs ({values}), so these results are not one sweep; `python -m sweep diff` compares two, and one analysis "
                    "takes those that differ in model, training (but epochs and seeds), data.train_size and data.label_noise"
                )
            axes[key] = [one.get(key) for one in flat]
        return files[0] | {"space": (files[0].get("space") or {}) | {"recipe": axes}}

    @property
    def text(self) -> str:
        """What was put together, in a line."""
        counts = [len(tables.names(store, "trials")) for store in self.stores]
        together = len(self._owner("trials"))
        axes = ", ".join(self.sweep["space"]["recipe"]) or "nothing of the base recipe"
        repeated = f", {sum(counts) - together} of them in several, read from the first" if sum(counts) > together else ""
        return f"{together} families of {' + '.join(map(str, counts))} in {len(counts)} results{repeated}; varied: {axes}"

    def _owner(self, folder: str) -> dict[str, Store]:
        """The store that each file of a table is read from: that which the family's row is read from, where it has one."""
        if folder not in self._owners:
            found: dict[str, Store] = {}
            for store in reversed(self.stores):
                found |= dict.fromkeys(store.names(folder), store)
            if folder != "trials":
                found |= {name: store for name, store in self._owner("trials").items() if name in found}
            self._owners[folder] = found
        return self._owners[folder]

    def path(self, name: str) -> str:
        folder, _, file = name.rpartition("/")
        owner = self._owner(folder).get(file) if folder in tables.TABLES else None
        return owner.path(name) if owner else super().path(name)

    def names(self, folder: str, suffix: str = "") -> list[str]:
        if folder in tables.TABLES:
            return sorted(name for name in self._owner(folder) if name.endswith(suffix))
        return self.into.names(folder, suffix) if self.into else []

    def exists(self, name: str) -> bool:
        return name == "sweep.yaml" or super().exists(name)

    def read(self, name: str) -> bytes:
        return yaml.safe_dump(self.sweep, sort_keys=False).encode() if name == "sweep.yaml" else super().read(name)

    def write_with(self, name: str, fill: Callable[[Any], object]) -> None:
        if self.into is None:
            raise ValueError("several results are read only; name a folder for what is derived from them")
        self.into.write_with(name, fill)


def _given(one: dict[str, Any], key: str) -> Any:
    """A value of a sweep file; an empty list as none, which files from before there was the option have."""
    return one.get(key) or None if isinstance(one.get(key), list) else one.get(key)


_PARTS = ("data", "model", "training", "probes")


def opened(paths: Sequence[str], into: str | None = None) -> Store:
    """The store of one path, or several as one. Raises ValueError where they cannot be one."""
    stores = [Store(path) for path in paths]
    if len(stores) == 1 and into is None:
        return stores[0]
    return Union(stores, None if into is None else Store(into))
