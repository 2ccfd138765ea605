"""Redundant connections of a recording: those that asked one venue for the same are one line's.

Where a venue's messages carry numbers that all connections share (operators.arbitration.sequences),
two or more sources with the same symbols, channels and depth are arbitrated before they are
recorded.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from marketflow.operators.arbitration.messages import MessageArbiter, MessageArbiterConfig
from marketflow.operators.arbitration.sequences import SEQUENCES
from marketflow.schemas.messages.frames import FRAMES
from marketflow.sources.websocket.config import LiveConfig


class RecordArbiter:
    """Frames by venue in, frames by venue out."""

    def __init__(self, specs: Sequence[LiveConfig]) -> None:
        groups: dict[tuple[Any, ...], list[LiveConfig]] = defaultdict(list)
        for spec in specs:
            asked = spec.venue
            symbols, channels = sorted(asked.symbols), sorted(asked.channels)
            key = (asked.DECODER, *symbols, "", *channels, asked.depth)
            groups[key].append(spec)
        self._arbiters: dict[str, list[MessageArbiter]] = defaultdict(list)
        for members in groups.values():
            venue = members[0].venue.DECODER
            if len(members) > 1 and venue in SEQUENCES:
                names = tuple(spec.connection for spec in members)
                config = MessageArbiterConfig(venue, names)
                self._arbiters[venue].append(MessageArbiter(config))

    def apply(self, batches: dict[str, pa.RecordBatch]) -> dict[str, pa.RecordBatch]:
        """One round of a recorder; also the passing of time where nothing has come."""
        if not self._arbiters:
            return batches
        now_ns = time.time_ns()
        made: dict[str, list[pa.RecordBatch]] = {v: [b] for v, b in batches.items()}
        for venue, arbiters in self._arbiters.items():
            rest = batches.get(venue)
            parts = []
            for arbiter in arbiters:
                mine = None if rest is None else _of(rest, arbiter)
                if mine is not None and mine.num_rows:
                    parts.append(arbiter.apply(mine))
                else:
                    parts.append(arbiter.tick(now_ns))
            if rest is not None:
                names = [name for arbiter in arbiters for name in arbiter.config.lines]
                parts.append(_without(rest, names))
            made[venue] = parts
        return {venue: found for venue, parts in made.items() if (found := _joined(parts))}

    def flush(self) -> dict[str, pa.RecordBatch]:
        """What still waits for missing messages."""
        made = {v: _joined([a.flush() for a in arbiters]) for v, arbiters in self._arbiters.items()}
        return {venue: frames for venue, frames in made.items() if frames is not None}

    def stats(self) -> dict[str, Any]:
        """Counts of every group of lines, by its name."""
        return {a.name: a.stats() for arbiters in self._arbiters.values() for a in arbiters}


def _connections(frames: pa.RecordBatch) -> pa.Array:
    return frames.column("connection").cast(pa.string())


def _of(frames: pa.RecordBatch, arbiter: MessageArbiter) -> pa.RecordBatch:
    names = pa.array(arbiter.config.lines, pa.string())
    return frames.filter(pc.is_in(_connections(frames), names))


def _without(frames: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    return frames.filter(pc.invert(pc.is_in(_connections(frames), pa.array(names, pa.string()))))


def _joined(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch | None:
    """The parts as one batch; None where all are empty."""
    parts = [part for part in parts if part.num_rows]
    if len(parts) < 2:
        return parts[0] if parts else None
    table = pa.Table.from_batches(parts, FRAMES).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]
