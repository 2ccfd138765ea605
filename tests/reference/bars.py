"""Slow twin of operators.bars.core: one trade at a time, Decimals and dicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from marketflow.schemas.units import interval_ns

EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
STEP = Decimal("1E-12")


@dataclass
class Trade:
    venue: str
    symbol: str
    ts_event: int
    ts_recv: int | None
    price: Decimal
    size: Decimal
    side: str = "none"
    status: str = "normal"


@dataclass
class SlowBars:
    """Emitted bars are collected in ``bars`` as dicts without shard and row_sequence."""

    intervals: tuple[str, ...]
    lateness_ns: int
    max_ahead_ns: int
    bars: list[dict[str, Any]] = field(default_factory=list)
    stats: Counter[str] = field(default_factory=Counter)
    watermarks: dict[tuple[str, str], int] = field(default_factory=dict)
    #: (instrument, interval, ts_open) -> its trades in order of arrival
    open: dict[tuple[tuple[str, str], str, int], list[Trade]] = field(default_factory=dict)

    def trade(self, trade: Trade) -> None:
        instrument = (trade.venue, trade.symbol)
        before = self.watermarks.setdefault(instrument, -(2**63))
        if trade.status != "normal":
            self.stats["bars_busts_corrections"] += 1
            return
        if trade.ts_recv and trade.ts_event - trade.ts_recv > self.max_ahead_ns:
            self.stats["bars_trades_ahead"] += 1
            return
        self.watermarks[instrument] = max(before, trade.ts_event)
        self._emit(instrument, self.watermarks[instrument], True)
        late = False
        for interval in self.intervals:
            length = interval_ns(interval)
            ts_open = trade.ts_event // length * length
            if ts_open + length + self.lateness_ns <= before:
                late = True
            else:
                self.open.setdefault((instrument, interval, ts_open), []).append(trade)
        self.stats["bars_late_trades"] += late

    def end(self) -> None:
        for instrument in self.watermarks:
            self._emit(instrument, 2**63, False)

    def _emit(self, instrument: tuple[str, str], until: int, final: bool) -> None:
        for interval in self.intervals:
            length = interval_ns(interval)
            for key in sorted(k for k in self.open if k[:2] == (instrument, interval)):
                if key[2] + length + self.lateness_ns <= until:
                    self.bars.append(self._bar(key, self.open.pop(key), length, final))

    def _bar(
        self, key: tuple[tuple[str, str], str, int], trades: list[Trade], length: int, final: bool
    ) -> dict[str, Any]:
        in_time = sorted(trades, key=lambda t: t.ts_event)  # stable: arrival breaks ties

        def total(values: list[Decimal]) -> Decimal:
            result = Decimal(0)
            for value in values:
                result = EXACT.add(result, value)
            return result.quantize(STEP, context=EXACT)

        return {
            "ts_open": key[2],
            "ts_close": key[2] + length,
            "venue": key[0][0],
            "symbol": key[0][1],
            "interval": key[1],
            "open": in_time[0].price,
            "high": max(t.price for t in trades),
            "low": min(t.price for t in trades),
            "close": in_time[-1].price,
            "volume": total([t.size for t in trades]),
            "notional": total([EXACT.multiply(t.price, t.size) for t in trades]),
            "trade_count": len(trades),
            "buy_volume": total([t.size for t in trades if t.side == "buy"]),
            "sell_volume": total([t.size for t in trades if t.side == "sell"]),
            "is_final": final,
            "origin": "trades",
        }
