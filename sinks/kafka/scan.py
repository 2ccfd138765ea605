"""What a run has already written to its topics: asked once, when it goes on.

Rows between the last durable snapshot and the end of each partition are read (committed ones
only), and those of our run are remembered as the highest row_sequence per table and shard. The
reading goes to the true end of the partition: where another writer's open transaction hides it,
until that is committed or has timed out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as ReadMessage

from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages.kafka import WireError
from marketflow.schemas.recovery import START_AGAIN, START_ANEW
from marketflow.schemas.tables import table
from marketflow.sinks.errors import KafkaFailed, SinkError
from marketflow.sinks.kafka.encode import identity
from marketflow.sinks.kafka.producer import Link
from marketflow.sinks.marks import Marks, mark

_CALL_S: Final = 5.0
_BATCH: Final = 1000
#: Offsets by (topic, partition).
Offsets = dict[tuple[str, int], int]


class Start(NamedTuple):
    """Where a run began to write, and whether an earlier start of it has said so already."""

    offsets: Offsets
    again: bool


class Scanner:
    """Reads the ends of our topics. ``group`` keeps where a run with a recovery folder began."""

    def __init__(self, link: Link, group: str, run: str, wait_s: float) -> None:
        self._link = link
        self._run = run.encode()
        self._wait_s = wait_s
        self._config: dict[str, Any] = {
            **link.address.config(),
            "group.id": group,
            "enable.auto.commit": False,
            "log_level": 0,
        }

    def ends(self, places: list[tuple[str, int]]) -> Offsets:
        """The offset after the last message of each partition, open transactions included."""
        consumer = Consumer({**self._config, "isolation.level": "read_uncommitted"})
        try:
            return {place: self._bounds(consumer, place)[1] for place in places}
        finally:
            consumer.close()

    def _bounds(self, consumer: Consumer, place: tuple[str, int]) -> tuple[int, int]:
        def query() -> tuple[int, int]:
            low, high = consumer.get_watermark_offsets(TopicPartition(*place), timeout=_CALL_S)
            return low, high

        return self._link.ask(f"ends of {place[0]}", query)

    def begin(self, places: list[tuple[str, int]]) -> Start:
        """Where this run began, kept by the cluster from its first start on."""
        consumer = Consumer(self._config)
        run = self._run.decode()
        try:
            asked = [TopicPartition(*place) for place in places]
            kept = self._link.ask(
                "the run's beginning", lambda: consumer.committed(asked, timeout=_CALL_S)
            )
            found = {(k.topic, k.partition): k.offset for k in kept if k.metadata == run}
            if found:
                # A topic that is younger than the beginning holds nothing from before it.
                return Start({place: found.get(place, 0) for place in places}, True)
            ends = self.ends(places)
            marks = [TopicPartition(*place, offset, run) for place, offset in ends.items()]
            self._link.ask(
                "keeping the run's beginning",
                lambda: consumer.commit(offsets=marks, asynchronous=False),
            )
            return Start(ends, False)
        finally:
            consumer.close()

    def written(self, since: Mapping[tuple[str, int], int]) -> Marks:
        """Rows of this run at or after these offsets. SinkError if they cannot be known."""
        found: Marks = {}
        self.read(since, lambda message: self._note(message, found))
        return found

    def read(self, since: Mapping[tuple[str, int], int], note: Callable[[Any], None]) -> None:
        """Give ``note`` every committed message at or after these offsets. SinkError if there are
        fewer than there were."""
        self._read_all(since, self.ends(list(since)), "read_committed", note)

    def _read_all(
        self,
        since: Mapping[tuple[str, int], int],
        ends: Offsets,
        isolation: str,
        note: Callable[[Any], None],
    ) -> None:
        consumer = Consumer(
            {
                **self._config,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        try:
            left: Offsets = {}
            for place, offset in since.items():
                low, _ = self._bounds(consumer, place)
                self._check(place, offset, low, ends[place])
                if offset < ends[place]:
                    left[place] = ends[place]
            consumer.assign([TopicPartition(*place, since[place]) for place in left])
            self._read(consumer, left, note)
        finally:
            consumer.close()

    def hidden(self, place: tuple[str, int], note: Callable[[Any], None]) -> bool:
        """Whether an open transaction hides messages of the partition; ``note`` is given what is
        behind its beginning, whether it will be committed or not."""
        consumer = Consumer({**self._config, "isolation.level": "read_committed"})
        try:
            _, visible = self._bounds(consumer, place)
        finally:
            consumer.close()
        end = self.ends([place])[place]
        if visible < end:
            self._read_all({place: visible}, {place: end}, "read_uncommitted", note)
        return visible < end

    def _check(self, place: tuple[str, int], offset: int, low: int, high: int) -> None:
        where = f"kafka at {self._link.address.brokers}: {place[0]}, partition {place[1]}"
        if offset > high:
            raise SinkError(
                f"{where} ends at offset {high}, this run has written up to {offset}: the topic "
                f"was created anew; {START_ANEW}"
            )
        if offset < low:
            raise SinkError(
                f"{where} begins at offset {low}, this run has written from {offset} on: retention "
                "has removed what would tell which rows are there; raise the topic's retention and "
                f"{START_ANEW}"
            )

    def _read(self, consumer: Consumer, left: Offsets, note: Callable[[Any], None]) -> None:
        deadline = time.monotonic() + self._wait_s
        while left:
            for message in consumer.consume(_BATCH, 0.1):
                place, offset = _place(message)
                error = message.error()
                if error is None:
                    note(message)
                    if offset + 1 >= left.get(place, 0):
                        left.pop(place, None)
                elif error.code() == KafkaError._PARTITION_EOF:
                    if offset >= left.get(place, 0):
                        left.pop(place, None)
                else:
                    self._link.check(error)
            if left and time.monotonic() > deadline:
                (topic, partition), end = next(iter(left.items()))
                raise KafkaFailed(
                    f"kafka at {self._link.address.brokers}: {topic}, partition {partition} could "
                    f"not be read to its end ({end}) in {self._wait_s:.0f} s: the brokers are "
                    "slow, or a writer that is gone left a transaction open; "
                    f"{START_AGAIN}"
                )

    def _note(self, message: Any, found: Marks) -> None:
        run = dict(message.headers() or ()).get(wire.RUN)
        if run != self._run:
            return
        name = message.topic().rpartition(".")[2]
        try:
            shard, last = identity(table(name), message.value())
        except (WireError, KeyError) as error:
            raise SinkError(
                f"kafka: {message.topic()}, offset {message.offset()} is marked as ours but is no "
                f"row: {error}"
            ) from None
        found.setdefault(name, {})[shard] = max(mark(found, name, shard), last + 1)


def _place(message: ReadMessage) -> tuple[tuple[str, int], int]:
    """Topic and partition of a message that was read, and its offset."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return (topic, partition), offset
