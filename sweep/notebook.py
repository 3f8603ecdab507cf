"""In a notebook: one line in the cell's output that is replaced while a sweep runs, in place of a line per family."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

EVERY_S = 0.5


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel. Imports nothing."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Bar:
    """A bar and a line of text. Outputs that are replaced are IPython's own: no widgets to be installed."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown_at = 0.0

    def show(self, share: float, text: str, is_last: bool = False) -> None:
        """`share` of the work is done. Shown every `EVERY_S` at most, the last one always."""
        if not is_last and time.monotonic() - self._shown_at < EVERY_S:
            return
        self._shown_at = time.monotonic()
        data = {"text/html": f'<progress value="{share:.4f}" max="1"></progress> {escape(text)}', "text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
