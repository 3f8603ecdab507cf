"""A chart of the page: panels of SVG, a sentence on what to see, how its numbers were made, and the data behind it."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

PAGE = Path(__file__).parent / "page"
MAX_CELLS = 200_000  # of a table inside the page, some 500 kB


@dataclass(frozen=True)
class Panel:
    """An SVG element. Of the panels that have a layer, or a predictor of the gap (`by`), the page shows those chosen there."""

    svg: str
    layer: str = ""
    by: str = ""


@dataclass(frozen=True)
class Chart:
    """One idea, drawn once: the page has it inline, and figures/<name>.svg is the same drawing with all panels beside each other."""

    name: str
    title: str
    sees: str  # what there is to see, in a sentence
    caption: str  # estimator, n and interval
    panels: list[Panel]
    data: pd.DataFrame = field(repr=False)  # what is drawn, a row per mark
    together: bool = False  # whether a wide screen shows all layers at once
    key: Sequence[str] = ()  # SVG elements: what the marks are, where the panels do not say it themselves
    png: bytes = field(default=b"", repr=False)  # a twin of the whole, of what matplotlib drew

    def html(self, layer: str = "", by: str = "") -> str:
        """As a figure of the page, showing this layer and predictor at first."""
        layers = list(dict.fromkeys(panel.layer for panel in self.panels if panel.layer))
        bys = list(dict.fromkeys(panel.by for panel in self.panels if panel.by))
        layer = layer if layer in layers else (layers or [""])[0]
        by = by if by in bys else (bys or [""])[0]
        switch = choices("layer", {name: name for name in layers}, layer)
        key = f"<div class='key'>{''.join(self.key)}</div>" if self.key else ""
        css = "together" if self.together else "drawn" if self.png else ""
        panels = [_marked(panel.svg, panel.layer, panel.by, panel.layer in ("", layer) and panel.by in ("", by)) for panel in self.panels]
        return (
            f"<figure id='{escape(self.name)}'{f' class={css}' if css else ''}><h3>{escape(self.title)}</h3>"
            f"<p class='sees'>{escape(self.sees)}</p>"
            f"{switch}{key}<div class='panels'>{''.join(panels)}</div>"
            f"<figcaption>{escape(self.caption)} {download(self.name, self.data)} <button class='save' hidden>SVG</button></figcaption>"
            "</figure>"
        )

    def file(self) -> bytes:
        """All panels as one SVG file, two beside each other, that follows the light or dark of where it is shown."""
        sizes = [_size(panel.svg) for panel in self.panels]
        wide, high, columns = max(width for width, _ in sizes), max(height for _, height in sizes), min(2, len(self.panels))
        width, x, y, key = max(wide * columns, *(_size(entry)[0] for entry in self.key), 0), 0, 30, []
        for entry in self.key:
            length, below = _size(entry)
            x, y = (0, y + below) if x + length > width else (x, y)
            key.append(_placed(entry, x, y))
            x += length
        top = y + _size(self.key[-1])[1] + 8 if self.key else 30
        placed = [_placed(panel.svg, wide * (i % columns), top + high * (i // columns)) for i, panel in enumerate(self.panels)]
        height = top + high * -(-len(placed) // columns)
        style = (PAGE / "chart.css").read_text(encoding="utf-8")
        body = f'<rect class="paper" width="100%" height="100%"/><text class="title" x="14" y="20">{escape(self.title)}</text>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
            f"<style>{style}</style>{body}{''.join([*key, *placed])}</svg>\n"
        ).encode()


def too_large(charts: Iterable[Chart]) -> dict[str, pd.DataFrame]:
    """The data that the page does not hold but names as analysis/<name>.parquet."""
    return {chart.name: chart.data for chart in charts if chart.data.size > MAX_CELLS}


def _size(svg: str) -> tuple[int, int]:
    """Width and height in pixels of an element that says so."""
    found = re.search(r'width="(\d+)" height="(\d+)"', svg)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _placed(svg: str, x: int, y: int) -> str:
    return svg.replace("<svg ", f'<svg x="{x}" y="{y}" ', 1)


def choices(what: str, names: Mapping[str, str], chosen: str) -> str:
    """Buttons for one of several layers or predictors, each with what it says; nothing where there is no choice."""
    if len(names) < 2:
        return ""
    buttons = "".join(
        f"<button data-set='{what}' value='{escape(name)}' aria-pressed='{str(name == chosen).lower()}'>{escape(says)}</button>"
        for name, says in names.items()
    )
    label = {"layer": "layer shown", "by": "what generalizing badly means"}[what]
    return f"<span class='choices' role='group' aria-label='{label}'>{buttons}</span>"


def _marked(svg: str, layer: str, by: str, chosen: bool) -> str:
    names = "".join(f" data-{key}='{escape(value)}'" for key, value in (("layer", layer), ("by", by)) if value)
    return f"<div class='panel{' now' if chosen else ''}'{names}>{svg}</div>"


def download(name: str, rows: pd.DataFrame, says: str = "data (CSV)") -> str:
    """A link to the rows as gzipped CSV, inside the page; where they are too many for that, where they lie."""
    if rows.size > MAX_CELLS:
        return f"<code>analysis/{escape(name)}.parquet</code>"
    packed = gzip.compress(rows.to_csv(index=False).encode(), mtime=0)
    data = base64.b64encode(packed).decode()
    return f"<a class='data' download='{escape(name)}.csv.gz' href='data:application/gzip;base64,{data}'>{escape(says)}</a>"
