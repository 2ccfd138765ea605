"""Kernel row layouts: numpy structured dtypes of the tables that kernels write.

Rules of the translation (checked by a test):

- TIME is int64 ns, 0 = null; CODE is its int8; integers are themselves.
- ``venue`` and ``symbol`` together are ``instrument`` (int32 index into the batch's instruments).
- A DECIMAL is an int64 mantissa. All prices of a row share ``price_scale`` and all sizes
  ``size_scale`` (int8), so a row says its value without asking anybody. ``NO_PRICE`` = null.
- A SUM is two words, ``<name>_hi`` (int64) and ``<name>_lo`` (uint64), already at scale 12.
- An ID is ``<name>_hi``, ``<name>_lo`` (uint64) and ``<name>_kind`` (int8, see operators.ids).
- Lists are fixed arrays of DEPTH_LEVELS with one ``<side>_levels`` (int8) count per side.
- ``shard`` and ``row_sequence`` are left out: they are known when the batch is made.
- A nullable INT64 uses ``NO_PRICE`` as null too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables.market_data import DEPTH_LEVELS

_IMPLIED = frozenset({"shard", "row_sequence", "venue", "symbol"})
_SCALED = frozenset({Kind.DECIMAL, Kind.DECIMALS})


def scale_of(field: Field) -> str:
    """Name of the scale column that a DECIMAL(S) field of a kernel row is read with."""
    assert field.kind in _SCALED
    return "size_scale" if "size" in field.name else "price_scale"


def _columns(field: Field) -> list[tuple[str, str] | tuple[str, str, tuple[int]]]:
    name = field.name
    match field.kind:
        case Kind.TIME | Kind.INT64 | Kind.DECIMAL:
            return [(name, "<i8")]
        case Kind.SHARD:
            return [(name, "<i8")]
        case Kind.INT32 | Kind.NAME:
            return [(name, "<i4")]
        case Kind.UINT8:
            return [(name, "u1")]
        case Kind.BOOL | Kind.CODE:
            return [(name, "i1")]
        case Kind.SUM:
            return [(f"{name}_hi", "<i8"), (f"{name}_lo", "<u8")]
        case Kind.ID:
            return [(f"{name}_hi", "<u8"), (f"{name}_lo", "<u8"), (f"{name}_kind", "i1")]
        case Kind.DECIMALS:
            return [(name, "<i8", (DEPTH_LEVELS,))]
        case Kind.COUNTS:
            return [(name, "<i4", (DEPTH_LEVELS,))]
        case _:
            raise TypeError(f"{name}: a {field.kind.value} column has no kernel form")


@cache
def row_dtype(table: Table) -> np.dtype[np.void]:
    """Structured dtype a kernel writes for ``table``; TypeError if the table has text or bytes."""
    columns: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for field in table.fields:
        if field.name not in _IMPLIED:
            columns += _columns(field)
    if table.has_venue:
        columns.append(("instrument", "<i4"))
    scales = {scale_of(f) for f in table.fields if f.kind in _SCALED}
    columns += [(scale, "i1") for scale in sorted(scales)]
    if any(f.kind is Kind.DECIMALS for f in table.fields):
        columns += [("bid_levels", "i1"), ("ask_levels", "i1")]
    # Widest first: natural alignment without padding holes.
    columns.sort(key=lambda c: -np.dtype(c[1]).itemsize)
    return np.dtype(columns, align=True)
