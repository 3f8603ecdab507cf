"""Whether two stores hold the same, bit for bit."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis import tables
from analysis.storage import Store


def same_tables(a: Store, b: Store, only: Collection[str] | None = None, without: Collection[str] = ()) -> None:
    """Assert that two stores hold the same tables, timings and provenance aside."""
    for name, table in tables.TABLES.items():
        if name in ("runs", *without) or (only is not None and name == "samples"):  # runs tell how often and when, not what came of it
            continue
        owners, others = ([owner for owner in tables.names(s, name) if only is None or owner in only] for s in (a, b))
        assert owners == others, name
        left, right = (tables.read(s, name, table.stable, owners) for s in (a, b))
        pd.testing.assert_frame_equal(left, right, check_exact=True, obj=name)


def same_analysis(a: Store, b: Store) -> None:
    """Assert that the analyses in two stores have the same tables, each with the same values."""
    names = a.names("analysis", ".parquet")
    assert names == b.names("analysis", ".parquet"), "analysis"
    for name in names:
        left, right = (pd.read_parquet(s.path(f"analysis/{name}"), filesystem=s.filesystem) for s in (a, b))
        pd.testing.assert_frame_equal(left, right, check_exact=True, obj=f"analysis/{name}")
