"""A figure of matplotlib as a chart of the page: every panel and entry of the key an SVG of its own, a PNG of the whole, and its rows.

Panels of their own stand beside each other on a wide screen and below each other on a phone, at the size at which they can be read.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.chart import Chart, Panel
from analysis.inline import Part, parts

MAX_SVG_BYTES = 1_000_000  # of a drawing; beyond, its marks are a bitmap
DPI = 150  # of PNGs and of marks as a bitmap
_ROOM_PT = 2.0
_KEY_PT = 15.0  # high
_OTHER_FONT = 0.1  # how much wider the page's font may be than that of the PNG
_SETTINGS = threading.Lock()  # matplotlib's are global


@dataclass(frozen=True)
class Drawing:
    """A figure, the rows that were drawn in it, a row per mark, and its panels; without panels it is one sheet of pictures."""

    figure: Figure = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    panels: Sequence[Axes] = ()

    def png(self) -> bytes:
        """The whole figure, title and key included."""
        sink = io.BytesIO()
        self.figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
        return sink.getvalue()

    def chart(self, name: str, title: str, sees: str, caption: str) -> Chart:
        """As a chart of this name: `sees` says what to see, `caption` the estimator, n and interval."""
        png = self.png()
        self.figure.set_layout_engine("none")  # what follows must not move what the PNG has
        self.figure.set_dpi(72)  # a pixel is a point, as in SVG
        if not self.panels:
            for text in self.figure.texts:  # the title, which the page has
                text.set_visible(False)
        self._name_groups()
        svg = self._svg()
        drawn = self._panels() if self.panels else [Part(["sheet"], self._around(), "pictures", "plot wide")]
        if self.panels and len(svg) > MAX_SVG_BYTES:
            for panel in self.panels:
                for mark in (*panel.lines, *panel.collections):
                    mark.set_rasterized(True)
            drawn = [replace(part, css="plot marks") for part in drawn]
            svg = self._svg()
        found = parts(svg, drawn + self._key(), name)
        panels, key = [Panel(one) for one in found[: len(drawn)]], found[len(drawn) :]
        return Chart(name, title, sees, caption, panels, self.rows, key=key, png=png)

    def _name_groups(self) -> None:
        self.figure.set_gid("sheet")
        for index, panel in enumerate(self.panels):
            panel.set_gid(f"panel-{index}")
        for index, (mark, text) in enumerate(self._entries()):
            mark.set_gid(f"mark-{index}")
            text.set_gid(f"label-{index}")

    def _entries(self) -> Iterable[tuple[Artist, Text]]:
        for legend in self.figure.legends:
            yield from ((mark, text) for mark, text in zip(legend.legend_handles, legend.get_texts(), strict=True) if mark is not None)

    def _svg(self) -> bytes:
        sink = io.BytesIO()
        with _SETTINGS, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "", "svg.image_inline": True}):
            self.figure.savefig(
                sink, format="svg", dpi=DPI, transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
            )
        return sink.getvalue()

    def _panels(self) -> list[Part]:
        """All of one size, with the margins of the one that needs most, so that their axes are at one height and of one scale."""
        inside = [panel.bbox for panel in self.panels]
        around = [panel.get_tightbbox() or panel.bbox for panel in self.panels]
        left, low = (max(getattr(i, end) - getattr(a, end) for i, a in zip(inside, around, strict=True)) for end in ("x0", "y0"))
        right, high = (max(getattr(a, end) - getattr(i, end) for i, a in zip(inside, around, strict=True)) for end in ("x1", "y1"))
        found = []
        for index, (panel, box) in enumerate(zip(self.panels, inside, strict=True)):
            whole = Bbox.from_extents(box.x0 - left, box.y0 - low, box.x1 + right, box.y1 + high)
            label = ": ".join(filter(None, [panel.get_title("left"), panel.get_ylabel(), panel.get_xlabel()])).replace("\n", " ")
            found.append(Part([f"panel-{index}"], whole.padded(_ROOM_PT), label))
        return found

    def _around(self) -> Bbox:
        return Bbox(self.figure.get_tightbbox().get_points() * 72).padded(_ROOM_PT)

    def _key(self) -> list[Part]:
        """A mark and its label each, all of one height. They lie where they were drawn last."""
        found = []
        for index, (mark, text) in enumerate(self._entries()):
            start, end = mark.get_window_extent(), text.get_window_extent()
            middle, right = (start.y0 + start.y1) / 2, end.x1 + _OTHER_FONT * end.width
            box = Bbox.from_extents(start.x0 - _ROOM_PT, middle - _KEY_PT / 2, right + _ROOM_PT, middle + _KEY_PT / 2)
            found.append(Part([f"mark-{index}", f"label-{index}"], box, text.get_text(), "key"))
        return found


def charts(drawn: Mapping[str, tuple[Drawing | None, str, str, str]]) -> list[Chart]:
    """What there is to draw of these names, each with its title, what to see, and caption."""
    return [drawing.chart(name, *words) for name, (drawing, *words) in drawn.items() if drawing is not None]
