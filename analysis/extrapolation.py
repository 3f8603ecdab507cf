"""The question of extrapolation, asked of the tables `hull` and `hull_pixels`: tables, figures and sentences."""

from __future__ import annotations

import pandas as pd

from analysis import extrapolation_figures as figures
from analysis import tables
from analysis.drawing import Drawing, charts
from analysis.extrapolation_gap import SCORES, against_gap, beside
from analysis.extrapolation_numbers import against_error, by_family, by_layer, by_size, families_with, queries
from analysis.hull_tables import PIXELS
from analysis.question import Asked, Found
from analysis.storage import Store
from analysis.verdict import PRIMARY_PREDICTOR

TITLE = "Inside or outside the hull of the training set"
WORDS = {  # title, what to see, caption
    "hull_distances": (
        "Distance to the hull of the training set",
        "A curve that starts at 0 with a jump has so many samples inside; one that lies right of the dotted null is farther outside than "
        "noise of the same mean and covariance.",
        "Relative distance to the hull: the cumulative share of probe samples over networks, before the swap, at the end "
        "by whether the network predicts the sample correctly, and of the Gaussian null. At 0 a sample lies inside; images do not change. "
        "Drawn are {families}; no intervals: the table below has them, over samples.",
    ),
    "hull_images": (
        "Images and their nearest points in the hull of the training images",
        "The farther right, the less of an image can be mixed from training images; the lowest row is what cannot.",
        "{num} probe images, their nearest points in the hull of all training images, and the difference (red: the image is "
        "brighter), from the smallest relative distance to the largest of all probe images. Exact projections, without an interval.",
    ),
    "hull_crossings": (
        "Decision boundaries on the way into the hull",
        "A line that changes colour near 0 is a sample close to a boundary; where lines change in the middle only, the hull is another "
        "region to the network.",
        "Where the class predicted by one network changes on the way from a probe sample to its projection, through the "
        "whole network (pixels) or what follows the layer; at most {max_lines} lines a panel. Samples without a change are left out; "
        "shares and means above panels are over all networks, the table below has their n and intervals.",
    ),
}
# On the page, of the tables of the same names.
_SHOWN = {
    "extrapolation_layers": [
        "moment", "group", "layer", "num_features", "num_points", "outside", "null_outside", "inside", "nearest", "null_nearest", "scale",
        "support", "same_label", "changed", "crossings", "num_networks",
    ],
    "extrapolation_errors": ["layer", "distance", "rho", "rho_low", "rho_high", "p", "p_holm", "num_samples", "num_networks", "reason"],
    "extrapolation_gap": ["score", "layer", "rho", "rho_low", "rho_high", "p_adjusted", "statement", "num_families", "reason"],
    "extrapolation_beside": ["score", "given", "layer", "rho", "p", "p_holm", "num_families", "reason"],
    "extrapolation_sizes": [
        "layer", "num_parameters", "train_size", "parameters_per_sample", "num_features", "outside", "null_outside", "nearest",
        "null_nearest", "changed", "gap_accuracy", "test_error", "num_families",
    ],
}  # fmt: skip


def extrapolation(asked: Asked) -> Found:
    """Fractions outside beside their null, distances by layer and moment, errors, decisions on the way in, and the gap."""
    trials = families_with(asked.store, asked.only)
    if trials.empty:
        return Found(TITLE, reason="No family has the table hull (probes.hull records it).")
    layers = None if asked.layers is None else [PIXELS, *asked.layers]
    looked = queries(asked.store, list(trials["trial"]), layers, asked.moments)
    if looked.empty:
        return Found(TITLE, reason="The table hull has no row of these layers and moments.")
    table = by_family(looked, trials)
    found = {"extrapolation": table, "extrapolation_layers": by_layer(looked, trials, asked.seed)}
    if (table["moment"] == "end").any():
        found["extrapolation_errors"] = against_error(looked, asked.num_permutations, asked.seed)
        found["extrapolation_gap"] = against_gap(asked, table)
        found["extrapolation_beside"] = beside(asked, table)
        sizes = by_size(table, asked.gaps)
        found |= {"extrapolation_sizes": sizes} if len(sizes) else {}
    drawn = {
        "hull_distances": figures.distances(looked),
        "hull_images": figures.images(_pixels(asked.store, trials)),
        "hull_crossings": figures.crossings(_one_network(asked.store, trials), found["extrapolation_layers"]),
    }
    return Found(TITLE, lines(found), found, shown(found), charts=charts({name: (one, *_words(name, one)) for name, one in drawn.items()}))


def _words(name: str, drawing: Drawing | None) -> tuple[str, str, str]:
    title, sees, caption = WORDS[name]
    rows = drawing.rows if drawing is not None else pd.DataFrame()
    families = rows["families"].iloc[0] if "families" in rows else ""
    return title, sees, caption.format(families=families, num=len(rows), max_lines=figures.MAX_LINES)


