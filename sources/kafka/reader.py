"""``kafka://``: every partition a feed of its own, all of a process served by one consumer.

- Unit of parallelism: a Kafka partition. Its order is the feed's order.
- Position: topic id, next offset, end. It is part of the flow's snapshot; a durable one is
  committed to the group, for tools that watch lag. A resume fails if the topic is another one or
  retention has removed the next message; nothing is ever skipped.
- Delivery: exactly once into the flow's state, as for files: the topic is the durable record.
- Slow flow: at most the library's queue (64 MB) is fetched ahead.
- Outage: wait for ``patience_s``, with a line in the log for every attempt.
- A feed with ``to`` ends with an END frame there. Without, it never ends.
- Partitions that are added to the topic later are read from their start by spare readers
  (:data:`SPARE_PARTITIONS`); if there are more, the run stops gracefully and asks to be started
  again (:attr:`ConsumerPool.restart`).
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.recovery import START_ANEW
from marketflow.schemas.units import NS_PER_MS
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.cluster import Cluster
from marketflow.sources.kafka.config import EARLIEST, Bound, KafkaConfig
from marketflow.sources.kafka.consumer import REMEDY, ConsumerPool
from marketflow.sources.kafka.librdkafka import Part, Place
from marketflow.sources.kafka.rows import translator

#: Readers listed beyond the partitions there are, for those that are added while a run goes on.
SPARE_PARTITIONS: Final = 4
#: (topic id, next offset or -1 before the partition exists, end or None, whether END was given)
Position = tuple[str, int, int | None, bool]

_UNTIL_S: Final = 1.0
_NOTHING: Final = pa.RecordBatch.from_pylist([], schema=FRAMES)


def first_offset(cluster: Cluster, config: KafkaConfig, partition: int) -> tuple[int, int | None]:
    """Offset of the first message of a partition, as ``from`` says now; and the one to pin: none
    where that is the first the topic has, for retention goes on."""
    place = (config.topic, partition)
    first = offset_of(cluster, config.start, place, *cluster.bounds(*place))
    return first, None if config.start == EARLIEST else first


def offset_of(cluster: Cluster, bound: Bound, place: Place, low: int, high: int) -> int:
    """Where ``from`` points to in a partition, which has ``low`` to ``high``."""
    if bound.word:
        return low if bound == EARLIEST else high
    if bound.time_ms is not None:
        found = cluster.at_time(*place, bound.time_ms)
        return high if found is None else found
    offset = given_offset("from", bound, place)
    if not low <= offset <= high:
        raise SourceError(
            f"kafka: from: offset {offset} is not in {place[0]}, partition {place[1]}, which has "
            f"{low} to {high}"
        )
    return offset


def given_offset(name: str, bound: Bound, place: Place) -> int:
    """The offset of a partition that ``from`` or ``to`` gives."""
    if bound.offset is not None:
        return bound.offset
    offset = dict(bound.offsets).get(place[1])
    if offset is None:
        raise SourceError(
            f"kafka: {name} gives no offset for partition {place[1]} of {place[0]}: give one for "
            "every partition"
        )
    return offset


class KafkaReader:
    """Reader of one partition. A ``late`` one may not have existed when the run began: it is read
    from its start, whatever ``from`` says."""

    def __init__(
        self,
        pool: ConsumerPool,
        config: KafkaConfig,
        position: Position | None = None,
    ) -> None:
        assert config.partition is not None, config
        self.place: Place = (config.topic, config.partition)
        self.bounded = config.end is not None
        self._config = config
        self._fetcher = pool.fetcher(config)
        self._seen = -1
        self._begun = False
        self._over = position is not None and position[3]
        self._ended_at: int | None = None
        self._checked_s = 0.0
        self._committed = -1
        self._rows = translator(config)
        self._fetcher.join(self)
        try:
            self._topic_id = self._fetcher.topic(config.topic)
            if self._over:
                assert position is not None
                _, self._next, self._end, _ = position
            else:
                self._next, self._end = self._resolve(position, config.late)
                self._try_begin()
        except BaseException:
            self._fetcher.leave(self)
            raise

    # -- where from, where to -----------------------------------------------------------------

    def _resolve(self, position: Position | None, late: bool) -> tuple[int, int | None]:
        topic, partition = self.place
        if partition >= self._fetcher.counts[topic]:
            if position is not None and position[1] >= 0:
                raise SourceError(
                    f"kafka topic {topic} had a partition {partition} and has it no more: it was "
                    f"created anew; {START_ANEW}"
                )
            return -1, None
        low, high = self._fetcher.cluster.bounds(topic, partition)
        if position is None or position[1] < 0:
            if late or position is not None:
                start = low
            else:
                cluster = self._fetcher.cluster
                start = offset_of(cluster, self._config.start, self.place, low, high)
            end = self._config.end
            return start, None if end is None else self._last(end, low, high)
        topic_id, offset, last, _ = position
        if topic_id and self._topic_id and topic_id != self._topic_id:
            raise SourceError(
                f"kafka topic {topic} was deleted and created anew since the run was interrupted: "
                f"its offsets mean other messages; {START_ANEW}"
            )
        where = f"kafka topic {topic}, partition {partition}"
        if offset < low:
            raise SourceError(
                f"{where} begins at offset {low}, the run stopped at {offset}: retention has "
                f"removed {low - offset} messages in between; {REMEDY}"
            )
        if offset > high:
            raise SourceError(
                f"{where} ends at offset {high}, the run stopped at {offset}: the topic lost "
                f"messages or is another one; {START_ANEW}"
            )
        return offset, last

    def _last(self, bound: Bound, low: int, high: int) -> int | None:
        """Where the feed ends; None while a time is still to come."""
        if bound.word:
            return high
        if bound.time_ms is not None:
            found = self._fetcher.cluster.at_time(*self.place, bound.time_ms)
            if found is None and bound.time_ms <= time.time_ns() // NS_PER_MS:
                return high
            return found
        return given_offset("to", bound, self.place)

    # -- reading ------------------------------------------------------------------------------

    def _try_begin(self) -> None:
        """Start to fetch, once the partition exists."""
        topic, partition = self.place
        if self._next < 0:
            if partition >= self._fetcher.counts[topic]:
                return
            self._next, _ = self._fetcher.cluster.bounds(topic, partition)
        self._begun = True
        if not self._is_over():
            self._fetcher.begin(self.place, self._next)

    def _is_over(self) -> bool:
        return self._end is not None and self._next >= self._end

    def caught_up(self, offset: int) -> None:
        """Note that every message before ``offset`` was polled."""
        self._ended_at = offset

    def read(self) -> pa.RecordBatch | None:
        """The next frames; no rows where there are none now; None after the END frame."""
        if self._over:
            return None
        if not self._begun:
            self._try_begin()
            if not self._begun:
                return _NOTHING
        if self._is_over():
            return self._finish()
        part, self._seen = self._fetcher.poll(self.place, self._seen)
        if part is None:
            return self._nothing()
        return self._frames(part)

    def _frames(self, part: Part) -> pa.RecordBatch:
        frames, stamps = part
        offsets = frames.column("offset").to_numpy()
        count = len(offsets)
        until_ms = self._until_ms()
        if until_ms is not None:
            late = np.flatnonzero(stamps >= until_ms)
            if len(late):
                self._end = int(offsets[late[0]])
        if self._end is not None:
            count = int(np.searchsorted(offsets, self._end))
            if count < len(offsets):
                self._next = self._end
                if not count:
                    return self._finish()
                frames = frames.slice(0, count)
        self._next = max(self._next, int(offsets[count - 1]) + 1)
        return frames if self._rows is None else self._rows.frames(frames)

    def _until_ms(self) -> int | None:
        """The time that ends the feed, while it is still to come."""
        end = self._config.end
        return end.time_ms if end is not None and self._end is None else None

    def _nothing(self) -> pa.RecordBatch:
        """No message now. That is the end too, where only markers are left before it."""
        if self._end is not None and self._ended_at is not None and self._ended_at >= self._end:
            return self._finish()
        until_ms = self._until_ms()
        now_s = time.monotonic()
        if until_ms is not None and now_s - self._checked_s > _UNTIL_S:
            self._checked_s = now_s
            if time.time_ns() // NS_PER_MS >= until_ms:
                self._end = self._last(Bound(time_ms=until_ms), 0, self._high())
        return _NOTHING

    def _high(self) -> int:
        return self._fetcher.cluster.bounds(*self.place)[1]

    def _finish(self) -> pa.RecordBatch:
        self._over = True
        self._fetcher.end(self.place)
        self._next = self._next if self._end is None else max(self._next, self._end)
        return framing.single(FrameKind.END, max(self._next, 0))

    # -- recovery -----------------------------------------------------------------------------

    def position(self) -> Position:
        return (self._topic_id, self._next, self._end, self._over)

    def commit(self, position: Position) -> None:
        """Commit a durable position to the consumer group, for tools that watch lag."""
        offset = position[1]
        if offset > max(self._committed, 0):
            self._committed = offset
            self._fetcher.cluster.commit([(*self.place, offset)])

    def close(self) -> None:
        self._fetcher.leave(self)
