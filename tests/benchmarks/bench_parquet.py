"""The lake sink: rows/s into sorted, fsynced Parquet, with the log and a snapshot per second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from marketflow.schemas.derived.arrow import arrow_type, dictionary, schema
from marketflow.schemas.fields import Field, Kind
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH_LEVELS
from marketflow.sinks.lake.writer import ParquetWriter
from tests.benchmarks.harness import Result, benchmark, rate
from tests.support.batches import START_NS, Item, decimals

_SYMBOLS, _SHARDS, _BATCH_ROWS = 512, 16, 8192
ROUND_ROWS: Final = _SHARDS * _BATCH_ROWS
_CENT: Final = 10**10  # in units of 1e-12
#: Rows per run and the figure to reach, by table.
_TABLES: Final = {
    "quotes": (4_000_000, 4e6),
    "book_events": (4_000_000, 2.7e6),
    "trades": (4_000_000, None),
    "depth": (1_000_000, 0.8e6),
}


class Day:
    """A busy session: batches of one shard each, symbols by Zipf, prices that wander by cents.

    A depth row changes one level of its symbol's book, as real ones do. ``pace_ns`` is the mean
    time between the rows of a shard.
    """

    def __init__(self, table: str, pace_ns: int = 30_050) -> None:
        self._table = TABLES[table]
        self._pace_ns = pace_ns
        self._rng = np.random.default_rng(7)
        self._symbols = pa.array([f"SYM{i}" for i in range(_SYMBOLS)])
        self._base = self._rng.integers(1000, 50_000, _SYMBOLS)
        self._next = [0] * _SHARDS
        self._clock = START_NS

    def items(self, rows: int) -> list[Item]:
        """At least so many rows."""
        return [item for _ in range(-(-rows // ROUND_ROWS)) for item in self.round()]

    def round(self, clock: int | None = None) -> list[Item]:
        """A batch of every shard, ``ROUND_ROWS`` in all, from ``clock`` on or after the last."""
        self._clock = self._clock if clock is None else clock
        items = [self._item(shard) for shard in range(_SHARDS)]
        self._clock += _BATCH_ROWS * self._pace_ns * 33 // 32
        return items

    def _item(self, shard: int) -> Item:
        rng, rows = self._rng, _BATCH_ROWS
        self._of = (rng.zipf(1.3, rows) * _SHARDS + shard) % _SYMBOLS
        self._times = self._clock + np.cumsum(rng.integers(100, 2 * self._pace_ns - 100, rows))
        self._cents = self._base[self._of] + np.cumsum(rng.integers(-1, 2, rows)) % 50
        columns = [self._column(field, shard) for field in self._table.fields]
        self._next[shard] += rows
        batch = pa.RecordBatch.from_arrays(columns, schema=schema(self._table))
        return Item(shard, {self._table.name: batch})

    def _column(self, field: Field, shard: int) -> pa.Array:
        rng, rows, kind = self._rng, _BATCH_ROWS, arrow_type(field)
        match field.name:
            case "shard":
                return pa.array(np.full(rows, shard), kind)
            case "row_sequence":
                return pa.array(np.arange(self._next[shard], self._next[shard] + rows))
            case "venue":
                zero = pa.array(np.zeros(rows), pa.int32())
                return pa.DictionaryArray.from_arrays(zero, pa.array(["XNAS"]))
            case "symbol":
                return pa.DictionaryArray.from_arrays(pa.array(self._of, pa.int32()), self._symbols)
            case "ts_recv":
                return pa.array(self._times + rng.integers(1000, 90_000, rows)).cast(kind)
        match field.kind:
            case Kind.TIME:
                return pa.array(self._times).cast(kind)
            case Kind.DECIMAL if "price" in field.name:
                return decimals((self._cents + ("ask" in field.name)) * _CENT, kind)
            case Kind.DECIMAL:
                return decimals(rng.integers(1, 50, rows) * 100 * _CENT, kind)
            case Kind.SUM:
                return decimals(self._cents * rng.integers(1, 50, rows) * _CENT, kind)
            case Kind.CODE:
                codes = rng.random(rows) ** 3 * min(3, len(dictionary(field)))
                return pa.DictionaryArray.from_arrays(
                    pa.array(codes.astype(np.int8)), dictionary(field)
                )
            case Kind.ID:
                ids = 10**8 + self._next[shard] * _SHARDS + rng.integers(0, 20_000, rows)
                return pa.array(ids).cast(pa.string())
            case Kind.INT64:
                return pa.array((self._times - START_NS) // 37)
            case Kind.DECIMALS | Kind.COUNTS:
                return self._levels(field)
            case _:
                return pa.array(np.ones(rows), kind)

    def _levels(self, field: Field) -> pa.Array:
        rows, kind = _BATCH_ROWS, arrow_type(field)
        offsets = pa.array(np.arange(0, (rows + 1) * DEPTH_LEVELS, DEPTH_LEVELS), pa.int32())
        if "price" in field.name:
            steps = np.arange(DEPTH_LEVELS) * (1 if "ask" in field.name else -1)
            values = (self._base[self._of][:, None] + steps) * _CENT
        else:
            values = self._book()
        if field.kind is Kind.COUNTS:
            items = pa.array(values.ravel() % 9 + 1, pa.int32())
        else:
            items = decimals(values.ravel() * _CENT, kind.value_type)
        return pa.ListArray.from_arrays(offsets, items, type=kind)

    def _book(self) -> np.ndarray:
        """(rows, levels): each row of a symbol changes one level and keeps the others."""
        rows = _BATCH_ROWS
        order = np.argsort(self._of, kind="stable")
        symbols = self._of[order]
        starts = np.flatnonzero(np.r_[True, symbols[1:] != symbols[:-1]])
        level = self._rng.integers(0, DEPTH_LEVELS, rows)
        value = self._rng.integers(1, 50, rows) * 100
        book = np.zeros((rows, DEPTH_LEVELS), np.int64)
        for number in range(DEPTH_LEVELS):
            changed = np.where(level == number, np.arange(rows), 0)
            changed[starts] = starts
            book[order, number] = value[np.maximum.accumulate(changed)]
        return book


def _write(items: list[Item]) -> tuple[int, int]:
    """(rows, bytes of the files) of one run into a fresh lake."""
    with tempfile.TemporaryDirectory(prefix="marketflow-bench-") as folder:
        writer = ParquetWriter(Path(folder) / "lake", "w0", "bench")
        rows, last = 0, time.monotonic()
        for item in items:
            writer.write(item)
            rows += sum(batch.num_rows for batch in item.tables.values())
            if time.monotonic() - last > 1:
                writer.snapshot()
                last = time.monotonic()
        writer.snapshot()
        writer.close()
        return rows, sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))


def _written(items: list[Item]) -> int:
    return _write(items)[0]


@benchmark("parquet sink")
def parquet_sink(quick: bool) -> Iterator[Result]:
    """Every hot table through the writer, in batches of 8,192 rows of one shard."""
    for table, (rows, target) in _TABLES.items():
        items = Day(table).items(rows // 16 if quick else rows)
        written, size = _write(items)
        value = rate(partial(_written, items), runs=1 if quick else 3)
        conditions = f"{written:,} rows of {_SYMBOLS} symbols, {size / written:.1f} bytes/row"
        yield Result(f"parquet sink, {table}", value, "rows/s", target, conditions)
