"""Rows of the books besides the engine's: dead letters and reference rows that bypass it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.books.kernels import state as es
from marketflow.operators.events import Instruments
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.derived import arrow
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEAD_LETTERS
from marketflow.schemas.units import NO_PRICE, text_of

_WHY: Final = {
    es.WHAT_PRICE: (DeadLetterReason.OUT_OF_RANGE, "price fits neither the book nor the column"),
    es.WHAT_SIZE: (DeadLetterReason.OUT_OF_RANGE, "size fits neither the book nor the column"),
    es.WHAT_TOTAL: (DeadLetterReason.OUT_OF_RANGE, "the level's total would not fit"),
    es.WHAT_NOTIONAL: (DeadLetterReason.OUT_OF_RANGE, "price * size does not fit"),
    es.WHAT_NEGATIVE: (DeadLetterReason.NEGATIVE_SIZE, "size is below zero"),
}


class Place(NamedTuple):
    """Origin of a shard's input."""

    shard: int
    feed: str
    partition: int


def _text(mantissa: int, scale: int) -> str:
    """The number as sent; nothing where a number was wanted and none was sent."""
    if mantissa == NO_PRICE:
        return ""
    return text_of(mantissa, scale) if scale >= 0 else f"{mantissa}{'0' * -scale}"


def dead_letters(
    rejects: NDArray[np.void], place: Place, first_row_sequence: int
) -> pa.RecordBatch:
    """``dead_letters`` of values the engine could not take (engine_state.REJECT)."""
    n = len(rejects)
    letters = [
        (*_WHY[what], _text(mantissa, scale).encode())
        for _, _, mantissa, scale, what in rejects.tolist()
    ]
    columns = {
        "shard": pa.array(np.full(n, place.shard, np.int64)),
        "row_sequence": pa.array(np.arange(first_row_sequence, first_row_sequence + n)),
        "ts_recv": pa.array(np.ascontiguousarray(rejects["ts"])).cast(arrow.TIME),
        "feed": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n, np.int32)), pa.array([place.feed], pa.string())
        ),
        "partition": pa.array(np.full(n, place.partition, np.int32)),
        "offset": pa.array(np.ascontiguousarray(rejects["offset"])),
        "reason": pa.DictionaryArray.from_arrays(
            pa.array([int(reason) for reason, _, _ in letters], pa.int8()),
            arrow.dictionary(DEAD_LETTERS.field("reason")),
        ),
        "detail": pa.array([detail for _, detail, _ in letters], pa.string()),
        "raw": pa.array([raw for _, _, raw in letters], pa.large_binary()),
    }
    schema = arrow.schema(DEAD_LETTERS)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def passing(
    name: str, batch: pa.RecordBatch, instruments: Instruments, shard: int, first_row_sequence: int
) -> pa.RecordBatch:
    """Rows of a table that needs no book (``instrument`` in place of identity), made whole."""
    n = batch.num_rows
    index = batch.column("instrument").to_numpy()
    names, places = instruments.names.of(index)
    if places is not None:
        index = places
    made = {
        "shard": pa.array(np.full(n, shard, np.int64)),
        "row_sequence": pa.array(np.arange(first_row_sequence, first_row_sequence + n)),
        "venue": pa.DictionaryArray.from_arrays(pa.array(names.venue_of[index]), names.venues),
        "symbol": pa.DictionaryArray.from_arrays(pa.array(names.symbol_of[index]), names.symbols),
    }
    schema = arrow.schema(TABLES[name])
    arrays = [made[c] if c in made else batch.column(c) for c in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
