"""The journal of an Optuna study on an object store, which knows no appending: an object per entry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from analysis.storage import Store


class StoreJournal(BaseJournalBackend):
    """Entries in `<folder>/<number>-<unique>.json`, each written whole, in the order of their names.

    One process writes to a study at a time, so entries are listed once, when they are first read, and kept from there on. Should two
    processes write, neither overwrites what the other wrote; who reads afterwards sees both.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder = store, folder
        self._logs: list[dict[str, Any]] | None = None
        self._num_entries = 0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._read()[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        kept = self._read()
        self.store.write(f"{self.folder}/{self._num_entries:09d}-{uuid.uuid4().hex[:12]}.json", json.dumps(logs).encode())
        self._num_entries += 1
        kept += logs

    def _read(self) -> list[dict[str, Any]]:
        if self._logs is None:
            names = self.store.names(self.folder, ".json")
            entries = self.store.each(lambda name: json.loads(self.store.read(f"{self.folder}/{name}")), names)
            self._logs, self._num_entries = [log for entry in entries for log in entry], len(names)
        return self._logs
