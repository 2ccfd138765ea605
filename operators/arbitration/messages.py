"""Arbiter of redundant connections to one venue whose messages are numbered stream by stream.

As :mod:`operators.arbitration.lines`, for JSON venues: a message is a copy of another if its
numbers are, per stream (a symbol's depth, its trades). First copy wins; a message that skips
numbers waits up to ``wait_ns`` for what is missing, if another line that is up has carried the
stream. A message that never comes is not declared here: the book itself sees the skip in the
numbers, goes stale and asks for its snapshot, that book and no other.

Messages without numbers (tickers, acknowledgements) are taken from the first line that is up, in
the order of the lines. Books by REST are taken from all. A line that disconnects is LINE_DOWN, and
no book minds as long as another line is up; when the last one goes, the DISCONNECT is passed on
and all books resync. A line that is silent for ``silent_ns`` while others are heard is LINE_DOWN
too; one whose copies come ``lag_ns`` after the first is LINE_LAGGING.

All frames emitted are of one connection, named after all lines. Memory: ``max_waiting`` messages
wait; at that limit those of the stream that waits longest are emitted as they are. A stream keeps
its next number and RECENT times of its messages.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from marketflow.operators.arbitration.sequences import SEQUENCES, Sequenced, sequence_of
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.messages.lines import LineNote, to_line_note
from marketflow.schemas.units import NS_PER_MS, NS_PER_S

#: Times kept of a stream, at most one in lag_ns / _MARKS_PER_LAG.
RECENT: Final = 64
_MARKS_PER_LAG: Final = 16


@dataclass(frozen=True, slots=True)
class MessageArbiterConfig:
    """``venue``: whose messages (a key of SEQUENCES); ``lines``: names of the connections."""

    venue: str
    lines: tuple[str, ...]
    wait_ns: int = 200 * NS_PER_MS
    lag_ns: int = NS_PER_S
    silent_ns: int = 30 * NS_PER_S
    max_waiting: int = 10_000

    def __post_init__(self) -> None:
        if self.venue not in SEQUENCES:
            raise ValueError(
                f"messages of {self.venue} carry no numbers that all connections share; "
                f"lines of {', '.join(SEQUENCES)} can be arbitrated"
            )


class _Frame(NamedTuple):
    ts_recv: int
    kind: int
    note: str | None
    payload: bytes


class _Waiting(NamedTuple):
    sequence: Sequenced
    frame: _Frame


@dataclass
class _Stream:
    """``next``: the number that comes next, -1: any; ``lines``: the last number of each line that
    has carried it."""

    next: int = -1
    waiting: list[_Waiting] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))


@dataclass
class _Line:
    status: str = "new"  # new, up, down, lagging
    heard_ns: int = 0
    messages: int = 0
    duplicates: int = 0


class MessageArbiter:
    """``apply(frames) -> frames``; ``tick(now_ns)`` where nothing has come."""

    def __init__(self, config: MessageArbiterConfig) -> None:
        self.config = config
        self.name = "+".join(config.lines)
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._lines = {name: _Line() for name in config.lines}
        self._out: list[_Frame] = []
        self._clock = 0
        self._waiting = 0
        self._offset = 0
        self.duplicates = self.filled = self.skipped = self.left_out = 0

    def apply(self, frames: pa.RecordBatch) -> pa.RecordBatch:
        """The frames (schemas.messages.frames.FRAMES) of all lines, in order of arrival, as one
        line's."""
        columns = ("connection", "ts_recv", "kind", "note", "payload")
        for connection, *values in zip(
            *(frames.column(c).to_pylist() for c in columns), strict=True
        ):
            frame = _Frame(*values)
            self._pass_time(frame.ts_recv)
            line = self._lines.get(connection)
            assert line is not None, f"a frame of {connection!r}, which is no line"
            self._take(connection, line, frame)
        return self._batch()

    def tick(self, now_ns: int) -> pa.RecordBatch:
        """Frames of time having passed."""
        self._pass_time(now_ns)
        return self._batch()

    def flush(self) -> pa.RecordBatch:
        """Everything that still waits."""
        for stream in self._streams.values():
            self._give_up(stream)
        return self._batch()

    def _take(self, name: str, line: _Line, frame: _Frame) -> None:
        line.heard_ns = self._clock
        if frame.kind == FrameKind.DISCONNECT:
            self._down(name, line)
            if not any(other.status in ("up", "lagging") for other in self._lines.values()):
                for stream in self._streams.values():
                    self._give_up(stream)
                    stream.next, stream.lines = -1, {}
                self._out.append(frame)
            return
        alone = not any(
            other.status in ("up", "lagging") for n, other in self._lines.items() if n != name
        )
        if line.status in ("new", "down"):
            if line.status == "down":
                self._emit_note(name, QualityKind.LINE_RECOVERED)
            line.status = "up"
        if frame.kind == FrameKind.CONNECT:
            if alone:
                self._out.append(frame)
        elif frame.kind != FrameKind.DATA:
            self._out.append(frame)
        else:
            self._message(name, line, frame)

    def _message(self, name: str, line: _Line, frame: _Frame) -> None:
        sequence = sequence_of(self.config.venue, frame.payload)
        if sequence is None:
            first = next((n for n, x in self._lines.items() if x.status in ("up", "lagging")), name)
            if name == first:
                line.messages += 1
                self._out.append(frame)
            else:
                self.left_out += 1
            return
        stream = self._streams.get(sequence.key)
        if stream is None:
            stream = self._streams[sequence.key] = _Stream()
        if sequence.last < stream.lines.get(name, 0):
            # A connection keeps its order: the venue has begun to number anew.
            self._give_up(stream)
            stream.next, stream.lines = -1, {}
        stream.lines[name] = sequence.last
        if stream.next >= 0 and sequence.last < stream.next:
            self._copy(name, line, stream, sequence, frame)
            return
        if any(w.sequence[1:3] == sequence[1:3] for w in stream.waiting):
            self._duplicate(line)
            return
        due = sequence.full or not sequence.gapless or stream.next < 0
        if due or sequence.first <= stream.next or not self._may_come(name, stream):
            line.messages += 1
            if stream.waiting and sequence.first <= stream.next:
                self.filled += 1
            self._emit(stream, sequence, frame)
            self._emit_waiting(stream)
            return
        line.messages += 1
        stream.waiting.append(_Waiting(sequence, frame))
        stream.waiting.sort(key=lambda w: w.sequence.first)
        self._waiting += 1
        if self._waiting > self.config.max_waiting:
            longest = min(
                (s for s in self._streams.values() if s.waiting),
                key=lambda s: min(w.frame.ts_recv for w in s.waiting),
            )
            self._give_up(longest)

    def _may_come(self, name: str, stream: _Stream) -> bool:
        """Whether another line may still bring the missing messages."""
        return any(
            self._lines[other].status in ("up", "lagging")
            for other in stream.lines
            if other != name
        )

    def _emit(self, stream: _Stream, sequence: Sequenced, frame: _Frame) -> None:
        self._out.append(frame)
        stream.next = sequence.last + 1
        recent, interval = stream.recent, self.config.lag_ns // _MARKS_PER_LAG
        if recent and frame.ts_recv - recent[-1][1] < interval:
            recent[-1] = (sequence.last, recent[-1][1])
        else:
            recent.append((sequence.last, frame.ts_recv))

    def _emit_waiting(self, stream: _Stream) -> None:
        """Emit the messages that waited for the one just emitted."""
        while stream.waiting and stream.waiting[0].sequence.first <= stream.next:
            sequence, frame = stream.waiting.pop(0)
            self._waiting -= 1
            if sequence.last >= stream.next:
                self._emit(stream, sequence, frame)

    def _give_up(self, stream: _Stream) -> None:
        """Give up the missing messages: emit the rest, and the book sees the hole."""
        if stream.waiting:
            self.skipped += 1
        for sequence, frame in stream.waiting:
            if sequence.last >= stream.next:
                self._emit(stream, sequence, frame)
        self._waiting -= len(stream.waiting)
        stream.waiting.clear()

    def _duplicate(self, line: _Line) -> None:
        self.duplicates += 1
        line.duplicates += 1

    def _copy(
        self, name: str, line: _Line, stream: _Stream, sequence: Sequenced, frame: _Frame
    ) -> None:
        """Count a duplicate; its delay says whether the line is lagging."""
        self._duplicate(line)
        came = next((ts for last, ts in stream.recent if last >= sequence.last), None)
        if came is None:
            return
        lag = frame.ts_recv - came
        if lag > self.config.lag_ns and line.status == "up":
            line.status = "lagging"
            self._emit_note(name, QualityKind.LINE_LAGGING, stream.next - 1 - sequence.last)
        elif lag <= self.config.lag_ns // 2 and line.status == "lagging":
            line.status = "up"
            self._emit_note(name, QualityKind.LINE_RECOVERED)

    def _pass_time(self, ts: int) -> None:
        self._clock = max(self._clock, ts)
        if self._waiting:
            for stream in self._streams.values():
                since = min((w.frame.ts_recv for w in stream.waiting), default=self._clock)
                if self._clock - since >= self.config.wait_ns:
                    self._give_up(stream)
        for name, line in self._lines.items():
            silent = line.heard_ns and self._clock - line.heard_ns > self.config.silent_ns
            if silent and line.status in ("up", "lagging"):
                self._down(name, line)

    def _down(self, name: str, line: _Line) -> None:
        if line.status != "down":
            line.status = "down"
            self._emit_note(name, QualityKind.LINE_DOWN)

    def _emit_note(self, name: str, event: QualityKind, behind: int | None = None) -> None:
        word = event.name.lower()
        payload = to_line_note(LineNote(name, word, behind=behind))
        words = f"line {name}: {word.removeprefix('line_')}"
        self._out.append(_Frame(self._clock, int(FrameKind.LINE), words, payload))

    def _batch(self) -> pa.RecordBatch:
        """Frames to emit as a batch; ``offset`` counts frames."""
        if not self._out:
            return pa.RecordBatch.from_pylist([], schema=FRAMES)
        stamps, kinds, notes, payloads = zip(*self._out, strict=True)
        count = len(self._out)
        self._out = []
        offsets = np.arange(self._offset, self._offset + count, dtype=np.int64)
        self._offset += count
        connection = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, np.int32)), pa.array([self.name], pa.string())
        )
        columns = [
            pa.array(offsets), pa.array(stamps, pa.int64()), pa.array(kinds, pa.int8()),
            connection, pa.array(notes, pa.string()), pa.array(payloads, pa.large_binary()),
        ]  # fmt: skip
        return pa.RecordBatch.from_arrays(columns, schema=FRAMES)

    def stats(self) -> dict[str, Any]:
        """Counts, and of each line its status, messages that were first, duplicates."""
        lines = {
            name: {"status": x.status, "messages": x.messages, "duplicates": x.duplicates}
            for name, x in self._lines.items()
        }
        return {
            "duplicates": self.duplicates, "filled": self.filled, "skipped": self.skipped,
            "left_out": self.left_out, "lines": lines,
        }  # fmt: skip
