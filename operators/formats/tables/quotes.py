"""Quotes as somebody has told them, our own read back among them: rows as they are.

They pass the books by, whole columns at once, and keep their ``origin`` and ``book_state``.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import NO_SEQUENCE
from marketflow.operators.formats.tables.columns import Columns
from marketflow.operators.normalise.passthrough import schema
from marketflow.schemas.codes import BookState, DeadLetterReason, Origin
from marketflow.schemas.derived import arrow
from marketflow.schemas.tables.market_data import QUOTES
from marketflow.schemas.units import NO_PRICE, to_decimal


def codes(columns: Columns) -> dict[str, NDArray[np.int8]]:
    """Origin and state per row; without a word they are the venue's, and valid."""
    return {
        "origin": columns.codes("origin", Origin, Origin.VENUE, DeadLetterReason.MALFORMED),
        "book_state": columns.codes("book_state", BookState, 0, DeadLetterReason.MALFORMED),
    }


def told(
    columns: Columns,
    rows: NDArray[np.void],
    instruments: NDArray[np.int32],
    words: dict[str, NDArray[np.int8]],
    good: NDArray[np.bool_],
) -> pa.RecordBatch:
    """The good rows; ``rows`` are EVENT rows, a bid and an ask of each, ``words`` as of codes()."""
    sequences = rows["sequence"][:, 0][good]
    arrived = rows["ts_recv"][:, 0][good]
    made = {
        "instrument": pa.array(instruments[good]),
        "ts_event": pa.array(rows["ts_event"][:, 0][good]).cast(arrow.TIME),
        "ts_recv": pa.array(arrived, mask=arrived == 0).cast(arrow.TIME),
        "sequence": pa.array(sequences, mask=sequences == NO_SEQUENCE),
    }
    for place, side in enumerate(("bid", "ask")):
        for part in ("price", "size"):
            name = f"{side}_{part}"
            made[name] = _decimals(columns, name, part, rows[:, place], good)
    for name, values in words.items():
        dictionary = arrow.dictionary(QUOTES.field(name))
        made[name] = pa.DictionaryArray.from_arrays(pa.array(values[good]), dictionary)
    form = schema(QUOTES)
    return pa.RecordBatch.from_arrays([made[name] for name in form.names], schema=form)


def _decimals(
    columns: Columns, name: str, part: str, half: NDArray[np.void], good: NDArray[np.bool_]
) -> pa.Array:
    array = columns.source.array(name) if name in columns.source.names else None
    if array is not None and pa.types.is_decimal(array.type):
        return array.filter(pa.array(good)).cast(arrow.DECIMAL)
    # A side without a price has no size either: the row says 0 there.
    empty = half["price"][good] == NO_PRICE
    pairs = zip(half[part][good], half[f"{part}_scale"][good], empty, strict=True)
    values = [None if no else to_decimal(int(m), int(scale)) for m, scale, no in pairs]
    return pa.array(values, arrow.DECIMAL)
