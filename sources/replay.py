"""Intervals of topics once more: partitions merged in order of time, at a chosen speed.

- Unit of parallelism: the process; one part reads all partitions (a consumer for each, so that one
  that is far ahead in time can rest while another is read).
- Interval: ``[show, end)`` of each partition's offsets, fixed before the start. Frames from
  ``start`` to ``show`` come first, as fast as they go, for the state of the flow (see
  operators.warmup); no batch lies on both sides of ``show``.
- Order: see sources.merge. Time is a frame's arrival (of rows of a table: Kafka's timestamp, which
  our own sink sets to the event time).
- Position: the next offset of every partition. Nothing is told to consumer groups: a replay must
  not move the positions of whoever follows the topic.
- Delivery: exactly once into the flow's state, as from files.
- Pace: from the first frame that is shown (anew after a resume), a second of frames takes
  ``1 / speed`` seconds; a slow flow falls behind and then catches up. None: as fast as it goes.
- Memory: a batch per partition and 64 MB of fetched messages for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from schemas.frames import FrameKind
from schemas.tables import table
from schemas.units import NS_PER_S
from sources import framing
from sources.errors import SourceError
from sources.kafka import KafkaReader
from sources.kafka_fetcher import Hub
from sources.kafka_rows import RowFrames
from sources.kafka_url import Bound, KafkaFeed
from sources.merge import Given, Merge
from sources.reader import DEFAULT_LIMITS, Limits

SNAPSHOT_VERSION: Final = 1
_PART: Final = "replay"
_AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Longest rest: a stop and a snapshot must not wait for the next frame.
_REST_S: Final = 0.05
_QUEUE_KB: Final = 65_536
_MIN_QUEUE_KB: Final = 2_048

#: (version, next offset by feed, whether the END frames were given)
_Snapshot = tuple[int, dict[int, int], bool]


class Span(NamedTuple):
    """What is replayed of one partition. ``feed``: its index in the run; ``ends``: the feed is
    over at ``end`` and says so (END frame); else it is only cut there."""

    feed: int
    partition: int
    topic_id: str
    start: int
    show: int
    end: int
    ends: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is shown."""
        return self.show >= self.end and not self.ends


