"""Topics for tests: making them, filling them, reading them to their end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from marketflow.infra.services.kafka import Kafka
from marketflow.infra.topics import declared
from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.feeds import TOPIC as FEEDS
from marketflow.schemas.shards import partition_of_shard
from marketflow.schemas.tables import TABLES
from marketflow.sinks.raw.topic import RawTopicWriter
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.kafka.consumer import ConsumerPool
from marketflow.sources.kafka.reader import KafkaReader, Position
from marketflow.sources.reader import Limits
from marketflow.sources.registry import parse_source
from tests.reference.kafka import Row, read_messages
from tests.support.patience import PATIENCE_S, until

_NUMBERS = count()


class Cluster:
    """The broker of a session, as tests use it."""

    def __init__(self, service: Kafka) -> None:
        self.service = service
        self.brokers = service.url
        self.admin = AdminClient({"bootstrap.servers": service.url, "log_level": 0})

    def topic(self, partitions: int = 1, name: str = "") -> str:
        """A topic of the test's own, empty."""
        name = name or f"t{next(_NUMBERS)}"
        future = self.admin.create_topics([NewTopic(name, partitions, 1)])[name]
        future.result(timeout=PATIENCE_S)
        self._led({name: partitions})
        return name

    def _led(self, topics: dict[str, int]) -> None:
        """Wait until the broker leads every partition, which is after the controller made them."""
        client = Consumer({"bootstrap.servers": self.brokers, "group.id": "-", "log_level": 0})

        def answers(place: TopicPartition) -> bool:
            with suppress(KafkaException):
                client.get_watermark_offsets(place, timeout=PATIENCE_S)
                return True
            return False

        for topic, partitions in topics.items():
            for place in (TopicPartition(topic, partition) for partition in range(partitions)):
                until(lambda place=place: answers(place), f"{place} is led")  # type: ignore[misc]
        client.close()

    def tables(
        self,
        partitions: int = 2,
        names: Sequence[str] = tuple(TABLES),
        *,
        knows_feeds: bool = True,
    ) -> str:
        """A prefix of the test's own, its tables' topics as deployments have them."""
        prefix = f"p{next(_NUMBERS)}"
        wanted = {f"{prefix}.{name}" for name in (*names, *([FEEDS] if knows_feeds else []))}
        topics = [
            NewTopic(t.name, t.partitions, 1, config=t.config)
            for t in declared(TABLES, prefix, partitions)
            if t.name in wanted
        ]
        for future in self.admin.create_topics(topics).values():
            future.result(timeout=PATIENCE_S)
        self._led({topic.topic: topic.num_partitions for topic in topics})
        return prefix

    def grow(self, topic: str, partitions: int) -> None:
        """More partitions; the broker tells of them, and leads them, when this returns."""
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(PATIENCE_S)

        def is_told() -> bool:
            found = self.admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
            return len(found) == partitions and all(p.leader >= 0 for p in found.values())

        until(is_told, f"{topic} has {partitions} partitions")
        self._led({topic: partitions})

    def delete(self, topic: str) -> None:
        """The topic is gone when this returns."""
        self.admin.delete_topics([topic])[topic].result(timeout=PATIENCE_S)
        until(lambda: topic not in self.admin.list_topics(timeout=PATIENCE_S).topics)

    def forget(self, topic: str, partition: int, offset: int) -> None:
        """Remove what is before ``offset``, as retention would."""
        place = TopicPartition(topic, partition, offset)
        for future in self.admin.delete_records([place]).values():
            future.result(timeout=PATIENCE_S)

    def record(self, topic: str, frames: pa.RecordBatch) -> None:
        """Frames into a raw topic, as a recorder writes them."""
        writer = RawTopicWriter(KafkaAddress(self.brokers, topic))
        writer.write(frames)
        writer.flush()

    def send(self, topic: str, values: Sequence[bytes], partition: int = 0, **more: Any) -> None:
        """Plain messages, as anybody may write them; all of them have arrived."""
        refused: list[str] = []

        def arrived(error: KafkaError | None, _: object) -> None:
            if error is not None:
                refused.append(error.str())

        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5, "log_level": 0})
        for value in values:
            producer.produce(topic, value, partition=partition, on_delivery=arrived, **more)
        assert producer.flush(PATIENCE_S) == 0
        assert not refused, refused

    def told(self, group: str, topic: str, partitions: int) -> int:
        """Sum of the positions that a group was told."""
        client = Consumer({"bootstrap.servers": self.brokers, "group.id": group, "log_level": 0})
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        told = client.committed(places, timeout=PATIENCE_S)
        client.close()
        return sum(max(0, place.offset) for place in told)

    @contextmanager
    def ends(self, topic: str, partitions: int) -> Iterator[Callable[[], list[int]]]:
        """Asks where each partition ends, in a millisecond or so."""
        client = Consumer({"bootstrap.servers": self.brokers, "group.id": "-", "log_level": 0})
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        try:
            yield lambda: [client.get_watermark_offsets(p, timeout=PATIENCE_S)[1] for p in places]
        finally:
            client.close()

    def kill(self) -> None:
        """kill -9 of the broker; :meth:`restart` brings it back."""
        pid = self._pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.service.pid is None)

    def restart(self) -> None:
        """Up again after it was killed."""
        self.service.up(lambda _: None)

    def freeze(self, seconds: float) -> None:
        """The broker does nothing for a while and then goes on."""
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pid(self) -> int:
        pid = self.service.pid
        assert pid is not None
        return pid

    def rows(self, prefix: str, table: str, partitions: int = 2) -> list[dict[str, Any]]:
        """Every committed row of a table, in the order of its identity; none twice."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for partition in range(partitions):
            newest: dict[int, int] = {}
            for message in read_messages(self.brokers, f"{prefix}.{table}", partition):
                for row in decoded(table, message.value()):
                    key = (row["shard"], row["row_sequence"])
                    assert key not in found, f"{table} {key} is there twice"
                    assert partition_of_shard(row["shard"], partitions) == partition
                    assert row["row_sequence"] == newest.get(row["shard"], -1) + 1, key
                    newest[row["shard"]] = row["row_sequence"]
                    found[key] = row
        return [found[key] for key in sorted(found)]


def decoded(table: str, value: bytes) -> list[dict[str, Any]]:
    """The rows of a message of any format as Python values."""
    known = TABLES[table]
    if value.startswith(wire.ARROW_START):
        return plain(wire.from_arrow(known, value))
    if value.startswith(wire.AVRO_MAGIC):
        row = wire_rows.from_avro(known, value, wire_rows.avro_text(known))
    else:
        row = wire_rows.from_json(known, value)
    return plain(wire_rows.to_batch(known, [row]))


def plain(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as Python values; times as integers of ns."""
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in rows.columns]
    found: list[dict[str, Any]] = pa.table(columns, names=rows.schema.names).to_pylist()
    return found


