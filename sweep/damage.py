"""`sweep check`: read every file of every finished family to its end, and name those that are damaged or missing."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from analysis import tables
from analysis.storage import Store, Unreachable
from analysis.wording import counted
from sweep.claim import claimed
from sweep.config import ConfigError
from sweep.log import printable
from sweep.plan import DAMAGE, readable_trials

NO_RESULTS = "no results here yet; python -m sweep.run makes them"
# What a repair removes: a file per data set, which the next run writes anew, and one per run, without which the account of costs lacks it.
NOT_OF_FAMILIES = ("image_statistics", "hull_pixels", "warps", "runs")


def damaged(store: Store) -> dict[str, str]:
    """Files of finished families that are not what was written, and why. Pages of data are compared with their checksums.

    Raises Unreachable for a store that does not answer, which says nothing of its files.
    """
    present = tables.names(store, "trials")
    rows, unreadable = readable_trials(store, present)
    done = rows.loc[rows["status"] == "done", "trial"].tolist()
    found = {f"trials/{trial}.parquet": why for trial, why in unreadable.items()}
    per_family = [name for name in tables.TABLES if name not in ("trials", "samples", *NOT_OF_FAMILIES)]
    for table in per_family:
        there = set(tables.names(store, table))
        if table == "replicas":  # the one that every family has
            found |= {f"{table}/{trial}.parquet": "it is missing" for trial in done if trial not in there}
        whys = store.each(partial(_why, store, table), [trial for trial in done if trial in there])
        found |= {file: why for file, why in whys if why}
    for table in NOT_OF_FAMILIES:
        for name in tables.names(store, table):
            try:
                tables.read(store, table, only=[name])
            except Unreachable:
                raise
            except DAMAGE as error:
                found[f"{table}/{name}.parquet"] = " ".join(str(error).split())
    return found


def _why(store: Store, table: str, trial: str) -> tuple[str, str | None]:
    file = f"{table}/{trial}.parquet"
    try:
        rows = tables.read(store, table, only=[trial])
        strangers = set(rows["trial"]) - {trial}
        return file, f"it is about {', '.join(sorted(strangers))}" if strangers or rows.empty else None
    except Unreachable:
        raise
    except DAMAGE as error:
        return file, " ".join(str(error).split())


def check(store: Store, repair: bool, again: str) -> int:
    """Print what is damaged; with `repair`, delete the rows in `trials` of these families, so that they are run again. 0 if all is well.

    Raises ConfigError where there are no results.
    """
    console, found = Console(soft_wrap=True), damaged(store)
    if not found and not tables.names(store, "trials"):
        raise ConfigError(store.root, [NO_RESULTS])
    for file, why in found.items():
        console.print(printable(f"{file} is damaged: {why}"), style="red", markup=False, highlight=False)
    others = [file for file in found if file.partition("/")[0] in NOT_OF_FAMILIES]
    trials = sorted({file.partition("/")[2].removesuffix(".parquet") for file in found if file not in others})
    if not found:
        console.print(f"{counted(len(tables.names(store, 'trials')), 'family')}: every file can be read", markup=False, highlight=False)
        return 0
    if repair:
        with claimed(store, console):  # a driver at work would count on these rows
            for file in [*(f"trials/{trial}.parquet" for trial in trials), *others]:
                store.delete(file)
        console.print(f"to run again, {counted(len(trials), 'family')}: {again}", markup=False, highlight=False)
        return 0
    console.print(f"to have {counted(len(trials), 'family')} run again: add --repair, then {again}", markup=False, highlight=False)
    return 1
