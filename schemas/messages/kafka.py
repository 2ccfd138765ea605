"""How frames and table rows look as Kafka messages: one page that source and sink both keep to.

**Raw frames** (topic ``raw.<venue>``), a message per frame: value = the bytes as received, key =
the connection, headers ``ts_recv`` (8 bytes, big-endian int64 ns since 1970), ``kind`` (word of
schemas.messages.frames.FrameKind, left out for data) and ``note`` (UTF-8, left out where there is
none). Messages of others need no header: they are data, received at their Kafka timestamp.

**Table rows** (topic ``<prefix>.<table>``), in one of three formats that differ in their first
byte, so that a reader needs not be told:

- *arrow*: one Arrow IPC stream, many rows of one shard; the schema's metadata names table and
  version. Starts with 0xff.
- *avro*: a row; 0x00, a schema id (4 bytes, big endian), then the Avro record of
  schemas.derived.avro.
- *json*: a row as an object; decimals as text, times ISO 8601 with nine decimals, bytes base64.

A dead letter is a message of its own in each format and says where it comes from in headers:
``reason``, ``topic`` (the feed's name where that is none), ``partition`` and ``offset``, as text.

Partition = shard modulo the topic's partitions; of raw frames a stable hash of the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from marketflow.schemas.derived import arrow
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NS_PER_MS

RAW_PREFIX: Final = "raw."
TS_RECV: Final = "ts_recv"
KIND: Final = "kind"
NOTE: Final = "note"
REASON: Final = "reason"
TOPIC: Final = "topic"
PARTITION: Final = "partition"
OFFSET: Final = "offset"
#: Which run wrote a message of rows (identity of its recovery folder); a sink's own business.
RUN: Final = "run"

#: Words of the ``kind`` header.
KIND_WORDS: Final = {kind: kind.name.lower() for kind in FrameKind}
KINDS: Final = {word: kind for kind, word in KIND_WORDS.items()}

FORMATS: Final = ("arrow", "avro", "json")
ARROW_START: Final = b"\xff\xff\xff\xff"
AVRO_MAGIC: Final = b"\0"
_SMALL_DICTIONARY: Final = 64


#: As the client library takes them.
Headers = list[tuple[str, str | bytes | None]]


class WireError(ValueError):
    """A message that this release cannot read; the text says why."""


class Message(NamedTuple):
    """A Kafka message to be; ``ts_ms`` 0: the time of sending."""

    key: bytes
    value: bytes | pa.Buffer
    headers: Headers
    ts_ms: int


def partition_of_connection(connection: str, partitions: int) -> int:
    """Kafka partition of a connection's raw frames: never to change, as schemas.shards."""
    digest = blake2b(connection.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def raw_messages(frames: pa.RecordBatch) -> Iterator[tuple[str, Message]]:
    """(connection, message) per row of a batch of schemas.messages.frames.FRAMES; END frames are
    left out, for a topic has no end."""
    stamps = frames.column("ts_recv").to_numpy()
    packed = stamps.astype(">i8").tobytes()
    columns = zip(
        frames.column("kind").to_pylist(),
        frames.column("connection").to_pylist(),
        frames.column("note").to_pylist(),
        frames.column("payload").to_pylist(),
        (stamps // NS_PER_MS).tolist(),
        strict=True,
    )
    for row, (kind, connection, note, payload, ts_ms) in enumerate(columns):
        if kind == FrameKind.END:
            continue
        headers: Headers = [(TS_RECV, packed[8 * row : 8 * row + 8])]
        if kind != FrameKind.DATA:
            headers.append((KIND, KIND_WORDS[FrameKind(kind)].encode()))
        if note is not None:
            headers.append((NOTE, note.encode()))
        yield connection, Message(connection.encode(), payload, headers, ts_ms)


# -- rows as Arrow --------------------------------------------------------------------------------


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """The table's schema as it travels: name and version, without the docs of every field."""
    full = arrow.schema(table)
    return pa.schema([field.remove_metadata() for field in full], metadata=full.metadata)


def to_arrow(table: Table, batch: pa.RecordBatch) -> pa.Buffer:
    """Rows as one Arrow IPC stream."""
    columns = [
        _compacted(batch.column(field.name))
        if field.kind is Kind.NAME
        else batch.column(field.name)
        for field in table.fields
    ]
    lean = pa.RecordBatch.from_arrays(columns, schema=arrow_schema(table))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, lean.schema) as writer:
        writer.write_batch(lean)
    return sink.getvalue()


def _compacted(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Without the words that no row uses: a feed knows thousands of symbols."""
    if len(column.dictionary) <= _SMALL_DICTIONARY or column.null_count:
        return column
    used, indices = np.unique(column.indices.to_numpy(), return_inverse=True)
    words = column.dictionary.take(pa.array(used))
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), words)


def check_arrow(table: Table, value: bytes | pa.Buffer) -> pa.ipc.RecordBatchStreamReader:
    """The opened stream of a message with rows of ``table``; WireError if it is none we read."""
    try:
        reader = pa.ipc.open_stream(value)
    except (pa.ArrowException, OSError) as error:
        raise WireError(f"no Arrow stream: {error}") from None
    metadata = reader.schema.metadata or {}
    name = metadata.get(b"marketflow.table", b"").decode("utf-8", "replace")
    version = metadata.get(b"marketflow.version", b"").decode("utf-8", "replace")
    if name != table.name:
        raise WireError(f"rows of {name or 'an unnamed table'}, wanted {table.name}")
    check_version(table, version)
    try:
        types = dict(zip(reader.schema.names, reader.schema.types, strict=True))
    except UnicodeDecodeError:
        raise WireError("a column's name is not UTF-8") from None
    for identity in ("shard", "row_sequence"):
        if identity in table.names and not pa.types.is_integer(types.get(identity, pa.null())):
            raise WireError(f"no column {identity} of integers: who a row is cannot be told")
    return reader


def from_arrow(table: Table, value: bytes | pa.Buffer) -> pa.RecordBatch:
    """All rows of a message; WireError if it is none we read."""
    reader = check_arrow(table, value)
    try:
        rows = reader.read_all()
        # Nobody looks behind this: an index out of its dictionary would be read from anywhere.
        rows.validate(full=True)
        batches = rows.combine_chunks().to_batches()
    except (pa.ArrowException, OSError) as error:
        raise WireError(f"damaged Arrow stream: {error}") from None
    if not batches:
        raise WireError("an Arrow stream without rows")
    return batches[0]


def check_version(table: Table, version: str) -> None:
    """WireError unless rows of this version of the table can be read."""
    if not version.isdigit() or not 0 < int(version) <= table.version:
        raise WireError(
            f"version {version or '?'} of {table.name}; this release reads up to {table.version}: "
            "read it with the release that wrote it, or a newer one"
        )


def table_of_topic(topic: str) -> Table | None:
    """The table that a topic of ours holds, by its name; None for any other."""
    prefix, _, name = topic.rpartition(".")
    return TABLES.get(name) if prefix else None
