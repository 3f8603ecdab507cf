"""Whether two stores hold the same tables, timings and provenance aside."""

from __future__ import annotations

import pandas as pd

from analysis import tables
from analysis.storage import Store

OF_A_RUN = ("runs",)  # tell how often and when, not what came of it


def difference(a: Store, b: Store, only: list[str] | None = None, without: tuple[str, ...] = ()) -> str | None:
    """The first table in which the stores differ by a bit, and how; None where they hold the same.

    `only` restricts to rows of these families; `without` leaves tables out.
    """
    for name, table in tables.TABLES.items():
        if name in (*OF_A_RUN, *without) or (only is not None and name == "samples"):
            continue
        owners, others = ([owner for owner in tables.names(s, name) if only is None or owner in only] for s in (a, b))
        if owners != others:
            return f"{name}: {sorted(set(owners) ^ set(others))} on one side only"
        left, right = (tables.read(s, name, table.stable, owners) for s in (a, b))
        try:
            pd.testing.assert_frame_equal(left, right, check_exact=True, obj=name)
        except AssertionError as error:
            return str(error)
    return None
