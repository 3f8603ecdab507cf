"""The Anna Karenina principle: do families that generalize badly differ more inside than families that generalize well?

Tables in, tables out. The primary question is declared before any data are seen: measure cka, moment end, predictor
gap_accuracy. Everything else is exploratory. Random draws are seeded, and the seed is a column of what they produced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis import tables
from analysis.measures.dispersion import Spread, spread
from analysis.measures.generalization import PREDICTORS
from analysis.measures.similarity import MEASURES
from analysis.statistics import bootstrap_spearman, holm, permutation_p, permutations, resamples, spearman, spearman_within
from analysis.storage import Store

PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR = "cka", "end", "gap_accuracy"
# The other reading of "generalizes badly"; told beside the verdict because the two can disagree.
SECONDARY_PREDICTOR = "test_error"
# Below this, not even a perfect order of the families reaches p = 0.05 (two-sided, n = 4: 2/24).
MIN_FAMILIES = 5
CONFIDENCE = 0.95
FAMILY_COLUMNS = [
    "trial",
    "schedule",
    "swapped",
    "swap_epoch",
    "first_activation",
    "first_loss",
    "last_activation",
    "last_loss",
]
SHARED = "families with the same history before this moment share one spread: ties, and p is smaller than independent families would give"


def families(store: Store, only: Collection[str] | None = None) -> pd.DataFrame:
    """The trials to compare: done, with activations, and in `only` (default: of the most frequent base recipe and probes).

    So no schedule is counted twice, however often the folder was used. Base recipes that differ only in what the sweep varies are one.
    """
    trials = tables.read(store, "trials")
    trials = trials[(trials["status"] == "done") & trials["trial"].isin(tables.names(store, "activations"))]
    if only is not None:
        trials = trials[trials["trial"].isin(list(only))]
    elif len(trials):
        varied = _varied(store)
        setup = trials["recipe"].map(lambda recipe: _setup(json.loads(recipe), varied)) + ("" if varied else trials["base"])
        trials = trials[setup == setup.value_counts().sort_index().idxmax()]
    return trials.sort_values("trial", ignore_index=True)


def _varied(store: Store) -> list[str]:
    """The keys of the base recipe that the sweep in this folder varies, e.g. training.learning_rate."""
    if not store.exists("sweep.yaml"):
        return []
    sweep = yaml.safe_load(store.read("sweep.yaml"))
    return list(((sweep or {}).get("space") or {}).get("recipe") or {})


def _setup(recipe: dict[str, Any], varied: Sequence[str]) -> str:
    """What the families of one sweep have in common: probes, and the base recipe without what is varied."""
    base = recipe.get("base") or {}
    for key in varied:
        section, _, name = key.partition(".")
        base.get(section, {}).pop(name, None)
    return json.dumps([recipe.get("probes"), base if varied else None], sort_keys=True)


def divergence_epochs(store: Store, trials: Sequence[str]) -> dict[str, np.ndarray]:
    """Per family, the epoch `[replica]` at which each replica diverged; infinity if it never did."""
    replicas = tables.read(store, "replicas", ["trial", "replica", "diverged_at"], only=trials)
    replicas = replicas.sort_values(["trial", "replica"])
    return {str(trial): rows["diverged_at"].astype(np.float64).fillna(np.inf).to_numpy() for trial, rows in replicas.groupby("trial")}


def spreads(
    store: Store,
    measures: Sequence[str] = tuple(MEASURES),
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
) -> pd.DataFrame:
    """The spread of every family, per moment, epoch, layer and measure; of the layers and moments named, by default all.

    Replicas that diverged at or before the moment, and those whose representation is constant or not finite, are
    dropped and counted. Columns: those of the family, then moment, epoch, layer, measure, spread, spread_se (jackknife
    over replicas), mean_distance, num_replicas, num_dropped, num_samples (rows compared per replica), width (features),
    estimator.
    """
    trials = families(store, only)
    diverged_at = divergence_epochs(store, trials["trial"].tolist())
    rows = []
    seen: dict[tuple[str, bytes, bytes], Spread] = {}  # families with the same history have the same representations
    for family in trials[FAMILY_COLUMNS].to_dict("records"):
        for (moment, epoch, layer), X in tables.read_activations(store, family["trial"], moments, layers).items():
            present = diverged_at[family["trial"]] > epoch
            digest = hashlib.sha256(X.tobytes()).digest()
            for name in measures:
                measure, key = MEASURES[name], (name, digest, present.tobytes())
                if key not in seen:
                    seen[key] = spread(measure.distances_of(X, present))
                found = seen[key]
                rows.append(
                    family
                    | {
                        "moment": moment,
                        "epoch": epoch,
                        "layer": layer,
                        "measure": name,
                        "spread": found.spread,
                        "spread_se": found.spread_se,
                        "mean_distance": found.mean_distance,
                        "num_replicas": found.num_replicas,
                        "num_dropped": found.num_dropped,
                        "num_samples": X.shape[1],
                        "width": X.shape[2],
                        "estimator": f"{measure.spread_title}; standard error by jackknife over replicas",
                    }
                )
    columns = [
        *FAMILY_COLUMNS,
        "moment",
        "epoch",
        "layer",
        "measure",
        "spread",
        "spread_se",
        "mean_distance",
        "num_replicas",
        "num_dropped",
        "num_samples",
        "width",
        "estimator",
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"swap_epoch": "Int32", "spread": "float64", "spread_se": "float64"})


def at_first_swap(spread_table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one moment each per family: of the moments around swaps, those around the first swap."""
    around = spread_table["moment"].isin(["before_swap", "after_swap"])
    return spread_table[~around | (spread_table["epoch"] == spread_table["swap_epoch"]).fillna(False)]


