"""The verb `diff`: in what two families or two sweeps differ."""

from __future__ import annotations

import json
import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import compare, tables
from analysis.results import Results
from analysis.storage import Store
from sweep.config import ConfigError, load
from sweep.plan import results_store
from sweep.views import family_row


def diff(config_name: str | None, overrides: list[str], a: str, b: str, as_json: bool = False) -> int:
    """Compare what `a` and `b` name: two folders of results, or two families, each an id of the chosen sweep or PATH/ID."""
    (left, first), (right, second) = (_named(config_name, overrides, text) for text in (a, b))
    if (first is None) != (second is None):
        sweep, family = (a, b) if first is None else (b, a)
        raise ConfigError("diff", [f"{sweep} is a sweep and {family} a family; give two of a kind"])
    try:
        found = compare.sweeps(left, right) if first is None or second is None else compare.families(left, first, right, second)
    except ValueError as error:
        raise ConfigError("diff", [str(error)]) from None
    if as_json:
        print(json.dumps(found.records(), indent=2))
    else:
        show(found, Console())
    return 0


def _named(config_name: str | None, overrides: list[str], text: str) -> tuple[Results, str | None]:
    """The results that a word names, and which family of them; None for the sweep. Raises ConfigError."""
    path, _, last = text.rstrip("/").rpartition("/")
    is_id = re.fullmatch(r"t[0-9a-f]{0,12}", last) is not None
    if is_id and not path and not _has_results(text):
        store = results_store(load(config_name, overrides)[0])
    elif is_id and path and _has_results(path):
        store = Store(path)
    else:
        try:
            return Results(text), None
        except (OSError, ValueError) as error:
            raise ConfigError("diff", [f"{error}. Give a family's id, a folder of results, or PATH/ID"]) from None
    trial = str(family_row(store, last)["trial"])
    return Results(store), trial


def _has_results(path: str) -> bool:
    try:
        return bool(tables.names(Store(path), "trials"))
    except (OSError, ValueError):
        return False


def show(found: compare.Comparison, console: Console) -> None:
    """The comparison on a console; long values fold."""
    console.print(f"a: {found.a}\nb: {found.b}", markup=False, highlight=False, soft_wrap=True)
    for title, rows in (("configuration", found.configuration), ("provenance", found.provenance), ("results", found.shown())):
        if rows.empty:
            console.print(f"\n{title}: no difference" if title != "results" else "\nresults: nothing to compare")
            continue
        table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
        shown = [column for column in rows.columns if column != "estimator"]
        for column in shown:
            is_number = title == "results" and column != "quantity"
            table.add_column(column, overflow="fold", no_wrap=title == "results", justify="right" if is_number else "left")
        for cells in rows[shown].itertuples(index=False):
            table.add_row(*(Text("–" if cell is None else str(cell)) for cell in cells))
        console.print(table)
    for estimator, rows in found.shown().groupby("estimator", sort=False) if len(found.results) else ():
        console.print(f"{', '.join(rows['quantity'])}: {estimator}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
