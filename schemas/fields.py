"""The vocabulary of a field table: what a column can be, said once.

A :class:`Table` is the single truth about one record. :mod:`schemas.derived.arrow`,
:mod:`schemas.derived.kernel_rows`, :mod:`schemas.derived.sql`, :mod:`schemas.derived.avro` and
:mod:`schemas.derived.expectations` only translate it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Kind(Enum):
    """What a column holds. The comment is its Arrow type."""

    SHARD = "shard"  # int64; see schemas.shards
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    BOOL = "bool"
    DECIMAL = "decimal"  # decimal128(28, 12): prices, sizes, quantities
    SUM = "sum"  # decimal128(38, 12): products and sums
    TIME = "time"  # timestamp[ns, UTC]
    CODE = "code"  # dictionary<int8, string> of one of schemas.codes
    NAME = "name"  # dictionary<int32, string>: symbol, venue, account ...
    ID = "id"  # string: order and trade ids, exact 128-bit form in kernels
    TEXT = "text"  # string
    BYTES = "bytes"  # large_binary
    DECIMALS = "decimals"  # list<decimal128(28, 12)>, best first
    COUNTS = "counts"  # list<int32>


@dataclass(frozen=True, slots=True)
class Field:
    """One column.

    ``codes`` names the enum of a CODE column; ``unit`` and ``doc`` go into the Arrow metadata;
    ``positive`` marks values that must be > 0 and ``non_negative`` those that must be >= 0
    (both become base expectations).
    """

    name: str
    kind: Kind
    doc: str
    nullable: bool = False
    codes: type[IntEnum] | None = None
    unit: str = ""
    positive: bool = False
    non_negative: bool = False

    def __post_init__(self) -> None:
        assert (self.kind is Kind.CODE) == (self.codes is not None), self.name

    @property
    def measure(self) -> str:
        """The unit, also where the kind says it; empty for what is only counted or named."""
        return "ns, UTC" if self.kind is Kind.TIME else self.unit


@dataclass(frozen=True, slots=True)
class Table:
    """One record type.

    ``time_field`` decides the hive ``date`` (its UTC date) and the hypertable dimension;
    ``sort_fields`` is the order inside a lake file; ``identity`` is (shard, row_sequence) for all.
    ``version`` rises with every change of fields: new ones are appended and nullable, a required
    one may become nullable, an integer wider. A null of a CODE column is its first code: rows older
    than the column are that.
    """

    name: str
    version: int
    doc: str
    time_field: str
    fields: tuple[Field, ...]
    sort_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        assert len(set(names)) == len(names), f"{self.name}: a field is named twice"
        assert self.time_field in names, self.name
        assert set(self.sort_fields) <= set(names), self.name

    def field(self, name: str) -> Field:
        """The field called ``name``; KeyError with the known names otherwise."""
        for field in self.fields:
            if field.name == name:
                return field
        known = ", ".join(f.name for f in self.fields)
        raise KeyError(f"{self.name} has no field {name!r}; it has {known}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @property
    def has_venue(self) -> bool:
        return any(f.name == "venue" for f in self.fields)
