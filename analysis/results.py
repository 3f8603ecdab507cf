"""The results of a sweep as a person wants them: every table a DataFrame, every layer one array."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import activations, tables
from analysis.activations import known
from analysis.akp import PRIMARY_PREDICTOR, Verdict, associations, divergence_epochs, spreads, verdict
from analysis.measures.generalization import PREDICTORS, gaps
from analysis.measures.similarity import DEFAULT_MEASURES, expand
from analysis.predictions import Predictions, has_predictions, read_predictions, read_samples
from analysis.reading import parquet
from analysis.storage import Store
from analysis.wording import counted


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        axes = ", ".join(
            f"{number} {axis}" for number, axis in zip(self.X.shape, ("families", "replicas", "rows", "features"), strict=True)
        )
        absent = int((~self.present).sum())
        return f"Activations of layer {self.layer!r} at moment {self.moment!r}: X [{axes}] float32" + (
            f", {absent} networks not there (NaN)" if absent else ""
        )


class Results:
    """The results in a folder or below a URI. Tables are read when they are first asked for, and kept.

    A table is an attribute: `results.trials`, `results.replicas`, and once the analysis has run `results.association`, `results.partial`.
    `dir(results)` and `results.tables` list them; `SCHEMA.md` beside the results has columns, types and units.
    """

    def __init__(self, path: str | os.PathLike[str] | Store) -> None:
        self.store = path if isinstance(path, Store) else Store(path)
        self._read: dict[str, pd.DataFrame] = {}
        if not tables.names(self.store, "trials"):
            raise FileNotFoundError(f"{self.store.root}: no results of a sweep, there is no file in trials/{self._beside()}")

    def __repr__(self) -> str:
        return f"Results of {self._families()} in {self.store.root}\ntables: {', '.join(self.tables)}"

    def _repr_html_(self) -> str:
        about = {name: escape(table.row) for name, table in tables.TABLES.items()}
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{about.get(name, 'derived by the analysis')}</td></tr>" for name in self.tables)
        where = escape(self.store.root)
        return f"<p>Results of {self._families()} in {where}</p><table><tr><th>table</th><th>a row is</th></tr>{rows}</table>"

    def _families(self) -> str:
        counts = self.trials["status"].value_counts()
        return f"{len(self.trials)} families ({', '.join(f'{number} {status}' for status, number in counts.items())})"

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
        with parquet(self.store, f"analysis/{name}.parquet") as file:
            for column in wanted or ():
                known(f"column of {name}", column, file.schema_arrow.names, self.store.root)
            return file.read(wanted).to_pandas()

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

    def predictions(self, trial: str, split: str = "test") -> Predictions:
        """The classes that a finished family's networks predicted, `[replica, evaluation, sample]`, beside the labels: at epoch 0, after
        every evaluated epoch, and right after swaps. Raises UnknownName for a family or split that is not there."""
        known("split", split, ("train", "test"), self.store.root)
        done = self.trials[self.trials["status"] == "done"].set_index("trial")["dataset"]
        known("family with predictions", trial, has_predictions(self.store, list(done.index)), self.store.root)
        return read_predictions(self.store, trial, read_samples(self.store, done[trial]))[split]

    def spread(
        self, layer: str | None = None, moment: str | None = None, measure: str | None = None, trials: Collection[str] | None = None
    ) -> pd.DataFrame:
        """How far apart the replicas of each family are: a row per family, moment, epoch, layer and measure, of those named or all.

        Columns as in `analysis.spreads.spreads`: `spread` (1 - mean similarity over pairs of replicas, no unit, 0 where all are equal),
        `spread_low` and `spread_high` (95 % bootstrap over replicas), `spread_se` (jackknife), `num_replicas`, and more. Taken from the
        analysis' table where it has them, else computed from the activations, with the default measures or the one named (a name of
        `docs/measures.md`). Families that `python -m analysis` would leave out are left out, unless named as `trials`.
        Raises UnknownName for a layer, moment or family that is not there, KeyError for an unknown measure.
        """
        for trial in trials or ():
            known("finished family", trial, self.recorded["trial"], self.store.root)
        for kind, name in (("layer", layer), ("moment", moment)):
            if name is not None:
                known(kind, name, self.recorded[kind], self.store.root)
        found = self._spread if trials is None else self._spread[self._spread["trial"].isin(list(trials))]
        if (measure is not None and measure not in set(found["measure"])) or (trials is not None and set(trials) - set(found["trial"])):
            found = spreads(self.store, expand(DEFAULT_MEASURES if measure is None else [measure]), trials)
        for column, name in (("layer", layer), ("moment", moment), ("measure", measure)):
            if name is not None:
                found = found[found[column] == name]
        return found.reset_index(drop=True)

    @cached_property
    def _spread(self) -> pd.DataFrame:
        return self.table("spread") if "spread" in self.tables else spreads(self.store)

    def verdict(self, predictor: str = PRIMARY_PREDICTOR) -> Verdict:
        """The answer to the question: do families that generalize badly, by `predictor`, differ more inside?

        `answer` is AKP, anti-AKP, mixed, no effect or undecided; `text` has the estimator, n and interval; `rho`, `rho_low` and `rho_high`
        are of the layer with the largest correlation. From the analysis' table where it is there, else computed, which takes seconds to
        minutes. `predictor` is `gap_accuracy`, on which the verdict was declared, or another, which is exploratory. Raises UnknownName.
        """
        name = known("predictor", predictor, PREDICTORS)
        return verdict(self.associations(), name)

    def associations(self) -> pd.DataFrame:
        """The correlation of spread with each predictor, a row per measure, moment, layer and predictor, as `analysis.akp.associations` has
        it; from the analysis' table `association` where it is there, else computed."""
        return self._associations

    @cached_property
    def _associations(self) -> pd.DataFrame:
        return self.table("association") if "association" in self.tables else associations(self._spread, gaps(self.replicas))

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
