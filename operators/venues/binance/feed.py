"""Binance as a feed: the byte scan where it applies, the exact decoder for everything else.

Both write the same rows: which of them decoded a message cannot be seen from outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marketflow.operators.instruments import Seen
from marketflow.operators.kernels.symbols import make_symbols, with_symbols
from marketflow.operators.kernels.words import SPARE
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import FrameColumns, JsonFeed
from marketflow.operators.venues.binance.decoder import Binance
from marketflow.operators.venues.binance.kernels.scan import (
    DONE,
    FULL,
    Batch,
    decode_frames,
    rows_wanted,
)
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.shards import DEFAULT_SHARDS

__all__ = ["Binance", "BinanceFeed"]

#: Bytes per row of the densest usual messages (USD-M depth).
_BYTES_PER_ROW = 20


class BinanceFeed(JsonFeed):
    """FeedDecoder of one market of Binance; snapshots are those of the exact decoder's feed."""

    def __init__(self, market: str = "spot", shards: int = DEFAULT_SHARDS) -> None:
        self._binance = Binance(market)
        super().__init__(self._binance, shards)
        self._symbols = make_symbols(())
        self._known = 0  # instruments in _symbols

    def _room(self, columns: FrameColumns) -> int:
        size = int(columns.bounds[-1] - columns.bounds[0]) if len(columns) else 0
        return 64 + 2 * len(columns) + size // _BYTES_PER_ROW

    def _run(self, columns: FrameColumns, out: EventBuilder) -> None:
        events = out.out
        batch = self.batch(columns)
        others: list[int] = []
        at = 0
        while True:
            at, events.count, why = decode_frames(batch, at, events.rows, events.count)
            if why == FULL:
                events.reserve(rows_wanted(int(columns.bounds[at + 1] - columns.bounds[at])))
                continue
            if why == DONE:
                break
            if columns.kinds[at] > FrameKind.HTTP:
                self._carry(columns, batch)
            self.one(columns, at, out)
            others.append(at)
            at += 1
            if len(self.registry) != self._known:
                self._carry(columns, batch)
                batch = self.batch(columns)
        self._carry(columns, batch)
        # All that the kernel takes makes rows, but for the aggTrades of those who send trades.
        shown = np.zeros(len(columns), np.bool_)
        shown[events.rows["frame"][: events.count]] = True
        shown[others] = True
        if left_out := int(len(columns) - np.count_nonzero(shown)):
            self._rowless["aggTrade"] += left_out

    def batch(self, columns: FrameColumns) -> Batch:
        """The kernel's view of a batch and of the instruments known now."""
        if len(self.registry) != self._known:
            new = self.registry.symbols(self._known)
            self._symbols = with_symbols(self._symbols, new, self._known)
            self._known = len(self.registry)
        touched = np.zeros((len(columns.names), self._known + 1), np.uint8)
        # Payloads too near to the end of the buffer are read from a copy with room behind it.
        bounds, text = columns.bounds, columns.text
        tail_from = len(columns)
        while tail_from > 0 and bounds.item(tail_from) + SPARE > len(text):
            tail_from -= 1
        tail = np.zeros(bounds.item(-1) - bounds.item(tail_from) + SPARE, np.uint8)
        tail[:-SPARE] = text[bounds.item(tail_from) : bounds.item(-1)]
        return Batch(
            columns.text,
            tail,
            tail_from,
            columns.bounds,
            columns.ts_recv,
            columns.kinds,
            columns.connections,
            self._symbols,
            self._binance.facts,
            touched,
        )

    def restore(self, state: Any) -> None:
        """As JsonFeed; the symbol table is made anew."""
        super().restore(state)
        self._symbols = make_symbols(self.registry.symbols())
        self._known = len(self.registry)

    def _carry(self, columns: FrameColumns, batch: Batch) -> None:
        """Tell the registry which connections carried which books, and forget it here."""
        if not batch.touched.any():
            return
        for connection, instrument in np.argwhere(batch.touched).tolist():
            self.registry.seen.setdefault(columns.names[connection], Seen()).add(instrument)
        batch.touched[:] = 0
