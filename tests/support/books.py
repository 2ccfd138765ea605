"""Event rows of books for tests, and finished tables as plain values to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import (
    INSTRUMENT,
    BookType,
    EventBatch,
    EventKind,
    Instruments,
    Rows,
)
from marketflow.operators.instruments import BookRules
from marketflow.operators.normalise.event_rows import NO_ID, NO_VALUE, EventRows, Value, Words
from marketflow.schemas.units import NO_PRICE

T0 = 1_700_000_000_000_000_000
_TIMES = ("ts_event", "ts_recv", "ts_until")


def number(order_id: int) -> Words:
    """An integer id as words."""
    return order_id >> 64, order_id & (2**64 - 1), 1


def instruments(*rules: BookRules) -> Instruments:
    """Instruments S0, S1 ... with these rules."""
    rows = np.zeros(len(rules), INSTRUMENT)
    for row, rule in zip(rows, rules, strict=True):
        for name in INSTRUMENT.names or ():
            if name != "shard":
                row[name] = int(getattr(rule, name))
    return Instruments.of(rows, ("TEST",) * len(rules), tuple(f"S{i}" for i in range(len(rules))))


L2 = BookRules()
L3 = BookRules(book_type=BookType.L3)


class Script:
    """Rows one after the other; time moves on by ``tick`` with every message."""

    def __init__(self, tick: int = 1000) -> None:
        self.out = EventRows(64)
        self.ts = T0
        self.tick = tick
        self.recv = 0

    @property
    def rows(self) -> NDArray[Any]:
        return self.out.rows[: self.out.count]

    def group(
        self,
        levels: Sequence[tuple[Any, ...]] = (),
        *,
        instrument: int = 0,
        first: int | None = None,
        last: int | None = None,
        previous: int | None = None,
        snapshot: bool = False,
        checksum: int | None = None,
        late: int = 0,
        orders: Sequence[tuple[Any, ...]] = (),
    ) -> Script:
        """BEGIN .. END. ``levels``: (side, price, size[, count]) with 2 decimals each, or (side,
        (price, scale), (size, scale)[, count]); ``orders``: (kind, side, id, price, size[, id])."""
        self.ts += self.tick
        at = self.out.count
        self.out.begin(0, self.recv, instrument, self.ts - late, (first, last, previous), snapshot)
        for side, price, size, *count in levels:
            value = _value(price, size)
            level = int(EventKind.LEVEL)
            self.out.member(at, level, side, value, NO_ID, NO_ID, count[0] if count else 0)
        for kind, side, order, price, size, *new in orders:
            trade = number(new[0]) if new else NO_ID
            self.out.member(at, int(kind), side, _value(price, size), number(order), trade, 0)
        end = (NO_PRICE, 0, checksum or 0, 0)
        self.out.member(at, int(EventKind.END), 0, end, NO_ID, NO_ID, int(checksum is not None))
        return self

    def row(
        self,
        kind: EventKind,
        *,
        instrument: int = 0,
        side: int = 0,
        order: int | None = None,
        price: Any = None,
        size: Any = 0,
        trade: int | None = None,
        sequence: int | None = None,
        flags: int = 1,
        extra: int = 0,
        ts: int | None = None,
        count: int = 0,
    ) -> Script:
        """One row outside brackets."""
        self.ts += self.tick
        self.out.single(
            0, self.recv, int(kind), instrument, self.ts if ts is None else ts, sequence,
            side=side, value=_value(price, size),
            trade=NO_ID if trade is None else number(trade), flags=flags,
        )  # fmt: skip
        last = self.out.rows[self.out.count - 1 : self.out.count]
        hi, lo, id_kind = NO_ID if order is None else number(order)
        last["order_hi"], last["order_lo"], last["order_kind"] = hi, lo, id_kind
        last["extra"], last["count"] = extra, count
        return self

    def quote(
        self, bid: Any, ask: Any, *, instrument: int = 0, sequence: int | None = None
    ) -> Script:
        """VENUE_BID and VENUE_ASK; each (price, size) or None."""
        for kind, side, best in ((EventKind.VENUE_BID, 1, bid), (EventKind.VENUE_ASK, 2, ask)):
            price, size = best or (None, 0)
            self.row(
                kind, instrument=instrument, side=side, price=price, size=size,
                sequence=sequence, flags=side - 1,
            )  # fmt: skip
        return self

    def end(self) -> Script:
        self.out.single(0, 0, int(EventKind.FEED_END), -1, 0, None, value=NO_VALUE, flags=1)
        return self


def _value(price: Any, size: Any) -> Value:
    price, price_scale = price if isinstance(price, tuple) else (price, 2)
    size, size_scale = size if isinstance(size, tuple) else (size, 2)
    return (NO_PRICE, 0, size, size_scale) if price is None else (
        price, price_scale, size, size_scale
    )  # fmt: skip


def batch(rows: NDArray[Any], names: Instruments, offset: int = 0) -> EventBatch:
    return EventBatch(rows, names, offsets=np.array([offset], np.int64))


_LEFT_OUT = {"shard", "row_sequence", "venue", "feed", "partition", "offset", "detail"}


def plain(table: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a table as dicts, times as int ns, without identity and names that say nothing."""
    columns = {
        name: column.cast(pa.int64()) if name in _TIMES else column
        for name, column in zip(table.schema.names, table.columns, strict=True)
        if name not in _LEFT_OUT
    }
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows


def collect(results: Sequence[Rows]) -> dict[str, list[dict[str, Any]]]:
    """All rows of several results by table; checks that row_sequence is gapless."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for rows in results:
        for name, table in rows.tables.items():
            first = len(tables.setdefault(name, []))
            assert table.column("row_sequence").to_pylist() == list(
                range(first, first + table.num_rows)
            )
            tables[name] += plain(table)
    return tables
