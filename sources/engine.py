"""Sources as bytewax inputs: batches of frames, keyed by feed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import (
    DEFAULT_LIMITS,
    CommittingReader,
    Limits,
    MeasuredReader,
    Reader,
)
from marketflow.sources.registry import open_reader

if TYPE_CHECKING:
    from marketflow.sources.config import SourceConfig
    from marketflow.sources.kafka.config import KafkaConfig
    from marketflow.sources.kafka.consumer import ConsumerPool
    from marketflow.sources.kafka.replay import Position, Replay
    from marketflow.sources.kafka.spans import Span

SNAPSHOT_VERSION: Final = 1
#: A constant in the past: the engine asks again at once instead of resting for a millisecond.
_AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


#: (format version, URL without secrets, the reader's position)
_Snapshot = tuple[int, str, Any]


class _Feed(StatefulSourcePartition[tuple[str, pa.RecordBatch], _Snapshot]):
    """One feed; ``spec`` None is a feed of an earlier run that is no longer read."""

    def __init__(self, key: str, text: str, reader: Reader | None, stop: threading.Event) -> None:
        self._key = key
        self._text = text
        self._reader = reader
        self._stop = stop
        self._last: Any = None

    def next_batch(self) -> list[tuple[str, pa.RecordBatch]]:
        if self._stop.is_set() or self._reader is None:
            raise StopIteration
        batch = self._reader.read()
        if batch is None:
            raise StopIteration
        return [(self._key, batch)] if batch.num_rows else []

    def next_awake(self) -> datetime:
        return _AT_ONCE

    def snapshot(self) -> _Snapshot:
        if self._reader is None:
            return (SNAPSHOT_VERSION, self._text, None)
        # The engine begins an epoch only when the snapshot of the one before is durable.
        if isinstance(self._reader, CommittingReader) and self._last is not None:
            self._reader.commit(self._last)
        self._last = self._reader.position()
        return (SNAPSHOT_VERSION, self._text, self._last)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class FeedSource(FixedPartitionedSource[tuple[str, pa.RecordBatch], _Snapshot]):
    """Frames of ``specs``, each item (feed index as text, RecordBatch of
    schemas.messages.frames.FRAMES).

    Unit of parallelism: one feed (all paths of one URL, one partition of a topic); its part is
    named by its index. ``None`` among the specs is a feed that another process reads.
    Snapshot: the URL without secrets and the reader's position after the last batch given.
    Delivery: exactly once into the flow's state; after a crash reading goes on at the snapshot and
    the batches since then come again, with the same frames (they may be cut elsewhere).
    Slow peer: no buffer beyond the reader's own; when the flow is slow, the feed is read slower.
    A feed whose server has nothing makes the engine wait for a millisecond at most.
    Stop: when ``stop`` is set every feed ends after the batch it gave last, which makes the engine
    take a final snapshot; nothing is flushed and no END frame is made up. The source stops itself
    so where it can go on only from a new start: ``restart`` then says why.

    The engine cannot forget a part: ``parts`` (at least the number of specs) keeps those of a run
    with more feeds listed, and they end at once.
    """

    def __init__(
        self,
        specs: Sequence[SourceConfig | None],
        stop: threading.Event,
        *,
        parts: int = 0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._specs = tuple(specs)
        self._stop = stop
        self._parts = max(parts, len(specs))
        self._limits = limits
        self._pool: ConsumerPool | None = None
        self._readers: dict[int, Reader] = {}

    @property
    def restart(self) -> str | None:
        """Why the run has to be started again to go on; None: it has not."""
        return None if self._pool is None else self._pool.restart

    def _shared(self) -> ConsumerPool:
        if self._pool is None:
            from marketflow.sources.kafka.consumer import ConsumerPool

            self._pool = ConsumerPool(self._stop, self._limits)
        return self._pool

    def list_parts(self) -> list[str]:
        return [str(index) for index in range(self._parts)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: _Snapshot | None
    ) -> StatefulSourcePartition[tuple[str, pa.RecordBatch], _Snapshot]:
        index = int(for_part)
        spec = self._specs[index] if index < len(self._specs) else None
        if spec is None:
            return _Feed(for_part, "", None, self._stop)
        position = None
        if resume_state is not None:
            version, text, position = resume_state
            if version != SNAPSHOT_VERSION:
                raise SourceError(
                    f"recovery state of sources has format {version}, this release reads "
                    f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
                )
            if text != spec.text:
                raise SourceError(
                    f"feed {index} was {text} when the run was interrupted and is {spec.text} "
                    f"now: resume with the same --source in the same order, or {START_ANEW}"
                )
        reader = open_reader(spec, position, self._limits, self._shared)
        self._readers[index] = reader
        return _Feed(for_part, spec.text, reader, self._stop)

    def reached(self) -> dict[int, int]:
        """By feed, the position after what was read: an offset, or bytes; nothing where a reader
        has none."""
        return {i: at for i, reader in self._readers.items() if (at := _place(reader)) is not None}

    def progress(self) -> dict[str, int]:
        """``read`` of ``to_read``; nothing where a feed does not know. Any thread may ask."""
        found = [
            reader.progress() if isinstance(reader, MeasuredReader) else None
            for reader in list(self._readers.values())
        ]
        if not found or None in found:
            return {}
        done, whole = map(sum, zip(*filter(None, found), strict=True))
        return {"read": done, "to_read": whole}


def _place(reader: Reader) -> int | None:
    """How far a reader has come, as a number."""
    if isinstance(reader, CommittingReader):
        return int(reader.position()[1])  # of a partition
    measured = reader.progress() if isinstance(reader, MeasuredReader) else None
    return None if measured is None else measured[0]


class _ReplayPart(StatefulSourcePartition[tuple[str, pa.RecordBatch], "Position"]):
    def __init__(self, replay: Replay, stop: threading.Event) -> None:
        self._replay = replay
        self._stop = stop

    def next_batch(self) -> list[tuple[str, pa.RecordBatch]]:
        items = None if self._stop.is_set() else self._replay.read()
        if items is None:
            raise StopIteration
        return [(str(feed), frames) for feed, frames in items]

    def next_awake(self) -> datetime:
        rest_s = self._replay.rest_s
        return datetime.now(UTC) + timedelta(seconds=rest_s) if rest_s else _AT_ONCE

    def snapshot(self) -> Position:
        return self._replay.position()

    def close(self) -> None:
        self._replay.close()


class ReplaySource(FixedPartitionedSource[tuple[str, pa.RecordBatch], "Position"]):
    """Intervals of topics, merged and paced (see sources.kafka.replay), as items of
    :class:`FeedSource`. One part; the snapshot is the replay's position."""

    #: A replay never asks to be started again.
    restart: str | None = None

    def __init__(
        self,
        spans: Sequence[tuple[Span, KafkaConfig]],
        speed: float | None,
        stop: threading.Event,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._spans = spans
        self._speed = speed
        self._stop = stop
        self._limits = limits
        self._replay: Replay | None = None

    def list_parts(self) -> list[str]:
        return ["replay"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Position | None
    ) -> StatefulSourcePartition[tuple[str, pa.RecordBatch], Position]:
        from marketflow.sources.kafka.replay import Replay

        self._replay = Replay(self._spans, self._speed, self._stop, resume_state, self._limits)
        return _ReplayPart(self._replay, self._stop)

    def reached(self) -> dict[int, int]:
        """By feed, the offset where its interval ends."""
        return {span.feed: span.end for span, _ in self._spans}

    def progress(self) -> dict[str, Any]:
        """See sources.kafka.replay.Replay.progress; nothing before the start. Any thread may
        ask."""
        return {} if self._replay is None else self._replay.progress()
