"""Stability against generalization: the published relation eps = 0.2 sqrt(R), and what D, G and R each say of the error and of the gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis import bootstrap
from analysis.bootstrap import Levels, Resampling
from analysis.exchange import Design, design
from analysis.measures.generalization import PREDICTORS
from analysis.ranks import aligned_ranks, associate, permuted_ranks
from analysis.stability_tables import CONFIDENCE, QUANTITIES, interval
from analysis.statistics import holm, spearman
from analysis.verdict import MIN_FAMILIES

PUBLISHED = (0.2, 0.5)  # eps = 0.2 R^0.5 over architectures on CIFAR-10 (Petrini et al., abstract)
FIT_ESTIMATOR = (
    "log eps = log factor + exponent log R, least squares over families of log-mean R and mean test error; 95 % percentile bootstrap of "
    "controls with all their families, and of replicas jointly; excess: mean log eps - log(0.2 sqrt(R))"
)
ASSOCIATION_ESTIMATOR = (
    "correlation of aligned ranks over families; two-sided restricted permutation p of its studentized form, p_holm over D, G and R and "
    "layers; bias-corrected expanded percentile bootstrap of controls, lines and replicas"
)


def fits(errors: pd.DataFrame, *, num_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Per law and estimator, the power law of test error over R of the output; `errors` is that of `stability_tables.with_errors`."""
    rows = []
    for (cut, px, estimator), here in errors[errors["is_output"]].groupby(["cut", "displacement_px", "estimator"], sort=False):
        kept = here[(here["test_error"] > 0) & (here["relative"] > 0)].sort_values("trial", ignore_index=True)
        controls = np.unique(kept["control"], return_inverse=True)[1]
        row: dict[str, Any] = {
            "cut": cut, "displacement_px": px, "estimator": estimator, "num_families": len(kept), "num_controls": len(set(controls)),
            "num_dropped": len(here) - len(kept), "reason": "", "method": FIT_ESTIMATOR, "num_bootstrap": num_bootstrap, "seed": seed,
        }  # fmt: skip
        rows.append(row)
        if len(kept) < MIN_FAMILIES or kept["relative"].nunique() == 1:
            row["reason"] = f"{len(kept)} families with {kept['relative'].nunique()} values of R"
            continue
        found = _power_laws(np.log(_parts(kept, "relative_values")), _parts(kept, "test_error_values"), controls, num_bootstrap, seed)
        for name, values in found.items():
            row |= {name: values[0]} | dict(zip((f"{name}_low", f"{name}_high"), interval(values[1:]), strict=True))
    numbers = [f"{name}{end}" for name in ("factor", "exponent", "excess") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows).reindex(columns=[*rows[0], *(n for n in numbers if n not in rows[0])] if rows else numbers)


