"""Are networks that are stable to diffeomorphisms better ones? What the table `stability` says of error, gap, swaps and size.

Definitions, estimators and caveats: docs/stability.md. Sentences and figures are of one law of warps and one estimator, the published
ones where they were recorded; tables have all.
"""

from __future__ import annotations

import json

import pandas as pd

from analysis import stability_error, stability_figures, tables
from analysis import stability_tables as of
from analysis.chart import Chart
from analysis.drawing import charts
from analysis.html import interval
from analysis.predictors import predictors
from analysis.question import Asked, Found
from analysis.spreads import base_recipe
from analysis.stability_tables import QUANTITIES, STANDARD_ESTIMATOR
from analysis.verdict import PRIMARY_MEASURE, PRIMARY_PREDICTOR

TITLE = "Stability to diffeomorphisms"


def stability(asked: Asked) -> Found:
    """R against error and gap, over training and swaps, over sizes, by layer. Needs the table `stability`."""
    rows = of.recorded(asked.store, asked.only)
    if asked.layers is not None:
        rows = rows[rows["layer"].isin(list(asked.layers)) | rows["is_output"]]
    if asked.moments is not None:
        rows = rows[rows["moment"].isin(list(asked.moments))]
    if rows.empty:
        return Found(TITLE, reason="The table stability has no family of this analysis: probes.stability records it.")
    means, swapped = of.log_means(rows), of.swaps(rows)
    errors, varied = of.with_errors(means, asked.gaps), of.settings(asked.store, means)
    fits = stability_error.fits(errors, seed=asked.seed)
    association = stability_error.associations(errors, alpha=asked.alpha, num_permutations=asked.num_permutations, seed=asked.seed)
    slopes, points = of.over_sizes(means, varied, seed=asked.seed)
    beside = _beside_spread(asked, errors)
    found = {
        "stability_means": means.drop(columns=["recipe", *[f"{quantity}_values" for quantity in QUANTITIES]]),
        "stability_swaps": swapped,
        "stability_error": fits,
        "stability_association": association,
        "stability_sizes": slopes,
        "stability_size_means": points,
        "stability_predictors": beside,
    }
    cut, px = of.standard_law(rows)

    def standard(table: pd.DataFrame, estimator: bool = True) -> pd.DataFrame:
        if table.empty:
            return table
        table = table[(table["cut"] == cut) & (table["displacement_px"] == px)]
        return table[table["estimator"] == STANDARD_ESTIMATOR] if estimator else table

    shown = {name: standard(table) for name, table in {"fits": fits, "association": association, "slopes": slopes}.items()}
    law = f"c = {cut}, δ = {px:g} px, estimator {STANDARD_ESTIMATOR}"
    lines = [
        *_error_lines(shown["fits"], law),
        *_association_lines(shown["association"]),
        *_swap_lines(swapped, standard(swapped, estimator=False)),
        *_size_lines(shown["slopes"]),
    ]
    drawn = _charts(asked, standard(means), standard(errors), shown["fits"], shown["slopes"], standard(points), varied, law)
    pages = [_error_page(fits), _association_page(association, cut, px), _beside_page(beside)]
    return Found(
        TITLE, lines, {name: table for name, table in found.items() if len(table)}, [page for page in pages if len(page[0])], charts=drawn
    )


def _beside_spread(asked: Asked, errors: pd.DataFrame) -> pd.DataFrame:
    """D, G and R beside spread, scored as `analysis.predictors` scores predictors of the gap; of one law and estimator."""
    known = list(asked.spreads["measure"].unique())
    if errors.empty or not known:
        return pd.DataFrame()
    cut, px = of.standard_law(errors)
    end = errors[(errors["cut"] == cut) & (errors["displacement_px"] == px) & (errors["estimator"] == STANDARD_ESTIMATOR)]
    scores = [
        pd.DataFrame({"trial": end["trial"], "baseline": f"stability/{quantity}", "layer": end["layer"], "value": end[quantity]})
        for quantity in QUANTITIES
    ]
    measure = PRIMARY_MEASURE if PRIMARY_MEASURE in known else known[0]
    spreads = asked.spreads[(asked.spreads["measure"] == measure) & asked.spreads["trial"].isin(end["trial"])]
    table = predictors(asked.store, spreads, asked.gaps, pd.concat(scores, ignore_index=True))
    return table[table["score"].str.startswith(("spread/", "stability/"))].reset_index(drop=True)


