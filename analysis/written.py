"""The files of an analysis: those that the one before wrote and this one does not are removed, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from analysis.storage import Store

LIST = "analysis/written.txt"
_OWN = re.compile(r"(analysis/[\w.-]+\.parquet|figures/[\w.-]+\.(png|svg)|report\.html)")  # what a list may name, whoever wrote it
Fill = Callable[[Any], object]


def replace_files(store: Store, files: Mapping[str, Fill]) -> tuple[str, ...]:
    """Write the files, each whole, and remove what an earlier call wrote in the same store and this one does not. Returns their names.

    A call that is killed leaves a list of both, so that the next one removes what is left of either.
    """
    earlier = store.read(LIST).decode(errors="replace").splitlines() if store.exists(LIST) else []
    stale = [name for name in dict.fromkeys(earlier) if _OWN.fullmatch(name) and name not in files]
    _write_list(store, [*files, *stale])
    for name, fill in files.items():
        store.write_with(name, fill)
    for name in stale:
        store.delete(name)
    _write_list(store, list(files))
    return tuple(files)


def _write_list(store: Store, names: list[str]) -> None:
    store.write(LIST, "".join(f"{name}\n" for name in names).encode())
