"""What it means: arrays and tables in, answers out. Imports nothing else of this project, and neither Ray nor torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.compare import Comparison
    from analysis.results import Results


def load(path: str | os.PathLike[str], *more: str | os.PathLike[str]) -> Results:
    """The results of a sweep, from a folder or a URI (`s3://`, `gs://`, `file://`): tables as DataFrames, layers as arrays.

    Several are read as one sweep that varies what they differ in; a family that several have is read from the first. Reads nothing but
    the names of the files and the sweep files yet. Raises FileNotFoundError where there are no results, ValueError where several differ in
    what one sweep cannot vary.
    """
    from analysis.results import Results  # pandas and pyarrow, which `import analysis` need not wait for

    if not more:
        return Results(path)
    from analysis.union import opened

    return Results(opened([os.fspath(one) for one in (path, *more)]))


def diff(a: str | os.PathLike[str] | Results, b: str | os.PathLike[str] | Results) -> Comparison:
    """In what two sweeps differ: configuration, provenance, and results with intervals. `analysis.compare.families` compares families.

    Raises FileNotFoundError where there are no results.
    """
    from analysis import compare

    return compare.sweeps(*(load(one) if isinstance(one, (str, os.PathLike)) else one for one in (a, b)))
