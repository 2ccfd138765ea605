"""Bars trade by trade: open windows of every instrument, and the rows of those that close.

State of one shard. An instrument has a clock (its watermark) and, per interval, a small ring of
open bars; a bar's place in the ring follows from its ``ts_open``. A window can be open only while
``ts_close + lateness`` is above the watermark and ``ts_open`` not above it, so a ring of
``lateness // length + 2`` places never needs one twice.

Everything happens trade by trade in their order, so the cut of batches cannot matter.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import int256
from operators.kernels.int128 import Word, add, compare
from operators.kernels.jit import kernel
from schemas.codes import AggressorSide, TradeStatus

#: ``ts_open`` of a free place; watermark of an instrument without trades.
NEVER: Final = -(2**63)
#: ``due`` of an instrument without open bars.
NOT_DUE: Final = 2**63 - 1

_NORMAL: Final = int(TradeStatus.NORMAL)
_BUY: Final = int(AggressorSide.BUY)
_SELL: Final = int(AggressorSide.SELL)
#: Upper word from which a volume might not fit decimal128(38, 12): 2**126 is just below it.
_VOLUME_TOP: Final = 1 << 62

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = ("volume", "buy_volume", "sell_volume")


def _words(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(n + part, kind) for n in names for part, kind in (("_hi", "<i8"), ("_lo", "<u8"))]


#: An open bar. ``first_ts`` and ``last_ts`` are the times of its open and close price; the
#: notional's exact sum takes four words (kernels.int256).
OPEN_BAR: Final = np.dtype(
    [
        ("ts_open", "<i8"),
        ("first_ts", "<i8"),
        ("last_ts", "<i8"),
        ("trade_count", "<i8"),
        *_words(_PRICES + _SUMS),
        *((f"notional_{i}", "<u8") for i in (3, 2, 1, 0)),
    ]
)

#: A closed bar: the ``bars`` table with its prices as words (see operators.output).
BAR_ROW: Final = np.dtype(
    [
        ("ts_open", "<i8"),
        ("ts_close", "<i8"),
        ("trade_count", "<i8"),
        *_words((*_PRICES, *_SUMS, "notional")),
        ("instrument", "<i4"),
        ("interval", "<i4"),
        ("is_final", "i1"),
    ],
    align=True,
)

#: ``watermark``: latest ts_event of the instrument's trades; ``due``: watermark at which the
#: first of its open bars is final.
CLOCK: Final = np.dtype([("watermark", "<i8"), ("due", "<i8")])

#: One interval: its length in ns, and its ring in an instrument's row of open bars.
WINDOW: Final = np.dtype([("length", "<i8"), ("first", "<i8"), ("places", "<i8")])

# What is counted besides bars.
LATE: Final = 0  # left out of at least one bar, which is final already
AHEAD: Final = 1  # dated too far after its arrival: left out of all bars, moves no watermark
BEYOND: Final = 2  # left out of at least one bar whose sums would not fit their columns
NOT_NORMAL: Final = 3  # busts and corrections: bars are not rewritten
N_COUNTS: Final = 4


class Trades(NamedTuple):
    """Columns of a trades batch. Prices and sizes are Arrow's words (lo, hi in turn)."""

    ts_event: NDArray[np.int64]
    ts_recv: NDArray[np.int64]
    instrument: NDArray[np.int32]
    price: NDArray[np.int64]
    size: NDArray[np.int64]
    side: NDArray[np.int8]
    status: NDArray[np.int8]


class State(NamedTuple):
    """``clocks`` (CLOCK per instrument), ``bars`` (OPEN_BAR by instrument and place), ``windows``
    (WINDOW per interval) and the ``counts`` of this call."""

    clocks: Any
    bars: Any
    windows: Any
    counts: NDArray[np.int64]


class Limits(NamedTuple):
    lateness: int
    max_ahead: int


@kernel
def find(
    index: NDArray[np.int32],
    venues: NDArray[np.int32],
    symbols: NDArray[np.int32],
    found: NDArray[np.int32],
) -> int:
    """Instrument of each (venue code, symbol code); returns how many are not known (-1)."""
    unknown = 0
    for row in range(len(found)):
        found[row] = index[venues[row], symbols[row]]
        unknown += found[row] < 0
    return unknown


@kernel
def _emit(
    bar: Any,
    row: Any,
    length: Word,
    instrument: Word,
    interval: Word,
    final: Word,
) -> None:
    """Write an open bar as a row and free its place."""
    row.ts_open = bar.ts_open
    row.ts_close = bar.ts_open + length
    row.trade_count = bar.trade_count
    row.open_hi, row.open_lo = bar.open_hi, bar.open_lo
    row.high_hi, row.high_lo = bar.high_hi, bar.high_lo
    row.low_hi, row.low_lo = bar.low_hi, bar.low_lo
    row.close_hi, row.close_lo = bar.close_hi, bar.close_lo
    row.volume_hi, row.volume_lo = bar.volume_hi, bar.volume_lo
    row.buy_volume_hi, row.buy_volume_lo = bar.buy_volume_hi, bar.buy_volume_lo
    row.sell_volume_hi, row.sell_volume_lo = bar.sell_volume_hi, bar.sell_volume_lo
    row.notional_hi, row.notional_lo = int256.rounded_sum(
        bar.notional_3, bar.notional_2, bar.notional_1, bar.notional_0
    )
    row.instrument = instrument
    row.interval = interval
    row.is_final = final
    bar.ts_open = NEVER


