"""Distances between all networks of a store in one layer at one moment, from Parquet to Parquet in bounded memory.

Networks are cut into blocks. First each block is read and prepared, once, and what `Measure.prepare` returned goes to temporary files in
the store; then each tile, a pair of blocks, is a task of its own that reads two such files and returns its distances. Both steps go
through a `map` that the caller may replace (`sweep.pairs` runs them as Ray tasks): a task needs nothing but the store, and at most
`max_bytes` of memory.

The result is a row per network with its distances to all networks as a list, in the order of the rows: unlike a memory map it may lie on
object storage, says what each row is, and can be read a block of rows at a time.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from analysis import activations
from analysis.akp import divergence_epochs, families
from analysis.measures.products import on
from analysis.measures.similarity import MEASURES, Factor
from analysis.storage import TEMPORARY_FOLDER, Store
from analysis.tables import list_array

MAX_BYTES = 2 * 2**30
MIN_BYTES = 2**29
MAX_BLOCK = 1024  # networks: tiles small enough for a progress bar and for a cluster
NUM_TIMED = 4  # networks measured beforehand, for the sizes of blocks and the ETA
ROWS_AT_ONCE = 256  # of the result, per row group

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Part:
    """Some replicas of one family."""

    trial: str
    epoch: int
    first: int
    present: tuple[bool, ...]  # [replica] from `first` on; False where it had diverged


@dataclass(frozen=True)
class Job:
    """What the tasks have in common. Small, and whole wherever it is sent."""

    root: str
    scratch: str
    key: str
    measure: str
    layer: str
    moment: str
    device: str  # of the products, see measures.products.on

    def read(self, part: Part) -> tuple[np.ndarray, pd.DataFrame]:
        """The representations `[replica, row, feature]` of a part."""
        replicas = range(part.first, part.first + len(part.present))
        return activations.read(Store(self.root), part.trial, self.layer, self.moment, part.epoch, replicas)

    def factors(self, X: np.ndarray, rows: pd.DataFrame, present: Sequence[bool]) -> list[Factor]:
        """What the measure keeps of each network of X `[network, row, feature]`."""
        measure = MEASURES[self.measure]
        labels = rows["label"].to_numpy() if measure.needs_labels else None
        with on(self.device):
            return measure.prepare_all([x if there else None for x, there in zip(X, present, strict=True)], labels)

    def prepare(self, block: tuple[int, Sequence[Part]]) -> tuple[np.ndarray, pd.DataFrame, str]:
        """Read and prepare one block. Returns which of its networks have a representation `[network]`, the rows probed, and the family
        that they are of."""
        number, parts = block
        factors: list[Factor] = []
        probed = pd.DataFrame()
        for part in parts:
            X, rows = self.read(part)
            if probed.empty:
                probed = rows
            activations.check_same_rows(probed, rows, parts[0].trial, part.trial)
            factors += self.factors(X, rows, part.present)
        arrays: dict[str, Any] = {
            f"{network}.{item}": array
            for network, factor in enumerate(factors)
            if factor is not None
            for item, array in enumerate(factor if isinstance(factor, tuple) else (factor,))
        }
        size = np.array([0 if f is None else len(f) if isinstance(f, tuple) else -1 for f in factors])
        Store(self.scratch).write_with(self.file(number), lambda sink: np.savez(sink, size=size, **arrays))
        return size != 0, probed, parts[0].trial

    def tile(self, blocks: tuple[int, int]) -> np.ndarray:
        """Distances `[network of the first block, network of the second]`, float32."""
        measure, (first, second) = MEASURES[self.measure], blocks
        factors = self.load(first)
        with on(self.device):
            found = measure.pairwise(factors) if first == second else measure.between(factors, self.load(second))
        return found.astype(np.float32)

    def load(self, number: int) -> list[Any]:
        store = Store(self.scratch)
        with store.filesystem.open_input_file(store.path(self.file(number))) as source, np.load(source) as arrays:
            return [
                None if size == 0 else arrays[f"{n}.0"] if size < 0 else tuple(arrays[f"{n}.{item}"] for item in range(size))
                for n, size in enumerate(arrays["size"])
            ]

    def file(self, number: int) -> str:
        return f"{TEMPORARY_FOLDER}/pairs-{self.key}-{number}"


@dataclass(frozen=True)
class Pairs:
    """Distances between all networks, and which network each row is."""

    distances: np.ndarray  # [network, network] float32, a memory map of a temporary file; rows and columns of `dropped` ones are NaN
    networks: pd.DataFrame  # [network] trial, schedule, replica, epoch, num_samples, width, dropped
    measure: str
    layer: str
    moment: str
    num_left_out: int  # finished families that are not compared: of another base recipe or probes, or without this moment
    seconds: float

    @property
    def name(self) -> str:
        """The name of its table, `pairs_<measure>_<layer>_<moment>`; with moment `epoch`, the epoch behind it."""
        return f"pairs_{self.measure}_{self.layer}_{self.moment}" + (f"_{self.networks['epoch'].iloc[0]}" if self.moment == "epoch" else "")

    def write(self, store: Store) -> str:
        """Write analysis/pairs_*.parquet, a row per network, and return its name in the store."""
        about = {"measure": self.measure, "layer": self.layer, "moment": self.moment, "estimator": MEASURES[self.measure].title}
        rows = pa.Table.from_pandas(self.networks.assign(**about), preserve_index=False)
        schema = rows.schema.append(pa.field("distances", pa.list_(pa.float32())))
        dictionary = [field.name for field in rows.schema if not pa.types.is_floating(field.type)]
        encoding = {"distances.list.element": "BYTE_STREAM_SPLIT"}

        def fill(sink: Any) -> None:
            with pq.ParquetWriter(
                sink, schema, compression="zstd", compression_level=1, use_dictionary=dictionary, column_encoding=encoding
            ) as writer:
                for start in range(0, len(self.distances), ROWS_AT_ONCE):
                    part = list_array(np.asarray(self.distances[start : start + ROWS_AT_ONCE]))
                    writer.write_table(rows.slice(start, ROWS_AT_ONCE).append_column("distances", part).cast(schema))

        store.write_with(f"analysis/{self.name}.parquet", fill)
        return f"analysis/{self.name}.parquet"


def all_pairs(
    store: Store,
    measure: str,
    layer: str,
    moment: str = "end",
    *,
    epoch: int | None = None,
    only: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
    device: str = "cpu",
    map: Map = map,
    scratch: Store | None = None,
    console: Console | None = None,
) -> Pairs:
    """Distances between all networks of the families in `only`, by default those of the most frequent base recipe and probes.

    `max_bytes` bounds the arrays that a task holds at once; the interpreter and its libraries take some 200 MB besides, and the result is
    written to a temporary file (TMPDIR) as it comes. Prepared networks lie in `scratch`, by default the store itself, until the end.
    `device` takes the matrix products, `cpu` by numpy or a device of torch. With a console, shows one bar over everything with the time
    left. Raises UnknownName for a measure, layer, moment or epoch that is not there, and ValueError where networks were probed on other
    samples, one pair does not fit into `max_bytes` or there is no such device.
    """
    began = time.monotonic()
    MEASURES.resolve(measure)
    if max_bytes < MIN_BYTES:
        raise ValueError(f"max_bytes {max_bytes} is below the least, {MIN_BYTES} ({MIN_BYTES // 2**20} MiB)")
    trials = families(store, only)
    rows = activations.chosen(activations.recorded(store, trials["trial"].tolist()), layer, moment, epoch, store.root)
    rows = rows.merge(trials[["trial", "schedule", "num_replicas"]], on="trial")
    rows["num_samples"] = rows["num_rows"] // rows["num_replicas"]
    job = Job(store.address, (scratch or store).address, uuid.uuid4().hex, measure, layer, moment, device)
    parts = _parts(store, rows)
    factor_bytes, prepare_s, pair_s = _measured(job, parts)
    factor_bytes = int(factor_bytes * rows["width"].max() / rows["width"].min())
    # Of the budget two blocks of factors take a quarter, a kernel's copies of them another, its results [2 block, 2 block] a third one.
    size = min(MAX_BLOCK, int((max_bytes / 512) ** 0.5), max_bytes // (8 * factor_bytes))
    if size < 1:
        raise ValueError(
            f"max_bytes {max_bytes} is too little for layer {layer!r}: one prepared network has {factor_bytes} bytes, allow 8 times that"
        )
    blocks = list(_blocks(parts, size))
    starts = np.cumsum([0, *(sum(len(part.present) for part in block) for block in blocks)])
    num_networks = int(starts[-1])
    symmetric = MEASURES[measure].symmetric
    tiles = [(i, j) for i in range(len(blocks)) for j in range(i if symmetric else 0, len(blocks))]
    valid, probed, family = np.zeros(num_networks, dtype=bool), pd.DataFrame(), ""
    with TemporaryFile() as result, _bar(console) as bar:  # the memory map keeps the file
        area = float(sum(np.diff(starts)[i] * np.diff(starts)[j] for i, j in tiles))
        task = bar.add_task(f"{num_networks} networks, {measure}, {layer}, {moment}", total=prepare_s * num_networks + pair_s * area)
        try:
            for number, (present, here, trial) in enumerate(map(job.prepare, list(enumerate(blocks)))):
                probed, family = (here, trial) if probed.empty else (probed, family)
                activations.check_same_rows(probed, here, family, trial)
                valid[starts[number] : starts[number + 1]] = present
                bar.advance(task, prepare_s * len(present))
            for (i, j), found in zip(tiles, map(job.tile, tiles), strict=True):
                _put(result, found, starts[i], starts[j], num_networks)
                if symmetric and i != j:
                    _put(result, found.T, starts[j], starts[i], num_networks)
                bar.advance(task, pair_s * found.size)
        finally:
            for number in range(len(blocks)):
                (scratch or store).delete(job.file(number))
        result.flush()
        distances = np.memmap(result, np.float32, "r", shape=(num_networks, num_networks))
    networks = rows.loc[rows.index.repeat(rows["num_replicas"]), ["trial", "schedule", "epoch", "num_samples", "width"]].reset_index(
        drop=True
    )
    networks.insert(2, "replica", np.concatenate([np.arange(n, dtype=np.int16) for n in rows["num_replicas"]]))
    num_left_out = len(store.names("activations", ".parquet")) - len(rows)
    return Pairs(distances, networks.assign(dropped=~valid), measure, layer, moment, num_left_out, time.monotonic() - began)


def _parts(store: Store, rows: pd.DataFrame) -> list[Part]:
    """One part per family, whole."""
    diverged_at = divergence_epochs(store, rows["trial"].tolist())
    return [
        Part(row["trial"], row["epoch"], 0, tuple(bool(there) for there in diverged_at[row["trial"]] > row["epoch"]))
        for row in rows.to_dict("records")
    ]


def _blocks(parts: Iterable[Part], size: int) -> Iterator[list[Part]]:
    """Blocks of `size` networks, families cut where a block is full."""
    block: list[Part] = []
    room = size
    for part in parts:
        while part.present:
            taken = replace(part, present=part.present[:room])
            block.append(taken)
            room -= len(taken.present)
            part = replace(part, first=part.first + len(taken.present), present=part.present[len(taken.present) :])
            if room == 0:
                yield block
                block, room = [], size
    if block:
        yield block


def _measured(job: Job, parts: Sequence[Part]) -> tuple[int, float, float]:
    """Bytes of one prepared network, seconds to read and prepare one, and seconds for a pair, from the first few that there are."""
    for part in parts:
        began = time.perf_counter()
        few = replace(part, present=part.present[:NUM_TIMED])
        X, rows = job.read(few)
        factors = job.factors(X, rows, few.present)
        prepared = time.perf_counter()
        if any(factor is not None for factor in factors):
            with on(job.device):
                MEASURES[job.measure].pairwise(factors)
            num_bytes = max(sum(a.nbytes for a in (f if isinstance(f, tuple) else (f,))) for f in factors if f is not None)
            return max(num_bytes, 1), (prepared - began) / len(X), (time.perf_counter() - prepared) / len(X) ** 2
    return 1, 1.0, 1.0


def _put(file: IO[bytes], tile: np.ndarray, row: int, column: int, num_networks: int) -> None:
    """Write a tile `[network, network]` into the matrix on disk. A map of it would count as this process's memory."""
    for offset, values in enumerate(np.ascontiguousarray(tile)):
        file.seek(4 * (int(row + offset) * num_networks + int(column)))
        file.write(values.data)


def _bar(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=console is None)
