"""Random record batches, valid for every table of the schemas; seeded, so that runs repeat."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from marketflow.schemas.derived.arrow import arrow_type, dictionary, schema
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH_LEVELS
from marketflow.schemas.units import NS_PER_DAY

START_NS = 1_767_225_600_000_000_000  # 2026-01-01


@dataclass(slots=True)
class Item:
    """Rows of one shard, as sinks take them (operators.events.Rows)."""

    shard: int
    tables: dict[str, pa.RecordBatch]
    stats: dict[str, int] = field(default_factory=dict)
    ended: bool = False


@dataclass(slots=True)
class Feed:
    """Makes batches whose row_sequence is gapless per table and shard, spread over ``days`` dates,
    ``venues`` and ``symbols``; a share of optional values is null."""

    rng: Generator
    days: int = 2
    venues: tuple[str, ...] = ("XNAS", "BINANCE")
    symbols: tuple[str, ...] = ("AAPL", "MSFT", "BTC/USDT", "ÜÑ€")
    nulls: float = 0.2
    next_sequence: dict[tuple[str, int], int] = field(default_factory=dict)
    _levels: dict[str, np.ndarray] = field(default_factory=dict)

    def item(self, shard: int, rows: dict[str, int]) -> Item:
        """An item with so many rows of these tables."""
        return Item(shard, {name: self.batch(TABLES[name], shard, n) for name, n in rows.items()})

    def batch(self, table: Table, shard: int, rows: int) -> pa.RecordBatch:
        """The next rows of a table and shard, in flow form."""
        first = self.next_sequence.get((table.name, shard), 0)
        self.next_sequence[(table.name, shard)] = first + rows
        times = self._times(rows)
        self._levels = {}
        columns = [self._column(table, f, shard, first, rows, times) for f in table.fields]
        return pa.RecordBatch.from_arrays(columns, schema=schema(table))

    def _times(self, rows: int) -> np.ndarray:
        return START_NS + np.sort(self.rng.integers(0, self.days * NS_PER_DAY, rows))

    def _column(
        self, table: Table, field: Field, shard: int, first: int, rows: int, times: np.ndarray
    ) -> pa.Array:
        kind = arrow_type(field)
        if field.name == "shard":
            return pa.array(np.full(rows, shard), kind)
        if field.name == "row_sequence":
            return pa.array(np.arange(first, first + rows), kind)
        if field.name == table.time_field:
            return pa.array(times, pa.int64()).cast(kind)
        values = self._values(field, rows)
        if field.nullable:
            keep = pa.array(self.rng.random(rows) >= self.nulls)
            values = pa.compute.if_else(keep, values, pa.scalar(None, values.type))
        if field.kind is Kind.CODE:
            return pa.DictionaryArray.from_arrays(values, dictionary(field))
        if field.kind is Kind.NAME:
            return values.dictionary_encode().cast(kind)
        return values.cast(kind)

    def _values(self, field: Field, rows: int) -> pa.Array:
        rng = self.rng
        match field.kind:
            case Kind.TIME:
                return pa.array(self._times(rows), pa.int64()).cast(arrow_type(field))
            case Kind.DECIMAL | Kind.SUM:
                return decimals(rng.integers(1, 10**15, rows), arrow_type(field))
            case Kind.CODE:
                assert field.codes is not None
                return pa.array(rng.integers(0, len(field.codes), rows), pa.int8())
            case Kind.NAME:
                texts = {"venue": self.venues, "symbol": self.symbols}.get(
                    field.name, ("1s", "1m", "other")
                )
                return pa.array(rng.choice(texts, rows).tolist(), pa.string())
            case Kind.BOOL:
                return pa.array(rng.random(rows) < 0.5)
            case Kind.ID | Kind.TEXT:
                return pa.array([str(n) for n in rng.integers(0, 10**9, rows)], pa.string())
            case Kind.BYTES:
                return pa.array([rng.bytes(7) for _ in range(rows)], pa.large_binary())
            case Kind.DECIMALS | Kind.COUNTS:
                return self._lists(field, rows)
            case Kind.UINT8 | Kind.SHARD | Kind.INT32 | Kind.INT64:
                return pa.array(rng.integers(0, 100, rows), arrow_type(field))

    def _lists(self, field: Field, rows: int) -> pa.Array:
        kind = arrow_type(field)
        side = field.name.partition("_")[0]
        if side not in self._levels:
            self._levels[side] = self.rng.integers(0, DEPTH_LEVELS + 1, rows)
        lengths = self._levels[side]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        numbers = self.rng.integers(1, 10**9, int(lengths.sum()))
        if field.kind is Kind.COUNTS:
            items = pa.array(numbers, pa.int32())
        else:
            items = decimals(numbers, kind.value_type)
        return pa.ListArray.from_arrays(offsets, items, type=kind)


def decimals(units: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Non-negative int64 units of 10**-kind.scale as a decimal column."""
    words = np.zeros((len(units), 2), "<i8")
    words[:, 0] = units
    return pa.Array.from_buffers(kind, len(units), [None, pa.py_buffer(words)])
