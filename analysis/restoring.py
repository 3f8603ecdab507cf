"""Have unhappy families lost the restoring force? Per family a restoring rate after its last swap, and its association with the gap.

Two trajectories are fitted, each with replicas as independent realisations that share the rate (`measures.ornstein_uhlenbeck`): the
test accuracy, and per layer the first principal coordinates of the networks in a PCoA common to all families. Time is in epochs; where
the learning rate decays, so do pull and noise, and a rate is an average over what was left of training.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import tables
from analysis.adaptation import accuracies, last_swap_epoch
from analysis.akp import CONFIDENCE, MIN_FAMILIES, PRIMARY_MEASURE, divergence_epochs, families
from analysis.measures.generalization import PREDICTORS
from analysis.measures.ordination import Ordination
from analysis.measures.ornstein_uhlenbeck import MIN_TIMES, fit
from analysis.measures.similarity import MEASURES, Measure
from analysis.statistics import bootstrap_spearman, holm, percentiles, resamples, spearman, spearman_within
from analysis.storage import Store
from analysis.wording import counted

NUM_AXES = 3
EVERY_EPOCH = "probes.evaluate_every=1"
MAX_LANDMARKS = 100  # networks that span the common PCoA; the others are put into it by their distances to these
COLUMNS = [
    "trial", "schedule", "control", "swapped", "swap_epoch", "since_epoch", "trajectory", "layer", "measure", "num_axes",
    "explained", "rate", "rate_low", "rate_high", "theta", "sigma", "likelihood_ratio", "p_random_walk", "statement", "reason",
    "num_times", "num_replicas", "num_steps", "estimator", "num_simulations", "seed",
]  # fmt: skip
ASSOCIATION_COLUMNS = [
    "trajectory", "layer", "measure", "predictor", "rho", "rho_low", "rho_high", "rho_within", "p_within", "p_holm", "statement",
    "reason", "num_families", "num_strata", "estimator", "alpha", "num_permutations", "num_bootstrap", "seed",
]  # fmt: skip


def restoring(
    store: Store,
    only: Collection[str] | None = None,
    measure: str = PRIMARY_MEASURE,
    *,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    num_simulations: int = 199,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per stressed family and trajectory: the rate per epoch with its interval, theta and sigma per axis, and the likelihood
    ratio against the random walk with drift.

    The statement is `restoring` where the random walk is refused at 0.05, else `random walk not excluded`. Families seen at fewer than 5
    times since their last swap have a reason instead of a number, which says what to record. `layers` and `moments` restrict the
    activations that are looked at, not the test accuracy.
    """
    trials = families(store, only)
    trials = trials[trials["swap_epoch"].notna()]
    trials = trials.assign(since_epoch=[last_swap_epoch(schedule) or 0 for schedule in trials["schedule"]])
    curves = dict(iter(accuracies(store, trials["trial"].tolist()).groupby("trial")))
    run = partial(_fitted, num_simulations=num_simulations, seed=seed)
    rows = []
    for family in trials.to_dict("records"):
        paths = _accuracy_paths(curves[family["trial"]], family["since_epoch"]) if family["trial"] in curves else {}
        rows.append(_named(family) | {"trajectory": "test_accuracy", "num_axes": 1} | run(paths, family, f"{EVERY_EPOCH} records more"))
    rows += _layer_rows(store, trials, MEASURES[measure], run, _Restricted(layers, moments))
    table = pd.DataFrame(rows, columns=COLUMNS).assign(num_simulations=num_simulations, seed=seed)
    numbers = ["explained", "rate", "rate_low", "rate_high", "likelihood_ratio", "p_random_walk"]
    counts = ["swap_epoch", "num_axes", "num_times", "num_replicas", "num_steps"]
    texts = ["layer", "measure", "statement"]
    return table.astype(dict.fromkeys(numbers, np.float64) | dict.fromkeys(counts, "Int32") | dict.fromkeys(texts, "string"))


class _Restricted(NamedTuple):
    """Which activations are looked at; None for all."""

    layers: Collection[str] | None
    moments: Collection[str] | None

    def advice(self, family: Mapping[Hashable, Any]) -> str:
        return f"{_more_epochs(family)} records more" if self.moments is None else "--moments leaves others out"


Run = Callable[[dict[int, Any], Mapping[Hashable, Any], str], dict[str, object]]


def _named(family: Mapping[Hashable, Any]) -> dict[str, object]:
    return {c: family[c] for c in ("trial", "schedule", "control", "swapped", "swap_epoch", "since_epoch")}


def _accuracy_paths(curve: pd.DataFrame, since: int) -> dict[int, np.ndarray]:
    """Test accuracy `[replica, 1]` by epoch since the last swap, right after it included."""
    own = (curve["moment"] == "after_swap") & (curve["epoch"] == since) | (curve["moment"] == "epoch") & (curve["epoch"] > since)
    return {int(epoch): np.array(values)[:, None] for epoch, values in zip(curve[own]["epoch"], curve[own]["test"], strict=True)}


