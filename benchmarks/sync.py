"""What it costs a family that its files are synced before they are renamed.

    python benchmarks/sync.py results/cells [repeats]

Writes the files of one finished family again, below the folder of the results, with and without `os.fsync`, in turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis import tables
from analysis.storage import Store


def main(root: str, repeats: int) -> None:
    store, sync = Store(root), os.fsync
    trial = tables.names(store, "trials")[0]
    names = [f"{table}/{trial}.parquet" for table in tables.TABLES if trial in tables.names(store, table)]
    files = {name: store.read(name) for name in names}
    found: dict[str, list[float]] = {"synced": [], "not synced": []}
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for repeat in range(repeats):
            for how, times in found.items():
                os.fsync = sync if how == "synced" else lambda fd: None
                began = time.perf_counter()
                for name, data in files.items():
                    Store(folder).write(name.replace(trial, f"{repeat}-{how[0]}"), data)
                times.append(1e3 * (time.perf_counter() - began))
    print(f"{len(files)} files, {sum(map(len, files.values())) / 1e6:.2f} MB, n = {repeats}")
    for how, times in found.items():
        low, *_, high = statistics.quantiles(times, n=20)
        print(f"{how}: {statistics.median(times):.1f} ms per family, 90 % within [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