def _pixels(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of `hull_pixels` of the data that most families have, of one file where there are several."""
    rows = tables.read(store, "hull_pixels")
    rows = rows[rows["dataset"] == trials["dataset"].value_counts().sort_index().idxmax()]
    return rows[rows["kind"] == "sample"].drop_duplicates("sample", keep="last")


def _one_network(store: Store, trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of `hull` at the end of the first replica of the first control, or of the first family."""
    order = trials.assign(stressed=trials["swapped"] != "none").sort_values(["stressed", "schedule", "trial"])
    rows = tables.read(store, "hull", ["replica", "moment", "layer", "kind", "crossings"], only=[order["trial"].iloc[0]])
    rows = rows[rows["moment"] == "end"]
    return rows[rows["replica"] == rows["replica"].min()]


def _percent(row: pd.Series, name: str) -> str:
    return f"{row[name]:.1%} [{row[name + '_low']:.1%}, {row[name + '_high']:.1%}]"


def lines(found: dict[str, pd.DataFrame]) -> list[str]:
    """What was found, in sentences."""
    all_layers = found["extrapolation_layers"]
    rows = all_layers[all_layers["group"] == "all"]
    rows = rows[rows["moment"] == ("end" if (rows["moment"] == "end").any() else "before_swap")]
    first = rows.iloc[0]
    said = [f"{r['layer']} {_percent(r, 'outside')} (null {r['null_outside']:.1%})" for _, r in rows.iterrows()]
    lead = f"Certified outside the hull, moment {first['moment']}, {first['num_samples']} probe samples, {first['num_families']} families"
    text = [f"{lead}: {', '.join(said)}."]
    whole = rows[rows["outside"] == 1]
    noise = rows[(rows["outside"] == 1) & (rows["null_outside"] >= 0.99)]
    text.append(
        f"That every test sample lies outside holds of {', '.join(whole['layer']) or 'no layer'} here"
        + (f"; but at least 99 % of a Gaussian's draws lie outside in {', '.join(noise['layer'])}, too." if len(noise) else ".")
    )
    said = [
        f"{r['layer']} {r['nearest']:.2f} (null {r['null_nearest']:.2f}; wrong minus correct {r['wrong_minus_correct']:+.3f} "
        f"[{r['wrong_minus_correct_low']:+.3f}, {r['wrong_minus_correct_high']:+.3f}])"
        for _, r in rows.iterrows()
    ]
    text.append(f"Distance to the hull over that to the nearest training point, mean: {', '.join(said)}.")
    followed = rows[rows["changed"].notna()]
    said = [f"{r['layer']} {_percent(r, 'changed')}, {r['crossings']:.2f} crossings" for _, r in followed.iterrows()]
    text += (
        [f"The predicted class is another at the projection, share of samples and mean number of crossings: {'; '.join(said)}."]
        if said
        else []
    )
    if "extrapolation_errors" in found:
        errors = found["extrapolation_errors"]
        errors = errors[(errors["distance"] == "nearest") & errors["rho"].notna()]
        said = [f"{r.layer} {r.rho:+.2f} [{r.rho_low:+.2f}, {r.rho_high:+.2f}], p = {r.p_holm:.2g}" for r in errors.itertuples()]
        text += [f"Relative distance against error probability over samples (Spearman, p by Holm): {'; '.join(said)}."] if said else []
    if "extrapolation_gap" in found:
        text += _gap_lines(found["extrapolation_gap"], found["extrapolation_beside"])
    return text


def _gap_lines(gap: pd.DataFrame, beside_table: pd.DataFrame) -> list[str]:
    rows = gap[(gap["predictor"] == PRIMARY_PREDICTOR) & (gap["score"] == "nearest")]
    left = beside_table[(beside_table["predictor"] == PRIMARY_PREDICTOR) & (beside_table["score"] == "nearest")]
    left = left[left["given"] == "spread"].set_index("layer")
    said = []
    for row in rows.to_dict("records"):
        if row["rho"] != row["rho"]:
            said.append(f"{row['layer']} undecided ({row['reason']})")
            continue
        numbers = (
            f"{row['rho']:+.2f} [{row['rho_low']:+.2f}, {row['rho_high']:+.2f}], p = {row['p_adjusted']:.2g}, n = {row['num_families']}"
        )
        beside_spread = (
            f"; given spread {left.loc[row['layer'], 'rho']:+.2f}, p = {left.loc[row['layer'], 'p_holm']:.2g}"
            if row["layer"] in left.index
            else ""
        )
        said.append(f"{row['layer']} {row['statement']} ({numbers}{beside_spread})")
    return [f"Relative distance as a predictor of {PRIMARY_PREDICTOR}, correlation of aligned ranks: {', '.join(said)}."] if said else []


def shown(found: dict[str, pd.DataFrame]) -> list[tuple[pd.DataFrame, str]]:
    """Tables for the page, each with what it is."""
    parts = []
    for name, columns in _SHOWN.items():
        rows = found.get(name, pd.DataFrame())
        if "predictor" in rows:
            rows = rows[rows["predictor"] == PRIMARY_PREDICTOR]
        if len(rows):
            estimator = rows["estimator"].iloc[0]
            parts.append((rows[columns], f"{_CAPTION[name]} {estimator[0].upper()}{estimator[1:]}. analysis/{name}.parquet has the rest."))
    return parts


_CAPTION = {
    "extrapolation_layers": "By moment, kind of swap and layer: fraction certified outside and mean relative distances, with the null's.",
    "extrapolation_errors": "Distance of a sample against the share of networks that predict it wrongly.",
    "extrapolation_gap": f"Scores of a family against its {PRIMARY_PREDICTOR}. {'; '.join(f'{k}: {v}' for k, v in SCORES.items())}.",
    "extrapolation_beside": f"What is left of a score's association with {PRIMARY_PREDICTOR} where another number is held fixed.",
    "extrapolation_sizes": "Over-parameterisation: families of one width and one training set, at the end.",
}
