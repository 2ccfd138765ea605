"""Rows of our own tables (``csv:``, ``parquet:``) back to events.

- ``trades``: a TRADE, BUST or CORRECTION each. ``notional`` is computed anew.
- ``book_events``: with an order id L3, without L2 (an instrument's first row decides). L2 size is
  the level's new size; a cancel without size takes the whole order or level. Groups end at the
  ``last`` flag; rows without a ``flags`` column are groups of their own.
- ``quotes``: the venue's own best prices. With an ``origin`` column they are quotes as somebody has
  told them, our books' among them: they pass the books by, and keep origin and state.
- the others pass the books by.

``shard`` and ``row_sequence`` are given anew, in the order of the file. A row without an event
time has its arrival time.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import EVENT, NO_SEQUENCE, BookType, EventBatch, EventKind, IdKind
from marketflow.operators.formats.publishers import may_be_negative
from marketflow.operators.formats.tables import quotes as table_quotes
from marketflow.operators.formats.tables import values as table_values
from marketflow.operators.formats.tables.columns import (
    ArrowSource,
    Columns,
    LineSource,
    our_names,
    run_end,
)
from marketflow.operators.instruments import BookRules, Registry
from marketflow.operators.normalise.feed import Decoded, FrameColumns
from marketflow.operators.normalise.guard import verdict
from marketflow.operators.normalise.passthrough import BadValueError, PassingRows
from marketflow.schemas.codes import (
    Action,
    AggressorSide,
    DeadLetterReason,
    RowFlag,
    Side,
    TradeStatus,
)
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import START_ANEW, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS
from marketflow.schemas.tables import table as table_of
from marketflow.schemas.units import NO_PRICE

SNAPSHOT_VERSION: Final = 1
_LAST: Final = int(RowFlag.LAST)
_TRADES: Final = np.array(
    [
        {
            TradeStatus.NORMAL: EventKind.TRADE,
            TradeStatus.BUST: EventKind.BUST,
            TradeStatus.CORRECTION: EventKind.CORRECTION,
        }[status]
        for status in TradeStatus
    ],
    np.int8,
)
_L3: Final = {
    Action.ADD: EventKind.ADD,
    Action.MODIFY: EventKind.MODIFY,
    Action.CANCEL: EventKind.REDUCE,
    Action.EXECUTE: EventKind.EXECUTE,
    Action.CLEAR: EventKind.CLEAR,
}
_L3_KINDS: Final = np.array([_L3[action] for action in Action], np.int8)


class _Out(NamedTuple):
    """Output of one frames batch in the making, and the frame of each of its rows."""

    columns: FrameColumns
    frame_of: NDArray[np.int32]
    parts: list[NDArray[np.void]]
    passing: PassingRows
    dead_letters: DeadLetters

    def mark(self) -> tuple[int, dict[str, int], int]:
        """Current lengths, for :meth:`undo`."""
        return len(self.parts), self.passing.mark(), len(self.dead_letters)

    def undo(self, mark: tuple[int, dict[str, int], int]) -> None:
        """Forget what came after ``mark``."""
        parts, passing, dead_letters = mark
        del self.parts[parts:]
        self.passing.cut(passing)
        self.dead_letters.cut(dead_letters)


class TableDecoder:
    """FeedDecoder of one table's files.

    Parameters
    ----------
    table
        Name of the table that the rows are of.
    shards
        Shards of the feed.
    """

    def __init__(self, table: str, *, shards: int = DEFAULT_SHARDS) -> None:
        self._table = table_of(table)
        self._registry = Registry("", lambda *_: BookRules(BookType.NONE), shards)
        self._header = ""
        self._given: dict[str, str] = {}
        self._latest = 0

    def limit(self, instruments: int) -> None:
        """See FeedDecoder."""
        self._registry.most = instruments

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Events, tables and dead letters of a frames batch."""
        columns = FrameColumns(frames)
        notes = frames.column("note")
        parts: list[NDArray[np.void]] = []
        passing, dead_letters = PassingRows(), DeadLetters()
        messages = 0
        last = 0
        while last < len(columns):
            first = last
            kind = int(columns.kinds[first])
            lines = kind == FrameKind.DATA and self._header
            last = run_end(columns.kinds, first) if lines else first + 1
            if kind == FrameKind.DATA:
                source = self._open(columns, first, last, notes[first].as_py(), dead_letters)
                if source is not None:
                    frame_of = np.arange(first, last) if lines else np.full(source.rows, first)
                    messages += source.rows
                    out = _Out(columns, frame_of.astype(np.int32), parts, passing, dead_letters)
                    self._take(source, 0, source.rows, out)
            elif kind == FrameKind.END:
                parts.append(_feed_end(first))
            else:
                self._other(columns, first, notes[first].as_py(), dead_letters)
        parts = parts or [np.zeros(0, EVENT)]
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        instruments = self._registry.instruments()
        events = EventBatch(rows, instruments, messages, passing.batches(), columns.offsets)
        return Decoded(events, dead_letters.batch())

    def _other(
        self, columns: FrameColumns, row: int, note: str | None, dead_letters: DeadLetters
    ) -> None:
        """HEADER, or what could not be read."""
        frame = columns.frame(row)
        if frame.kind == FrameKind.HEADER:
            self._header = frame.payload.decode("utf-8-sig", "replace")
            self._given = _constants(note)
            return
        reason = (
            DeadLetterReason.TRUNCATED
            if frame.kind == FrameKind.TRUNCATED
            else DeadLetterReason.INVALID_ENCODING
        )
        dead_letters.add(
            frame.ts_recv or self._latest,
            int(columns.offsets[row]),
            reason,
            frame.note or "cannot be unpacked",
            frame.payload,
        )

    def _open(
        self,
        columns: FrameColumns,
        first: int,
        last: int,
        note: str | None,
        dead_letters: DeadLetters,
    ) -> LineSource | ArrowSource | None:
        """CSV lines, or the rows of the Arrow stream in one frame."""
        if self._header:
            names = tuple(name.strip().strip('"') for name in self._header.split(","))
            names = our_names(names, self._given)
            return LineSource(columns.text, columns.bounds[first : last + 1], names, self._given)
        payload = columns.frame(first).payload
        try:
            batches = pa.ipc.open_stream(payload).read_all().combine_chunks().to_batches()
            given = _constants(note)
            if not batches:
                return None
            names = our_names(batches[0].schema.names, given)
            return ArrowSource(batches[0].rename_columns(list(names)), given)
        except BaseException as error:
            reason, detail = verdict(error)
            dead_letters.add(self._latest, int(columns.offsets[first]), reason, detail, payload)
            return None

    def _take(self, source: LineSource | ArrowSource, first: int, last: int, out: _Out) -> None:
        """Rows ``first`` to ``last``; one that cannot be read at all is found by halves and left
        out alone."""
        mark = out.mark()
        rows = source.part(first, last)
        frame_of = out.frame_of[first:last]
        try:
            found = Columns(rows)
            found.fail(rows.good, DeadLetterReason.MALFORMED, f"not {len(rows.names)} fields")
            times = self._rows(found, frame_of, out.parts, out.passing)
            self._letters(found, times, frame_of, first, out)
        except BaseException as error:
            reason, detail = verdict(error)
            out.undo(mark)
            half = (first + last) // 2
            if half > first:
                self._take(source, first, half, out)
                self._take(source, half, last, out)
            elif last > first:
                at = 0 if self._header else first
                offset = int(out.columns.offsets[frame_of[0]]) + at
                out.dead_letters.add(self._latest, offset, reason, detail, rows.raw(0))

    def _rows(
        self,
        columns: Columns,
        frame_of: NDArray[np.int32],
        parts: list[NDArray[np.void]],
        passing: PassingRows,
    ) -> NDArray[np.int64]:
        """Append the event rows of the good rows; returns the time that is known at every row."""
        n = len(columns)
        received = columns.times("ts_recv")
        event = columns.times("ts_event")
        event = np.where(event > 0, event, received)
        columns.fail(event > 0, DeadLetterReason.BAD_TIMESTAMP, "ts_event")
        width = 2 if self._table.name == "quotes" else 1
        rows = np.zeros((n, width), EVENT)
        match self._table.name:
            case "trades":
                self._trades(columns, rows[:, 0])
            case "book_events":
                self._book_events(columns, rows[:, 0])
            case "quotes":
                self._quotes(columns, rows)
        whole = self._table.name == "quotes" and columns.has("origin")
        words = table_quotes.codes(columns) if whole else {}
        values = [] if self._is_events() else table_values.rows_of(self._table, columns)
        self._allowed(columns, rows)
        instruments = self._instruments(columns, rows["order_kind"][:, 0] != IdKind.NONE)
        rows["ts_event"], rows["ts_recv"] = event[:, None], received[:, None]
        rows["instrument"], rows["frame"] = instruments[:, None], frame_of[:, None]
        rows["sequence"] = columns.integers("sequence", NO_SEQUENCE)[:, None]
        for row, given in enumerate(values):
            if columns.reasons[row] < 0:
                try:
                    passing.add(
                        self._table.name, int(instruments[row]), int(event[row]),
                        int(received[row]), given,
                    )  # fmt: skip
                except BadValueError as error:
                    columns.fail(np.arange(n) != row, error.reason, error.detail)
        good = columns.reasons < 0
        if whole:
            passing.extend("quotes", table_quotes.told(columns, rows, instruments, words, good))
        elif self._is_events():
            parts.append(rows[good].reshape(-1))
        newest = np.maximum.accumulate(np.where(good, np.arange(n), -1))
        times = np.where(newest >= 0, event[newest], self._latest)
        self._latest = int(times[-1])
        return times

    def _is_events(self) -> bool:
        return self._table.name in ("trades", "book_events", "quotes")

    def _allowed(self, columns: Columns, rows: NDArray[np.void]) -> None:
        """Prices at or below zero only where the venue has such (operators.formats.publishers);
        no trade of size 0. A bust may name neither."""
        if not self._is_events():
            return
        venues, names = columns.coded("venue")
        signed = np.array([*map(may_be_negative, names), True], np.bool_)[venues]
        bust = rows["kind"][:, 0] == EventKind.BUST
        priced = ((rows["price"] > 0) | (rows["price"] == NO_PRICE)).all(axis=1)
        columns.fail(priced | signed | bust, DeadLetterReason.BAD_PRICE, "price is not above zero")
        if self._table.name == "trades":
            sized = rows["size"][:, 0] > 0
            columns.fail(sized | bust, DeadLetterReason.BAD_SIZE, "a trade of size 0")

    def _instruments(self, columns: Columns, orders: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Registry index per good row; new instruments join in the order of the rows."""
        venues, venue_names = columns.distinct("venue")
        symbols, symbol_names = columns.distinct("symbol")
        named = (venues >= 0) & (symbols >= 0)
        columns.fail(named, DeadLetterReason.UNKNOWN_INSTRUMENT, "venue or symbol is empty")
        pairs = venues * (len(symbol_names) + 1) + symbols
        indices = np.zeros(len(columns), np.int32)
        chosen = np.flatnonzero(columns.reasons < 0)
        _, firsts, inverse = np.unique(pairs[chosen], return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        rows = chosen[firsts[order]]
        table = np.zeros(len(order), np.int32)
        table[order], refused = self._registry.indices(
            venue_names, symbol_names, venues[rows], symbols[rows],
            lambda place: self._rules(bool(orders[rows[place]])),
        )  # fmt: skip
        if refused:
            places = np.empty(len(order), np.int64)
            places[order] = np.arange(len(order))
            for row, place in zip(chosen.tolist(), places[inverse].tolist(), strict=True):
                if place in refused:
                    error = refused[place]
                    columns.reasons[row], columns.details[row] = error.reason, error.detail
        indices[chosen] = table[inverse]
        return indices

    def _rules(self, orders: bool) -> BookRules:
        """Rules of an instrument whose first row has an order id, or none."""
        if self._table.name != "book_events":
            return BookRules(BookType.NONE)
        return BookRules(BookType.L3 if orders else BookType.L2)

    def _sized(
        self, columns: Columns, rows: NDArray[np.void], price: str, size: str, empty: bool
    ) -> None:
        """Price and size of ``rows``; with ``empty`` both may be null."""
        prices, price_scales = columns.decimals(price, DeadLetterReason.BAD_PRICE)
        sizes, size_scales = columns.decimals(size, DeadLetterReason.BAD_SIZE)
        if not empty:
            columns.fail(prices != NO_PRICE, DeadLetterReason.BAD_PRICE, f"{price} is empty")
            columns.fail(sizes != NO_PRICE, DeadLetterReason.BAD_SIZE, f"{size} is empty")
        negative = (sizes < 0) & (sizes != NO_PRICE)
        columns.fail(~negative, DeadLetterReason.NEGATIVE_SIZE, size)
        rows["price"], rows["price_scale"] = prices, price_scales
        rows["size"], rows["size_scale"] = np.where(sizes == NO_PRICE, 0, sizes), size_scales

    def _trades(self, columns: Columns, rows: NDArray[np.void]) -> None:
        self._sized(columns, rows, "price", "size", empty=False)
        side = columns.codes("aggressor_side", AggressorSide, 0, DeadLetterReason.BAD_SIDE)
        status = columns.codes("status", TradeStatus, 0, DeadLetterReason.MALFORMED)
        rows["kind"], rows["side"], rows["flags"] = _TRADES[status], side, _LAST
        rows["trade_hi"], rows["trade_lo"], rows["trade_kind"] = columns.ids("trade_id")

    def _book_events(self, columns: Columns, rows: NDArray[np.void]) -> None:
        self._sized(columns, rows, "price", "size", empty=True)
        action = columns.codes("action", Action, -1, DeadLetterReason.MALFORMED)
        side = columns.codes("side", Side, 0, DeadLetterReason.BAD_SIDE)
        rows["order_hi"], rows["order_lo"], rows["order_kind"] = columns.ids("order_id")
        orders = rows["order_kind"] != IdKind.NONE
        kinds = np.where(orders, _L3_KINDS[action], EventKind.LEVEL)
        kinds[action == Action.CLEAR] = EventKind.CLEAR
        sizeless = self._absent(columns, "size") & (action == Action.CANCEL)
        kinds[orders & sizeless] = EventKind.DELETE
        priced = (rows["price"] != NO_PRICE) | (action == Action.CLEAR)
        needs_price = ~orders | (action == Action.ADD) | (action == Action.MODIFY)
        columns.fail(priced | ~needs_price, DeadLetterReason.BAD_PRICE, "price is empty")
        columns.fail(
            (side != Side.NONE) | (action == Action.CLEAR),
            DeadLetterReason.BAD_SIDE,
            "side is none",
        )
        rows["kind"], rows["side"] = kinds, side
        rows["flags"] = columns.integers("flags", _LAST) & 0xFF

    def _absent(self, columns: Columns, name: str) -> NDArray[np.bool_]:
        mantissas, _ = columns.decimals(name, DeadLetterReason.BAD_SIZE)
        return np.asarray(mantissas == NO_PRICE)

    def _quotes(self, columns: Columns, rows: NDArray[np.void]) -> None:
        for place, side in enumerate(("bid", "ask")):
            half = rows[:, place]
            self._sized(columns, half, f"{side}_price", f"{side}_size", empty=True)
            half["side"] = (Side.BID, Side.ASK)[place]
            half["kind"] = (EventKind.VENUE_BID, EventKind.VENUE_ASK)[place]
            half["flags"] = _LAST if side == "ask" else 0

    def _letters(
        self,
        found: Columns,
        times: NDArray[np.int64],
        frame_of: NDArray[np.int32],
        first: int,
        out: _Out,
    ) -> None:
        """Dead letters of the rows that could not be taken; ``first`` is the place of the first
        row in its frame."""
        for row in np.flatnonzero(found.reasons >= 0).tolist():
            out.dead_letters.add(
                int(times[row]),
                int(out.columns.offsets[frame_of[row]]) + (0 if self._header else first + row),
                DeadLetterReason(int(found.reasons[row])),
                found.details[row],
                found.source.raw(row),
            )

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, table, CSV header, constants, instruments, latest time)."""
        return (
            SNAPSHOT_VERSION,
            self._table.name,
            self._header,
            dict(self._given),
            self._registry.snapshot(changes=changes),
            self._latest,
        )

    def restore(self, state: Any) -> None:
        """Take a snapshot back; StateError with the remedy if it is not of this feed."""
        if state[0] != SNAPSHOT_VERSION or state[1] != self._table.name:
            raise StateError(
                f"recovery state is of table {state[1]} in format {state[0]}, wanted "
                f"{self._table.name} in format {SNAPSHOT_VERSION}: resume with the source and the "
                f"release that wrote it, or {START_ANEW}"
            )
        _, _, self._header, given, registry, self._latest = state
        self._given = dict(given)
        self._registry.restore(registry)


def _constants(note: str | None) -> dict[str, str]:
    """Values that the source's URL gives for all rows."""
    return msgspec.json.decode(note, type=dict[str, str]) if note else {}


def _feed_end(frame: int) -> NDArray[np.void]:
    row = np.zeros(1, EVENT)
    row["kind"], row["instrument"], row["frame"] = EventKind.FEED_END, -1, frame
    row["flags"], row["price"], row["sequence"] = _LAST, NO_PRICE, NO_SEQUENCE
    return row
