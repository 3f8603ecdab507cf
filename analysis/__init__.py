"""What it means: arrays and tables in, answers out. Imports nothing else of this project, and neither Ray nor torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.results import Results


def load(path: str | os.PathLike[str]) -> Results:
    """The results of a sweep, from a folder or a URI (`s3://`, `gs://`, `file://`): tables as DataFrames, layers as arrays.

    Reads nothing but the names of the files yet. Raises FileNotFoundError where there are no results.
    """
    from analysis.results import Results  # pandas and pyarrow, which `import analysis` need not wait for

    return Results(path)