def _fitted(paths: dict[int, Any], family: Mapping[Hashable, Any], advice: str, num_simulations: int, seed: int) -> dict[str, object]:
    """The numbers of a row from values `[replica, axis]` by epoch, or the reason why there are none; `advice` says how to have more."""
    epochs = sorted(paths)
    estimator = "Ornstein-Uhlenbeck, exact likelihood given the first points, replicas share lambda, theta and sigma; rate per epoch"
    interval = "95 % profile likelihood, lower end 0 unless the random walk with drift is refused"
    row: dict[str, object] = {"num_times": len(epochs), "reason": "", "estimator": f"{estimator}; {interval}; p by simulated walks"}
    if len(epochs) < MIN_TIMES:
        left = int(family["num_epochs"]) - int(family["since_epoch"])
        more = f"; {advice}" if left + 1 >= MIN_TIMES else f": the swap leaves {left} epochs, and {MIN_TIMES - 1} are needed"
        return row | {"reason": f"{len(epochs)} times since the swap, fewer than {MIN_TIMES}{more}"}
    try:
        # The same simulated walks for families of the same times: they differ in their data only.
        found = fit(
            np.array(epochs), np.stack([paths[e] for e in epochs], axis=1), num_simulations, np.random.default_rng([seed, len(epochs)])
        )
    except ValueError as error:
        return row | {"reason": str(error)}
    return row | {
        "rate": found.rate, "rate_low": found.rate_low, "rate_high": found.rate_high, "theta": found.theta.tolist(),
        "sigma": found.sigma.tolist(), "likelihood_ratio": found.likelihood_ratio, "p_random_walk": found.p_random_walk,
        "statement": "restoring" if found.p_random_walk < 0.05 else "random walk not excluded",
        "num_replicas": found.num_paths, "num_steps": found.num_steps,
    }  # fmt: skip


def _layer_rows(store: Store, trials: pd.DataFrame, measure: Measure, run: Run, restricted: _Restricted) -> list[dict[str, object]]:
    """Per family and layer, the fit to its networks' coordinates in the PCoA common to all families of the layer."""
    rows: list[dict[str, object]] = []
    seen = []
    for family in trials.to_dict("records"):
        epochs = _epochs_recorded(family, restricted.moments)
        if len(epochs) >= MIN_TIMES:
            seen.append(family)
        else:
            row = _named(family) | {"trajectory": "coordinates", "measure": measure.name}
            rows.append(row | run(dict.fromkeys(epochs), family, restricted.advice(family)))
    diverged_at = divergence_epochs(store, [family["trial"] for family in seen])
    spaces = _common_spaces(store, seen, diverged_at, measure, restricted)
    for family in seen:
        looks = _looks(store, family, restricted)
        for layer, space in spaces.items():
            mine = {epoch: layers[layer] for epoch, layers in looks.items() if layer in layers}
            row = _named(family) | {"trajectory": "coordinates", "layer": layer, "measure": measure.name}
            row |= {"num_axes": space.axes.shape[1], "explained": space.explained}
            if {X.shape[1:] for X in mine.values()} != {space.landmarks.shape[1:]}:
                rows.append(row | {"reason": "another number of samples or features than the other families"})
                continue
            present = np.concatenate([diverged_at[family["trial"]] > epoch for epoch in mine])
            placed = np.split(space.place(np.concatenate(list(mine.values())), present), len(mine))
            rows.append(row | run(dict(zip(mine, placed, strict=True)), family, restricted.advice(family)))
    return rows


def _more_epochs(family: Mapping[Hashable, Any]) -> str:
    """The options that record activations at more epochs: as far as it goes at those evaluated anyway, else at every epoch."""
    end, every = int(family["num_epochs"]), int((json.loads(family["recipe"]).get("probes") or {}).get("evaluate_every", 1))
    evaluated = list(range(every, end, every))
    if 2 + sum(epoch > int(family["since_epoch"]) for epoch in evaluated) >= MIN_TIMES:  # right after the swap and the end come on top
        return f"probes.epochs={evaluated}"
    return f"{EVERY_EPOCH} with probes.epochs={list(range(1, end))}"


def _epochs_recorded(family: Mapping[Hashable, Any], moments: Collection[str] | None) -> list[int]:
    """Epochs since the last swap, right after it included, at which activations were recorded, at some moments."""
    probes, since, end = json.loads(family["recipe"]).get("probes") or {}, int(family["since_epoch"]), int(family["num_epochs"])
    at = {"after_swap": [since], "end": [end], "epoch": [epoch for epoch in probes.get("epochs", []) if epoch > since]}
    recorded = [*probes.get("moments", ("after_swap", "end")), "epoch"]
    return sorted({epoch for m in recorded if moments is None or m in moments for epoch in at.get(m, [])})


def _looks(store: Store, family: Mapping[Hashable, Any], restricted: _Restricted) -> dict[int, dict[str, np.ndarray]]:
    """Activations `[replica, sample, feature]` since the last swap, by epoch and layer."""
    since, found = int(family["since_epoch"]), dict[int, dict[str, np.ndarray]]()
    for (moment, epoch, layer), X in tables.read_activations(store, family["trial"], restricted.moments, restricted.layers).items():
        if (moment == "after_swap" and epoch == since) or (moment in ("epoch", "end") and epoch > since):
            found.setdefault(epoch, {})[layer] = X
    return dict(sorted(found.items()))


