"""A recorded capture: its header says which venue's decoder reads the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import EVENT, NO_INSTRUMENTS, EventBatch, EventKind
from marketflow.operators.instruments import MAX_INSTRUMENTS
from marketflow.operators.normalise.feed import Decoded, FrameColumns, JsonFeed
from marketflow.operators.venues import DECODERS, VENUES
from marketflow.operators.venues.binance.feed import Binance, BinanceFeed
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import OTHER_RELEASE, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS

SNAPSHOT_VERSION: Final = 1


class _Header(msgspec.Struct):
    exchange: str


class CaptureFeed:
    """FeedDecoder of a capture. Frames before a readable header, and all frames of a capture of a
    venue we do not know, are dead letters (UNKNOWN_MESSAGE) that say so; a later header of the
    same venue changes nothing, one of another venue is a dead letter itself."""

    def __init__(self, shards: int = DEFAULT_SHARDS) -> None:
        self._shards = shards
        self._exchange = ""
        self._feed: JsonFeed | None = None
        self._most = MAX_INSTRUMENTS

    def limit(self, instruments: int) -> None:
        """See FeedDecoder."""
        self._most = instruments
        if self._feed is not None:
            self._feed.limit(instruments)

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Decode a batch; see FeedDecoder."""
        if self._feed is None:
            first = self._find_header(frames)
            if self._feed is None:
                return self._homeless(frames)
            if first:
                return self._both(frames, first)
        return self._feed.apply(frames)

    def _find_header(self, frames: pa.RecordBatch) -> int:
        """Index of the header that names a venue we know; makes its decoder."""
        kinds = frames.column("kind").to_numpy()
        for i in np.flatnonzero(kinds == FrameKind.HEADER).tolist():
            try:
                exchange = msgspec.json.decode(
                    frames.column("payload")[i].as_py(), type=_Header
                ).exchange
            except (ValueError, RecursionError):
                continue
            if exchange in VENUES:
                self._open(exchange)
                return int(i)
        return 0

    def _open(self, exchange: str) -> None:
        self._exchange = exchange
        venue = VENUES[exchange]()
        if isinstance(venue, Binance):
            self._feed = BinanceFeed(venue.market, self._shards)
        else:
            self._feed = JsonFeed(venue, self._shards)
        self._feed.limit(self._most)

    def _homeless(self, frames: pa.RecordBatch) -> Decoded:
        """Make dead letters of all frames but the end mark: no header names their venue."""
        columns = FrameColumns(frames)
        dead_letters = DeadLetters()
        ended = 0
        for i in range(len(columns)):
            frame = columns.frame(i)
            if frame.kind == FrameKind.END:
                ended += 1
                continue
            dead_letters.add(
                frame.ts_recv,
                int(columns.offsets[i]),
                DeadLetterReason.UNKNOWN_MESSAGE,
                "no header before it names a venue we know: " + ", ".join(DECODERS),
                frame.payload,
            )
        rows = np.zeros(ended, EVENT)
        rows["kind"], rows["instrument"] = EventKind.FEED_END, -1
        kinds = columns.kinds
        messages = np.count_nonzero((kinds == FrameKind.DATA) | (kinds == FrameKind.HTTP))
        events = EventBatch(rows, NO_INSTRUMENTS, int(messages), offsets=columns.offsets)
        return Decoded(events, dead_letters.batch())

    def _both(self, frames: pa.RecordBatch, first: int) -> Decoded:
        assert self._feed is not None
        lost, dead = self._homeless(frames.slice(0, first))
        events, more = self._feed.apply(frames.slice(first))
        events = replace(events, messages=events.messages + lost.messages)
        found = [batch for batch in (dead, more) if batch is not None]
        return Decoded(events, pa.concat_batches(found) if found else None)

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, exchange or "", the venue feed's state)."""
        state = None if self._feed is None else self._feed.snapshot(changes=changes)
        return (SNAPSHOT_VERSION, self._exchange, state)

    def restore(self, state: Any) -> None:
        """Take a snapshot back; ValueError with the remedy if it is not ours."""
        version, exchange, feed_state = state
        if version != SNAPSHOT_VERSION or (exchange and exchange not in VENUES):
            raise StateError(
                f"recovery state is of a capture of {exchange!r} in format {version}, this release "
                f"reads format {SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        if exchange:
            if exchange != self._exchange:
                self._open(exchange)
            assert self._feed is not None
            self._feed.restore(feed_state)
