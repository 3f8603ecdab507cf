"""Tables on a terminal of any width: what has no room in a line stands below its name, and no name is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

GAP = 2


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], num_names: int = 1) -> None:
    """A title, then a line per row under the names of the columns; numbers behind the first `num_names` columns stand to the right.

    Where that is wider than the terminal, each row is its names in a line of their own, and below them a line per number.
    """

    def put(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    console.print(title, markup=False, highlight=False)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) <= console.width:
        for cells in (columns, *rows):
            placed = [c.ljust(w) if i < num_names else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            put((" " * GAP).join(placed).rstrip())
        return
    label = max(map(len, columns[num_names:]), default=0)
    for cells in rows:
        put(" ".join(cells[:num_names]))
        for column, cell in zip(columns[num_names:], cells[num_names:], strict=True):
            put(f"{' ' * GAP}{column.ljust(label)}  {cell}")
