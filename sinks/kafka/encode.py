"""Rows of a table as messages, in each of the formats of schemas.messages.kafka, and whose they
are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from marketflow.schemas.fields import Table
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.kafka import Headers, Message, WireError
from marketflow.schemas.tables.market_data import DEAD_LETTERS
from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks.errors import KafkaFailed, SinkError
from marketflow.sinks.jsonl import json_rows

#: A message is cut to about this many bytes: below what brokers take by default.
TARGET_BYTES: Final = 900_000
#: Raw bytes of a dead letter beyond this are left out: no topic takes messages of any size.
MAX_RAW_BYTES: Final = 8 << 20
_encode = msgspec.json.Encoder().encode


class _Identity(msgspec.Struct):
    shard: int
    row_sequence: int


_identity_of = msgspec.json.Decoder(_Identity).decode


def arrow_messages(table: Table, batch: pa.RecordBatch, run: bytes) -> Iterator[Message]:
    """Many rows a message, but of dead letters one. Key: the shard."""
    rows = batch.num_rows
    step = max(1, min(rows, TARGET_BYTES * rows // max(1, batch.nbytes)))
    if table is DEAD_LETTERS:
        step = 1
    key = str(batch.column("shard")[0].as_py()).encode()
    headers = _headers(table, batch, run)
    for first in range(0, rows, step):
        part = batch.slice(first, step)
        yield Message(key, wire.to_arrow(table, part), headers[first], _last_ms(table, part))


def row_messages(
    table: Table, batch: pa.RecordBatch, run: bytes, values: list[bytes]
) -> Iterator[Message]:
    """A row a message. Key: ``<venue>:<symbol>``, or the feed where a table has no venue."""
    headers = _headers(table, batch, run)
    times = _times_ms(table, batch).tolist()
    for key, value, row, ts_ms in zip(_keys(table, batch), values, headers, times, strict=True):
        yield Message(key, value, row, ts_ms)


def _headers(table: Table, batch: pa.RecordBatch, run: bytes) -> list[Headers]:
    """Headers of each row, were it a message of its own."""
    own: Headers = [(wire.RUN, run)] if run else []
    if table is not DEAD_LETTERS:
        return [own] * batch.num_rows
    columns = [batch.column(name).to_pylist() for name in ("reason", "feed", "partition", "offset")]
    return [
        [
            *own,
            (wire.REASON, reason.encode()),
            (wire.TOPIC, feed.removeprefix("kafka:").encode()),
            (wire.PARTITION, str(partition).encode()),
            (wire.OFFSET, str(offset).encode()),
        ]
        for reason, feed, partition, offset in zip(*columns, strict=True)
    ]


def avro_values(table: Table, schema_id: int) -> Callable[[pa.RecordBatch], list[bytes]]:
    """Maker of Avro messages with this schema id."""
    return lambda batch: wire_rows.to_avro(table, batch, schema_id)


def registered_id(registry: str, topic: str, table: Table) -> int:
    """Id of the table's schema in a Schema Registry, registered there where it is new (subject
    ``<topic>-value``). SinkError if the registry refuses it, KafkaFailed if it is away."""
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

    schema = Schema(wire_rows.avro_text(table), "AVRO")
    try:
        client = SchemaRegistryClient({"url": registry})
        return int(client.register_schema(f"{topic}-value", schema))
    except SchemaRegistryError as error:
        raise SinkError(
            f"schema registry at {registry} refuses the schema of {topic}: {error}; is there "
            "another kind of messages in that topic? Use another prefix"
        ) from None
    except Exception as error:
        # The client passes on what its HTTP library raises, without a type of its own.
        raise KafkaFailed(f"schema registry at {registry} does not answer: {error}") from error


def json_values(batch: pa.RecordBatch) -> list[bytes]:
    """Rows as JSON objects."""
    return [_encode(row) for row in json_rows(batch)]


def _keys(table: Table, batch: pa.RecordBatch) -> list[bytes]:
    if not table.has_venue:
        return [name.encode() for name in batch.column("feed").to_pylist()]
    pairs = zip(batch.column("venue").to_pylist(), batch.column("symbol").to_pylist(), strict=True)
    return [f"{venue}:{symbol}".encode() for venue, symbol in pairs]


def _times_ms(table: Table, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    times = batch.column(table.time_field).cast(pa.int64()).fill_null(0)
    return np.asarray(times.to_numpy(zero_copy_only=False) // NS_PER_MS)


def _last_ms(table: Table, batch: pa.RecordBatch) -> int:
    return int(_times_ms(table, batch.slice(batch.num_rows - 1))[0])


def cut_raw(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Dead letters whose bytes fit into a message."""
    place = batch.schema.get_field_index("raw")
    if place < 0 or batch.nbytes <= MAX_RAW_BYTES:
        return batch
    raws = [raw[:MAX_RAW_BYTES] for raw in batch.column(place).to_pylist()]
    return batch.set_column(place, batch.schema.field(place), pa.array(raws, pa.large_binary()))


def identity(table: Table, value: bytes) -> tuple[int, int]:
    """(shard, row_sequence of the last row) of a message of ours; WireError if it is none."""
    if value.startswith(wire.ARROW_START):
        batch = wire.from_arrow(table, value)
        return batch.column("shard")[0].as_py(), batch.column("row_sequence")[-1].as_py()
    if value.startswith(wire.AVRO_MAGIC):
        # shard and row_sequence are the first fields of every table.
        shard, at = _zigzag(value, 5)
        return shard, _zigzag(value, at)[0]
    try:
        found = _identity_of(value)
    except msgspec.DecodeError as error:
        raise WireError(f"no row: {error}") from None
    return found.shard, found.row_sequence


def _zigzag(value: bytes, at: int) -> tuple[int, int]:
    """Avro's variable-length integer at ``at``, and where it ends."""
    number = shift = 0
    while at < len(value):
        byte = value[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise WireError("an Avro record that ends inside its identity")
