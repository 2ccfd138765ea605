"""Databento CSV lines as DBN records, so that both make the same rows.

Prices may be decimal text or whole multiples of 1e-9, times RFC 3339 text or whole ns; both forms
are told apart value by value. Columns we do not know are ignored. Without an ``rtype`` column the
columns tell what the records are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.formats.dbn.kernels import dbn as kernels
from marketflow.operators.formats.dbn.names import Names
from marketflow.operators.formats.dbn.records import Records
from marketflow.operators.kernels import fields, numbers
from marketflow.operators.normalise.feed import FrameColumns
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.units import INT64_MAX


class Reject(Protocol):
    """Makes a dead letter of a frame: ``raw`` None is its payload, ``ts`` 0 the latest known,
    ``place`` where in the frame it is."""

    def __call__(
        self,
        row: int,
        reason: DeadLetterReason,
        detail: str,
        raw: bytes | None = None,
        ts: int = 0,
        place: int = 0,
    ) -> None: ...


def columns(header: bytes) -> tuple[str, ...]:
    """Column names; ValueError if it is no line of Databento's."""
    names = tuple(name.strip().strip('"') for name in header.decode().split(","))
    if "ts_event" not in names or "instrument_id" not in names:
        raise ValueError("a Databento CSV has at least the columns ts_event and instrument_id")
    return names


def schema(names: tuple[str, ...]) -> str:
    """The schema that the columns are of."""
    if "bid_px_09" in names:
        return "mbp-10"
    if "bid_px_00" in names:
        return "mbp-1" if "action" in names else "bbo"
    if {"open", "high", "low", "close", "volume"} <= set(names):
        return "ohlcv"
    return "mbo" if "order_id" in names else "trades" if "action" in names else "other"


_RTYPES: Final = {
    "mbo": 160, "mbp-10": 10, "mbp-1": 1, "trades": 0, "bbo": 195, "ohlcv": 17, "other": 23,
}  # fmt: skip


class _Lines:
    """Parsed columns of a run of lines; a line that cannot be taken is noted in ``good``."""

    def __init__(self, text: Any, bounds: Any, names: tuple[str, ...]) -> None:
        n = len(bounds) - 1
        self.text = text
        self.names = names
        self.starts, self.stops = np.zeros((2, len(names), n), np.int64)
        self.good = np.ones(n, np.bool_)
        fields.split(text, bounds, self.starts, self.stops, self.good)
        self.reasons = np.where(self.good, -1, int(DeadLetterReason.MALFORMED))
        broken = ~self.good
        self.starts[:, broken] = self.stops[:, broken] = 0
        self.empty = np.zeros(n, np.int64)

    def fail(self, good: NDArray[np.bool_], reason: DeadLetterReason) -> None:
        """Lines that are not good have this reason, unless they have one already."""
        self.reasons[~good & (self.reasons < 0)] = int(reason)

    def integer(self, name: str, default: int = 0, limit: int = INT64_MAX) -> NDArray[np.int64]:
        """A whole number of 0 to ``limit``; ``default`` where it is empty or there is no column."""
        values = self.empty + default
        if name in self.names:
            column = self.names.index(name)
            good = np.ones(len(values), np.bool_)
            starts, stops = self.starts[column], self.stops[column]
            fields.integers(self.text, starts, stops, default, values, good)
            self.fail(good & (values >= 0) & (values <= limit), DeadLetterReason.MALFORMED)
        return values & limit

    def signed(self, name: str) -> NDArray[np.int64]:
        """ts_in_delta: 32 bits with a sign, as they stand in a word."""
        values = self.empty.copy()
        if name in self.names:
            column = self.names.index(name)
            good = np.ones(len(values), np.bool_)
            starts, stops = self.starts[column], self.stops[column]
            fields.integers(self.text, starts, stops, 0, values, good)
            self.fail(good & (abs(values) < 2**31), DeadLetterReason.MALFORMED)
        return values & 0xFFFFFFFF

    def time(self, name: str) -> NDArray[np.int64]:
        values = self.empty.copy()
        if name in self.names:
            column = self.names.index(name)
            good = np.ones(len(values), np.bool_)
            fields.times(self.text, self.starts[column], self.stops[column], values, good)
            self.fail(good, DeadLetterReason.BAD_TIMESTAMP)
        return values

    def letter(self, name: str) -> NDArray[np.int64]:
        """First byte of a field, 0 where it is empty."""
        if name not in self.names:
            return self.empty
        column = self.names.index(name)
        starts = self.starts[column]
        letters = self.text[np.minimum(starts, len(self.text) - 1)].astype(np.int64)
        return np.where(starts < self.stops[column], letters, 0)

    def price(self, name: str) -> NDArray[np.int64]:
        """Multiples of 1e-9; INT64_MAX where it is empty."""
        values = self.empty.copy()
        codes = np.empty(len(values), np.int8)
        column = self.names.index(name)
        starts, stops = self.starts[column], self.stops[column]
        digits = kernels.PRICE_SCALE
        fields.fixed_point(self.text, starts, stops, digits, INT64_MAX, values, codes)
        self.fail(codes != numbers.GARBAGE, DeadLetterReason.BAD_PRICE)
        self.fail(codes == numbers.OK, DeadLetterReason.OUT_OF_RANGE)
        return values

    def texts(self, name: str) -> list[str]:
        """Fields as text."""
        column = self.names.index(name)
        spans = zip(self.starts[column].tolist(), self.stops[column].tolist(), strict=True)
        return [self.text[start:stop].tobytes().decode("utf-8", "replace") for start, stop in spans]


