"""Trades tables for tests, from plain values."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from marketflow.operators.events import Rows
from marketflow.schemas.codes import AggressorSide, TradeStatus, words
from marketflow.schemas.derived import arrow
from marketflow.schemas.tables.market_data import TRADES
from tests.reference.bars import EXACT, STEP, Trade


def trades_batch(trades: Sequence[Trade], first_row_sequence: int = 0) -> pa.RecordBatch:
    """A batch of the trades table, dictionaries in order of first appearance."""
    schema = arrow.schema(TRADES)

    def coded(texts: list[str], dictionary: tuple[str, ...] | None, kind: pa.DataType) -> pa.Array:
        known = list(dictionary or dict.fromkeys(texts))
        indices = pa.array([known.index(t) for t in texts], kind)
        return pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))

    count = len(trades)
    columns = {
        "shard": [0] * count,
        "row_sequence": range(first_row_sequence, first_row_sequence + count),
        "ts_event": [t.ts_event for t in trades],
        "ts_recv": [t.ts_recv for t in trades],
        "venue": coded([t.venue for t in trades], None, pa.int32()),
        "symbol": coded([t.symbol for t in trades], None, pa.int32()),
        "price": [t.price for t in trades],
        "size": [t.size for t in trades],
        "notional": [EXACT.multiply(t.price, t.size).quantize(STEP, context=EXACT) for t in trades],
        "aggressor_side": coded([t.side for t in trades], words(AggressorSide), pa.int8()),
        "trade_id": [None] * count,
        "sequence": [None] * count,
        "status": coded([t.status for t in trades], words(TradeStatus), pa.int8()),
    }
    arrays = [
        c if isinstance(c, pa.Array) else pa.array(c, schema.field(name).type)
        for name, c in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def trade_rows(trades: Sequence[Trade], ended: bool = False) -> Rows:
    """The same as an item of the flow."""
    return Rows(0, {"trades": trades_batch(trades)} if trades else {}, {}, ended)
