"""Synthetic sweeps written through the tables' own writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from analysis import tables
from analysis.storage import Store

SWAPS = ("none", "activation", "loss", "both")


def make_rows(table: str, num_rows: int, **values: object) -> dict[str, object]:
    """Columns of a table: those given (a scalar is repeated), the others null."""
    columns: dict[str, object] = {}
    for column in tables.TABLES[table].columns:
        if column.name == "schema_version":
            continue
        value = values.pop(column.name, None)
        columns[column.name] = value if isinstance(value, (list, np.ndarray, pa.Array)) else [value] * num_rows
    assert not values, f"unknown columns {sorted(values)}"
    return columns


def write_sweep(
    store: Store,
    num_families: int = 42,
    num_replicas: int = 4,
    num_samples: int = 30,
    widths: tuple[int, ...] = (6, 4),
    direction: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    moments: tuple[str, ...] = ("init", "before_swap", "after_swap", "end"),
    diverged: dict[int, int] | None = None,
    constant: tuple[int, ...] = (),
    num_failed: int = 0,
    base: str = "b000000000000",
    first: int = 0,
) -> list[str]:
    """A sweep whose spread rises (direction 1), falls (-1) with the gap or has nothing to do with it (0). Returns the
    trial ids.

    Families come in trees of 7: a control, and from it three swaps at two epochs, to the same functions in every tree.
    `diverged` maps a family to how many of its replicas diverged; families in `constant` collapsed at the end.
    """
    generator = np.random.default_rng(seed)
    shared = [generator.standard_normal((num_samples, width)) for width in widths]
    level = generator.permutation(num_families) / max(num_families - 1, 1)
    own = {1.0: level, -1.0: 1 - level, 0.0: generator.permutation(num_families) / max(num_families - 1, 1)}[direction]
    own = np.clip(own + noise * generator.standard_normal(num_families), 0, None)
    trials = []
    for index in range(num_families):
        trial = f"t{first + index:012x}"
        trials.append(trial)
        tree, place = divmod(index, 7)
        swapped = SWAPS[(place - 1) % 3 + 1] if place else "none"
        swap_epoch = (2, 4)[(place - 1) // 3] if place else None
        last_activation = "relu" if swapped in ("none", "loss") else "tanh"
        last_loss = "cross_entropy" if swapped in ("none", "activation") else "focal"
        schedule = f"0:relu{tree}/cross_entropy" + ("" if swap_epoch is None else f" {swap_epoch}:{last_activation}/{last_loss}")
        num_diverged = (diverged or {}).get(index, 0)
        gap = 0.3 * level[index] + 0.01 * generator.standard_normal(num_replicas)
        groups = []
        for moment in moments:
            if swap_epoch is None and moment in ("before_swap", "after_swap"):
                continue
            epoch = {"init": 0, "before_swap": swap_epoch, "after_swap": swap_epoch, "end": 8}[moment]
            for layer, width in enumerate(widths):
                X = shared[layer] + (0.2 + own[index] * (1.5 if moment == "end" else 0.2)) * generator.standard_normal(
                    (num_replicas, num_samples, width)
                )
                if moment == "end":
                    X[num_replicas - num_diverged :] = np.nan
                    if index in constant:
                        X[:] = 1.0
                num_rows = num_replicas * num_samples
                groups.append(
                    make_rows(
                        "activations",
                        num_rows,
                        trial=trial,
                        moment=moment,
                        epoch=epoch,
                        layer=f"block{layer + 1}",
                        pooling="mean",
                        replica=np.repeat(np.arange(num_replicas), num_samples),
                        shape=[[width, 3, 3]] * num_rows,
                        sample=np.tile(np.arange(num_samples), num_replicas),
                        position=0,
                        label=0,
                        activation=tables.list_array(X.reshape(num_rows, width).astype(np.float32)),
                    )
                )
        tables.write(store, "activations", trial, groups)
        tables.write(
            store,
            "replicas",
            trial,
            make_rows(
                "replicas",
                num_replicas,
                trial=trial,
                schedule=schedule,
                replica=np.arange(num_replicas),
                seed=np.arange(num_replicas),
                train_accuracy=np.full(num_replicas, 0.95),
                test_accuracy=0.95 - gap,
                train_cross_entropy=np.full(num_replicas, 0.2),
                test_cross_entropy=0.2 + gap,
                gap_accuracy=gap,
                gap_cross_entropy=gap,
                diverged_at=[None] * (num_replicas - num_diverged) + [5] * num_diverged,
            ),
        )
        tables.write(
            store,
            "trials",
            trial,
            make_rows(
                "trials",
                1,
                trial=trial,
                schedule=schedule,
                base=base,
                control=trials[7 * tree],
                swapped=swapped,
                num_swaps=int(swap_epoch is not None),
                swap_epoch=swap_epoch,
                first_activation="relu",
                first_loss="cross_entropy",
                last_activation=last_activation,
                last_loss=last_loss,
                num_epochs=8,
                status="done",
                num_replicas=num_replicas,
                num_diverged=num_diverged,
                dataset="d000000000000",
                recipe=json.dumps({"model": {"name": "cnn"}}),
                train_s=2.0,
                record_s=0.5,
                host="somewhere",
                provenance=json.dumps({"version": "0.1.0", "commit": "abc"}),
            ),
        )
    for index in range(num_failed):
        trial = f"t{first + num_families + index:012x}"
        tables.write(
            store,
            "trials",
            trial,
            make_rows(
                "trials",
                1,
                trial=trial,
                schedule="0:relu/hinge",
                base=base,
                control=trial,
                swapped="none",
                num_swaps=0,
                num_epochs=8,
                status="failed",
                num_replicas=num_replicas,
                error_type="ValueError",
                error_message="<b>no & such data</b>",
            ),
        )
    return trials


@pytest.fixture
def sweep(tmp_path) -> Callable[..., Store]:
    """A function that writes a synthetic sweep (arguments of `write_sweep`) below a fresh folder and gives its
    store."""
    num_made = 0

    def make(**options: object) -> Store:
        nonlocal num_made
        store = Store(tmp_path / f"sweep{num_made}")
        num_made += 1
        write_sweep(store, **options)
        return store

    return make


@pytest.fixture
def rows() -> Callable[..., dict[str, object]]:
    """`make_rows`: columns of a table from the few that matter."""
    return make_rows


@pytest.fixture
def write() -> Callable[..., list[str]]:
    """`write_sweep`, to add to a store that exists."""
    return write_sweep


def make_tree(
    num_controls: int = 2, lines: tuple[str, ...] = ("tanh", "gelu", "elu", "silu"), epochs: tuple[int, ...] = (2, 4)
) -> pd.DataFrame:
    """Families as `exchange.design` takes them: controls, and from each some lines at some swap epochs."""
    rows = []
    for control in range(num_controls):
        first = f"0:relu{control}/ce"
        rows.append((first, f"c{control}", None, "relu"))
        rows += [(f"{first} {epoch}:{line}/ce", f"c{control}", epoch, line) for line, epoch in product(lines, epochs)]
    table = pd.DataFrame(rows, columns=["schedule", "control", "swap_epoch", "last_activation"]).astype({"swap_epoch": "Int32"})
    return table.assign(trial=[f"t{i:03d}" for i in range(len(rows))], last_loss="ce")


@pytest.fixture
def tree() -> Callable[..., pd.DataFrame]:
    """`make_tree`."""
    return make_tree
