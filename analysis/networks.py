"""All networks of a sweep beside each other at the end of training: two questions, one matrix of distances. Tables in, tables out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import happiness, mantel, tables
from analysis.activations import layer_order, recorded
from analysis.logits import logits
from analysis.measures.similarity import DEFAULT_MEASURES, MEASURES, Measure
from analysis.spreads import divergence_epochs, families
from analysis.storage import Store
from analysis.verdict import PRIMARY_MOMENT, PRIMARY_PREDICTOR
from analysis.wording import counted

# Spectra are taken pair by pair: at most so many pairs times squared features, about 1 s of one core.
MAX_SPECTRAL_WORK = 2e7


def compare_networks(
    store: Store,
    gap_table: pd.DataFrame,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    only: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    moments: Collection[str] | None = None,
    alpha: float = 0.05,
    num_permutations: int = 999,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `happy_unhappy` (`happiness.compare`) and `annak` (`mantel.annak`), a row per measure and layer.

    Happy are the families whose mean gap in accuracy lies at or below the median over families, unhappy those above. A row that cannot be
    decided gives the reason. `layers` and `moments` restrict the rows; without the end of training among the moments there are none.
    """
    gap = gap_table.set_index("trial")[PRIMARY_PREDICTOR].dropna()
    table = families(store, only)
    table = table[table["trial"].isin(gap.index)].reset_index(drop=True)
    badly = gap.reindex(table["trial"]).to_numpy(np.float64)
    threshold = float(np.median(badly)) if len(badly) else np.nan
    unhappy = badly > threshold
    of = counted(len(badly), "family")
    rule = f"happy: mean {PRIMARY_PREDICTOR} over replicas at or below {threshold:.4g}, the median over {of}; unhappy: above"
    common = {"moment": PRIMARY_MOMENT, "num_permutations": num_permutations, "seed": seed}
    diverged_at = divergence_epochs(store, table["trial"].tolist())
    trials = table["trial"].tolist()
    at_end = layers_at_end(store, trials) if moments is None or PRIMARY_MOMENT in moments else []
    networks = {layer: networks_at_end(store, trials, layer, diverged_at) for layer in at_end if layers is None or layer in layers}
    answers = logits(store, table["trial"].iloc[0], table["dataset"].iloc[0]) if len(table) else None
    happy_rows: list[dict[str, Any]] = []
    annak_rows: list[dict[str, Any]] = []
    for name in measures:
        measure = MEASURES[name]
        facts: dict[str, dict[str, Any]] = {}
        distances: dict[str, happiness.Distances] = {}
        for layer, (X, owner, num_dropped) in networks.items():
            if answers is not None and not answers.applies(measure, layer):
                continue
            labels = answers.labels if answers is not None and measure.needs_labels else None
            facts[layer], found = _distances(measure, X, labels, owner, num_dropped)
            if found is not None:
                distances[layer] = found
        happy = happiness.compare(
            distances,
            table,
            unhappy,
            euclidean=measure.euclidean,
            alpha=alpha,
            num_permutations=num_permutations,
            num_bootstrap=num_bootstrap,
            seed=seed,
        )
        alike = mantel.annak(distances, table, badly, num_permutations=num_permutations, seed=seed)
        for layer in facts:
            estimator = f"PERMDISP, centroid, bias-adjusted, and partial PERMANOVA; {measure.title}; p from aligned families exchanged"
            row = (
                {"verdict": "undecided"} | common | {"measure": name, "layer": layer, "rule": rule, "threshold": threshold, "alpha": alpha}
            )
            row |= {"num_bootstrap": num_bootstrap, "estimator": estimator} | facts[layer]
            happy_rows.append(row | happy.get(layer, {}))
            row = common | {"measure": name, "layer": layer, "predictor": PRIMARY_PREDICTOR, "reason": facts[layer]["reason"]}
            annak_rows.append(row | alike.get(layer, {}))
    return _table(happy_rows, happiness.COLUMNS), _table(annak_rows, mantel.COLUMNS)


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    texts = {"measure", "moment", "layer", "rule", "predictor", "verdict", "reason", "scheme", "estimator"}
    empty = {name: "" if name in texts else np.nan for name in columns}
    kinds: dict[str, Any] = {name: "str" if name in texts else np.float64 for name in columns}
    return pd.DataFrame([empty | row for row in rows], columns=columns).astype(kinds)


def layers_at_end(store: Store, trials: Sequence[str]) -> list[str]:
    """The layers that any of these families recorded at the end of training, in the networks' order."""
    found = recorded(store, trials)
    return layer_order(found[found["moment"] == PRIMARY_MOMENT])


def networks_at_end(
    store: Store, trials: Sequence[str], layer: str, diverged_at: dict[str, np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Representations of the networks of the commonest shape, the number of the family of each, and how many others there are."""
    found = []
    for number, trial in enumerate(trials):
        for (_, epoch, _), X in tables.read_activations(store, trial, moment=PRIMARY_MOMENT, layer=layer).items():
            found += [(number, x) for x, present in zip(X, diverged_at[trial] > epoch, strict=True) if present]
    shapes = Counter(x.shape for _, x in found)
    kept = [(number, x) for number, x in found if x.shape == shapes.most_common(1)[0][0]]
    return [x for _, x in kept], np.array([number for number, _ in kept], dtype=np.intp), len(found) - len(kept)


def _distances(
    measure: Measure, X: list[np.ndarray], labels: np.ndarray | None, owner: np.ndarray, num_dropped: int
) -> tuple[dict[str, Any], happiness.Distances | None]:
    """Distances between all networks that have a representation, or the reason why they are not taken."""
    facts: dict[str, Any] = {"num_networks_dropped": num_dropped, "reason": ""}
    if not X:
        return facts | {"reason": "0 families with a network that did not diverge"}, None
    rank = pd.Series(owner).groupby(owner).cumcount().to_numpy()
    most = allowed = int(rank.max()) + 1
    num_families, width = len(np.unique(owner)), min(X[0].shape)
    if not measure.euclidean:
        allowed = max((r for r in range(1, most + 1) if (num_families * r) ** 2 / 2 * width**2 <= MAX_SPECTRAL_WORK), default=0)
        if allowed < 2:
            return facts | {
                "reason": f"skipped: {counted(num_families, 'family')} at {counted(width, 'feature')} are too many pairs of spectra"
            }, None
    chosen = np.flatnonzero(rank < allowed)
    D = measure.distances_of(np.stack([X[i] for i in chosen]), np.ones(len(chosen), dtype=bool), labels)
    there = np.isfinite(np.diagonal(D))
    facts |= {"num_networks_dropped": num_dropped + int((~there).sum()), "max_replicas": allowed}
    if not there.any():
        why = next(filter(None, (measure.reason(X[i], labels) for i in chosen)), "")
        return facts | {"reason": f"0 families with a network that has a representation to compare: {why}"}, None
    return facts, (D[np.ix_(there, there)], owner[chosen][there])