def associations(
    spread_table: pd.DataFrame,
    gap_table: pd.DataFrame,
    *,
    alpha: float = 0.05,
    num_permutations: int = 9999,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Spearman's rho over families between spread and each predictor, per measure, moment, layer.

    `gap_table` is that of `generalization.gaps`. A row has rho, its 95 % percentile interval over bootstrap resamples
    of families (rho_low, rho_high), the two-sided permutation p, p_holm adjusted over the layers of one (measure,
    moment, predictor), rho_within and p_within (ranks and permutations within families of the same last activation and
    loss, which set whole clouds of families apart), num_families, num_dropped (spread or predictor NaN, or another number of
    samples or features than most), and the verdict at `alpha` on p_holm: AKP (rho > 0), anti-AKP (rho < 0), no effect, or undecided with a
    reason.
    """
    table = at_first_swap(spread_table).merge(gap_table, on="trial", how="inner", suffixes=("", "_gap"))
    table["at_epoch"] = table["epoch"].where(table["moment"] == "epoch", -1)
    drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for (name, moment, at_epoch, layer), group in table.groupby(["measure", "moment", "at_epoch", "layer"], sort=False):
        shapes = group[["num_samples", "width"]].apply(tuple, axis=1)
        alike = shapes == shapes.value_counts().sort_index().idxmax()
        for predictor in PREDICTORS:
            kept = group[alike & np.isfinite(group["spread"]) & np.isfinite(group[predictor])].sort_values("trial")
            x, y, n = kept["spread"].to_numpy(), kept[predictor].to_numpy(), len(kept)
            reason, rho, p, interval = "", np.nan, np.nan, (np.nan, np.nan)
            rho_within = p_within = np.nan
            if n < MIN_FAMILIES:
                reason = f"{n} families, fewer than {MIN_FAMILIES}"
            elif np.ptp(x) == 0 or np.ptp(y) == 0:
                reason = f"{'spread' if np.ptp(x) == 0 else predictor} is the same in all {n} families"
            else:
                if n not in drawn:
                    generator = np.random.default_rng([seed, n])
                    drawn[n] = permutations(n, num_permutations, generator), resamples(n, num_bootstrap, generator)
                orders, counts = drawn[n]
                rho = float(spearman(x, y))
                p = permutation_p(rho, spearman(x, y, orders))
                interval = bootstrap_spearman(x, y, counts, CONFIDENCE)
                strata = (kept["last_activation"] + "/" + kept["last_loss"]).to_numpy()
                rho_within, p_within = spearman_within(x, y, strata, num_permutations, np.random.default_rng([seed, n, 1]))
            rows.append(
                {
                    "measure": name,
                    "moment": moment,
                    "epoch": at_epoch if moment == "epoch" else None,
                    "layer": layer,
                    "predictor": predictor,
                    "rho": rho,
                    "rho_low": interval[0],
                    "rho_high": interval[1],
                    "p": p,
                    "p_holm": np.nan,
                    "rho_within": rho_within,
                    "p_within": p_within,
                    "num_families": n,
                    "num_dropped": len(group) - n,
                    "num_distinct_spreads": len(np.unique(x)),
                    "min_replicas": kept["num_replicas"].min() if n else 0,
                    "max_replicas": kept["num_replicas"].max() if n else 0,
                    "verdict": "undecided",
                    "reason": reason,
                    "caveat": SHARED if moment in ("init", "before_swap") else "",
                    "estimator": f"Spearman rho over families of spread ({MEASURES[str(name)].spread_title}) and mean "
                    f"{predictor}; two-sided permutation p; percentile bootstrap over families",
                    "alpha": alpha,
                    "num_permutations": num_permutations,
                    "num_bootstrap": num_bootstrap,
                    "seed": seed,
                }
            )
    columns = [
        "measure",
        "moment",
        "epoch",
        "layer",
        "predictor",
        "rho",
        "rho_low",
        "rho_high",
        "p",
        "p_holm",
        "rho_within",
        "p_within",
        "num_families",
        "num_dropped",
        "num_distinct_spreads",
        "min_replicas",
        "max_replicas",
        "verdict",
        "reason",
        "caveat",
        "estimator",
        "alpha",
        "num_permutations",
        "num_bootstrap",
        "seed",
    ]
    found = pd.DataFrame(rows, columns=columns).astype({"epoch": "Int32", **dict.fromkeys(columns[5:12], np.float64)})
    tests = found.groupby(["measure", "moment", "epoch", "predictor"], dropna=False, sort=False)
    found["p_holm"] = tests["p"].transform(lambda p: holm(p.to_numpy()))
    decided = found["p_holm"].notna()
    significant = found["p_holm"] < alpha
    found.loc[decided, "verdict"] = "no effect"
    found.loc[significant & (found["rho"] > 0), "verdict"] = "AKP"
    found.loc[significant & (found["rho"] < 0), "verdict"] = "anti-AKP"
    return found


@dataclass(frozen=True)
class Verdict:
    """The answer to the primary question."""

    answer: str  # AKP, anti-AKP, mixed, no effect or undecided
    text: str  # one sentence with estimator, n and interval
    num_families: int
    layer: str | None = None  # the layer of the largest |rho|, which the numbers below belong to
    rho: float = np.nan
    rho_low: float = np.nan
    rho_high: float = np.nan
    p_holm: float = np.nan
    files: tuple[str, ...] = ()  # what the analysis wrote


MEANINGS = {
    "AKP": "families with a larger {badly} are more spread",
    "anti-AKP": "families with a larger {badly} are less spread",
    "mixed": "spread rises with the {badly} in some layers and falls with it in others",
    "no effect": "no layer shows an association of spread with the {badly}",
}


def verdict(association: pd.DataFrame, predictor: str = PRIMARY_PREDICTOR) -> Verdict:
    """The overall answer from the rows of `associations` for the primary measure and moment, and one predictor.

    AKP or anti-AKP where at least one layer is significant and all significant ones have that sign, mixed where signs
    disagree, no effect where none is significant, undecided with the reason where no layer could be tested. With another
    than the primary predictor the text says that the answer is exploratory.
    """
    primary = association[
        (association["measure"] == PRIMARY_MEASURE) & (association["moment"] == PRIMARY_MOMENT) & (association["predictor"] == predictor)
    ]
    lead = "Verdict" if predictor == PRIMARY_PREDICTOR else f"Exploratory, by {predictor}"
    decided = primary[primary["verdict"] != "undecided"]
    if decided.empty:
        num_families = int(primary["num_families"].max()) if len(primary) else 0
        reasons = sorted({reason for reason in primary["reason"] if reason})
        reason = "; ".join(reasons) or f"no spreads with measure {PRIMARY_MEASURE} at moment {PRIMARY_MOMENT}"
        return Verdict("undecided", f"{lead}: undecided: {reason}.", num_families)
    signs = set(decided["verdict"]) & {"AKP", "anti-AKP"}
    answer = "mixed" if len(signs) == 2 else signs.pop() if signs else "no effect"
    top = decided.sort_values("rho", key=lambda rho: -rho.abs(), kind="stable").iloc[0]
    low, high = int(top["min_replicas"]), int(top["max_replicas"])
    found = decided[decided["verdict"] != "no effect"]
    significant = ", ".join(f"{layer} ({rho:+.2f})" for layer, rho in zip(found["layer"], found["rho"], strict=True)) or "none"
    replicas = str(low) if low == high else f"{low} to {high}"
    within = ", ".join(f"{r.layer} {r.rho_within:+.2f} (p = {r.p_within:.2g})" for r in decided.itertuples())
    text = (
        f"{lead}: {answer}: {MEANINGS[answer].format(badly=predictor)}. Spearman over {top['num_families']} families of {replicas} "
        f"replicas, between spread ({MEASURES[PRIMARY_MEASURE].spread_title}, moment {PRIMARY_MOMENT}) and mean {predictor}: largest "
        f"|rho| in layer {top['layer']}, rho = {top['rho']:.2f}, 95 % bootstrap interval [{top['rho_low']:.2f}, {top['rho_high']:.2f}], "
        f"p = {top['p_holm']:.2g} (permutation, Holm over {len(decided)} layers). Layers significant at {top['alpha']:g}: {significant}. "
        f"Within families of the same last activation and loss, unadjusted: {within}."
    )
    rho, rho_low, rho_high, p_holm = (float(top[column]) for column in ("rho", "rho_low", "rho_high", "p_holm"))
    return Verdict(answer, text, int(top["num_families"]), str(top["layer"]), rho, rho_low, rho_high, p_holm)