def _error_lines(fits: pd.DataFrame, law: str) -> list[str]:
    found = []
    for row in fits.to_dict("records"):
        if row["reason"]:
            found.append(f"Test error over R ({law}): undecided: {row['reason']}.")
            continue
        factor, exponent, excess = (
            f"{row[name]:{form}} {interval(row[f'{name}_low'], row[f'{name}_high'])}"
            for name, form in (("factor", ".2g"), ("exponent", ".2f"), ("excess", "+.2f"))
        )
        found.append(
            f"Test error over R of the output ({law}; {row['num_families']} families of {row['num_controls']} controls): eps = {factor} x "
            f"R^{exponent}; log eps is on average {excess} from the published 0.2 x R^0.5."
        )
    return found


def _association_lines(association: pd.DataFrame) -> list[str]:
    said: list[str] = []
    for predictor in ("test_error", PRIMARY_PREDICTOR) if len(association) else ():
        here = association[association["is_output"] & (association["predictor"] == predictor)]
        known = here[here["rho"].notna()]
        if len(known):
            numbers = ", ".join(
                f"{QUANTITIES[row['quantity']]} {row['rho']:+.2f} {interval(row['rho_low'], row['rho_high'])} (p = {row['p_holm']:.2g})"
                for row in known.to_dict("records")
            )
            n, scheme = known["num_families"].iloc[0], known["scheme"].iloc[0]
            said.append(f"Rank correlation of the output's stability with {predictor}, {scheme} (n = {n} families, p by Holm): {numbers}.")
        elif len(here):
            over_all = here[here["rho_all"].notna()]
            rho = ", ".join(
                f"{QUANTITIES[str(name)]} {value:+.2f}" for name, value in zip(over_all["quantity"], over_all["rho_all"], strict=True)
            )
            beside = f"; over all families, which are not independent: {rho}" if rho else ""
            said.append(f"Stability against {predictor}: undecided: {here['reason'].iloc[0]}{beside}.")
    return said


def _swap_lines(swapped: pd.DataFrame, standard: pd.DataFrame) -> list[str]:
    if swapped.empty:
        return []
    lines = []
    loss = swapped[swapped["exchanged"] == "loss"].groupby(["trial", "epoch"])["identical"].all()
    if len(loss):
        told = "" if loss.all() else " (they must in all: something other than the loss changed there)"
        lines.append(f"Swaps of the loss alone leave D, G and R the same bit for bit at 0 steps: {int(loss.sum())} of {len(loss)}{told}.")
    for kind in ("activation", "both"):
        factors = standard.loc[standard["is_output"] & (standard["exchanged"] == kind), f"factor_{STANDARD_ESTIMATOR}"].dropna()
        if len(factors):
            low, middle, high = factors.quantile([0.25, 0.5, 0.75])
            what = "activation and loss" if kind == "both" else kind
            lines.append(
                f"A swap of {what} multiplies R of the output at 0 steps by {middle:.2f} (median of {len(factors)} swaps; middle half "
                f"{low:.2f} to {high:.2f})."
            )
    return lines


def _size_lines(slopes: pd.DataFrame) -> list[str]:
    if slopes.empty:
        return []
    others = list(slopes.columns[: list(slopes.columns).index("group") + 1])
    said = [
        f"{', '.join(str(row[name]) for name in others)} {row['exponent']:+.2f} {interval(row['exponent_low'], row['exponent_high'])} "
        f"({row['num_sizes']} sizes, {row['num_families']} families of {row['num_replicas']} replicas at each)"
        for row in slopes.to_dict("records")
    ]
    return [f"R of the output goes with the training size as P^b, b of {'; '.join(said)}."]


