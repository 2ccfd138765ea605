"""Rows in the order of a file: every table, cut and sliced anyhow, against a plain stable sort."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import Names, concat, shape, to_bare
from marketflow.sinks.lake.order import ordered
from tests.support.batches import Feed

NAMED = [name for name in TABLES if shape(name).fields[shape(name).keys[0]].kind is Kind.NAME]


def test_tables_that_grow_fast_are_sorted_by_name() -> None:
    assert {"trades", "quotes", "depth", "book_events", "bars"} <= set(NAMED)


@pytest.mark.parametrize("name", NAMED)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=5),
    nulls=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_equals_a_stable_sort(
    name: str, seed: int, cuts: list[tuple[int, int]], nulls: float
) -> None:
    form, names = shape(name), Names()
    feed = Feed(np.random.default_rng(seed), nulls=nulls)
    chunks = []
    for rows, skipped in cuts:
        batch = feed.batch(TABLES[name], 0, rows + skipped).slice(skipped)
        chunks.append(to_bare(form, batch, names))
    found = ordered(form, chunks, names)
    joined = concat(chunks)
    texts = [names.text(code) for code in joined[form.keys[0]].to_pylist()]
    order = pa.array(sorted(range(len(texts)), key=texts.__getitem__), pa.int64())
    for field, column, whole in zip(form.fields, found, joined, strict=True):
        column.validate(full=True)
        assert column.equals(whole.take(order)), field.name
