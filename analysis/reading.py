"""Opening what a sweep has written. What cannot be read is told by its name, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.storage import Store, Unreachable, answering


class Unreadable(ValueError):
    """A file of the results that is not what its place says."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """What is read inside is this file.

    Raises Unreadable where it is torn or foreign, FileNotFoundError where it is absent, Unreachable where nothing can be said of it.
    """
    try:
        with answering(path):
            yield
    except Unreachable:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: is missing, though the results name it; {_advice(path)}") from None
    except (Unreadable, pa.ArrowException, OSError) as error:
        raise Unreadable(f"{path}: cannot be read: {' '.join(str(error).split())}; {_advice(path)}") from error


def _advice(path: str) -> str:
    if PurePosixPath(path).parent.name == "analysis":
        return "`python -m analysis` writes it anew"
    if PurePosixPath(path).parent.name in ("samples", "image_statistics", "hull_pixels", "warps"):
        return "the sweep writes it anew where it is removed"
    if PurePosixPath(path).parent.name == "runs":
        return "it tells of one run of the command only, and may be removed"
    return "the sweep trains a family anew whose file in trials/ is removed"


@contextmanager
def parquet(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of a store, open for reading; errors as those of `reading`."""
    with reading(f"{store.root}/{name}"), store.filesystem.open_input_file(store.path(name)) as source:
        yield pq.ParquetFile(source, page_checksum_verification=True)
