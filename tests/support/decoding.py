"""Decoding frames in tests: all rows of a feed, also cut anywhere and through snapshots."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, Reader
from marketflow.sources.registry import open_reader, parse_source


class Found(NamedTuple):
    """All a feed gave: ``rows`` are EVENT without ``frame`` (it counts within a batch)."""

    rows: np.ndarray
    tables: dict[str, list[dict[str, Any]]]
    dead: list[dict[str, Any]]
    messages: int
    instruments: tuple[tuple[str, str], ...]


def frames_of(url: str, limits: Limits = DEFAULT_LIMITS) -> list[pa.RecordBatch]:
    """Batches of a source."""
    return read_frames(open_reader(parse_source(url), None, limits))


def read_frames(reader: Reader) -> list[pa.RecordBatch]:
    """Batches of a reader."""
    batches = []
    while (batch := reader.read()) is not None:
        batches.append(batch)
    reader.close()
    return batches


def _plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns[name] = column.to_pylist()
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def decode(
    make: Callable[[], FeedDecoder], batches: list[pa.RecordBatch], *, restarts: bool = False
) -> Found:
    """Everything that the frames give; ``restarts``: a new decoder takes over at every batch."""
    decoder = make()
    rows, dead = [], []
    tables: dict[str, list[dict[str, Any]]] = {}
    messages = 0
    instruments: tuple[tuple[str, str], ...] = ()
    for batch in batches:
        if restarts:
            state = pickle.loads(pickle.dumps(decoder.snapshot()))
            decoder = make()
            decoder.restore(state)
        events, letters = decoder.apply(batch)
        part = events.rows.copy()
        assert (part["frame"] < batch.num_rows).all()
        part["frame"] = 0
        rows.append(part)
        messages += events.messages
        dead += _plain(letters) if letters is not None else []
        for name, found in events.tables.items():
            tables.setdefault(name, []).extend(_plain(found))
        now = tuple(zip(events.instruments.venues, events.instruments.symbols, strict=True))
        assert now[: len(instruments)] == instruments
        instruments = now
    return Found(np.concatenate(rows), tables, dead, messages, instruments)


def cut(batches: list[pa.RecordBatch], size: int) -> list[pa.RecordBatch]:
    """The same frames in batches of ``size``."""
    table = pa.Table.from_batches(batches).combine_chunks()
    return [part for part in table.to_batches(max_chunksize=size) if part.num_rows]


def same(one: Found, other: Found) -> bool:
    """Equal in every value."""
    return one.rows.tobytes() == other.rows.tobytes() and one[1:] == other[1:]
