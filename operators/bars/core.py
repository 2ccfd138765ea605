"""Bars by event time, several intervals at once, from the ``trades`` table alone.

Rules:

- Windows are aligned to the epoch (UTC): ``[ts_open, ts_close)``. Only windows with trades exist.
- The clock of an instrument is the latest ``ts_event`` of its own trades (its watermark): nothing
  depends on the wall clock, on batches, or on another instrument. A bar is emitted once, final,
  when the watermark reaches ``ts_close + allowed_lateness``.
- Open and close follow event time, row order breaking ties: a trade that comes late, but in time,
  lands where it belongs. A trade whose bar is final already is left out of it and counted
  (``bars_late_trades``); it still counts in longer intervals that are open.
- A trade dated more than ``max_ahead`` after its arrival would end all bars at once: it is left
  out and counted (``bars_trades_ahead``). Feeds without arrival times have no such guard.
- Busts and corrections do not rewrite bars (the venue's own bars do not either); they are counted
  (``bars_busts_corrections``).
- At the end of the feed (a data row, never the end of a process) open bars are emitted with
  ``is_final`` false.

A venue's own bars bypass the books and get their identity here, so that the rows of the table
are numbered once; in a batch they come before ours.

The counts are ``Rows.stats`` and no ``quality_events``: the rows of that table are numbered by the
book step of the shard, and a second writer would break its gapless sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.bars.kernels import bars as kernels
from marketflow.operators.bars.kernels import layout
from marketflow.operators.bars.state import BarsState
from marketflow.operators.events import NO_INSTRUMENTS, Instruments, Rows
from marketflow.operators.normalise.passthrough import joined
from marketflow.operators.rows import rows_to_batch
from marketflow.schemas.codes import BarOrigin
from marketflow.schemas.derived import arrow
from marketflow.schemas.derived.arrow import dictionary
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW, StateError
from marketflow.schemas.tables.market_data import BARS, TRADES
from marketflow.schemas.units import NS_PER_MINUTE, NS_PER_S, interval_ns

SNAPSHOT_VERSION: Final = 2
#: Most windows of one interval that may be open at once for an instrument.
MAX_OPEN: Final = 1024
#: Names of the stats, by their place in the kernel's counts.
STATS: Final = (
    "bars_late_trades",
    "bars_trades_ahead",
    "bars_trades_beyond",
    "bars_busts_corrections",
)

_DICTIONARIES = {name: dictionary(TRADES.field(name)) for name in ("aggressor_side", "status")}

_ORIGIN: Final = dictionary(BARS.field("origin"))
#: What kernels make of trades: bars whose every value is known, of one origin.
_OURS: Final = replace(
    BARS, fields=tuple(replace(f, nullable=False) for f in BARS.fields if f.name != "origin")
)

_INT64, _INT32, _INT8 = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.int8)

#: Room for rows of one kernel call beyond what an instrument may hold open.
_CHUNK: Final = 4096


@dataclass(frozen=True, slots=True)
class BarsConfig:
    """``intervals`` such as ("1s", "1m"); none: no bars. ValueError naming the fix if they and
    the allowed lateness would keep too many windows open."""

    intervals: tuple[str, ...]
    allowed_lateness_ns: int = NS_PER_S
    max_ahead_ns: int = NS_PER_MINUTE

    def __post_init__(self) -> None:
        for text in self.intervals:
            if self.allowed_lateness_ns // interval_ns(text) + 2 > MAX_OPEN:
                raise ValueError(
                    f"bars of {text} with {self.allowed_lateness_ns} ns of allowed lateness keep "
                    f"more than {MAX_OPEN} of them open: take a longer interval or less lateness"
                )
        if len(set(self.intervals)) != len(self.intervals):
            raise ValueError(f"an interval is named twice: {', '.join(self.intervals)}")

    def windows(self) -> NDArray[np.void]:
        """The kernel's WINDOW rows."""
        windows = np.zeros(len(self.intervals), layout.WINDOW)
        first = 0
        for window, text in zip(windows, self.intervals, strict=True):
            length = interval_ns(text)
            places = self.allowed_lateness_ns // length + 2
            window["length"], window["first"], window["places"] = length, first, places
            first += places
        return windows