def records(
    frames: FrameColumns,
    first: int,
    last: int,
    names: tuple[str, ...],
    symbols: Names,
    reject: Reject,
) -> Iterator[Records]:
    """The lines of frames ``first`` to ``last`` as records; bad ones become dead letters.

    Where an id gets another symbol, a new run of records starts and ``symbols`` is told before.
    """
    lines = _Lines(frames.text, frames.bounds[first : last + 1], names)
    kind = schema(names)
    rtypes = lines.integer("rtype", _RTYPES[kind], 255)
    publisher = lines.integer("publisher_id", 0, 65535)
    number = lines.integer("instrument_id", 0, 2**32 - 1)
    words, times = _words(lines, kind, number << 32 | publisher << 16 | rtypes << 8)
    layout = kernels.LEVELS.get(_RTYPES[kind])
    allowed = [r for r in range(256) if r == _RTYPES[kind] or kernels.LEVELS.get(r, -1) == layout]
    ignored = kernels.CLASSES[rtypes] == kernels.IGNORED
    candles = (kernels.CLASSES[rtypes] == kernels.BARS) & (kind == "ohlcv")
    lines.fail(np.isin(rtypes, allowed) | ignored | candles, DeadLetterReason.UNKNOWN_MESSAGE)
    taken = lines.reasons < 0
    before = np.maximum.accumulate(np.where(taken, np.arange(len(taken)), -1))
    for row in np.flatnonzero(~taken).tolist():
        # A bad line has the time of the good one before it.
        ts = int(times[before[row]]) if before[row] >= 0 else 0
        reason = DeadLetterReason(int(lines.reasons[row]))
        reject(first + row, reason, f"not a line of the columns of this {kind} file", None, ts)
    good = np.flatnonzero(taken)
    width = len(words) // max(len(lines.empty), 1)
    found = Records(
        words,
        good * width,
        rtypes[good].astype(np.uint8),
        (publisher << 32 | number)[good],
        times[good],
        (first + good).astype(np.int32),
        np.zeros(len(good), np.int64),
    )
    if "symbol" not in names:
        yield found
        return
    start = 0
    current: dict[int, str] = {}
    texts = lines.texts("symbol")
    for at, (row, key) in enumerate(zip(good.tolist(), number[good].tolist(), strict=True)):
        symbol = texts[row]
        if current.get(key) != symbol:
            yield found.part(start, at)
            start = at
            current[key] = symbol
            symbols.add(key, symbol)
    yield found.part(start, len(good))


def _words(
    lines: _Lines, kind: str, head: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Records of equal width one behind the other (see kernels.dbn), and their times."""
    ts_event, ts_recv = lines.time("ts_event"), lines.time("ts_recv")
    if kind == "ohlcv":
        prices = [lines.price(name) for name in ("open", "high", "low", "close")]
        columns = [head | 2 * 7, ts_event, *prices, lines.integer("volume")]
        return np.stack(columns, axis=1).reshape(-1), ts_event
    size = lines.integer("size", 0, 2**32 - 1)
    flags = lines.integer("flags", 0, 255)
    action, side = lines.letter("action"), lines.letter("side")
    tail = lines.integer("sequence", 0, 2**32 - 1) << 32 | lines.signed("ts_in_delta")
    price = lines.price("price") if "price" in lines.names else lines.empty + INT64_MAX
    if kind == "mbo":
        channel = lines.integer("channel_id", 0, 255)
        middle = side << 56 | action << 48 | channel << 40 | flags << 32 | size
        body = [ts_event, lines.integer("order_id"), price, middle, ts_recv, tail]
    else:
        depth = lines.integer("depth", 0, 255)
        middle = depth << 56 | flags << 48 | side << 40 | action << 32 | size
        body = [ts_event, price, middle, ts_recv, tail]
        for level in range(kernels.LEVELS.get(_RTYPES[kind], 0)):
            body += _level(lines, f"{level:02}")
    columns = [head | 2 * (len(body) + 1), *body]
    return np.stack(columns, axis=1).reshape(-1), np.where(ts_recv > 0, ts_recv, ts_event)


def _level(lines: _Lines, level: str) -> list[NDArray[np.int64]]:
    sizes = [lines.integer(f"{side}_sz_{level}", 0, 2**32 - 1) for side in ("bid", "ask")]
    counts = [lines.integer(f"{side}_ct_{level}", 0, 2**32 - 1) for side in ("bid", "ask")]
    return [
        lines.price(f"bid_px_{level}"),
        lines.price(f"ask_px_{level}"),
        sizes[1] << 32 | sizes[0],
        counts[1] << 32 | counts[0],
    ]