class Reading:
    """A reader of one partition by URL, driven as the engine does."""

    def __init__(
        self,
        url: str,
        partition: int = 0,
        position: Position | None = None,
        *,
        late: bool = False,
        max_rows: int = 1000,
        watch_s: float = 0.2,
    ) -> None:
        self.stop = threading.Event()
        self.pool = ConsumerPool(self.stop, replace(Limits(), max_rows=max_rows), watch_s)
        self._config = topic_of(parse_source(url))
        self.reader = KafkaReader(self.pool, self._config.of_partition(partition, late), position)

    def rows(self, at_least: int, timeout_s: float = PATIENCE_S) -> list[Row]:
        """Frames until there are so many, or the end."""
        return frames_of(self.batches(at_least, timeout_s))

    def batches(self, at_least: int, timeout_s: float = PATIENCE_S) -> list[pa.RecordBatch]:
        """Batches of frames until there are so many rows, or the end."""
        found: list[pa.RecordBatch] = []
        rows = 0
        deadline = time.monotonic() + timeout_s
        while rows < at_least:
            batch = self.reader.read()
            if batch is None:
                break
            if batch.num_rows:
                batch.validate(full=True)
                found.append(batch)
                rows += batch.num_rows
            assert time.monotonic() < deadline, f"{rows} of {at_least} rows"
        return found

    def all(self) -> list[Row]:
        """Every frame up to the end, which must come."""
        found = self.rows(1 << 60)
        assert self.reader.read() is None
        return found

    def beside(self, partition: int, *, late: bool = False) -> KafkaReader:
        """A reader of another partition, of the same process."""
        return KafkaReader(self.pool, self._config.of_partition(partition, late))

    def close(self) -> None:
        self.reader.close()


def frames_of(batches: Sequence[pa.RecordBatch]) -> list[Row]:
    """Batches of frames as plain rows."""
    return [row for b in batches for row in zip(*(c.to_pylist() for c in b.columns), strict=True)]


def read_all(url: str, partition: int = 0, **more: Any) -> list[Row]:
    """Every frame of a partition up to the end that the URL sets."""
    reading = Reading(url, partition, **more)
    try:
        return reading.all()
    finally:
        reading.close()
