"""Metrics by name are the numbers that the analysis writes."""

import numpy as np
import pytest

from analysis import tables
from analysis.akp import at_first_swap, spreads
from analysis.measures.generalization import PREDICTORS, gaps
from analysis.metrics import MEANS, REPRESENTATIONS, metrics, spread_names


@pytest.fixture
def store(sweep):
    """Four families; one with a replica, one with all that diverged before the end, and one where one diverged before the swap."""
    found = sweep(num_families=4, diverged={1: 1, 2: 4})
    last = tables.names(found, "trials")[3]
    replicas = tables.read(found, "replicas", only=[last]).drop(columns="schema_version")
    replicas["diverged_at"] = [1, None, None, None]
    tables.write(found, "replicas", last, {name: replicas[name].astype(object).where(replicas[name].notna(), None) for name in replicas})
    return found


def test_spreads_are_those_of_the_analysis(store):
    table = at_first_swap(spreads(store, REPRESENTATIONS))
    names = spread_names(["block1", "block2"], ["init", "end"])
    assert len(names) == len(REPRESENTATIONS) * 2 * 2
    assert table["trial"].nunique() == 4
    for trial, rows in table.groupby("trial"):
        expected = {f"spread/{r.measure}/{r.layer}/{r.moment}": r.spread for r in rows.itertuples()}
        found = metrics(store, trial, names)
        np.testing.assert_array_equal(list(found.values()), [expected[name] for name in names])
        if "spread/cka/block1/after_swap" in expected:
            around = "spread/cka/block1/after_swap"
            assert metrics(store, trial, [around])[around] == expected[around]


def test_means_are_those_of_the_analysis_and_leave_out_who_diverged(store):
    table = gaps(tables.read(store, "replicas")).set_index("trial")
    for trial, row in table.iterrows():
        found = metrics(store, str(trial), [name for name in PREDICTORS if name in MEANS])
        for name, value in found.items():
            assert value == pytest.approx(row[name], rel=1e-12, nan_ok=True)
    num_diverged = table["num_diverged"].tolist()
    assert num_diverged == [0, 1, 4, 1]
    assert np.isnan(table["gap_accuracy"].tolist()).tolist() == [False, False, True, False]


def test_a_name_that_is_no_metric_is_refused(store):
    trial = tables.names(store, "trials")[0]
    assert "diverged_at" not in MEANS
    for name in ("gap", "diverged_at", "spread/cka/block9/end", "spread/cka/block1/epoch_3"):
        with pytest.raises(KeyError, match=name):
            metrics(store, trial, [name])
