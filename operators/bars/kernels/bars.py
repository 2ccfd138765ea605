"""Bars trade by trade: open windows of every instrument, and the rows of those that close.

State of one shard. An instrument has a clock (its watermark) and, per interval, a small ring of
open bars; a bar's place in the ring follows from its ``ts_open``. A window can be open only while
``ts_close + lateness`` is above the watermark and ``ts_open`` not above it, so a ring of
``lateness // length + 2`` places never needs one twice.

Bars lie in a pool, and a place says where. The first trade after a rest would open a bar of every
interval with the same numbers, so it is kept as what it is, a *seed*, until something else comes.

Everything happens trade by trade in their order, so the cut of batches cannot matter.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.bars.kernels.layout import (
    AHEAD,
    BARS_FREE,
    BARS_LIVE,
    BARS_USED,
    BEYOND,
    LATE,
    NOT_DUE,
    NOT_NORMAL,
    SEEDS_FREE,
    SEEDS_LIVE,
    SEEDS_USED,
)
from marketflow.operators.kernels import int256
from marketflow.operators.kernels.int128 import Word, add, compare
from marketflow.schemas.codes import AggressorSide, TradeStatus
from marketflow.schemas.kernel import kernel

_NORMAL: Final = int(TradeStatus.NORMAL)
_BUY: Final = int(AggressorSide.BUY)
_SELL: Final = int(AggressorSide.SELL)
#: Upper word from which a volume might not fit decimal128(38, 12): 2**126 is just below it.
_VOLUME_TOP: Final = 1 << 62


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
    """``clocks`` (CLOCK per instrument), ``places`` (int32 by instrument and place: the bar there,
    or -1), ``bars`` (pool of OPEN_BAR), ``seeds`` (pool of SEED), ``pools`` (their counters),
    ``windows`` (WINDOW per interval) and the ``counts`` of this call. A free row of a pool has the
    next one in ``trade_count`` or ``ts``."""

    clocks: Any
    places: Any
    bars: Any
    seeds: Any
    pools: NDArray[np.int64]
    windows: Any
    counts: NDArray[np.int64]


class _Print(NamedTuple):
    """What a bar takes of a trade."""

    ts: Word
    price_hi: Word
    price_lo: Word
    size_hi: Word
    size_lo: Word
    side: Word


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
    """Write an open bar as a row."""
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


@kernel
def _take_bar(state: State) -> Word:
    """A row of the pool; there is one."""
    pools = state.pools
    ref = pools[BARS_FREE]
    if ref >= 0:
        pools[BARS_FREE] = state.bars[ref].trade_count
    else:
        ref = pools[BARS_USED]
        pools[BARS_USED] += 1
    pools[BARS_LIVE] += 1
    return ref


@kernel
def _start(bar: Any, ts_open: Word, trade: _Print) -> None:
    """An empty bar whose four prices are those of its first trade."""
    bar.ts_open = ts_open
    bar.first_ts = trade.ts
    bar.last_ts = trade.ts
    bar.trade_count = 0
    bar.open_hi, bar.open_lo = trade.price_hi, trade.price_lo
    bar.high_hi, bar.high_lo = trade.price_hi, trade.price_lo
    bar.low_hi, bar.low_lo = trade.price_hi, trade.price_lo
    bar.close_hi, bar.close_lo = trade.price_hi, trade.price_lo
    bar.volume_hi, bar.volume_lo = np.int64(0), np.uint64(0)
    bar.buy_volume_hi, bar.buy_volume_lo = np.int64(0), np.uint64(0)
    bar.sell_volume_hi, bar.sell_volume_lo = np.int64(0), np.uint64(0)
    bar.notional_3 = bar.notional_2 = np.uint64(0)
    bar.notional_1 = bar.notional_0 = np.uint64(0)


@kernel
def _add_trade(state: State, instrument: Word, place: Word, ts_open: Word, trade: _Print) -> bool:
    """Take a trade into the bar of a place; false (and nothing changed) if a sum would not fit."""
    ref = np.int64(state.places[instrument, place])
    notional = int256.multiply(trade.price_hi, trade.price_lo, trade.size_hi, trade.size_lo)
    volume_hi, volume_lo = trade.size_hi, trade.size_lo
    if ref >= 0:
        bar = state.bars[ref]
        notional = int256.add(
            bar.notional_3, bar.notional_2, bar.notional_1, bar.notional_0, notional
        )
        volume_hi, volume_lo = add(bar.volume_hi, bar.volume_lo, trade.size_hi, trade.size_lo)
    w3, w2, w1, w0 = notional
    if not int256.fits_sum(w3, w2, w1, w0) or volume_hi >= _VOLUME_TOP:
        return False
    if ref < 0:
        ref = _take_bar(state)
        state.places[instrument, place] = np.int32(ref)
        _start(state.bars[ref], ts_open, trade)
    bar = state.bars[ref]
    bar.notional_3, bar.notional_2, bar.notional_1, bar.notional_0 = w3, w2, w1, w0
    bar.volume_hi, bar.volume_lo = volume_hi, volume_lo
    bar.trade_count += 1
    if trade.side == _BUY:
        hi, lo = add(bar.buy_volume_hi, bar.buy_volume_lo, trade.size_hi, trade.size_lo)
        bar.buy_volume_hi, bar.buy_volume_lo = hi, lo
    elif trade.side == _SELL:
        hi, lo = add(bar.sell_volume_hi, bar.sell_volume_lo, trade.size_hi, trade.size_lo)
        bar.sell_volume_hi, bar.sell_volume_lo = hi, lo
    if compare(trade.price_hi, trade.price_lo, bar.high_hi, bar.high_lo) > 0:
        bar.high_hi, bar.high_lo = trade.price_hi, trade.price_lo
    if compare(trade.price_hi, trade.price_lo, bar.low_hi, bar.low_lo) < 0:
        bar.low_hi, bar.low_lo = trade.price_hi, trade.price_lo
    if trade.ts < bar.first_ts:
        bar.first_ts = trade.ts
        bar.open_hi, bar.open_lo = trade.price_hi, trade.price_lo
    if trade.ts >= bar.last_ts:
        bar.last_ts = trade.ts
        bar.close_hi, bar.close_lo = trade.price_hi, trade.price_lo
    return True


@kernel
def _sow(state: State, instrument: Word, watermark: Word, lateness: Word, trade: _Print) -> bool:
    """Keep the first trade after a rest as a seed; false where not every bar would take it."""
    w3, w2, w1, w0 = int256.multiply(trade.price_hi, trade.price_lo, trade.size_hi, trade.size_lo)
    if not int256.fits_sum(w3, w2, w1, w0) or trade.size_hi >= _VOLUME_TOP:
        return False
    due = NOT_DUE
    for interval in range(len(state.windows)):
        length = state.windows[interval].length
        due = min(due, trade.ts // length * length + length + lateness)
    if due <= watermark:
        return False
    pools = state.pools
    at = pools[SEEDS_FREE]
    if at >= 0:
        pools[SEEDS_FREE] = state.seeds[at].ts
    else:
        at = pools[SEEDS_USED]
        pools[SEEDS_USED] += 1
    pools[SEEDS_LIVE] += 1
    seed = state.seeds[at]
    seed.ts = trade.ts
    seed.price_hi, seed.price_lo = trade.price_hi, trade.price_lo
    seed.size_hi, seed.size_lo = trade.size_hi, trade.size_lo
    seed.side = trade.side
    clock = state.clocks[instrument]
    clock.seed = np.int32(at)
    clock.due = due
    return True


@kernel
def _grow_seed(state: State, instrument: Word) -> None:
    """Open the bars that the instrument's seed stands for."""
    clock = state.clocks[instrument]
    at = np.int64(clock.seed)
    seed = state.seeds[at]
    trade = _Print(
        seed.ts, seed.price_hi, seed.price_lo, seed.size_hi, seed.size_lo, np.int64(seed.side)
    )
    clock.seed = np.int32(-1)
    seed.ts = state.pools[SEEDS_FREE]
    state.pools[SEEDS_FREE] = at
    state.pools[SEEDS_LIVE] -= 1
    for interval in range(len(state.windows)):
        window = state.windows[interval]
        number = trade.ts // window.length
        place = window.first + number % window.places
        _add_trade(state, instrument, place, number * window.length, trade)


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
    pools = state.pools
    state.clocks[instrument].touched = 1
    if state.clocks[instrument].seed >= 0:
        _grow_seed(state, instrument)
    for interval in range(len(state.windows)):
        window = state.windows[interval]
        stop = window.first + window.places
        while True:
            oldest = -1
            ts_open = NOT_DUE
            for place in range(window.first, stop):
                ref = np.int64(state.places[instrument, place])
                if ref >= 0 and state.bars[ref].ts_open < ts_open:
                    oldest, ts_open = place, state.bars[ref].ts_open
            if oldest < 0:
                break
            if ts_open + window.length + lateness > until:
                due = min(due, ts_open + window.length + lateness)
                break
            ref = np.int64(state.places[instrument, oldest])
            _emit(state.bars[ref], out[emitted], window.length, instrument, interval, final)
            emitted += 1
            state.places[instrument, oldest] = np.int32(-1)
            state.bars[ref].trade_count = pools[BARS_FREE]
            pools[BARS_FREE] = ref
            pools[BARS_LIVE] -= 1
    state.clocks[instrument].due = due
    return emitted


