"""Replay intervals of topics: merge partitions in order of time, at a chosen speed.

- Unit of parallelism: the process; one reader for all partitions (with a consumer for each, so that
  one that is far ahead in time can rest while another is read).
- Interval: ``[show, end)`` of each partition's offsets, fixed before the start. Frames from
  ``start`` to ``show`` come first, unpaced: they warm up the state of the flow (see
  operators.mid_history). No batch lies on both sides of ``show``.
- Order: see sources.kafka.merge. Time is a frame's arrival (of rows of a table: Kafka's timestamp,
  which our own sink sets to the event time).
- Position: the next offset of every partition. A replay commits no positions to consumer groups:
  they belong to live readers of the topic.
- Delivery: exactly once into the flow's state, as from files.
- Pace: from the first frame that is shown (anew after a resume), a second of frames takes
  ``1 / speed`` seconds; a slow flow falls behind and then catches up. None: as fast as it goes.
- Memory: a batch per partition and 64 MB of fetched messages for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import OTHER_RELEASE
from marketflow.schemas.units import NS_PER_S
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.config import Bound, KafkaConfig
from marketflow.sources.kafka.consumer import ConsumerPool
from marketflow.sources.kafka.merge import FeedFrames, Merge
from marketflow.sources.kafka.reader import KafkaReader
from marketflow.sources.kafka.rows import translator
from marketflow.sources.kafka.spans import Span
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

POSITION_VERSION: Final = 1
#: Longest rest: a stop and a snapshot must not wait for the next frame.
_REST_S: Final = 0.05
_QUEUE_KB: Final = 65_536
_MIN_QUEUE_KB: Final = 2_048

#: (version, next offset by feed, whether the END frames were given)
Position = tuple[int, dict[int, int], bool]
#: (feed, frames)
Item = tuple[int, pa.RecordBatch]


class _Partition:
    """One partition: the frames before ``show``, then those of the interval."""

    def __init__(
        self, span: Span, config: KafkaConfig, pool: ConsumerPool, following: int | None
    ) -> None:
        self.span = span
        self.next = span.start if following is None else following
        self._config = config
        self._pool = pool
        self._reader: KafkaReader | None = None
        self._rows = translator(config)

    def warm(self) -> pa.RecordBatch | None:
        """Frames before ``show``; None when there are no more."""
        frames = None if self.span.is_empty else self._read(self.span.show)
        return self.emit(frames) if frames is not None and frames.num_rows else frames

    def read(self) -> pa.RecordBatch | None:
        """Frames of the interval, as they are in the topic (sources.kafka.merge.Feed)."""
        return None if self.span.is_empty else self._read(self.span.end)

    def _read(self, end: int) -> pa.RecordBatch | None:
        if self._reader is None:
            start = self.next if end == self.span.show else max(self.next, self.span.show)
            if start >= end:
                return None
            # Untranslated: rows become streams when they are emitted, and their times are needed.
            raw = {
                "partition": self.span.partition,
                "end": Bound(offset=end),
                "table": "",
                "dead_letters": "",
            }
            config = self._config.model_copy(update=raw)
            position = (self.span.topic_id, start, end, False)
            self._reader = KafkaReader(self._pool, config, position)
        frames = self._reader.read()
        if frames is None or (
            frames.num_rows == 1 and frames.column("kind")[0].as_py() == FrameKind.END
        ):
            self.close()
            return None
        return frames

    def emit(self, frames: pa.RecordBatch) -> pa.RecordBatch:
        """The frames as the flow reads them; the position is behind them from now on."""
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


class Replay:
    """Frames of ``spans``, each with the feed that it is of; see the module.

    ``following``: from a position of an earlier one; SourceError if it is of another format.
    """

    def __init__(
        self,
        spans: Sequence[tuple[Span, KafkaConfig]],
        speed: float | None,
        stop: threading.Event,
        following: Position | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        version, offsets, self._ended = following or (POSITION_VERSION, {}, False)
        if version != POSITION_VERSION:
            raise SourceError(
                f"recovery state of the replay has format {version}, this release reads "
                f"{POSITION_VERSION}: {OTHER_RELEASE}"
            )
        queue_kb = max(_MIN_QUEUE_KB, _QUEUE_KB // max(1, len(spans)))
        self._partitions = []
        for span, config in spans:
            pool = ConsumerPool(stop, limits, queue_kb=queue_kb)
            self._partitions.append(_Partition(span, config, pool, offsets.get(span.feed)))
        self._warming = list(self._partitions)
        self._merge = Merge(self._partitions)
        self._pace = Pace(speed)
        #: How long nothing will be due.
        self.rest_s = 0.0

    def read(self) -> list[Item] | None:
        """The frames that are due, by feed, in order of time; None at the end."""
        self.rest_s = 0.0
        if self._ended:
            return None
        if self._warming:
            return self._warm()
        first_ns = self._merge.fill()
        if first_ns is None:
            return self._finish() if self._merge.over else []
        due_ns = self._pace.due_ns(first_ns)
        if due_ns is None:
            return self._items(self._merge.emit())
        if first_ns > due_ns:
            self.rest_s = min(self._pace.rest_s(first_ns, due_ns), _REST_S)
            return []
        return self._items(self._merge.emit(due_ns))

    def _items(self, slices: list[FeedFrames]) -> list[Item]:
        partitions = self._partitions
        items = [(partitions[i].span.feed, partitions[i].emit(frames)) for i, frames in slices]
        return [(feed, frames) for feed, frames in items if frames.num_rows]

    def _warm(self) -> list[Item]:
        items = []
        for partition in list(self._warming):
            frames = partition.warm()
            if frames is None:
                self._warming.remove(partition)
            elif frames.num_rows:
                items.append((partition.span.feed, frames))
        return items

    def _finish(self) -> list[Item]:
        self._ended = True
        return [
            (p.span.feed, framing.single(FrameKind.END, p.span.end))
            for p in self._partitions
            if p.span.ends
        ]

    def position(self) -> Position:
        """Position to resume from."""
        return (POSITION_VERSION, {p.span.feed: p.next for p in self._partitions}, self._ended)

    def progress(self) -> dict[str, Any]:
        """``replayed`` and ``to_replay``: messages of the interval; ``warm_up``: how many are
        still to be read before it. Any thread may ask."""
        spans = [(p.span, p.next) for p in self._partitions if not p.span.is_empty]
        return {
            "replayed": sum(max(0, at - span.show) for span, at in spans),
            "to_replay": sum(span.end - span.show for span, _ in spans),
            "warm_up": sum(max(0, span.show - at) for span, at in spans),
        }

    def close(self) -> None:
        """Close the connections."""
        for partition in self._partitions:
            partition.close()