def _common_spaces(
    store: Store,
    seen: Sequence[Mapping[Hashable, Any]],
    diverged_at: dict[str, np.ndarray],
    measure: Measure,
    restricted: _Restricted,
) -> dict[str, Ordination]:
    """Per layer the PCoA of landmarks: one replica, each in turn, of every so many looks over all families."""
    num_looks = sum(len(_epochs_recorded(family, restricted.moments)) for family in seen)
    every = max(1, -(-num_looks // MAX_LANDMARKS))
    landmarks: dict[str, list[np.ndarray]] = {}
    index = 0
    for family in seen:
        for epoch, layers in _looks(store, family, restricted).items():
            present = np.flatnonzero(diverged_at[family["trial"]] > epoch)
            if index % every == 0 and len(present):
                for layer, X in layers.items():
                    landmarks.setdefault(layer, []).append(X[present[index // every % len(present)]])
            index += 1
    spaces = {}
    for layer, some in landmarks.items():
        shape = Counter(x.shape for x in some).most_common(1)[0][0]
        with contextlib.suppress(ValueError):  # fewer than 2 different networks span nothing
            spaces[layer] = Ordination.of(measure, np.stack([x for x in some if x.shape == shape]), NUM_AXES)
    return spaces


def associations(
    table: pd.DataFrame,
    gap_table: pd.DataFrame,
    *,
    alpha: float = 0.05,
    num_permutations: int = 9999,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation over families of restoring rate and gap, per trajectory and layer; from `restoring` and `generalization.gaps`.

    Families that share a control share early training, and those of one swap epoch had the same time left: the statement rests on ranks
    and permutations within blocks of one control and swap epoch (`spearman_within`), p_holm over trajectories and layers:
    `lost` where rates fall with the gap, `gained` where they rise, else `no effect`; `undecided` with the reason. rho and its interval are
    over all families, as if they were independent.
    """
    joined = table[np.isfinite(table["rate"])].merge(gap_table, on="trial", how="inner", suffixes=("", "_gap"))
    rows = []
    for (trajectory, layer, measure), found in table.groupby(["trajectory", "layer", "measure"], dropna=False, sort=False):
        kept = joined[joined["trajectory"] == trajectory]
        kept = kept[kept["layer"].isna() if found["layer"].isna().all() else kept["layer"] == layer]
        for predictor in PREDICTORS:
            known = kept[np.isfinite(kept[predictor])]
            x, y, n = known["rate"].to_numpy(), known[predictor].to_numpy(), len(known)
            row: dict[str, object] = {"trajectory": trajectory, "layer": layer, "measure": measure, "predictor": predictor}
            row |= {"num_families": n, "statement": "undecided", "reason": ""}
            if n < MIN_FAMILIES:
                most = found.loc[found["reason"] != "", "reason"].mode()
                why = f"; most: {most[0]}" if len(most) else ""
                row["reason"] = f"{counted(n, 'family')} with a rate, fewer than {MIN_FAMILIES}{why}"
            else:
                strata = (known["control"] + "/" + known["since_epoch"].astype(str)).to_numpy()
                generator = np.random.default_rng([seed, n])
                row["num_strata"], row["rho"] = len(set(strata)), float(spearman(x, y))
                drawn = bootstrap_spearman(x, y, resamples(n, num_bootstrap, generator))
                row["rho_low"], row["rho_high"] = percentiles(drawn, CONFIDENCE)
                row["rho_within"], p = spearman_within(x, y, strata, num_permutations, generator)
                row["p_within"], row["reason"] = (
                    p,
                    "" if np.isfinite(p) else "rates or gaps are the same within every control and swap epoch",
                )
            rows.append(row)
    answer = pd.DataFrame(rows, columns=ASSOCIATION_COLUMNS).assign(
        alpha=alpha, num_permutations=num_permutations, num_bootstrap=num_bootstrap, seed=seed,
        estimator="Spearman rho over families of restoring rate and predictor; percentile bootstrap over families; within control and swap "
        "epoch by permutation",
    )  # fmt: skip
    numbers = ["rho", "rho_low", "rho_high", "rho_within", "p_within"]
    answer = answer.astype(dict.fromkeys(numbers, np.float64) | dict.fromkeys(["layer", "measure"], "string") | {"num_strata": "Int32"})
    answer["p_holm"] = answer.groupby("predictor")["p_within"].transform(lambda p: holm(p.to_numpy()))
    answer.loc[answer["p_holm"].notna(), "statement"] = "no effect"
    answer.loc[(answer["p_holm"] < alpha) & (answer["rho_within"] < 0), "statement"] = "lost"
    answer.loc[(answer["p_holm"] < alpha) & (answer["rho_within"] > 0), "statement"] = "gained"
    return answer
