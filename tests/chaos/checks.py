"""What must hold after faults, on whatever they were done to."""

from __future__ import annotations

from collections.abc import Collection

from analysis import tables
from analysis.storage import TEMPORARY_FOLDER, Store
from sweep.claim import FOLDER as CLAIMS
from sweep.damage import damaged
from tests.same import same_analysis, same_tables
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
