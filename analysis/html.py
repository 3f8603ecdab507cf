"""Numbers and tables as text of the page, everything escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape

import numpy as np
import pandas as pd
from scipy.stats import t as student


def number(value: object, digits: int = 3) -> str:
    """A value as text: numbers to so many significant digits, whole numbers whole, a missing value as a dash."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, (float, np.floating)) and not float(value).is_integer():
        return f"{value:.{digits}g}"
    return f"{int(value)}" if isinstance(value, (float, np.floating)) and np.isfinite(value) else str(value)


def interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]" if np.isfinite(low) else "–"


def table(rows: pd.DataFrame, caption: str = "") -> str:
    """A DataFrame as an HTML table, everything escaped, numbers to the right."""
    if rows.empty:
        return "<p class='soft'>none</p>"
    numeric = [pd.api.types.is_numeric_dtype(rows[column]) for column in rows]

    def cells(values: Iterable[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if right else ''}>{escape(number(value))}</{tag}>"
            for value, right in zip(values, numeric, strict=True)
        )

    lines = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows.itertuples(index=False, name=None))
    return (
        f"{f'<p class=caption>{escape(caption)}</p>' if caption else ''}<div class='scroll'><table>"
        f"<thead><tr>{cells(rows.columns, 'th')}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def with_p(value: float, p: float) -> str:
    return f"{value:+.2f} (p = {number(p, 2)})" if np.isfinite(value) else "–"


def mean_interval(values: Collection[float], confidence: float = 0.95) -> str:
    """The mean of what is finite, with its t interval; a dash where nothing is, and the mean alone of one value."""
    known = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if len(known) < 2:
        return number(float(known[0])) if len(known) else "–"
    mean = known.mean()
    half = student.ppf((1 + confidence) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return f"{mean:.3g} {interval(mean - half, mean + half)}"
