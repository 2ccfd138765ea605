"""Normalise: bytes of one feed to event rows by shard, plus the feed's dead letters.

State: the decoder's (instrument registry, channel ids, position in the message count) and the
dead-letter counter. One feed is one key and one sequenced input, so every shard below it reads
exactly one input: same bytes, same rows, whatever the batching.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from marketflow.operators.events import EventBatch, Instruments, Rows
from marketflow.operators.kernels.split import split_rows
from marketflow.operators.normalise.feed import FeedDecoder, SelectiveDecoder
from marketflow.schemas.derived import arrow
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.recovery import OTHER_RELEASE, StateError
from marketflow.schemas.shards import ShardPlan, own_shard
from marketflow.schemas.tables.market_data import DEAD_LETTERS
from marketflow.schemas.units import END_OF_TIME_NS

SNAPSHOT_VERSION: Final = 1
#: Before the kind of a message that made no row: the name of its count among the stats.
ROWLESS: Final = "rowless:"


class Normalised(NamedTuple):
    """Event batches by shard (only shards with rows), and the feed's own rows."""

    parts: list[tuple[int, EventBatch]]
    feed: Rows

    def silenced(self) -> Normalised:
        """The same; the feed's own rows are for nobody to see."""
        return Normalised(self.parts, self.feed.silenced())


class Normaliser:
    """Core of the normalise step: ``apply(frames) -> Normalised``."""

    def __init__(
        self, feed_name: str, decoder: FeedDecoder, plan: ShardPlan, partition: int = 0
    ) -> None:
        self.feed_name = feed_name
        self.partition = partition
        self.decoder = decoder
        self.plan = plan
        self._dead_letters = 0
        self._known: Instruments | None = None
        self._shard_of = np.zeros(0, np.int32)
        self._active = np.zeros(plan.shards_per_feed, np.bool_)
        if plan.processes > 1 and isinstance(decoder, SelectiveDecoder):
            decoder.keep(plan.keeps)

    def apply(self, frames: pa.RecordBatch) -> Normalised:
        """Decode a frames batch (schemas.messages.frames.FRAMES) and split its rows by shard."""
        events, dead = self.decoder.apply(_in_time(frames))
        self._follow(events.instruments)
        parts = self._split(events)
        tables: dict[str, pa.RecordBatch] = {}
        stats = {"messages": events.messages}
        stats |= {ROWLESS + kind: count for kind, count in events.rowless.items() if count}
        if self.plan.keeps_feed:
            if dead is not None and dead.num_rows:
                tables["dead_letters"] = self._identify(_in_order_of(frames, dead))
        else:
            stats = {}
        return Normalised(parts, Rows(own_shard(self.plan.number), tables, stats))

    def _follow(self, instruments: Instruments) -> None:
        """Extend the shard table by the instruments that are new."""
        known = len(self._shard_of)
        if instruments is self._known or len(instruments) == known:
            return
        local = instruments.rows["shard"][known:].astype(np.int32)
        keeps = np.array([self.plan.keeps(int(s)) for s in local], np.bool_)
        self._active[local[keeps]] = True
        self._shard_of = np.concatenate([self._shard_of, np.where(keeps, local, -1)]).astype(
            np.int32
        )
        self._known = instruments

    def _split(self, events: EventBatch) -> list[tuple[int, EventBatch]]:
        starts = np.zeros(self.plan.shards_per_feed + 1, np.int64)
        rows = split_rows(events.rows, self._shard_of, self._active, starts)
        tables = self._split_tables(events.tables)
        parts = []
        for local in np.flatnonzero(self._active).tolist():
            begin, end = int(starts[local]), int(starts[local + 1])
            rare = tables.get(local, {})
            if begin == end and not rare:
                continue
            batch = EventBatch(
                rows[begin:end], events.instruments, tables=rare, offsets=events.offsets
            )
            parts.append((self.plan.index(local), batch))
        return parts

    def _split_tables(
        self, tables: dict[str, pa.RecordBatch]
    ) -> dict[int, dict[str, pa.RecordBatch]]:
        by_shard: dict[int, dict[str, pa.RecordBatch]] = {}
        for name, batch in tables.items():
            shards = self._shard_of[batch.column("instrument").to_numpy()]
            for local in np.unique(shards[shards >= 0]).tolist():
                chosen = np.flatnonzero(shards == local)
                by_shard.setdefault(local, {})[name] = batch.take(pa.array(chosen))
        return by_shard

    def _identify(self, dead: pa.RecordBatch) -> pa.RecordBatch:
        """Add shard, row_sequence, feed and partition to the decoder's dead letters."""
        n = dead.num_rows
        first = self._dead_letters
        self._dead_letters += n
        added = {
            "shard": pa.array(np.full(n, own_shard(self.plan.number), np.int64)),
            "row_sequence": pa.array(np.arange(first, first + n, dtype=np.int64)),
            "feed": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(n, np.int32)), pa.array([self.feed_name], pa.string())
            ),
            "partition": pa.array(np.full(n, self.partition, np.int32)),
        }
        schema = arrow.schema(DEAD_LETTERS)
        columns = [added[f.name] if f.name in added else dead.column(f.name) for f in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, dead-letter count, decoder state). ``changes``: of the instruments only those
        since the last snapshot."""
        return (SNAPSHOT_VERSION, self._dead_letters, self.decoder.snapshot(changes=changes))

    def restore(self, state: Any, *changes: Any) -> None:
        """Take a snapshot back, and the changes after it; StateError with the remedy for a format
        we do not read."""
        for version, dead_letters, decoder in (state, *changes):
            if version != SNAPSHOT_VERSION:
                raise StateError(
                    f"recovery state of normalise has format {version}, this release reads "
                    f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
                )
            self._dead_letters = dead_letters
            self.decoder.restore(decoder)


def _in_time(frames: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, with frames that say they arrived before 1970 or after 2261 as BROKEN ones."""
    received = frames.column("ts_recv").to_numpy()
    wrong = (received < 0) | (received >= END_OF_TIME_NS)
    if not wrong.any():
        return frames
    notes = frames.column("note").to_pylist()
    for row in np.flatnonzero(wrong).tolist():
        notes[row] = f"arrival time {received[row]} ns is not within 1970 to 2261"
    changed = {
        "ts_recv": pa.array(np.where(wrong, 0, received)),
        "kind": pa.array(
            np.where(wrong, np.int8(FrameKind.BROKEN), frames.column("kind").to_numpy())
        ),
        "note": pa.array(notes, pa.string()),
    }
    columns = [changed.get(name, frames.column(name)) for name in FRAMES.names]
    return pa.RecordBatch.from_arrays(columns, schema=FRAMES)


def _in_order_of(frames: pa.RecordBatch, dead: pa.RecordBatch) -> pa.RecordBatch:
    """Put dead letters, which come by offset, into the order of the frames they are of: a capture's
    instrument listing is read before the lines that stand above it."""
    offsets = frames.column("offset").to_numpy()
    if not (offsets[1:] < offsets[:-1]).any():
        return dead
    by_offset = np.argsort(offsets, kind="stable")
    of = np.searchsorted(offsets[by_offset], dead.column("offset").to_numpy(), side="right") - 1
    return dead.take(pa.array(np.argsort(by_offset[np.maximum(of, 0)], kind="stable")))