class _Partition:
    """One partition: the frames before ``show``, then those of the interval."""

    def __init__(self, span: Span, feed: KafkaFeed, hub: Hub, following: int | None) -> None:
        self.span = span
        self.next = span.start if following is None else following
        self._feed = feed
        self._hub = hub
        self._reader: KafkaReader | None = None
        self._rows = RowFrames(table(feed.table), feed.registry) if feed.table else None

    def warm(self) -> pa.RecordBatch | None:
        """Frames before ``show``; None when there are no more."""
        frames = None if self.span.is_empty else self._read(self.span.show)
        return frames if frames is None or not frames.num_rows else self.given(frames)

    def read(self) -> pa.RecordBatch | None:
        """Frames of the interval, as they are in the topic (sources.merge.Feed)."""
        return None if self.span.is_empty else self._read(self.span.end)

    def _read(self, end: int) -> pa.RecordBatch | None:
        if self._reader is None:
            start = self.next if end == self.span.show else max(self.next, self.span.show)
            if start >= end:
                return None
            # Untranslated: rows become streams when they are given, and their times are needed.
            feed = replace(self._feed, end=Bound(offset=end), table="")
            position = (self.span.topic_id, start, end, False)
            self._reader = KafkaReader(self._hub, feed, self.span.partition, position)
        frames = self._reader.read()
        if frames is None or (
            frames.num_rows == 1 and frames.column("kind")[0].as_py() == FrameKind.END
        ):
            self.close()
            return None
        return frames

    def given(self, frames: pa.RecordBatch) -> pa.RecordBatch:
        """The frames as they go to the flow; they count as read from now on."""
        self.next = frames.column("offset")[-1].as_py() + 1
        return frames if self._rows is None else self._rows.frames(frames)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class Pace:
    """When frames are due. ``speed`` None: always."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began_s = 0.0
        self._first_ns: int | None = None

    def due_ns(self, first_ns: int) -> int | None:
        """Up to which frame time all is due now; None: everything. ``first_ns``: the time of the
        next frame, which starts the clock if it is the first."""
        if self._speed is None:
            return None
        now_s = time.monotonic()
        if self._first_ns is None:
            self._first_ns, self._began_s = first_ns, now_s
        return self._first_ns + int((now_s - self._began_s) * self._speed * NS_PER_S)

    def rest_s(self, first_ns: int, due_ns: int) -> float:
        """How long the next frame is still to wait for."""
        assert self._speed is not None
        return max(0.0, (first_ns - due_ns) / NS_PER_S / self._speed)


class _Replay(StatefulSourcePartition[tuple[str, pa.RecordBatch], _Snapshot]):
    def __init__(
        self, partitions: list[_Partition], pace: Pace, ended: bool, stop: threading.Event
    ) -> None:
        self._partitions = partitions
        self._warming = [] if ended else list(partitions)
        self._merge = Merge(partitions)
        self._pace = pace
        self._ended = ended
        self._stop = stop
        self._awake = _AT_ONCE

    def next_batch(self) -> list[tuple[str, pa.RecordBatch]]:
        if self._stop.is_set() or self._ended:
            raise StopIteration
        self._awake = _AT_ONCE
        if self._warming:
            return self._warm()
        first_ns = self._merge.fill()
        if first_ns is None:
            return self._finish() if self._merge.over else []
        due_ns = self._pace.due_ns(first_ns)
        if due_ns is None:
            return self._items(self._merge.take())
        if first_ns > due_ns:
            rest_s = min(self._pace.rest_s(first_ns, due_ns), _REST_S)
            self._awake = datetime.now(UTC) + timedelta(seconds=rest_s)
            return []
        return self._items(self._merge.take(due_ns))

    def _items(self, given: list[Given]) -> list[tuple[str, pa.RecordBatch]]:
        partitions = self._partitions
        return [(str(partitions[i].span.feed), partitions[i].given(f)) for i, f in given]

    def _warm(self) -> list[tuple[str, pa.RecordBatch]]:
        items = []
        for partition in list(self._warming):
            frames = partition.warm()
            if frames is None:
                self._warming.remove(partition)
            elif frames.num_rows:
                items.append((str(partition.span.feed), frames))
        return items

    def _finish(self) -> list[tuple[str, pa.RecordBatch]]:
        self._ended = True
        return [
            (str(p.span.feed), framing.single(FrameKind.END, p.span.end))
            for p in self._partitions
            if p.span.ends
        ]

    def next_awake(self) -> datetime:
        return self._awake

    def snapshot(self) -> _Snapshot:
        return (SNAPSHOT_VERSION, {p.span.feed: p.next for p in self._partitions}, self._ended)

    def close(self) -> None:
        for partition in self._partitions:
            partition.close()


class ReplaySource(FixedPartitionedSource[tuple[str, pa.RecordBatch], _Snapshot]):
    """Frames of ``spans``, each with the feed it is of; see the module."""

    #: A replay never asks to be started again (sources.inputs.FeedSource does).
    restart: str | None = None

    def __init__(
        self,
        spans: Sequence[tuple[Span, KafkaFeed]],
        speed: float | None,
        stop: threading.Event,
        *,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._spans = tuple(spans)
        self._pace = Pace(speed)
        self._stop = stop
        self._limits = limits
        self._partitions: list[_Partition] = []

    def list_parts(self) -> list[str]:
        return [_PART]

    def build_part(
        self, step_id: str, for_part: str, resume_state: _Snapshot | None
    ) -> StatefulSourcePartition[tuple[str, pa.RecordBatch], _Snapshot]:
        version, following, ended = resume_state or (SNAPSHOT_VERSION, {}, False)
        if version != SNAPSHOT_VERSION:
            raise SourceError(
                f"recovery state of the replay has format {version}, this release reads "
                f"{SNAPSHOT_VERSION}: finish with the release that wrote it, or start with an "
                "empty --recovery folder"
            )
        queue_kb = max(_MIN_QUEUE_KB, _QUEUE_KB // max(1, len(self._spans)))
        self._partitions = [
            _Partition(
                span,
                feed,
                Hub(self._stop, self._limits, queue_kb=queue_kb),
                following.get(span.feed),
            )
            for span, feed in self._spans
        ]
        return _Replay(self._partitions, self._pace, ended, self._stop)

    def progress(self) -> dict[str, Any]:
        """``replayed`` and ``to_replay``: messages of the interval; ``warm_up``: how many are
        still to be read before it. Any thread may ask."""
        spans = [(p.span, p.next) for p in self._partitions if not p.span.is_empty]
        return {
            "replayed": sum(max(0, at - span.show) for span, at in spans),
            "to_replay": sum(span.end - span.show for span, _ in spans),
            "warm_up": sum(max(0, span.show - at) for span, at in spans),
        }
