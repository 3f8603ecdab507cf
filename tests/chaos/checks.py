"""What must hold after faults, on whatever they were done to."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from analysis import tables
from analysis.claims import FOLDER as CLAIMS
from analysis.metrics import metrics
from analysis.storage import TEMPORARY_FOLDER, Store
from sweep.config import load
from sweep.damage import damaged
from sweep.plan import make_plan
from sweep.study import SearchStudy
from tests.same import same_analysis, same_tables
from trainables.data import load as load_data
from trainables.family import Family
from trainables.family import run as run_family
from trainables.states import States


class Refuted(AssertionError):
    """What a user may count on did not hold."""


def done_rows(store: Store) -> dict[str, bytes]:
    """The files of `trials` of families that are done, as they are."""
    found = {}
    for trial in tables.names(store, "trials"):
        if tables.read(store, "trials", ["status"], [trial])["status"].tolist() == ["done"]:
            found[trial] = store.read(f"trials/{trial}.parquet")
    return found


def unchanged(store: Store, before: dict[str, bytes], but_from: Collection[str] = ()) -> dict[str, bytes]:
    """The rows of the families that are done. Those of them that were done before are the same to the byte.

    A host whose network is cut goes on with the families that it has, which others begin anew: rows from hosts in `but_from` may be later.
    """
    rows = done_rows(store)
    again = sorted(trial for trial, row in before.items() if rows.get(trial) != row)
    if again and but_from:
        hosts = tables.read(store, "trials", ["trial", "host"], [trial for trial in again if trial in rows])
        again = sorted(set(again) - set(hosts.loc[hosts["host"].isin(but_from), "trial"]))
    if again:
        raise Refuted(f"families that were done ran again: {again}")
    return rows


def whole(store: Store) -> None:
    """Nothing is torn, and nothing is left over."""
    assert not damaged(store), damaged(store)
    for table in tables.TABLES:
        strangers = [name for name in store.names(table) if not name.endswith(".parquet")]
        assert not strangers, f"left in {table}: {strangers}"
        tables.read(store, table)
    assert not store.names(TEMPORARY_FOLDER), f"temporaries are left: {store.names(TEMPORARY_FOLDER)}"
    assert not store.names(CLAIMS), "a claim is left"
    assert store.read("report.html").rstrip().endswith(b"</html>"), "the report is torn"


def as_undisturbed(store: Store, reference: Store) -> None:
    """Nothing is torn or left over, training states neither, and all tables are those of the reference, bit for bit."""
    whole(store)
    assert not States(store).names(), "training states are left"
    same_tables(store, reference)
    same_analysis(store, reference)


def told_once(store: Store, sweep_file: Path) -> None:
    """Nothing is torn or left over; a search's study was told each of its families once, and what it was told is what the tables hold;
    and each family is, bit for bit, what it is without a search."""
    whole(store)
    config, _ = load(str(sweep_file))
    plan, study = make_plan(config, load_data(config.data), store), SearchStudy.existing(config, store)
    assert study is not None, "there is no study"
    complete = [one for one in study.proposals() if one.state == "COMPLETE"]
    told = Counter(one.trial for one in complete)
    assert len(told) == config.search.num_families, f"the study was told {len(told)} families"
    assert set(told.values()) == {1}, f"the study was told of families more than once: {told}"
    assert set(told) <= set(plan.done), f"the study was told of families that are not done: {set(told) - set(plan.done)}"
    for one in complete:
        wanted = list(metrics(store, str(one.trial), study.objectives).values())
        assert study.study.get_trials()[one.number].values == wanted, f"{one.trial}: the study was told something else"
    with tempfile.TemporaryDirectory() as folder:
        here = Store(folder)
        for base, schedule in plan.families.values():
            list(run_family(Family(base.recipe, config.probes, schedule), here))
        same_tables(store, here, tables.names(here, "trials"))
