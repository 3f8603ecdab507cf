"""The answer on a terminal of any width: what has no room in a line stands below its name, and no name is cut."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from analysis.akp import PRIMARY_MEASURE, PRIMARY_MOMENT, PRIMARY_PREDICTOR, SECONDARY_PREDICTOR, Verdict
from analysis.happiness import contradictions
from analysis.html import number
from analysis.wording import told

GAP = 2


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], num_names: int = 1) -> None:
    """A title, then a line per row under the names of the columns; numbers behind the first `num_names` columns stand to the right.

    Where that is wider than the terminal, each row is its names in a line of their own, and below them a line per number.
    """

    def put(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    console.print(title, markup=False, highlight=False)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) <= console.width:
        for cells in (columns, *rows):
            placed = [c.ljust(w) if i < num_names else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            put((" " * GAP).join(placed).rstrip())
        return
    label = max(map(len, columns[num_names:]), default=0)
    for cells in rows:
        put(" ".join(cells[:num_names]))
        for column, cell in zip(columns[num_names:], cells[num_names:], strict=True):
            put(f"{' ' * GAP}{column.ljust(label)}  {cell}")


def _estimate(value: float, low: float, high: float, digits: int) -> str:
    """A number with its interval; a dash where there is none."""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]" if value == value else "–"


def _print_happy(console: Console, happy: pd.DataFrame) -> None:
    """PERMDISP of happy against unhappy families, for the primary measure."""
    rows = happy[happy["measure"] == PRIMARY_MEASURE]
    if rows.empty:
        return
    first = rows.iloc[0]
    n = f"{number(first['num_families_unhappy'])} unhappy less that of {number(first['num_families_happy'])} happy families"
    title = f"PERMDISP, {PRIMARY_MEASURE}, moment {PRIMARY_MOMENT}: dispersion of {n}; {first['rule']}"
    print_table(
        console,
        title,
        ["layer", "as they are [95 %]", "aligned [95 %]", "rho", "p", "p place"],
        [
            [
                row["layer"],
                _estimate(row["difference"], row["difference_low"], row["difference_high"], 3),
                _estimate(row["aligned_difference"], row["aligned_difference_low"], row["aligned_difference_high"], 3),
                number(row["rho"], 2),
                number(row["p_adjusted"], 2),
                number(row["p_location_adjusted"], 2),
            ]
            for row in rows.to_dict("records")
        ],
    )
    for line in contradictions(rows):
        console.print(line, markup=False, highlight=False)


def print_answer(
    console: Console,
    measures: Sequence[str],
    association: pd.DataFrame,
    happy: pd.DataFrame,
    answers: Sequence[Verdict],
    root: str,
    lines: Sequence[str],
) -> None:
    """Both readings of "badly": the gap, on which the verdict was declared, and beside it the test error."""
    shown = (PRIMARY_PREDICTOR, SECONDARY_PREDICTOR)
    rows = association[(association["moment"] == PRIMARY_MOMENT) & association["predictor"].isin(shown)]
    n = rows["num_families"].agg(["min", "max"]).astype(str).drop_duplicates() if len(rows) else ["0"]
    title = f"Spread at the {PRIMARY_MOMENT}: correlation of {told(rows['scheme'], 'ranked')}; n = {' to '.join(n)} families; p by max-T"
    columns, cells = ["measure", "layer", *(text for predictor in shown for text in (f"{predictor} [95 %]", "p"))], []
    for (measure, layer), group in rows.groupby(["measure", "layer"], sort=False):
        texts = [str(measure), str(layer)]
        for _, row in group.set_index("predictor").loc[list(shown)].iterrows():
            texts += [_estimate(row["rho"], row["rho_low"], row["rho_high"], 2), number(row["p_adjusted"], 2)]
        cells.append(texts)
    print_table(console, title, columns, cells, num_names=2)
    if len(association) and (absent := sorted({*measures} - {*association["measure"]})):
        console.print(f"Without a layer that they are of (the logits, recorded last): {', '.join(absent)}", highlight=False)
    _print_happy(console, happy)
    for answer in answers:
        console.print(answer.text, markup=False, highlight=False)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    for file in answers[0].files:
        console.print(f"  {root}/{file}", markup=False, highlight=False, soft_wrap=True)
