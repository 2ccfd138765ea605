"""Messages of a table topic to frames as operators.formats.tables.decoder reads them: Arrow
streams.

An Arrow message is such a stream already and passes as it is. Runs of Avro or JSON rows become one
stream each; their offset is the first one's, and rows follow it without a gap. A message that this
release cannot read (damage, another table, a version or schema id it does not know) is a BROKEN
frame that says why, and so a dead letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from marketflow.schemas.fields import Table
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.kafka import WireError
from marketflow.schemas.tables import table
from marketflow.schemas.tables.market_data import DEAD_LETTERS
from marketflow.sources.errors import FeedFailed
from marketflow.sources.kafka.config import KafkaConfig


def translator(config: KafkaConfig) -> RowFrames | LetterFrames | None:
    """Translator of the messages of a topic to frames; None where they are frames."""
    if config.dead_letters:
        return LetterFrames(config.dead_letters, config.registry)
    return RowFrames(table(config.table), config.registry) if config.table else None


class Registry:
    """Avro schemas by id: those of this release, and where a URL is given those of a registry."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None
        self._known = {} if url else dict(wire_rows.local_schemas())

    def schema(self, schema_id: int) -> str:
        """The writer's schema; WireError where nobody knows the id."""
        if schema_id not in self._known:
            self._known[schema_id] = self._fetched(schema_id)
        return self._known[schema_id]

    def _fetched(self, schema_id: int) -> str:
        if not self._url:
            raise WireError(
                f"Avro schema id {schema_id} is of no table of this release; where a registry "
                "gives ids, name it with registry=URL"
            )
        from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError

        if self._client is None:
            self._client = SchemaRegistryClient({"url": self._url})
        try:
            return str(self._client.get_schema(schema_id).schema_str)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise WireError(f"the registry knows no schema {schema_id}") from None
            raise FeedFailed(f"schema registry at {self._url}: {error}") from None
        except OSError as error:
            raise FeedFailed(f"schema registry at {self._url} does not answer: {error}") from None
        except Exception as error:
            # The client passes on what its HTTP library raises, without a type of its own.
            raise FeedFailed(f"schema registry at {self._url}: {error}") from error


class RowFrames:
    """Translates the batches of one partition of a table topic."""

    def __init__(self, table: Table, registry: str = "") -> None:
        self._table = table
        self._registry = Registry(registry)

    def frames(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with every message a stream of rows, or BROKEN."""
        payload = batch.column("payload")
        values = [payload[i].as_buffer() for i in range(batch.num_rows)]
        offsets = batch.column("offset").to_pylist()
        pieces: list[pa.RecordBatch] = []
        rows: list[wire_rows.Row] = []
        first = passed = 0

        def flush() -> None:
            if rows:
                stream = wire.to_arrow(self._table, wire_rows.to_batch(self._table, rows))
                pieces.append(framing.single(FrameKind.DATA, first, stream.to_pybytes()))
                rows.clear()

        for i, value in enumerate(values):
            try:
                row = self._row(value)
            except WireError as error:
                flush()
                pieces.append(_broken(batch.slice(i, 1), str(error)))
                continue
            if row is None:
                passed += 1
                flush()
                pieces.append(batch.slice(i, 1))
                continue
            if not rows or offsets[i] != first + len(rows):
                flush()
                first = offsets[i]
            rows.append(row)
        if passed == batch.num_rows:
            return batch
        flush()
        return _joined(pieces)

    def _row(self, message: pa.Buffer) -> wire_rows.Row | None:
        """The row of a message; None if it is a good Arrow stream. WireError if it is neither."""
        if bytes(memoryview(message)[:4]) == wire.ARROW_START:
            wire.from_arrow(self._table, message)
            return None
        value = message.to_pybytes()
        if value.startswith(wire.AVRO_MAGIC):
            schema = self._registry.schema(wire_rows.avro_schema_id(value))
            return wire_rows.from_avro(self._table, value, schema)
        if value.lstrip()[:1] == b"{":
            return wire_rows.from_json(self._table, value)
        raise WireError("neither Arrow, Avro nor JSON" if value else "an empty message")


class LetterFrames:
    """Translates a topic of dead letters back into the raw frames of one feed, as they arrived;
    letters of other feeds are passed over. All letters of a message have its offset."""

    def __init__(self, feed: str, registry: str = "") -> None:
        self._feed = feed
        self._rows = RowFrames(DEAD_LETTERS, registry)

    def frames(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The raw frames in the messages of a batch; a message that is none is BROKEN."""
        streams = self._rows.frames(batch)
        pieces = []
        for i in range(streams.num_rows):
            if streams.column("kind")[i].as_py() != FrameKind.DATA:
                pieces.append(streams.slice(i, 1))
                continue
            letters = wire.from_arrow(DEAD_LETTERS, streams.column("payload")[i].as_buffer())
            mine = letters.filter(pc.equal(letters.column("feed").dictionary_decode(), self._feed))
            pieces.append(
                framing.batch(
                    np.full(mine.num_rows, streams.column("offset")[i].as_py(), np.int64),
                    mine.column("raw").cast(pa.large_binary()),
                    ts_recv=mine.column("ts_recv").cast(pa.int64()).to_numpy(),
                )
            )
        return _joined(pieces) if pieces else batch.slice(0, 0)


def _broken(frame: pa.RecordBatch, why: str) -> pa.RecordBatch:
    """The frame as one that could not be read."""
    kind, note = pa.array([FrameKind.BROKEN], pa.int8()), pa.array([why], pa.string())
    columns = {
        **dict(zip(frame.schema.names, frame.columns, strict=True)),
        "kind": kind,
        "note": note,
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=frame.schema)


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of frames; dictionaries of connections are brought together."""
    connections = pa.chunked_array([p.column("connection").dictionary_decode() for p in pieces])
    return framing.batch(
        np.concatenate([p.column("offset").to_numpy() for p in pieces]),
        pa.concat_arrays([p.column("payload") for p in pieces]),
        ts_recv=np.concatenate([p.column("ts_recv").to_numpy() for p in pieces]),
        kinds=np.concatenate([p.column("kind").to_numpy() for p in pieces]),
        connections=connections.combine_chunks().dictionary_encode(),
        notes=pa.concat_arrays([p.column("note") for p in pieces]),
    )
