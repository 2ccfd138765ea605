"""Kernel rows become exactly the table's batch: against the slow twin, and in what is shared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.events import INSTRUMENT, IdKind, Instruments
from marketflow.operators.names import COMPACT_FROM
from marketflow.operators.rows import rows_to_batch
from marketflow.schemas import units
from marketflow.schemas.derived import arrow
from marketflow.schemas.derived.kernel_rows import row_dtype, scale_of
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH_LEVELS
from tests.reference.output import rows_to_dicts

VENUES = ("BINANCE", "BINANCE_USDM", "BINANCE", "OKX")
SYMBOLS = ("BTCUSDT", "BTCUSDT", "ETHUSDT", "BTC-USDT")
INSTRUMENTS = Instruments.of(np.zeros(4, INSTRUMENT), VENUES, SYMBOLS)
OTHER_NAMES = {"interval": ["1s", "1m"], "kind": ["open_interest", "mark_price"]}
HAS_ROWS = [t for t in TABLES.values() if not {f.kind for f in t.fields} & {Kind.TEXT, Kind.BYTES}]
HAS_ROWS.remove(TABLES["bars"])  # its decimals come as words: below


def random_rows(table: Table, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of legal values, extremes and nulls among them."""
    rows = np.zeros(count, row_dtype(table))
    for scale in ("price_scale", "size_scale"):
        if scale in rows.dtype.names:
            rows[scale] = rng.integers(0, 13, count)
    rows["instrument"] = rng.integers(0, len(SYMBOLS), count)
    for side in ("bid", "ask"):
        if f"{side}_levels" in rows.dtype.names:
            rows[f"{side}_levels"] = rng.integers(0, DEPTH_LEVELS + 1, count)
    for field in table.fields:
        name = field.name
        if field.kind is Kind.CODE:
            rows[name] = rng.integers(0, len(field.codes), count)
        elif field.kind is Kind.SUM:
            rows[f"{name}_hi"] = rng.integers(-(2**40), 2**40, count)
            rows[f"{name}_lo"] = rng.integers(0, 2**64, count, np.uint64)
        elif field.kind is Kind.ID:
            random_ids(rows, name, rng)
        elif field.kind in (Kind.DECIMAL, Kind.DECIMALS):
            large = np.minimum(10.0 ** (16 + rows[scale_of(field)]) - 1, 2.0**62).astype(np.int64)
            limit = large if rows[name].ndim == 1 else large[:, None]
            limit = np.where(rng.random(rows[name].shape) < 0.5, limit, 1000)
            rows[name] = rng.integers(-limit, limit)
        elif name not in ("shard", "row_sequence", "venue", "symbol"):
            info = np.iinfo(rows.dtype[name].base)
            rows[name] = rng.integers(0, info.max, rows[name].shape)
        if field.nullable and field.kind in (Kind.TIME, Kind.INT64, Kind.DECIMAL):
            null = 0 if field.kind is Kind.TIME else units.NO_PRICE
            rows[name][rng.random(count) < 0.3] = null
    return rows


def random_ids(rows: np.ndarray, name: str, rng: np.random.Generator) -> None:
    kinds = rng.integers(0, len(IdKind), len(rows))
    for row, kind in zip(rows, kinds, strict=True):
        hi, lo = (int(w) >> int(rng.integers(0, 65)) for w in rng.integers(0, 2**64, 2, np.uint64))
        if kind == IdKind.NONE:
            hi = lo = 0
        elif kind == IdKind.HEX:
            hi &= 2**32 - 1
        elif kind == IdKind.ASCII:
            packed = b"order-%d" % (lo % 10**9)
            packed = packed.ljust(15, b"\0") + bytes([len(packed)])
            hi, lo = divmod(int.from_bytes(packed, "big"), 2**64)
        row[f"{name}_hi"], row[f"{name}_lo"], row[f"{name}_kind"] = hi, lo, kind


