"""Databento's ohlcv records as rows of ``bars``: all of them at once, no object per record.

A record is seven words: head, start of the interval, open, high, low, close (multiples of 1e-9,
INT64_MAX none), volume (unsigned). It tells no notional and no number of trades: those are null.
A day is one of UTC, and "eod" a session, whose end no record tells: it is shown as a day.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.normalise.passthrough import schema
from marketflow.schemas.codes import BarOrigin, DeadLetterReason
from marketflow.schemas.derived import arrow
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables.market_data import BARS
from marketflow.schemas.units import END_OF_TIME_NS, INT64_MAX, NS_PER_DAY, interval_ns

Bad = tuple[int, DeadLetterReason, str]

_WORDS: Final = 7
_PRICES: Final = ("open", "high", "low", "close")
#: Interval of an rtype; 17 is of any length, which the schema of its file tells.
INTERVALS: Final = {32: "1s", 33: "1m", 34: "1h", 35: "1d", 36: "eod"}
_ANY_LENGTH: Final = 17
_NAMES: Final = tuple(INTERVALS.values())
_LENGTHS: Final = np.array(
    [NS_PER_DAY if name == "eod" else interval_ns(name) for name in _NAMES], np.int64
)


def rows(
    words: NDArray[np.int64],
    ats: NDArray[np.int64],
    instruments: NDArray[np.int32],
    file_schema: Any,
) -> tuple[pa.RecordBatch, list[Bad]]:
    """(passing rows of ``bars``, (index, reason, detail) of each record that cannot be one)."""
    heads = words[ats]
    rtypes = heads >> 8 & 255
    told = _place(str(file_schema or "").removeprefix("ohlcv-"))
    places = np.where(rtypes == _ANY_LENGTH, told, rtypes - min(INTERVALS))
    short = (heads & 255) // 2 < _WORDS
    # Short records read as their own head: in bounds, and refused below.
    columns = {
        name: words[ats + np.where(short, 0, at)]
        for at, name in enumerate(("ts_open", *_PRICES, "volume"), 1)
    }
    opened = columns["ts_open"]
    checks = (
        (short, DeadLetterReason.TRUNCATED, "an ohlcv record shorter than its type"),
        (places < 0, DeadLetterReason.UNKNOWN_MESSAGE, "a bar of an interval that nothing tells"),
        (
            (opened <= 0) | (opened >= END_OF_TIME_NS),
            DeadLetterReason.BAD_TIMESTAMP,
            "a bar without a time",
        ),
        *(
            (columns[name] == INT64_MAX, DeadLetterReason.BAD_PRICE, f"a bar without {name}")
            for name in _PRICES
        ),
    )
    bad: list[Bad] = []
    good = np.ones(len(ats), np.bool_)
    for fails, reason, detail in checks:
        bad += [(index, reason, detail) for index in np.flatnonzero(fails & good).tolist()]
        good &= ~fails
    chosen = np.flatnonzero(good)
    taken = {name: values[chosen] for name, values in columns.items()}
    places = places[chosen].astype(np.int32)
    made = {
        "instrument": pa.array(instruments[chosen]),
        "ts_open": pa.array(taken["ts_open"]).cast(arrow.TIME),
        "ts_close": pa.array(taken["ts_open"] + _LENGTHS[places]).cast(arrow.TIME),
        "interval": pa.DictionaryArray.from_arrays(pa.array(places), pa.array(_NAMES)),
        **{name: _decimals(taken[name], 9, arrow.DECIMAL) for name in _PRICES},
        "volume": _decimals(taken["volume"], 0, arrow.SUM, signed=False),
        "is_final": pa.array(np.ones(len(chosen), np.bool_)),
        "origin": pa.DictionaryArray.from_arrays(
            pa.array(np.full(len(chosen), int(BarOrigin.VENUE), np.int8)),
            arrow.dictionary(BARS.field("origin")),
        ),
    }
    whole = schema(BARS)
    arrays = [
        made[field.name] if field.name in made else pa.nulls(len(chosen), field.type)
        for field in whole
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=whole), sorted(bad)


def _place(interval: str) -> int:
    return _NAMES.index(interval) if interval in _NAMES else -1


def _decimals(
    values: NDArray[np.int64], scale: int, kind: pa.DataType, *, signed: bool = True
) -> pa.Array:
    """64-bit words of multiples of 10**-scale as decimals, exactly."""
    halves = np.empty((len(values), 2), np.int64)
    halves[:, 0] = values
    halves[:, 1] = values >> 63 if signed else 0
    plain = pa.Array.from_buffers(
        pa.decimal128(20, scale), len(values), [None, pa.py_buffer(halves)]
    )
    return plain.cast(kind)


assert BARS.field("volume").kind is Kind.SUM
