"""A small recording in a raw topic."""

from __future__ import annotations

import pyarrow as pa

from marketflow.sources.registry import open_reader, parse_source
from tests.support.services.topics import Cluster

_FEED = "sim:?events=12000&symbols=4&seed=5&format=binance"


def record(kafka: Cluster, topic: str, connections: int) -> int:
    """The feed's frames in a raw topic, each symbol on one of so many connections."""
    reader = open_reader(parse_source(_FEED))
    batches = []
    while (batch := reader.read()) is not None:
        batches.append(batch)
    frames = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    names = []
    for payload in frames.column("payload").to_pylist():
        symbol = payload.partition(b'"s":"')[2][:7] or payload[11:18].upper()
        names.append(f"connection-{sum(symbol) % connections}")
    place = frames.schema.get_field_index("connection")
    column = pa.array(names).dictionary_encode()
    kafka.record(topic, frames.set_column(place, frames.schema.field(place), column))
    return int(frames.num_rows) - 1  # without the END
