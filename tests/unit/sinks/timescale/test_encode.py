"""The compiled COPY BINARY encoder, bit for bit against its slow twin."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas.derived.arrow import SUM
from marketflow.schemas.fields import Table
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import SUM_LIMIT
from marketflow.sinks.columns import concat
from marketflow.sinks.timescale.encode import Words, compile_kernels, encode, to_columns
from marketflow.sinks.timescale.kernels import fields as kernels
from tests.reference import copy_binary as twin
from tests.support.batches import Feed

EVERY = pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)


def encoded(table: Table, *batches: pa.RecordBatch, words: Words | None = None) -> bytes:
    words = words or Words()
    columns = concat([to_columns(table, batch, words) for batch in batches])
    return b"".join(bytes(piece) for piece in encode(table, columns, words))


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    columns = [column if f.name == name else batch.column(f.name) for f in batch.schema]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


@EVERY
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 30),
    cut=st.integers(0, 20),
    nulls=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_random_rows_slices_and_nulls(
    table: Table, seed: int, rows: int, cut: int, nulls: float
) -> None:
    feed = Feed(np.random.default_rng(seed), nulls=nulls)
    batch = feed.batch(table, 3, rows + cut).slice(cut)
    assert encoded(table, batch) == twin.tuples(table, batch)


@EVERY
def test_large_batches_go_through_many_blocks(table: Table) -> None:
    batch = Feed(np.random.default_rng(7)).batch(table, 3, 4000)
    words = Words()
    pieces = [bytes(p) for p in encode(table, to_columns(table, batch, words), words)]
    assert len(pieces) > 1
    assert b"".join(pieces) == twin.tuples(table, batch)


@EVERY
def test_no_rows_are_no_bytes(table: Table) -> None:
    assert encoded(table, Feed(np.random.default_rng(7)).batch(table, 3, 0)) == b""


units = st.one_of(
    st.integers(-SUM_LIMIT, SUM_LIMIT),
    st.integers(-(2**66), 2**66),
    st.builds(lambda d, e: d * 10**e, st.integers(-9999, 9999), st.integers(0, 34)),
)


@given(values=st.lists(units, min_size=1, max_size=50))
def test_every_decimal(values: list[int]) -> None:
    table = TABLES["trades"]
    batch = Feed(np.random.default_rng(1)).batch(table, 0, len(values))
    numbers = pa.array([Decimal(f"{v}E-12") for v in values], SUM)
    batch = with_column(batch, "notional", numbers)
    assert encoded(table, batch) == twin.tuples(table, batch)


def test_group_boundaries_of_a_decimal() -> None:
    table = TABLES["trades"]
    edges = [d * 10**e + k for e in range(38) for d in (1, 9, 10) for k in (-1, 0, 1)]
    edges += [2**63 + k for k in (-1, 0, 1)] + [2**64 + k for k in (-1, 0, 1)]
    edges = [v for e in edges for v in (e, -e) if abs(v) <= SUM_LIMIT]
    batch = Feed(np.random.default_rng(1)).batch(table, 0, len(edges))
    numbers = pa.array([Decimal(f"{v}E-12") for v in edges], SUM)
    batch = with_column(batch, "notional", numbers)
    assert encoded(table, batch) == twin.tuples(table, batch)


@given(times=st.lists(st.integers(-(2**62), 2**63 - 1), min_size=1, max_size=30))
def test_times_before_and_after_every_epoch(times: list[int]) -> None:
    table = TABLES["trades"]
    batch = Feed(np.random.default_rng(1)).batch(table, 0, len(times))
    batch = with_column(batch, "ts_event", pa.array(times, pa.timestamp("ns", tz="UTC")))
    assert encoded(table, batch) == twin.tuples(table, batch)


@given(texts=st.lists(st.text(max_size=70), min_size=1, max_size=20), data=st.data())
def test_texts_names_and_bytes(texts: list[str], data: st.DataObject) -> None:
    """Also NUL, which PostgreSQL's text cannot hold."""
    table = TABLES["dead_letters"]
    batch = Feed(np.random.default_rng(1)).batch(table, 0, len(texts))
    words = data.draw(st.lists(st.sampled_from(texts), min_size=len(texts), max_size=len(texts)))
    batch = with_column(batch, "detail", pa.array(texts, pa.string()))
    batch = with_column(
        batch, "raw", pa.array([t.encode() for t in reversed(texts)], pa.large_binary())
    )
    batch = with_column(batch, "feed", pa.array(words, pa.string()).dictionary_encode())
    assert encoded(table, batch) == twin.tuples(table, batch)


def test_words_grow_and_batches_with_other_dictionaries_join() -> None:
    table = TABLES["quotes"]
    rng = np.random.default_rng(3)
    words = Words()
    batches = [
        Feed(rng, symbols=symbols).batch(table, 1, 40)
        for symbols in (("A", "BB"), ("BB", "A", "a symbol of more than sixteen bytes"), ("€",))
    ]
    for count in (1, 2, 3):
        assert encoded(table, *batches[:count], words=words) == b"".join(
            twin.tuples(table, batch) for batch in batches[:count]
        )


def test_a_foreign_dictionary_of_codes_is_translated() -> None:
    table = TABLES["trades"]
    batch = Feed(np.random.default_rng(3)).batch(table, 1, 4)
    other = pa.DictionaryArray.from_arrays(
        pa.array([1, 0, 1, 0], pa.int8()), pa.array(["sell", "none"])
    )
    batch = with_column(batch, "aggressor_side", other)
    assert encoded(table, batch) == twin.tuples(table, batch)


def test_a_null_where_none_may_be_is_a_bug_upstream() -> None:
    table = TABLES["trades"]
    batch = Feed(np.random.default_rng(3)).batch(table, 1, 2)
    nulls = pa.array([None, None], batch.column("price").type)
    plain = pa.schema([f.with_nullable(True) for f in batch.schema])
    columns = [nulls if f.name == "price" else batch.column(f.name) for f in plain]
    with pytest.raises(AssertionError, match=r"trades\.price has nulls"):
        to_columns(table, pa.RecordBatch.from_arrays(columns, schema=plain), Words())


def test_warming_up_compiles_all_that_rows_will_need() -> None:
    for table in TABLES.values():
        compile_kernels(table)
    named = [getattr(kernels, name) for name in dir(kernels)]
    compiled = [k for k in named if hasattr(k, "signatures")]
    before = {id(k): len(k.signatures) for k in compiled}
    rng = np.random.default_rng(5)
    for nulls in (0.0, 0.5):
        for table in TABLES.values():
            encoded(table, Feed(rng, nulls=nulls).batch(table, 0, 9).slice(2))
    assert {id(k): len(k.signatures) for k in compiled} == before