def _charts(
    asked: Asked,
    means: pd.DataFrame,
    errors: pd.DataFrame,
    fits: pd.DataFrame,
    slopes: pd.DataFrame,
    points: pd.DataFrame,
    varied: pd.DataFrame,
    law: str,
) -> list[Chart]:
    recipes = means.drop_duplicates("trial").set_index("trial")["recipe"].map(lambda text: base_recipe(json.loads(text)))
    models = recipes.map(lambda recipe: recipe.get("model", {}).get("name", "model"))
    sets = tables.names(asked.store, "warps")
    warps = tables.read(asked.store, "warps", only=sets[:1]) if sets else tables.read(asked.store, "warps")
    end = errors[errors["is_output"]]
    drawn = {
        "example_warps": (
            stability_figures.example_warps(warps),
            "Probe images and their warps",
            "A warp that moves pixels hardly changes what a person sees; noise that changes pixels as much does.",
            "A few probe images, what each law of warps makes of them (c is the cut-off, δ the nominal displacement), and noise as "
            "large as the first law's change; one draw each.",
        ),
        "stability_against_error": (
            stability_figures.against_error(end, fits.iloc[0], models if models.nunique() > 1 else None) if len(fits) else None,
            "Test error against relative stability",
            "Points from the lower left to the upper right say that networks err more the less stable their output is to warps, against "
            "noise of the same size; points along the dashed line, that they do so by the published law.",
            f"Mean test error against R of the output at the end of training ({law}; log mean over replicas), a point per family, counted "
            "in the key, bars ±1 standard error of R over replicas. Dashed: the relation published for 15 architectures on CIFAR-10; line: "
            "power law fitted here, its exponent with a 95 % bootstrap interval over controls and replicas.",
        ),
        "stability_by_layer": (
            stability_figures.by_layer(means, models),
            "Relative stability by layer",
            "Below 1 a layer is more stable to warps than to noise of the same size. Where the line of the end lies below that of init, "
            "training made it so.",
            f"R of each layer of the controls ({law}): log means over families, counted above each panel; bars reach from the least to the "
            "largest family. Families of all sizes of the training set and other settings of a model are taken together.",
        ),
        "stability_over_training": (
            stability_figures.over_training(means[means["is_output"]], models),
            "Stability over training",
            "A step at the swap is what new functions do at the same weights, where a swap of the loss alone changes nothing; the way to "
            "the end is what training makes of it.",
            f"D, G and R of the output ({law}), by what the first swap exchanges: a thin line per family, counted in the key, thick lines "
            "log means over the families of a model, whatever their training size. The spread of the thin lines stands for an interval.",
        ),
        "stability_over_sizes": (
            stability_figures.over_sizes(points, slopes),
            "Relative stability over the size of the training set",
            "A line that falls says that more training images make the output more stable to warps than to noise.",
            f"R of the output at the end ({law}): log means with 95 % intervals over seeds and families, which the key counts, with the "
            "exponent of P and its 95 % interval.",
        ),
    }
    return charts(drawn)


def _error_page(fits: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    if fits.empty:
        return fits, ""
    table = pd.DataFrame({"c": fits["cut"], "δ (px)": fits["displacement_px"], "estimator": fits["estimator"]})
    for name in ("factor", "exponent", "excess"):
        table[name] = fits[name]
        table[f"{name} 95 %"] = [interval(*pair) for pair in zip(fits[f"{name}_low"], fits[f"{name}_high"], strict=True)]
    table["families"], table["controls"] = fits["num_families"], fits["num_controls"]
    return table, f"Test error over R of the output at the end. {stability_error.FIT_ESTIMATOR}. Published: factor 0.2, exponent 0.5."


def _association_page(association: pd.DataFrame, cut: int, px: float) -> tuple[pd.DataFrame, str]:
    if association.empty:
        return association, ""
    rows = association[(association["cut"] == cut) & (association["displacement_px"] == px)]
    rows = rows[rows["predictor"].isin(["test_error", PRIMARY_PREDICTOR])]
    table = pd.DataFrame(
        {
            "estimator": rows["estimator"],
            "layer": rows["layer"],
            "of": rows["quantity"].map(QUANTITIES),
            "with": rows["predictor"],
            "rho": rows["rho"],
            "95 %": [interval(*pair) for pair in zip(rows["rho_low"], rows["rho_high"], strict=True)],
            "p (Holm)": rows["p_holm"],
            "all": rows["rho_all"],
            "families": rows["num_families"],
            "reason": rows["reason"],
        }
    )
    return (
        table,
        f"Stability at the end (c = {cut}, δ = {px:g} px). {stability_error.ASSOCIATION_ESTIMATOR}; all: Spearman over all families.",
    )


def _beside_page(beside: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    if beside.empty:
        return beside, ""
    rows = beside[beside["predictor"] == PRIMARY_PREDICTOR]
    table = rows[["score", "layer", "tau", "tau_se", "psi", "psi_se", "sign_error_mean", "num_families", "num_controls", "reason"]]
    table = table.rename(columns={"tau_se": "SE of tau", "psi_se": "SE of psi", "sign_error_mean": "sign error"})
    return table, f"Spread and stability as predictors of {PRIMARY_PREDICTOR}, side by side. {rows['estimator'].iloc[0]}."
