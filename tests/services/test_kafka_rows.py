"""Table topics on a real broker: every table in every format, in and out, and what is poison."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from marketflow.operators.formats.tables.decoder import TableDecoder
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import TRADES
from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.encode import json_values
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sources.errors import FeedFailed
from tests.reference.kafka import read_messages
from tests.support.batches import Feed, Item
from tests.support.patience import PATIENCE_S
from tests.support.services.topics import Cluster, Reading, plain

pytestmark = pytest.mark.services
_MADE = ("depth", "bars", "dead_letters", "quality_events")


def writer(kafka: Cluster, prefix: str, query: str = "", name: str = "w0") -> KafkaWriter:
    return KafkaWriter(KafkaConfig.parse(f"kafka://{kafka.brokers}/{prefix}{query}"), name)


def stream_rows(batches: list[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Rows of the Arrow streams in frames."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        for kind, payload in zip(
            batch.column("kind").to_pylist(), batch.column("payload").to_pylist(), strict=True
        ):
            if kind == FrameKind.DATA:
                (rows,) = pa.ipc.open_stream(payload).read_all().combine_chunks().to_batches()
                found += plain(rows)
    return found


@pytest.mark.parametrize(
    ("chosen", "partitions"), [(form, 2 if form == "arrow" else 1) for form in wire.FORMATS]
)
def test_every_table_comes_back(kafka: Cluster, chosen: str, partitions: int) -> None:
    prefix = kafka.tables(partitions)
    feed = Feed(np.random.default_rng(4))
    sink = writer(kafka, prefix, f"?format={chosen}&partitions={partitions}")
    expected: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for shard in (0, 1, 5, 1, -1):
        item = feed.item(shard, dict.fromkeys(TABLES, 40))
        sink.write(item)
        for name, batch in item.tables.items():
            expected[name] += plain(batch)
    sink.close()
    for name in TABLES:
        rows = kafka.rows(prefix, name, partitions)
        assert rows == sorted(expected[name], key=lambda r: (r["shard"], r["row_sequence"]))
        if name in _MADE:
            continue
        found: list[dict[str, Any]] = []
        for partition in range(partitions):
            source = f"kafka://{kafka.brokers}/{prefix}.{name}?to=latest"
            reading = Reading(source, partition, max_rows=33)
            found += stream_rows(reading.batches(1 << 60))
            reading.close()
        assert sorted(found, key=lambda r: (r["shard"], r["row_sequence"])) == rows


def test_keys_times_and_sizes_of_messages(kafka: Cluster) -> None:
    prefix = kafka.tables(1, ("trades", "dead_letters"))
    feed = Feed(np.random.default_rng(1))
    sink = writer(kafka, prefix)
    trades = feed.batch(TRADES, 3, 20_000)
    letters = feed.batch(TABLES["dead_letters"], -1, 2)
    place = letters.schema.get_field_index("raw")
    huge = pa.array([b"x" * (20 << 20), b"y"], pa.large_binary())
    letters = letters.set_column(place, letters.schema.field(place), huge)
    sink.write(Item(3, {"trades": trades}))
    sink.write(Item(-1, {"dead_letters": letters}))
    sink.close()
    messages = read_messages(kafka.brokers, f"{prefix}.trades", 0)
    assert 1 < len(messages) < 10
    assert all(len(message.value()) < 1_000_000 for message in messages)
    assert {message.key() for message in messages} == {b"3"}
    newest = plain(trades.slice(19_999))[0]["ts_event"]
    assert messages[-1].timestamp()[1] == newest // 1_000_000
    rows = kafka.rows(prefix, "dead_letters", 1)
    assert [len(row["raw"]) for row in rows] == [8 << 20, 1]
    sink = writer(kafka, prefix, "?format=json", "w1")
    sink.write(Item(0, {"trades": feed.batch(TRADES, 0, 1)}))
    sink.close()
    (message,) = read_messages(kafka.brokers, f"{prefix}.trades", 0)[len(messages) :]
    row = json.loads(message.value())
    assert message.key().decode() == f"{row['venue']}:{row['symbol']}"


def _of_version(rows: pa.RecordBatch, version: str) -> bytes:
    newer = rows.replace_schema_metadata(
        {"marketflow.table": "trades", "marketflow.version": version}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, newer.schema) as out:
        out.write_batch(newer)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("max_rows", [1, 4, 1000])
def test_poison_is_one_dead_letter_each(kafka: Cluster, max_rows: int) -> None:
    topic = kafka.topic(1)
    feed = Feed(np.random.default_rng(1))
    rows = feed.batch(TRADES, 0, 9)
    avro = wire_rows.to_avro(TRADES, rows, wire_rows.local_schema_id(TRADES))
    jsons = json_values(rows)
    arrow = wire.to_arrow(TRADES, rows).to_pybytes()
    bad_price = msgspec.json.encode({**json.loads(jsons[3]), "price": "1e99"})
    values: list[Any] = [
        avro[0], avro[1], b"\0\0\0\0\1unknown id", avro[2], jsons[0], bad_price, jsons[1],
        b"garbage", b"", None, arrow, arrow[:-300], _of_version(rows, "3"), arrow, jsons[2],
    ]  # fmt: skip
    kafka.send(topic, values)
    reading = Reading(f"kafka://{kafka.brokers}/{topic}?table=trades&to=latest", max_rows=max_rows)
    batches = reading.batches(1 << 60)
    reading.close()
    broken = {
        row["offset"]: row["note"]
        for batch in batches
        for row in batch.to_pylist()
        if row["kind"] == FrameKind.BROKEN
    }
    for offset, why in (
        (2, "Avro schema id 1 is of no table"), (5, "trades.price"), (7, "neither Arrow, Avro"),
        (8, "an empty message"), (9, "an empty message"), (12, "version 3 of trades"),
    ):  # fmt: skip
        assert why in broken[offset]
    decoder = TableDecoder("trades")
    decoded = [decoder.apply(batch) for batch in batches]
    letters = [row for d in decoded if d.dead is not None for row in plain(d.dead)]
    assert [row["offset"] for row in letters] == [2, 5, 7, 8, 9, 11, 12]
    assert sum(d.events.messages for d in decoded) == 3 + 3 + 9 + 9
    assert letters[1]["raw"] == bad_price


# -- a schema registry ----------------------------------------------------------------------------


class _Registry(BaseHTTPRequestHandler):
    """The three calls of a Schema Registry that are needed; ids from 100."""

    schemas: ClassVar[dict[int, str]] = {}

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
        known = {schema: schema_id for schema_id, schema in self.schemas.items()}
        schema_id = known.get(text, 100 + len(self.schemas))
        self.schemas[schema_id] = text
        self._answer(200, {"id": schema_id, "version": 1, "schema": text})

    def do_GET(self) -> None:
        schema_id = int(self.path.partition("?")[0].rpartition("/")[2])
        if schema_id in self.schemas:
            self._answer(200, {"schema": self.schemas[schema_id], "id": schema_id})
        else:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})

    def log_message(self, *_: Any) -> None:
        """Quietly."""


@pytest.fixture
def registry() -> Iterator[str]:
    _Registry.schemas.clear()
    server = HTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_avro_with_a_registry(kafka: Cluster, registry: str) -> None:
    prefix = kafka.tables(1, ("trades",))
    rows = Feed(np.random.default_rng(1)).batch(TRADES, 0, 30)
    sink = writer(kafka, prefix, f"?format=avro&registry={registry}")
    sink.write(Item(0, {"trades": rows}))
    sink.close()
    (message, *_) = read_messages(kafka.brokers, f"{prefix}.trades", 0)
    assert message.value()[:5] == b"\0\0\0\0\x64"
    kafka.send(f"{prefix}.trades", [b"\0\0\0\0\x07of nobody"])
    source = f"kafka://{kafka.brokers}/{prefix}.trades?to=latest&registry={registry}"
    reading = Reading(source)
    batches = reading.batches(1 << 60)
    reading.close()
    assert stream_rows(batches) == plain(rows)
    notes = [note for batch in batches for note in batch.column("note").to_pylist() if note]
    assert notes == ["the registry knows no schema 7"]


def test_a_registry_that_is_away_is_no_dead_letter(kafka: Cluster) -> None:
    topic = kafka.topic()
    rows = Feed(np.random.default_rng(1)).batch(TRADES, 0, 1)
    kafka.send(topic, wire_rows.to_avro(TRADES, rows, 9))
    source = f"kafka://{kafka.brokers}/{topic}?table=trades&registry=http://127.0.0.1:9"
    reading = Reading(source)
    with pytest.raises(FeedFailed, match=r"schema registry at http://127\.0\.0\.1:9"):
        reading.rows(1, timeout_s=PATIENCE_S)
    reading.close()