@kernel
def emit_until(
    instrument: Word,
    until: Word,
    final: Word,
    lateness: Word,
    state: State,
    out: NDArray[np.void],
    emitted: Word,
) -> Word:
    """Emit the instrument's bars whose ts_close + lateness <= until: by interval, then time.

    Sets ``due`` of what stays open; returns the new number of rows in ``out``.
    """
    due = NOT_DUE
    for interval in range(len(state.windows)):
        window = state.windows[interval]
        stop = window.first + window.places
        while True:
            oldest = -1
            ts_open = NOT_DUE
            for place in range(window.first, stop):
                start = state.bars[instrument, place].ts_open
                if start != NEVER and start < ts_open:
                    oldest, ts_open = place, start
            if oldest < 0:
                break
            if ts_open + window.length + lateness > until:
                due = min(due, ts_open + window.length + lateness)
                break
            bar = state.bars[instrument, oldest]
            _emit(bar, out[emitted], window.length, instrument, interval, final)
            emitted += 1
    state.clocks[instrument].due = due
    return emitted


@kernel
def _start(bar: Any, ts_open: Word, ts: Word, hi: Word, lo: Word) -> None:
    """An empty bar whose four prices are those of its first trade."""
    bar.ts_open = ts_open
    bar.first_ts = ts
    bar.last_ts = ts
    bar.trade_count = 0
    bar.open_hi, bar.open_lo = hi, lo
    bar.high_hi, bar.high_lo = hi, lo
    bar.low_hi, bar.low_lo = hi, lo
    bar.close_hi, bar.close_lo = hi, lo
    bar.volume_hi, bar.volume_lo = np.int64(0), np.uint64(0)
    bar.buy_volume_hi, bar.buy_volume_lo = np.int64(0), np.uint64(0)
    bar.sell_volume_hi, bar.sell_volume_lo = np.int64(0), np.uint64(0)
    bar.notional_3 = bar.notional_2 = np.uint64(0)
    bar.notional_1 = bar.notional_0 = np.uint64(0)


@kernel
def _add_trade(bar: Any, ts_open: Word, row: Word, trades: Trades) -> bool:
    """Take trade ``row`` into its bar; false (and nothing changed) if a sum would not fit."""
    ts = trades.ts_event[row]
    price_hi, price_lo = trades.price[2 * row + 1], np.uint64(trades.price[2 * row])
    size_hi, size_lo = trades.size[2 * row + 1], np.uint64(trades.size[2 * row])
    fresh = bar.ts_open == NEVER
    notional = int256.multiply(price_hi, price_lo, size_hi, size_lo)
    volume_hi, volume_lo = size_hi, size_lo
    if not fresh:
        notional = int256.add(
            bar.notional_3, bar.notional_2, bar.notional_1, bar.notional_0, notional
        )
        volume_hi, volume_lo = add(bar.volume_hi, bar.volume_lo, size_hi, size_lo)
    w3, w2, w1, w0 = notional
    if not int256.fits_sum(w3, w2, w1, w0) or volume_hi >= _VOLUME_TOP:
        return False
    if fresh:
        _start(bar, ts_open, ts, price_hi, price_lo)
    bar.notional_3, bar.notional_2, bar.notional_1, bar.notional_0 = w3, w2, w1, w0
    bar.volume_hi, bar.volume_lo = volume_hi, volume_lo
    bar.trade_count += 1
    if trades.side[row] == _BUY:
        hi, lo = add(bar.buy_volume_hi, bar.buy_volume_lo, size_hi, size_lo)
        bar.buy_volume_hi, bar.buy_volume_lo = hi, lo
    elif trades.side[row] == _SELL:
        hi, lo = add(bar.sell_volume_hi, bar.sell_volume_lo, size_hi, size_lo)
        bar.sell_volume_hi, bar.sell_volume_lo = hi, lo
    if compare(price_hi, price_lo, bar.high_hi, bar.high_lo) > 0:
        bar.high_hi, bar.high_lo = price_hi, price_lo
    if compare(price_hi, price_lo, bar.low_hi, bar.low_lo) < 0:
        bar.low_hi, bar.low_lo = price_hi, price_lo
    if ts < bar.first_ts:
        bar.first_ts = ts
        bar.open_hi, bar.open_lo = price_hi, price_lo
    if ts >= bar.last_ts:
        bar.last_ts = ts
        bar.close_hi, bar.close_lo = price_hi, price_lo
    return True


@kernel
def apply_trades(
    trades: Trades, row: Word, limits: Limits, state: State, out: NDArray[np.void]
) -> tuple[Word, Word]:
    """Take trades from ``row`` on: (first row not taken, rows in ``out``).

    Stops early when ``out`` might not hold what one more trade closes.
    """
    emitted = np.int64(0)
    room = len(out) - state.bars.shape[1]
    while row < len(trades.ts_event) and emitted <= room:
        ts, instrument = trades.ts_event[row], trades.instrument[row]
        clock = state.clocks[instrument]
        watermark = clock.watermark
        arrival = trades.ts_recv[row]
        if trades.status[row] != _NORMAL:
            state.counts[NOT_NORMAL] += 1
            row += 1
            continue
        if arrival != 0 and ts - arrival > limits.max_ahead:
            state.counts[AHEAD] += 1
            row += 1
            continue
        if ts > watermark:
            clock.watermark = ts
            if ts >= clock.due:
                emitted = emit_until(
                    instrument, ts, np.int8(1), limits.lateness, state, out, emitted
                )
        late = False
        beyond = False
        for interval in range(len(state.windows)):
            window = state.windows[interval]
            number = ts // window.length
            ts_open = number * window.length
            final_at = ts_open + window.length + limits.lateness
            if final_at <= watermark:
                late = True
                continue
            bar = state.bars[instrument, window.first + number % window.places]
            if _add_trade(bar, ts_open, row, trades):
                clock.due = min(clock.due, final_at)
            else:
                beyond = True
        state.counts[LATE] += late
        state.counts[BEYOND] += beyond
        row += 1
    return row, emitted
