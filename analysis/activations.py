"""Which representations the families of a store have, from the files' footers alone, and one of them as an array."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from analysis import tables
from analysis.reading import parquet
from analysis.registry import UnknownName
from analysis.storage import Store

FILES_AT_ONCE = 16  # opening a file on object storage is a wait of tens of milliseconds
AROUND_SWAPS = ("before_swap", "after_swap")
COLUMNS = ["trial", "moment", "epoch", "layer", "num_rows", "width"]


def known(kind: str, name: str, allowed: Iterable[str], where: str = "") -> str:
    """The name. Raises UnknownName, with what is allowed and the nearest of it, where it is not among `allowed`."""
    names = list(dict.fromkeys(allowed))
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), names, n=1)
    near = f"; did you mean {close[0]!r}?" if close else ""
    raise UnknownName(f"{where}{': ' if where else ''}unknown {kind} {name!r}; there are {', '.join(names) or 'none'}{near}")


def recorded(store: Store, trials: Sequence[str]) -> pd.DataFrame:
    """A row per family, moment, epoch and layer with activations: also num_rows (of one family, all replicas) and width (features)."""

    def of(trial: str) -> list[dict[str, object]]:
        found: dict[tuple[str, int, str], tuple[int, int]] = {}
        with parquet(store, f"activations/{trial}.parquet") as file:
            for _, key, (num_rows, width) in tables.row_groups(file):
                found[key] = (found.get(key, (0, 0))[0] + num_rows, width)
        return [dict(zip(COLUMNS, (trial, *key, *size), strict=True)) for key, size in found.items()]

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        rows = [row for part in pool.map(of, trials) for row in part]
    return pd.DataFrame(rows, columns=COLUMNS)


def layer_order(table: pd.DataFrame) -> list[str]:
    """The layers of a table with columns trial and layer, of networks that may have different ones, each network's in its own order.

    A layer that earlier networks lack comes right after the one before it.
    """
    order: list[str] = []
    for layers in dict.fromkeys(tuple(dict.fromkeys(of)) for _, of in table.groupby("trial", sort=False)["layer"]):
        at = 0
        for layer in layers:
            if layer not in order:
                order.insert(at, layer)
            at = order.index(layer) + 1
    return order


def chosen(found: pd.DataFrame, layer: str, moment: str, epoch: int | None = None, where: str = "") -> pd.DataFrame:
    """The rows of `recorded` for one layer at one moment, one per family; families without that moment have none.

    Without an epoch it is the first swap's for the moments around swaps, and must be given where moment `epoch` has several. Raises
    UnknownName for a layer, moment or epoch that no family has.
    """
    at_layer = found[found["layer"] == known("layer", layer, found["layer"], where)]
    here = at_layer[at_layer["moment"] == known("moment", moment, at_layer["moment"], where)]
    if epoch is None and moment not in AROUND_SWAPS and here.duplicated("trial").any():
        several = ", ".join(map(str, sorted(here["epoch"].unique())))
        raise UnknownName(f"{where}{': ' if where else ''}moment {moment!r} has several epochs; name one of {several} as epoch")
    if epoch is not None:
        known(f"epoch of moment {moment!r}", str(epoch), map(str, sorted(here["epoch"].unique())), where)
        here = here[here["epoch"] == epoch]
    return here.sort_values(["trial", "epoch"]).drop_duplicates("trial").reset_index(drop=True)


def read(store: Store, trial: str, layer: str, moment: str, epoch: int, replicas: range | None = None) -> tuple[np.ndarray, pd.DataFrame]:
    """One family's representations `[replica, row, feature]`, float32, of all or some replicas, and what its rows are: sample,
    position, label. Of the file, only the row groups that hold these replicas are read."""
    arrays: list[np.ndarray] = []
    rows = pd.DataFrame()
    columns = ["replica", "sample", "position", "label", "activation"]
    with parquet(store, f"activations/{trial}.parquet") as file:
        at = file.schema_arrow.names.index("replica")
        for index, key, _ in tables.row_groups(file, moment, layer):
            held = file.metadata.row_group(index).column(at).statistics
            if key[1] != epoch or (replicas is not None and (held.max < replicas.start or held.min >= replicas.stop)):
                continue
            group = file.read_row_group(index, columns=columns)
            X = tables.representations(group)
            if not arrays:
                rows = group.select(["sample", "position", "label"]).slice(0, X.shape[1]).to_pandas()
            arrays.append(X if replicas is None else X[max(replicas.start - held.min, 0) : replicas.stop - held.min])
    if not arrays:
        raise KeyError(f"{store.root}/activations/{trial}.parquet: nothing of layer {layer} at moment {moment}, epoch {epoch}")
    return np.concatenate(arrays), rows


def check_same_rows(rows: pd.DataFrame, others: pd.DataFrame, trial: str, other: str) -> None:
    """Raises ValueError where two families were probed on other samples, so that their representations do not compare."""
    if not rows[["sample", "position"]].equals(others[["sample", "position"]]):
        raise ValueError(
            f"families {trial} ({len(rows)} rows) and {other} ({len(others)} rows) were probed on other samples; "
            "choose families of one probe set"
        )
