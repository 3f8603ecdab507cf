"""What a run says, kept with its results: `logs/<run>.log`, to be read from wherever the results can be."""

from __future__ import annotations

import io
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, NewLine
from rich.control import Control

if TYPE_CHECKING:  # --help must not wait for pyarrow
    from analysis.storage import Store
    from sweep.notebook import Bar

LOGS = "logs"
EVERY_S = 15.0  # an object store has no appending: a log is written anew, and not for every line


class RunLog(Console):
    """A console that keeps in a store what it prints. Written every so often, and by `write`.

    A `quiet` one shows nothing but what went `wrong`, on standard error, and keeps all; a `verbose` one shows `detail`, too. One in a
    notebook shows a bar in place of what is one of many.
    """

    def __init__(self, verbose: bool = False, bar: Bar | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._verbose, self.bar = verbose, bar
        self._kept = Console(file=io.StringIO(), width=200, soft_wrap=True, highlight=False, color_system=None, force_jupyter=False)
        self._store: Store | None = None
        self._written_at, self._num_written = -EVERY_S, 0
        self.name = f"{LOGS}/r{datetime.now(UTC):%Y%m%dt%H%M%S%f}.log"

    def keep_in(self, store: Store) -> None:
        """Where the log is to lie; until this is known nothing is written. From now on it is there: a run has begun."""
        self._store = store
        self.write()

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **options)
        if objects and all(isinstance(one, Control | NewLine) for one in objects):
            return  # a live line refreshing itself
        self._keep(*objects, **options)

    def _keep(self, *objects: Any, **options: Any) -> None:
        self._kept.file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  ")
        self._kept.print(*objects, **options)
        if time.monotonic() - self._written_at > EVERY_S:
            self.write()

    def one_of_many(self, text: str) -> None:
        """Print a line on one of the families; where a bar says how far all are, it is kept only."""
        (self.print if self.bar is None else self._keep)(text, markup=False, highlight=False)

    def wrong(self, text: str) -> None:
        """Print what went wrong, even if quiet."""
        self.print(printable(text), style="red", markup=False, highlight=False)
        if self.quiet:
            Console(stderr=True, soft_wrap=True).print(printable(text), style="red", markup=False, highlight=False)

    def detail(self, text: str) -> None:
        """Print what few want to know."""
        if self._verbose:
            self.print(printable(text), markup=False, highlight=False)

    def write(self) -> None:
        """Write what was printed so far, if any of it is new. A store that fails costs the log only."""
        text = self._kept.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
        if self._store is None or len(text) == self._num_written:
            return
        self._written_at, self._num_written = time.monotonic(), len(text)
        try:
            self._store.write(self.name, text.encode())
        except OSError as error:
            super().print(f"note: the log cannot be written: {error}", markup=False)


def printable(text: str) -> str:
    """Text from a file or an exception for a terminal: control characters, which could move the cursor or worse, become visible."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: repr(found.group())[1:-1], text)


def latest(store: Store) -> str | None:
    """The file of the newest log; None if there is none."""
    names = store.names(LOGS, ".log")
    return f"{LOGS}/{names[-1]}" if names else None