def as_dicts(batch: pa.RecordBatch) -> list[dict]:
    """Rows of a batch with times as int ns (Python's own datetime has no nanoseconds)."""
    columns = {
        name: (
            column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        ).to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


@pytest.mark.parametrize("table", HAS_ROWS, ids=lambda t: t.name)
@given(st.integers(0, 40), st.integers(0, 2**32), st.integers(-2, 300), st.integers(0, 2**40))
def test_equals_the_slow_twin(table: Table, count: int, seed: int, shard: int, first: int) -> None:
    rows = random_rows(table, count, np.random.default_rng(seed))
    batch = rows_to_batch(table, rows, INSTRUMENTS, shard, first)
    batch.validate(full=True)
    assert batch.schema.equals(arrow.schema(table), check_metadata=True)
    assert as_dicts(batch) == rows_to_dicts(table, rows, INSTRUMENTS, shard, first, {})


def test_decimals_may_come_as_words() -> None:
    fields = (replace(f, nullable=False) for f in TABLES["bars"].fields if f.name != "origin")
    table = replace(TABLES["bars"], fields=tuple(fields))  # as our own bars are
    names = [
        c
        for f in table.fields
        if f.kind in (Kind.DECIMAL, Kind.SUM)
        for c in ((f"{f.name}_hi", "<i8"), (f"{f.name}_lo", "<u8"))
    ]
    names += [("ts_open", "<i8"), ("ts_close", "<i8"), ("trade_count", "<i8")]
    names += [("instrument", "<i4"), ("interval", "<i4"), ("is_final", "i1")]
    rng = np.random.default_rng(5)
    rows = np.zeros(50, np.dtype(names, align=True))
    for name in rows.dtype.names:
        rows[name] = rng.integers(0, 2, 50)
    rows["open_lo"], rows["volume_hi"] = 2**64 - 1, -1
    interval = {"interval": pa.array(OTHER_NAMES["interval"])}
    batch = rows_to_batch(table, rows, INSTRUMENTS, 1, 0, interval)
    batch.validate(full=True)
    expected = rows_to_dicts(table, rows, INSTRUMENTS, 1, 0, OTHER_NAMES)
    assert as_dicts(batch) == expected


def test_slices_of_rows_and_long_batches() -> None:
    table = TABLES["book_events"]
    rows = random_rows(table, 3000, np.random.default_rng(1))
    whole = rows_to_batch(table, rows, INSTRUMENTS, 1, 0)
    strided = rows_to_batch(table, rows[::2], INSTRUMENTS, 1, 0)
    assert strided.drop_columns("row_sequence").equals(
        whole.take(pa.array(range(0, 3000, 2))).drop_columns("row_sequence")
    )
    cut = [rows_to_batch(table, rows[i : i + 7], INSTRUMENTS, 1, i) for i in range(0, 3000, 7)]
    assert (
        pa.Table.from_batches(cut)
        .combine_chunks()
        .equals(pa.Table.from_batches([whole]).combine_chunks())
    )


def test_without_nulls_there_is_no_bitmap() -> None:
    rows = np.zeros(9, row_dtype(TABLES["trades"]))
    rows["ts_recv"] = 1
    batch = rows_to_batch(TABLES["trades"], rows, INSTRUMENTS, 0, 0)
    assert batch.column("ts_recv").buffers()[0] is None
    assert batch.column("trade_id").null_count == 9


def test_few_names_are_the_dictionary_of_every_batch() -> None:
    rows = np.zeros(2, row_dtype(TABLES["trades"]))
    made = [rows_to_batch(TABLES["trades"], rows, INSTRUMENTS, 0, n) for n in range(2)]
    first, second = (batch.column("symbol").dictionary for batch in made)
    assert first.buffers()[2].address == second.buffers()[2].address
    assert made[0].column("venue").dictionary.to_pylist() == ["BINANCE", "BINANCE_USDM", "OKX"]


def test_of_very_many_names_a_batch_has_its_own() -> None:
    many = tuple(f"S{i}" for i in range(COMPACT_FROM))
    instruments = Instruments.of(
        np.zeros(len(many) + 1, INSTRUMENT), ("A",) * len(many) + ("B",), (*many, "S7")
    )
    rows = np.zeros(4, row_dtype(TABLES["trades"]))
    rows["instrument"] = [len(many), 9, 7, 9]
    batch = rows_to_batch(TABLES["trades"], rows, instruments, 0, 0)
    assert batch.column("symbol").to_pylist() == ["S7", "S9", "S7", "S9"]
    assert batch.column("venue").to_pylist() == ["B", "A", "A", "A"]
    assert batch.column("symbol").dictionary.to_pylist() == ["S7", "S9"]
    assert rows["instrument"].tolist() == [len(many), 9, 7, 9]


@pytest.mark.parametrize(
    ("column", "value"), [("price", units.NO_PRICE), ("price_scale", 13), ("price", 10**18)]
)
def test_a_value_no_column_can_hold_is_a_bug(column: str, value: int) -> None:
    rows = np.zeros(3, row_dtype(TABLES["trades"]))
    rows["price"] = 1
    rows[column][1] = value
    with pytest.raises(AssertionError, match="1 values do not fit"):
        rows_to_batch(TABLES["trades"], rows, INSTRUMENTS, 0, 0)


def test_text_columns_have_no_rows() -> None:
    rows = np.zeros(1, row_dtype(TABLES["trades"]))
    with pytest.raises((TypeError, KeyError)):
        rows_to_batch(TABLES["dead_letters"], rows, INSTRUMENTS, 0, 0)