@kernel
def apply_trades(
    trades: Trades, row: Word, limits: Limits, state: State, out: NDArray[np.void]
) -> tuple[Word, Word]:
    """Take trades from ``row`` on: (first row not taken, rows in ``out``).

    Stops early when ``out`` might not hold what one more trade closes, or a pool what it opens.
    """
    emitted = np.int64(0)
    room = len(out) - state.places.shape[1]
    pools = state.pools
    most_bars = len(state.bars) - 2 * len(state.windows)
    while row < len(trades.ts_event) and emitted <= room:
        if pools[BARS_LIVE] > most_bars or pools[SEEDS_LIVE] >= len(state.seeds):
            break
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
        clock.touched = 1
        if ts > watermark:
            clock.watermark = ts
            if ts >= clock.due:
                emitted = emit_until(
                    instrument, ts, np.int8(1), limits.lateness, state, out, emitted
                )
        trade = _Print(
            ts, trades.price[2 * row + 1], np.uint64(trades.price[2 * row]),
            trades.size[2 * row + 1], np.uint64(trades.size[2 * row]), np.int64(trades.side[row]),
        )  # fmt: skip
        if clock.due == NOT_DUE and _sow(state, instrument, watermark, limits.lateness, trade):
            row += 1
            continue
        if clock.seed >= 0:
            _grow_seed(state, instrument)
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
            place = window.first + number % window.places
            if _add_trade(state, instrument, place, ts_open, trade):
                clock.due = min(clock.due, final_at)
            else:
                beyond = True
        state.counts[LATE] += late
        state.counts[BEYOND] += beyond
        row += 1
    return row, emitted


@kernel
def drain(first: Word, state: State, out: NDArray[np.void]) -> tuple[Word, Word]:
    """Emit all open bars, not final, of instruments from ``first`` on: (first instrument not
    drained, rows in ``out``). Stops early as :func:`apply_trades` does."""
    emitted = np.int64(0)
    room = len(out) - state.places.shape[1]
    most_bars = len(state.bars) - len(state.windows)
    while first < len(state.clocks) and emitted <= room:
        if state.pools[BARS_LIVE] > most_bars:
            break
        if state.clocks[first].due != NOT_DUE:
            emitted = emit_until(first, NOT_DUE, np.int8(0), np.int64(0), state, out, emitted)
        first += 1
    return first, emitted