def _parts(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Values `[family, replica]`, NaN where a family has fewer."""
    longest = rows[column].map(len).max()
    return np.stack([np.pad(np.asarray(v, np.float64), (0, longest - len(v)), constant_values=np.nan) for v in rows[column]])


def _power_laws(logs: np.ndarray, errors: np.ndarray, controls: np.ndarray, num_bootstrap: int, seed: int) -> dict[str, np.ndarray]:
    """Factor, exponent and excess `[resample]`, the first of what was seen, from log R and errors `[family, replica]`."""
    num_controls, num_replicas = controls.max() + 1, logs.shape[1]
    generator = np.random.default_rng([seed, num_controls, num_replicas])
    of_controls, replicas = (
        np.vstack([np.ones(num), generator.multinomial(num, np.full(num, 1 / num), num_bootstrap)]) for num in (num_controls, num_replicas)
    )
    weights = of_controls[:, controls]  # [resample, family]
    with np.errstate(invalid="ignore", divide="ignore"):
        x, eps = ((replicas @ np.nan_to_num(values).T) / (replicas @ np.isfinite(values).T.astype(np.float64)) for values in (logs, errors))
        y = np.log(eps)
        weights = np.where(np.isfinite(x) & np.isfinite(y), weights, 0)
        x, y = np.where(weights > 0, x, 0), np.where(weights > 0, y, 0)
        total = weights.sum(1, keepdims=True)
        x_mean, y_mean = ((weights * v).sum(1, keepdims=True) / total for v in (x, y))
        exponent = (weights * (x - x_mean) * (y - y_mean)).sum(1) / (weights * (x - x_mean) ** 2).sum(1)
        factor = np.exp(y_mean[:, 0] - exponent * x_mean[:, 0])
        published = np.log(PUBLISHED[0]) + PUBLISHED[1] * x
        excess = (weights * (y - published)).sum(1) / total[:, 0]
    return {"factor": factor, "exponent": exponent, "excess": excess}


def associations(
    errors: pd.DataFrame, *, alpha: float = 0.05, num_permutations: int = 9999, num_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Per law, estimator, layer, predictor and D, G or R: its association over families with the gap or error, tested as spread's is.

    `rho` is of aligned ranks within what may be exchanged (`analysis.exchange`), `rho_all` Spearman's over all families, which are not
    independent.
    """
    rows: list[dict[str, Any]] = []
    compared: dict[tuple[str, ...], _Compared] = {}
    for (cut, px, estimator, layer), here in errors.groupby(["cut", "displacement_px", "estimator", "layer"], sort=False):
        for predictor in (p for p in PREDICTORS if p in errors):
            kept = here[np.isfinite(here["relative"]) & np.isfinite(here[predictor])].sort_values("trial", ignore_index=True)
            trials = tuple(kept["trial"])
            for quantity in QUANTITIES:
                row: dict[str, Any] = {
                    "cut": cut, "displacement_px": px, "estimator": estimator, "layer": layer, "is_output": bool(here["is_output"].all()),
                    "quantity": quantity, "predictor": predictor, "rho": np.nan, "rho_low": np.nan, "rho_high": np.nan, "p": np.nan,
                    "rho_all": np.nan, "num_families": len(kept), "num_controls": kept["control"].nunique(), "reason": "", "scheme": "",
                    "method": ASSOCIATION_ESTIMATOR, "num_permutations": num_permutations, "num_bootstrap": num_bootstrap, "seed": seed,
                }  # fmt: skip
                rows.append(row)
                if len(kept) < MIN_FAMILIES or kept[quantity].nunique() == 1 or kept[predictor].nunique() == 1:
                    row["reason"] = f"{len(kept)} families, {kept[quantity].nunique()} values, {kept[predictor].nunique()} of {predictor}"
                    continue
                row["rho_all"] = float(spearman(kept[quantity].to_numpy(), kept[predictor].to_numpy()))
                if trials not in compared:
                    compared = dict(list(compared.items())[-3:])  # what permutations hold is large
                    compared[trials] = _Compared(kept, num_permutations, num_bootstrap, seed)
                row |= compared[trials].of(kept, quantity, predictor, alpha)
    found = pd.DataFrame(rows)
    if len(found):
        family = ["cut", "displacement_px", "estimator", "predictor"]
        found["p_holm"] = found.groupby(family)["p"].transform(lambda p: holm(p.to_numpy()))
    return found


class _Compared:
    """A set of families with its exchanges and resamples, and of each predictor what is computed once."""

    def __init__(self, families: pd.DataFrame, num_permutations: int, num_bootstrap: int, seed: int) -> None:
        self.design: Design = design(families)
        self._ranks: dict[str, tuple[np.ndarray, ...]] = {}
        if self.design.reason:
            return
        generator = np.random.default_rng(seed)
        self.align, self.orders = self.design.aligner(), self.design.orders(num_permutations, generator)
        num_replicas = max(families["relative_values"].map(len))
        self.resampling = Resampling(self.design, num_replicas, num_bootstrap, np.random.default_rng(seed))

    def of(self, kept: pd.DataFrame, quantity: str, predictor: str, alpha: float) -> dict[str, Any]:
        plan = self.design
        if plan.reason:
            return {"reason": plan.reason, "scheme": plan.scheme}
        if predictor not in self._ranks:
            y = aligned_ranks(plan.items(kept[predictor].to_numpy(np.float64)), self.align)
            level = Levels(kept[predictor].to_numpy(np.float64), _parts(kept, f"{predictor}_values"))
            self._ranks[predictor] = y, permuted_ranks(y, self.align, self.orders), self.resampling.ranks(level)
        y, permuted, resampled = self._ranks[predictor]
        logs = np.log(kept[quantity].to_numpy(np.float64))
        x = aligned_ranks(plan.items(logs), self.align)
        found = associate(x[None], y, permuted, plan.lines, alpha)
        rho = float(found.rho[0])
        if not np.isfinite(rho):
            return {"reason": "what is held fixed leaves nothing to compare", "scheme": plan.scheme}
        draws = (self.resampling.ranks(Levels(logs, np.log(_parts(kept, f"{quantity}_values")))) * resampled).sum(axis=1)
        low, high = bootstrap.interval(rho, draws, CONFIDENCE, plan.counts["num_lines"])
        used = {name: plan.counts[name] for name in ("num_families", "num_controls")}
        return {"rho": rho, "rho_low": low, "rho_high": high, "p": float(found.p[0]), "scheme": plan.scheme} | used
