"""What a question is: it is asked of the tables of a sweep, and answers with tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pandas as pd

from analysis.chart import Chart
from analysis.storage import Store


@dataclass(frozen=True)
class Asked:
    """What every question is given: the tables, what of them is analysed, and how it is tested.

    `only` are the ids of the families, `layers` and `moments` names; None stands for all. `gaps` is the table of
    `measures.generalization.gaps`, `spreads` that of `akp.spreads`.
    """

    store: Store
    gaps: pd.DataFrame
    spreads: pd.DataFrame
    only: Collection[str] | None = None
    layers: Collection[str] | None = None
    moments: Collection[str] | None = None
    alpha: float = 0.05
    num_permutations: int = 9999
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """What a question found, under a title.

    `lines` are sentences, for the console and the page. `tables` are written to analysis/<name>.parquet and `charts` are drawn
    into the page and to figures/<name>.svg, and those of matplotlib (`analysis/drawing.py`) to figures/<name>.png, too; `shown` are tables
    on the page, each with a caption that names estimator, n and interval. Where there is nothing to ask, all are empty and `reason` says
    why in one line.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    shown: list[tuple[pd.DataFrame, str]] = field(default_factory=list)
    reason: str = ""
    charts: list[Chart] = field(default_factory=list)


Question = Callable[[Asked], Found]
