"""The whole analysis on sweeps without an association: a small form of `benchmarks/false_positives.py`, which states rates and power."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from false_positives import World, rates

ANALYSIS = "the analysis"


def test_shared_training_deceives_free_exchange_and_not_the_analysis():
    found = rates(World(), range(40), 199, 2, dispersion=False)
    assert found[ANALYSIS] <= 0.15  # 0.15 of 40: 0.4 % if the rate is 5 %
    assert found["all families exchanged freely"] > found[ANALYSIS]


def test_happy_against_unhappy_keeps_its_level_where_groups_lie_apart():
    found = rates(World(location=3.0), range(12), 99, 2)
    assert found["happy against unhappy: PERMDISP within blocks"] <= 0.34  # 0.3 % if the rate is 5 %


def test_an_effect_is_found():
    assert rates(World(effect=0.9), range(5), 199, 2, dispersion=False)[ANALYSIS] >= 0.6
