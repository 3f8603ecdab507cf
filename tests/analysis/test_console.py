"""No terminal is too narrow for a name."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from analysis.analyse import analyse
from analysis.console import print_table

COLUMNS = ["measure", "layer", "gap_accuracy [95 %]", "p", "test_error [95 %]", "p"]
ROWS = [
    ["cka", f"features.{i}.conv_depthwise.1.activation", "+0.31 [+0.11, +0.70]", "0.077", "-0.47 [-0.60, -0.20]", "0.24"] for i in (1, 2)
]


def printed(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    print_table(console, "Spread at the end: correlation of aligned ranks over 90 families", COLUMNS, ROWS, num_names=2)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_names_and_numbers_are_whole_at_every_width(width):
    text = printed(width)
    for row in ROWS:
        assert all(any(cell in line for line in text.splitlines()) for cell in row)
    if width >= 60:
        assert max(map(len, text.splitlines())) <= width


def test_a_wide_terminal_has_a_line_per_row():
    assert len(printed(200).splitlines()) == 1 + 1 + len(ROWS)
    assert len(printed(60).splitlines()) == 2 + len(ROWS) * 5


def test_the_analysis_prints_whole_names_at_60_columns(sweep):
    console = Console(width=60, file=io.StringIO())
    analyse(sweep(num_families=14), ["cka"], num_permutations=99, num_dispersion_permutations=19, console=console)
    lines = console.file.getvalue().splitlines()
    assert {"cka block1", "cka block2", "block1", "block2"} <= set(lines)
    assert not any("…" in line for line in lines)
