"""Spread and the baselines as predictors of the gap, scored as the field scores generalization measures. Tables in, tables out.

Also what is left of spread's association where a baseline is held fixed: a spread that says no more than disagreement adds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from analysis import tables
from analysis.akp import Comparison
from analysis.baselines import DISAGREEMENT
from analysis.measures.generalization import PREDICTORS
from analysis.measures.prediction import granulated_kendall, normalized_cmi, sign_error
from analysis.ranks import aligned_ranks, associate, permuted_ranks
from analysis.spreads import base_recipe, comparable, families, varied_keys
from analysis.statistics import holm
from analysis.storage import Store
from analysis.verdict import MIN_FAMILIES, PRIMARY_MOMENT
from analysis.wording import counted

AXES = ("first_activation", "first_loss", "last_activation", "last_loss", "swap_epoch")
COLUMNS = [
    "score", "layer", "predictor", "tau", "tau_se", "psi", "psi_se", "psi_axes", "cmi", "sign_error_mean", "sign_error_90",
    "sign_error_worst", "num_environments", "sign_error_weighted", "num_environments_weighted",
    "num_families", "num_controls", "reason", "estimator",
]  # fmt: skip
PARTIAL_COLUMNS = [
    "measure", "moment", "layer", "predictor", "given", "rho", "p", "p_holm", "num_families", "num_controls", "reason", "scheme",
    "estimator", "num_permutations", "seed",
]  # fmt: skip
ESTIMATOR = (
    "Kendall's tau-b over families; granulated Kendall psi over the axes of the space (Jiang et al. 2020); normalized conditional mutual "
    "information, at most 2 axes given; robust sign error over environments, all pairs alike, and as Dziugaite et al. (2020) weight "
    "them by what the test samples can tell; errors by a jackknife over controls"
)


def predictors(store: Store, spread_table: pd.DataFrame, gap_table: pd.DataFrame, baseline_table: pd.DataFrame) -> pd.DataFrame:
    """A row per score (spread of a measure, a baseline), layer and predictor; see `ESTIMATOR`. Scores of spread are those at the end."""
    end = spread_table[spread_table["moment"] == PRIMARY_MOMENT]
    end = end[comparable(end)]
    settings = _settings(store, end["trial"].unique())
    num_test = _num_test(store)
    gaps = gap_table.set_index("trial")
    rows = []
    for score, layer, values in _scores(end, baseline_table):
        for predictor in (p for p in PREDICTORS if p in gap_table):
            both = pd.DataFrame({"score": values, "gap": gaps[predictor]}).dropna()
            both = both[both.index.isin(settings.index)].sort_index()
            row = {"score": score, "layer": layer, "predictor": predictor, "num_families": len(both), "reason": "", "estimator": ESTIMATOR}
            if len(both) < MIN_FAMILIES or both["score"].nunique() == 1 or both["gap"].nunique() == 1:
                row["reason"] = f"{counted(len(both), 'family')} with {both['score'].nunique()} scores and {both['gap'].nunique()} gaps"
            else:
                hoeffding = num_test if predictor in ("gap_accuracy", "test_error") else None
                row |= _scored(both["score"].to_numpy(), both["gap"].to_numpy(), settings.loc[both.index], hoeffding)
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _scores(end: pd.DataFrame, baseline_table: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    for (measure, layer), here in end.groupby(["measure", "layer"], sort=False):
        yield f"spread/{measure}", str(layer), here.set_index("trial")["spread"]
    first = end[end["measure"] == end["measure"].iloc[0]] if len(end) else end
    for layer, here in first.groupby("layer", sort=False):
        yield "participation_ratio", str(layer), here.set_index("trial")["participation_ratio"]
    for (baseline, layer), here in baseline_table.groupby(["baseline", "layer"], dropna=False, sort=False):
        if baseline != "participation_ratio":
            yield str(baseline), "" if here["layer"].isna().all() else str(layer), here.set_index("trial")["value"]


def _settings(store: Store, trials: np.ndarray) -> pd.DataFrame:
    """The hyper-parameters of each family as text, and its control: those of the schedule, and what the sweep varies of the base recipe."""
    table = families(store, list(trials)).set_index("trial")
    settings = table[[*AXES, "control"]].astype("string").fillna("none")
    recipes = table["recipe"].map(lambda text: base_recipe(json.loads(text)))
    for key in varied_keys(store):
        section, _, name = key.partition(".")
        settings[key] = recipes.map(lambda base, section=section, name=name: json.dumps(base.get(section, {}).get(name)))
    return settings


def _num_test(store: Store) -> int | None:
    samples = tables.read(store, "samples", ["dataset", "split"])
    sizes = samples[samples["split"] == "test"].groupby("dataset").size()
    return int(sizes.min()) if len(sizes) else None


def _scored(score: np.ndarray, gap: np.ndarray, settings: pd.DataFrame, num_test: int | None) -> dict[str, Any]:
    axes = settings.drop(columns="control")
    axes = axes.loc[:, axes.nunique() > 1]
    codes = np.zeros(axes.shape, dtype=np.intp)  # [family, axis]
    for index, name in enumerate(axes):
        codes[:, index] = np.unique(axes[name].to_numpy(str), return_inverse=True)[1]
    controls = settings["control"].to_numpy(str)
    psi, by_axis = granulated_kendall(score, gap, codes)
    error, weighted = sign_error(score, gap, codes), sign_error(score, gap, codes, num_test)
    left_out = []
    for control in np.unique(controls):
        kept = controls != control
        if kept.sum() > 1:
            left_out.append((kendalltau(score[kept], gap[kept]).statistic, granulated_kendall(score[kept], gap[kept], codes[kept])[0]))
    m = len(left_out)
    errors = np.sqrt((m - 1) / m * np.var(left_out, axis=0) * m) if m > 1 else (np.nan, np.nan)
    return {
        "tau": float(kendalltau(score, gap).statistic),
        "tau_se": float(errors[0]),
        "psi": psi,
        "psi_se": float(errors[1]),
        "psi_axes": json.dumps(dict(zip(axes.columns, [None if np.isnan(v) else round(float(v), 6) for v in by_axis], strict=True))),
        "cmi": normalized_cmi(score, gap, codes),
        "sign_error_mean": error.mean,
        "sign_error_90": error.quantile,
        "sign_error_worst": error.worst,
        "num_environments": error.num_environments,
        "sign_error_weighted": weighted.mean if num_test else np.nan,
        "num_environments_weighted": weighted.num_environments if num_test else 0,
        "num_controls": len(np.unique(controls)),
    }


def partials(
    spread_table: pd.DataFrame,
    gap_table: pd.DataFrame,
    baseline_table: pd.DataFrame,
    *,
    num_permutations: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """What `associations` finds at the end where a third number is held fixed: train accuracy, disagreement, participation ratio, or all.

    The ranks of the third number are taken out of spread and predictor together with blocks and last functions, and p is from the same
    restricted permutations; p_holm over the layers of one (measure, predictor, given).
    """
    whole = baseline_table[baseline_table["layer"].isna() & baseline_table["baseline"].isin(["train_accuracy", DISAGREEMENT])]
    wide = whole.pivot(index="trial", columns="baseline", values="value")
    table = spread_table[spread_table["moment"] == PRIMARY_MOMENT].merge(gap_table, on="trial", suffixes=("", "_gap"))
    table = table.merge(wide, left_on="trial", right_index=True, how="left")
    given = [name for name in ("train_accuracy", DISAGREEMENT, "participation_ratio") if name in table]
    predicted = [p for p in PREDICTORS if p in gap_table]
    made: dict[tuple[str, ...], Comparison] = {}
    nulls: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
    rows = []
    for (measure, layer), group in table.groupby(["measure", "layer"], sort=False):
        alike = group[comparable(group)]
        finite = alike[["spread", *given, *predicted]].notna().all(axis=1)
        kept = alike.loc[finite].sort_values("trial", ignore_index=True)
        trials = tuple(kept["trial"])
        if trials not in made and len(kept) >= MIN_FAMILIES:
            made[trials] = Comparison(kept, num_permutations, 1, seed)
        for predictor in predicted:
            for names in [(name,) for name in given] + [tuple(given)]:
                row = {
                    "measure": measure, "moment": PRIMARY_MOMENT, "layer": layer, "predictor": predictor, "given": " + ".join(names),
                    "num_families": len(kept), "reason": "", "scheme": "", "num_permutations": num_permutations, "seed": seed,
                    "estimator": "partial correlation of aligned ranks; two-sided restricted permutation p of its studentized form",
                }  # fmt: skip
                rows.append(row)
                if trials not in made or made[trials].design.reason:
                    row["reason"] = (
                        made[trials].design.reason if trials in made else f"{counted(len(kept), 'family')}, fewer than {MIN_FAMILIES}"
                    )
                    continue
                plan = made[trials].design
                align = plan.aligner(np.stack([rankdata(plan.items(kept[name].to_numpy(np.float64))) for name in names]))
                key = (trials, predictor, names, layer if "participation_ratio" in names else "")
                if key not in nulls:
                    y = aligned_ranks(plan.items(kept[predictor].to_numpy(np.float64)), align)
                    nulls = dict(list(nulls.items())[-32:]) | {key: (y, permuted_ranks(y, align, made[trials].orders))}
                x = aligned_ranks(plan.items(kept["spread"].to_numpy(np.float64)), align)[None]
                found = associate(x, *nulls[key], plan.lines, 0.05)
                row |= {"rho": float(found.rho[0]), "p": float(found.p[0]), "scheme": plan.scheme, "num_permutations": len(nulls[key][1])}
                row |= {name: plan.counts[name] for name in ("num_families", "num_controls")}
                if not np.isfinite(found.rho[0]):
                    row["reason"] = "what is held fixed leaves nothing to compare"
    partial = pd.DataFrame(rows, columns=PARTIAL_COLUMNS).astype({"rho": np.float64, "p": np.float64})
    partial["p_holm"] = partial.groupby(["measure", "predictor", "given"])["p"].transform(lambda p: holm(p.to_numpy()))
    return partial
