"""Plots as SVG: two linear axes and marks, every text escaped. Colours are classes of page/chart.css: light and dark are one drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

from analysis.html import number

# Around the point at which a path stands: the marker of what was swapped, as `figures.SWAPPED` has colours and markers for matplotlib.
MARKERS = {
    "none": "m-4.4 0a4.4 4.4 0 1 0 8.8 0a4.4 4.4 0 1 0-8.8 0z",
    "activation": "m0-5.4l4.9 8.6h-9.8z",
    "loss": "m-4-4h8v8h-8z",
    "both": "m0-5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "other": "m0 5.4l-4.9-8.6h9.8z",
}
KINDS = {
    "none": "no swap (control)",
    "activation": "activation swapped",
    "loss": "loss swapped",
    "both": "both swapped",
    "other": "something else swapped",
}


def kind(swapped: object) -> str:
    """The class of what was swapped, for colour and marker."""
    return swapped if isinstance(swapped, str) and swapped in KINDS else "other"


def family(trial: str, swapped: object, marks: str) -> str:
    """What stands for one family: pointing at it tells of it, a click isolates it. Points are corners of the last of its marks."""
    return f'<g data-f="{escape(trial)}" class="{kind(swapped)}">{marks}</g>'


def text(x: float, y: float, words: str, css: str = "tick", anchor: str = "middle") -> str:
    return f'<text x="{x:.5g}" y="{y:.5g}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def tidy(value: float) -> str:
    """A tick's number: no rounding noise, a real minus sign."""
    return f"{value:.6g}".replace("-", "−")


def at(values: Iterable[float]) -> list[str]:
    """Coordinates to a tenth of a unit, as short as can be: they are most of a large page."""
    return [f"{value:.1f}".removesuffix(".0") for value in values]


@dataclass
class Plot:
    """A plot of so many units; `x` and `y` are the ends of its axes. Marks are drawn in the order in which they are added."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    title: str = ""
    width: int = 560
    height: int = 400
    left: int = 74
    right: int = 14
    top: int = 26
    bottom: int = 46
    x_ticks: Sequence[tuple[float, str]] | None = None  # where, and what it says; None: round numbers
    marks: list[str] = field(default_factory=list)

    def at_x(self, values: np.ndarray) -> np.ndarray:
        low, high = self.x
        return self.left + (np.asarray(values, dtype=np.float64) - low) / (high - low) * (self.width - self.left - self.right)

    def at_y(self, values: np.ndarray) -> np.ndarray:
        low, high = self.y
        return (
            self.height - self.bottom - (np.asarray(values, dtype=np.float64) - low) / (high - low) * (self.height - self.top - self.bottom)
        )

    def add(self, *marks: str) -> None:
        self.marks += marks

    def render(self) -> str:
        """The element. Pointing beside a mark in it finds the nearest."""
        right, floor = self.width - self.right, self.height - self.bottom
        parts = []
        for value in _ticks(self.y, 6):
            y = float(self.at_y(np.array(value)))
            parts += [f'<path class="grid" d="M{self.left} {y:.1f}H{right}"/>', text(self.left - 7, y + 4, tidy(value), anchor="end")]
        for value, words in self.x_ticks or [(tick, tidy(tick)) for tick in _ticks(self.x, 7)]:
            x = float(self.at_x(np.array(value)))
            parts += [f'<path class="grid" d="M{x:.1f} {self.top}V{floor}"/>', text(x, floor + 17, words)]
        parts.append(text((self.left + right) / 2, self.height - 8, self.x_label, "label"))
        middle = (self.top + floor) / 2
        parts.append(f'<g transform="rotate(-90 14 {middle})">{text(14, middle, self.y_label, "label")}</g>')
        parts.append(text(self.left, 15, self.title, "title", "start"))
        return element(self.width, self.height, "".join(parts) + "".join(self.marks), f"{self.title}: {self.y_label}", " snap")


def element(width: int, height: int, body: str, label: str, css: str = "") -> str:
    return (
        f'<svg class="plot{css}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def extent(*values: np.ndarray, room: float = 0.05) -> tuple[float, float]:
    """From the smallest to the largest finite value with some room; one wide around a single one."""
    every = np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    reach = (high - low) * room if high > low else max(abs(low), 1.0) * 0.5
    return low - reach, high + reach


def _ticks(ends: tuple[float, float], most: int) -> list[float]:
    return [float(tick) for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends) if ends[0] <= tick <= ends[1]]


def shown(value: float, error: float) -> str:
    """A mean with its standard error, where it has one."""
    return f"{number(value)} ± {number(error, 2)}" if np.isfinite(error) else number(value)
