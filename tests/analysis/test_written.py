"""An analysis leaves no file of an earlier one behind, and touches nothing that it did not write."""

from __future__ import annotations

from functools import partial

import pytest

from analysis.storage import Store
from analysis.written import LIST, replace_files


def fill(text: bytes, sink) -> None:
    sink.write(text)


def files(*names: str) -> dict:
    return {name: partial(fill, name.encode()) for name in names}


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    for name in ("figures/mine.png", "figures/notes.txt", "analysis/pairs_cka_block1_end.parquet", "trials/t0.parquet"):
        store.write(name, b"not the analysis'")
    return store


def test_what_is_not_written_again_goes_and_all_else_stays(store):
    replace_files(store, files("figures/after_swap.png", "analysis/spread.parquet", "analysis/returns.parquet", "report.html"))
    assert replace_files(store, files("analysis/spread.parquet", "report.html")) == ("analysis/spread.parquet", "report.html")
    assert store.names("figures") == ["mine.png", "notes.txt"]
    assert store.names("analysis") == ["pairs_cka_block1_end.parquet", "spread.parquet", "written.txt"]
    assert store.read("analysis/spread.parquet") == b"analysis/spread.parquet"
    assert store.exists("trials/t0.parquet")


def test_a_killed_call_leaves_a_list_of_all_that_may_be_there(store):
    replace_files(store, files("figures/a.png", "report.html"))

    def die(sink):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_files(store, files("figures/b.png") | {"figures/c.png": die})
    assert store.exists("figures/a.png")
    assert store.exists("figures/b.png")
    replace_files(store, files("report.html"))
    assert store.names("figures") == ["mine.png", "notes.txt"]


def test_a_list_that_somebody_wrote_deletes_nothing_else(store):
    store.write(LIST, b"trials/t0.parquet\n../x\nfigures/notes.txt\nanalysis/../trials/t0.parquet\n\xff\n")
    replace_files(store, files("report.html"))
    assert store.exists("trials/t0.parquet")
    assert store.exists("figures/notes.txt")