class _Lookup:
    """Instruments of one pair of dictionaries: (venue code, symbol code) -> our index or -1."""

    def __init__(self, venues: pa.StringArray, symbols: pa.StringArray) -> None:
        # Held, so that their buffers' addresses stay theirs: see `serves`.
        self.dictionaries = (venues, symbols)
        self.index = np.full((len(venues), len(symbols)), -1, np.int32)

    def serves(self, venues: pa.StringArray, symbols: pa.StringArray) -> bool:
        """Are these the same dictionaries, at the same place in memory?"""
        return all(
            len(mine) == len(other)
            and mine.offset == other.offset
            and mine.buffers()[2].address == other.buffers()[2].address
            and mine.buffers()[1].address == other.buffers()[1].address
            for mine, other in zip(self.dictionaries, (venues, symbols), strict=True)
        )


def _values(column: pa.Array, dtype: np.dtype[Any], width: int = 1) -> NDArray[Any]:
    """The value buffer of a column without nulls, zero copy; ``width`` values per row."""
    first = column.offset * width * dtype.itemsize
    return np.frombuffer(column.buffers()[1], dtype, len(column) * width, first)


class BarsShard:
    """Bars of one shard. See the module for the rules."""

    def __init__(self, config: BarsConfig) -> None:
        self.config = config
        self._windows = config.windows()
        self._limits = kernels.Limits(config.allowed_lateness_ns, config.max_ahead_ns)
        self._interval_names = {"interval": pa.array(config.intervals, pa.string())}
        self._kept = BarsState(self._windows)
        self._lookup: _Lookup | None = None
        self._written = 0
        self._out = np.empty(self._kept.places + _CHUNK, layout.BAR_ROW)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._kept.nbytes

    def apply(self, rows: Rows) -> Rows:
        """Bars that became final with these trades; at the end of the feed, the open ones too."""
        counts = np.zeros(layout.N_COUNTS, np.int64)
        trades = rows.tables.get("trades")
        parts: list[NDArray[np.void]] = []
        if trades is not None and trades.num_rows and self.config.intervals:
            columns = self._columns(trades)
            row = 0
            while row < trades.num_rows:
                self._kept.make_room()
                row, emitted = kernels.apply_trades(
                    columns, row, self._limits, self._kept.state(self._windows, counts), self._out
                )
                if emitted:
                    parts.append(self._out[:emitted].copy())
        if rows.ended:
            parts += self._drain(counts)
        batches = []
        if "bars" in rows.tables:
            batches.append(self._venue_bars(rows.tables["bars"]))
        if parts:
            ours = parts[0] if len(parts) == 1 else np.concatenate(parts)
            batches.append(self._our_bars(ours, rows.shard))
        tables = {"bars": joined(batches)} if batches else {}
        stats = {name: n for name, n in zip(STATS, counts.tolist(), strict=True) if n}
        return Rows(rows.shard, tables, stats, rows.ended, rows.index)

    def _our_bars(self, bars: NDArray[np.void], shard: int) -> pa.RecordBatch:
        named = Instruments(NO_INSTRUMENTS.rows, self._kept.names.names())
        batch = rows_to_batch(_OURS, bars, named, shard, self._written, self._interval_names)
        self._written += len(bars)
        codes = pa.array(np.full(len(bars), int(BarOrigin.TRADES), np.int8))
        origin = pa.DictionaryArray.from_arrays(codes, _ORIGIN)
        return pa.RecordBatch.from_arrays([*batch.columns, origin], schema=arrow.schema(BARS))

    def _venue_bars(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with numbers of this step's."""
        first = self._written
        self._written += batch.num_rows
        place = batch.schema.get_field_index("row_sequence")
        numbers = pa.array(np.arange(first, self._written))
        return batch.set_column(place, batch.schema.field(place), numbers)

    def _columns(self, trades: pa.RecordBatch) -> kernels.Trades:
        arrived = trades.column("ts_recv")
        if arrived.null_count == trades.num_rows:
            arrived = pa.array(np.zeros(trades.num_rows, np.int64))
        elif arrived.null_count:
            arrived = arrived.cast(pa.int64()).fill_null(0)
        codes = {}
        for name in ("aggressor_side", "status"):
            column = trades.column(name)
            assert column.dictionary.equals(_DICTIONARIES[name]), name
            codes[name] = _values(column.indices, _INT8)
        return kernels.Trades(
            _values(trades.column("ts_event"), _INT64),
            _values(arrived, _INT64),
            self._instrument_of(trades.column("venue"), trades.column("symbol")),
            _values(trades.column("price"), _INT64, 2),
            _values(trades.column("size"), _INT64, 2),
            codes["aggressor_side"],
            codes["status"],
        )

    def _instrument_of(
        self, venues: pa.DictionaryArray, symbols: pa.DictionaryArray
    ) -> NDArray[np.int32]:
        """Our instrument per row; new ones are registered in order of their first row."""
        if self._lookup is None or not self._lookup.serves(venues.dictionary, symbols.dictionary):
            self._lookup = _Lookup(venues.dictionary, symbols.dictionary)
        index = self._lookup.index
        venue_codes = _values(venues.indices, _INT32)
        symbol_codes = _values(symbols.indices, _INT32)
        found = np.empty(len(venues), np.int32)
        if kernels.find(index, venue_codes, symbol_codes, found) == 0:
            return found
        unknown = np.flatnonzero(found < 0)
        pairs = venue_codes[unknown].astype(np.int64) * index.shape[1] + symbol_codes[unknown]
        firsts = unknown[np.sort(np.unique(pairs, return_index=True)[1])]
        of_venue, of_symbol = (
            codes[firsts].astype(np.int64) for codes in (venue_codes, symbol_codes)
        )
        index[of_venue, of_symbol] = self._kept.names.indices(
            *self._lookup.dictionaries, of_venue, of_symbol
        )
        self._kept.grow()
        kernels.find(index, venue_codes, symbol_codes, found)
        return found

    def _drain(self, counts: NDArray[np.int64]) -> list[NDArray[np.void]]:
        """All open bars, not final: by instrument (first come first), interval and time."""
        parts: list[NDArray[np.void]] = []
        instrument = 0
        while instrument < len(self._kept.names):
            self._kept.make_room()
            instrument, emitted = kernels.drain(
                instrument, self._kept.state(self._windows, counts), self._out
            )
            if emitted:
                parts.append(self._out[:emitted].copy())
        return parts

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, intervals, lateness, rows written, names known before, packed names, then as
        bytes: indices of instruments, their clocks, places among them of those with a seed, the
        seeds, places of open bars, the bars). ``changes``: only those since the last
        snapshot.
        """
        return (
            SNAPSHOT_VERSION,
            self.config.intervals,
            self.config.allowed_lateness_ns,
            self._written,
            *self._kept.pack(changes),
        )

    def restore(self, state: Any, *changes: Any) -> None:
        """Take a snapshot back, and the changes after it; StateError with the remedy where it does
        not fit."""
        for part in (state, *changes):
            self._take(part)

    def _take(self, state: Any) -> None:
        if state[0] != SNAPSHOT_VERSION:
            raise StateError(
                f"recovery state of bars has format {state[0]}, this release reads "
                f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        _, intervals, lateness_ns, written, *packed = state
        mine = (self.config.intervals, self.config.allowed_lateness_ns)
        if (intervals, lateness_ns) != mine:
            raise StateError(
                f"recovery state has bars of {', '.join(intervals)} with {lateness_ns} ns of "
                f"allowed lateness, the settings ask for {', '.join(mine[0])} with {mine[1]}: "
                f"keep the settings of the run that is resumed, or {START_ANEW}"
            )
        self._written = written
        self._lookup = None
        self._kept.unpack(*packed)

    def state_hash(self) -> str:
        """SHA-256 of all that decides future bars."""
        return hashlib.sha256(repr(self.snapshot()).encode()).hexdigest()


def bars_input(rows: Rows, intervals: Sequence[str]) -> tuple[str, tuple[int, Rows]] | None:
    """Rows of the book step, keyed by shard, if a bars core has anything to do with them."""
    ours = intervals and (rows.ended or "trades" in rows.tables)
    if not ours and "bars" not in rows.tables:
        return None
    return str(rows.index), (rows.index, rows)


def without_bars(rows: Rows) -> Rows:
    """The rows without bars, which the bars step numbers and emits."""
    if "bars" not in rows.tables:
        return rows
    return replace(rows, tables={n: t for n, t in rows.tables.items() if n != "bars"})
