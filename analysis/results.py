"""The results of a sweep as a person wants them: every table a DataFrame, every layer one array."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from analysis import activations, tables
from analysis.activations import known
from analysis.akp import divergence_epochs
from analysis.storage import Store
from analysis.wording import counted


@dataclass(frozen=True)
class Activations:
    """One layer of many families at one moment.

    Families may differ in their number of replicas: X is as long as the largest family, and a replica that a smaller family does not have
    is NaN, as is one that had diverged by then. `present` marks the others.
    """

    X: np.ndarray  # [family, replica, sample, feature] float32
    present: np.ndarray  # [family, replica] bool
    trials: pd.DataFrame  # [family] the rows of the table `trials`, and `epoch`, the epoch of the moment
    samples: pd.DataFrame  # [sample] id of the probe sample, position in the map (pooling `positions`), clean label
    layer: str
    moment: str


class Results:
    """The results in a folder or below a URI. Tables are read when they are first asked for, and kept.

    A table is an attribute: `results.trials`, `results.replicas`, and once the analysis has run `results.spread`, `results.association`.
    `dir(results)` and `results.tables` list them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.store = Store(path)
        self._read: dict[str, pd.DataFrame] = {}
        if not tables.names(self.store, "trials"):
            raise FileNotFoundError(f"{self.store.root}: no results of a sweep, there is no file in trials/{self._beside()}")

    def __repr__(self) -> str:
        return f"Results({self.store.root!r}): {', '.join(self.tables)}"

    @cached_property
    def tables(self) -> list[str]:
        """The tables there are: those of the sweep that have rows, then those of the analysis."""
        derived = [name.removesuffix(".parquet") for name in self.store.names("analysis", ".parquet")]
        return [name for name in tables.TABLES if tables.names(self.store, name)] + [n for n in derived if n not in tables.TABLES]

    def table(self, name: str, columns: Collection[str] | None = None) -> pd.DataFrame:
        """A table, or the named columns of one: tidy, an observation per row. Raises UnknownName for one that is not there."""
        known("table", name, [*self.tables, *tables.TABLES], self.store.root)
        wanted = None if columns is None else list(columns)
        if name in tables.TABLES:
            for column in wanted or ():
                known(f"column of {name}", column, tables.TABLES[name].schema.names, self.store.root)
            return tables.read(self.store, name, wanted)
        with self.store.filesystem.open_input_file(self.store.path(f"analysis/{name}.parquet")) as source:
            parquet = pq.ParquetFile(source)
            for column in wanted or ():
                known(f"column of {name}", column, parquet.schema_arrow.names, self.store.root)
            return parquet.read(wanted).to_pandas()

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._read:
            try:
                self._read[name] = self.table(name)
            except activations.UnknownName as error:
                raise AttributeError(str(error)) from None
        return self._read[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.tables})

    @cached_property
    def recorded(self) -> pd.DataFrame:
        """What `activations` can give: a row per finished family, moment, epoch and layer."""
        done = self.trials.loc[self.trials["status"] == "done", "trial"]
        names = set(tables.names(self.store, "activations"))
        return activations.recorded(self.store, sorted(names & set(done)))

    @property
    def layers(self) -> list[str]:
        return list(self.recorded["layer"].unique())

    @property
    def moments(self) -> list[str]:
        return list(self.recorded["moment"].unique())

    def activations(self, layer: str, moment: str = "end", epoch: int | None = None, trials: Collection[str] | None = None) -> Activations:
        """One layer at one moment over all finished families, or those in `trials`; families without that moment are left out.

        Without an epoch it is the first swap's around swaps. Raises UnknownName for a layer, moment, epoch or family that is not there,
        and ValueError where families differ in features or probe samples, so that there is no such array: name the families then.
        """
        found = self.recorded
        for trial in trials or ():
            known("finished family", trial, found["trial"], self.store.root)
        if trials is not None:
            found = found[found["trial"].isin(list(trials))]
        rows = activations.chosen(found, layer, moment, epoch, self.store.root)
        if rows["width"].nunique() > 1:
            sizes = "; ".join(
                f"{width}: {counted(len(part), 'family')}, {part['trial'].iloc[0]} first" for width, part in rows.groupby("width")
            )
            raise ValueError(f"{self.store.root}: layer {layer!r} differs in its number of features ({sizes}); name families as trials")
        index = rows[["trial", "epoch"]].merge(self.trials, on="trial", how="left")
        num_replicas = int(index["num_replicas"].max())
        diverged_at = divergence_epochs(self.store, list(rows["trial"]))
        X, samples, present = None, pd.DataFrame(), np.zeros((len(rows), num_replicas), dtype=bool)
        for family, (trial, at) in enumerate(zip(rows["trial"], rows["epoch"], strict=True)):
            x, here = activations.read(self.store, trial, layer, moment, at)
            if X is None:
                X, samples = np.full((len(rows), num_replicas, *x.shape[1:]), np.nan, dtype=np.float32), here
            activations.check_same_rows(samples, here, rows["trial"][0], trial)
            present[family, : len(x)] = diverged_at[trial] > at
            X[family, : len(x)][present[family, : len(x)]] = x[present[family, : len(x)]]
        assert X is not None  # `chosen` gives at least one family
        return Activations(X, present, index, samples, layer, moment)

    def pairs(self, measure: str, layer: str, moment: str = "end", epoch: int | None = None) -> tuple[np.ndarray, pd.DataFrame]:
        """The distances `[network, network]` that `python -m analysis pairs` wrote, and which network each row is. With moment `epoch`,
        the epoch too."""
        name = "_".join(["pairs", measure, layer, moment, *([] if epoch is None else [str(epoch)])])
        table = self.table(known("table", name, self.tables, self.store.root))
        return np.stack(list(table["distances"])), table.drop(columns="distances")

    def _beside(self) -> str:
        """What lies beside a folder without results, for the message."""
        if not self.store.is_local:
            return ""
        path = Path(self.store.base)
        for folder in (path, path.parent):
            if found := sorted({str(p.parent) for p in folder.glob("*/trials")} - {str(path)}):
                more = f" and {len(found) - 5} more folders" if len(found) > 5 else ""
                return f"; results lie in {', '.join(found[:5])}{more}"
        return ""
