"""Slow twin of operators.rows: kernel rows to Python values, one at a time, by
schemas.derived.kernel_rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from marketflow.operators import ids
from marketflow.operators.events import Instruments
from marketflow.schemas import units
from marketflow.schemas.codes import words
from marketflow.schemas.derived.kernel_rows import scale_of
from marketflow.schemas.fields import Field, Kind, Table


def value_of(field: Field, row: np.void, instruments: Instruments) -> Any:
    """The value a user reads; times as int ns."""
    name = field.name
    if name == "venue":
        return instruments.venues[row["instrument"]]
    if name == "symbol":
        return instruments.symbols[row["instrument"]]
    names = row.dtype.names or ()
    if f"{name}_kind" in names:
        return ids.text_of(*(int(row[f"{name}_{part}"]) for part in ("hi", "lo", "kind")))
    if f"{name}_hi" in names:
        return units.to_decimal((int(row[f"{name}_hi"]) << 64) + int(row[f"{name}_lo"]), 12)
    value = row[name]
    match field.kind:
        case Kind.DECIMALS:
            levels = int(row[f"{name[:3]}_levels"])
            return [units.to_decimal(int(v), int(row[scale_of(field)])) for v in value[:levels]]
        case Kind.COUNTS:
            return value[: int(row[f"{name[:3]}_levels"])].tolist()
        case Kind.DECIMAL if value != units.NO_PRICE:
            return units.to_decimal(int(value), int(row[scale_of(field)]))
        case Kind.CODE:
            assert field.codes is not None
            return words(field.codes)[value]
        case Kind.BOOL:
            return bool(value)
        case Kind.TIME if field.nullable and value == 0:
            return None
        case Kind.DECIMAL | Kind.INT64 if field.nullable and value == units.NO_PRICE:
            return None
    return int(value)


def rows_to_dicts(
    table: Table,
    rows: np.ndarray,
    instruments: Instruments,
    shard: int,
    first_row_sequence: int,
    dictionaries: dict[str, list[str]],
) -> list[dict[str, Any]]:
    """Every row as a dict in field order."""
    result = []
    for i, row in enumerate(rows):
        values: dict[str, Any] = {"shard": shard, "row_sequence": first_row_sequence + i}
        for field in table.fields:
            if field.name in values:
                continue
            value = value_of(field, row, instruments)
            if field.name in dictionaries:
                value = dictionaries[field.name][value]
            values[field.name] = value
        result.append(values)
    return result
