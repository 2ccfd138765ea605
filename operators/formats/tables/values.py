"""Values of the tables that pass books by, column by column."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.operators.events import NO_SEQUENCE
from marketflow.operators.formats.tables.columns import Columns
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.units import NO_PRICE, text_of

_SHARED: Final = frozenset({"shard", "row_sequence", "venue", "symbol", "ts_event", "ts_recv"})


def rows_of(table: Table, columns: Columns) -> list[dict[str, Any]]:
    """Values per row of a table that passes books by."""
    wanted = [f for f in table.fields if f.name not in _SHARED and columns.has(f.name)]
    found = {f.name: _values(columns, f) for f in wanted}
    names = list(found)
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        | _defaults(table, names)
        for row in zip(*found.values(), strict=True)
    ] or [_defaults(table, names) for _ in range(len(columns))]


def _defaults(table: Table, names: list[str]) -> dict[str, Any]:
    """Codes that may not be null and have no column."""
    return {
        f.name: f.codes(0)
        for f in table.fields
        if f.codes is not None and not f.nullable and f.name not in names
    }


def _values(columns: Columns, field: Field) -> list[Any]:
    """One column as the passing rows take it; None is null."""
    name = field.name
    match field.kind:
        case Kind.DECIMAL:
            pairs = zip(*columns.decimals(name, DeadLetterReason.BAD_PRICE), strict=True)
            return [None if m == NO_PRICE else text_of(int(m), int(s)) for m, s in pairs]
        case Kind.TIME:
            return [value or None for value in columns.times(name).tolist()]
        case Kind.CODE:
            assert field.codes is not None
            codes = columns.codes(name, field.codes, 0, DeadLetterReason.MALFORMED)
            return [field.codes(max(code, 0)) for code in codes.tolist()]
        case Kind.INT64:
            values = columns.integers(name, NO_SEQUENCE).tolist()
            return [None if value == NO_SEQUENCE else value for value in values]
        case Kind.BOOL:
            texts = columns.texts(name).to_pylist()
            known = {"true": True, "1": True, "false": False, "0": False, None: None}
            lowered = [text.lower() if text else None for text in texts]
            good = np.array([text in known for text in lowered], np.bool_)
            columns.fail(good, DeadLetterReason.MALFORMED, name)
            return [known.get(text) for text in lowered]
        case _:
            texts = columns.texts(name)
            if not field.nullable:
                present = np.asarray(texts.is_valid().to_numpy(zero_copy_only=False))
                columns.fail(present, DeadLetterReason.MALFORMED, f"{name} is empty")
            return list(texts.to_pylist())
