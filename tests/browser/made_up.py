"""Made-up sweeps of the kinds that a page has to stand: without a measurement, and of a thousand families."""

from __future__ import annotations

from typing import Any

from analysis import tables
from analysis.storage import Store
from tests.analysis.conftest import make_rows

SMALL: dict[str, Any] = {"num_permutations": 99, "num_dispersion_permutations": 99}
THOUSAND: dict[str, Any] = {"num_families": 1001, "num_replicas": 2, "num_samples": 8, "widths": (4, 4, 4, 4)}


def write_without_measurement(store: Store) -> None:
    """One family that is done, of which there is nothing but its row."""
    row = {"schedule": "0:relu/cross_entropy", "swapped": "none", "num_swaps": 0, "status": "done", "num_replicas": 2, "base": "b"}
    trial = "t000000000000"
    tables.write(store, "trials", trial, make_rows("trials", 1, trial=trial, control=trial, **row))
