"""What the contract of a table is made of: its columns, their types, units and meanings."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

TEXT, FLOAT, INT, SHORT, FLAG = pa.string(), pa.float32(), pa.int32(), pa.int16(), pa.bool_()


@dataclass(frozen=True)
class Column:
    """One column. `volatile` marks timings and provenance: all else is bit for bit the same in every run of a sweep."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    volatile: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])

    @property
    def stable(self) -> list[str]:
        """The columns that do not depend on when, where and in how many attempts the family ran."""
        return [c.name for c in self.columns if not c.volatile]


VERSION = Column("schema_version", SHORT, "version of this schema; readers refuse a newer one")
TRIAL = Column("trial", TEXT, "the family's id: t and 12 hexadecimal digits")
SCHEDULE = Column("schedule", TEXT, "what was in force when: `epoch:activation/loss`, phases separated by a space")
REPLICA = Column("replica", SHORT, "index of the network within its family")
EPOCH = Column("epoch", INT, "completed epochs; 0 is before any training", "epochs")
