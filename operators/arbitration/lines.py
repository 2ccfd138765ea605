"""Arbiter: redundant lines of one sequenced feed to one stream of frames.

Lines carry the same numbered messages. The first copy of a message wins; what one line misses
another fills; a message that none brings in time is a hole. Pure: packets with their arrival stamps
go in, frames come out, and the same packets give the same frames however they are cut.

**Holes.** A packet beyond a hole waits for it ``wait_ns``. Where missing messages can be asked for
again (``recover_ns`` > 0), a GAP frame then says that the books are not to be trusted, nothing
more goes out, and for ``recover_ns`` more the hole may still be filled (FILLED, then its messages,
late but in sequence). A hole that is not filled is LOST, and the stream continues behind it.

**Memory.** At most ``max_packets`` packets of ``max_bytes`` bytes wait, and at most
``max_behind`` messages: at a limit the oldest hole is given up at once.

**Lines.** A line that is silent for ``silent_ns`` (heartbeats count) or lost its connection is
LINE_DOWN; one that brings its messages ``lag_ns`` or ``lag_messages`` after the others is
LINE_LAGGING; when it is at half of that, or heard again, LINE_RECOVERED. Nothing needs to be
switched: the other lines' copies win by themselves.

**Begin and end.** The stream begins with the first packet heard, or at ``first``, where it is set;
a START frame says at which message of which session. It ends (END frame) when a line has told the
end of the session and everything before it has gone out.

**Not believed.** A packet that jumps more than ``max_jump`` messages ahead, until a second one
says the same: a damaged number must not cost the rest of the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.operators.arbitration.kernels import state as kernels
from marketflow.operators.arbitration.kernels.arbiter import arbitrate
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.messages.lines import PACKET, LineNote, PacketKind, to_line_note, to_start
from marketflow.schemas.units import NS_PER_MS, NS_PER_S

SNAPSHOT_VERSION: Final = 1
_LEAST_BYTES: Final = 1 << 20
_STATUS: Final = ("up", "lagging", "down")
#: Counters of the state and what they are called.
_COUNTS: Final = {
    "messages": kernels.MESSAGES,
    "duplicates": kernels.DUPLICATES,
    "filled": kernels.FILLED_MESSAGES,
    "lost": kernels.LOST_MESSAGES,
    "holes": kernels.HOLES,
    "bad_packets": kernels.BAD_PACKETS,
}


@dataclass(frozen=True, slots=True)
class ArbiterConfig:
    """``lines``: their names, in the order in which packets count them; a packet of a number
    beyond them comes from where missing messages are asked for. The rest: see the module."""

    lines: tuple[str, ...]
    wait_ns: int = 50 * NS_PER_MS
    recover_ns: int = 0
    lag_ns: int = NS_PER_S
    lag_messages: int = 100_000
    silent_ns: int = 3 * NS_PER_S
    max_behind: int = 1_000_000
    max_jump: int = 10_000_000
    max_packets: int = 8192
    max_bytes: int = 8 << 20
    first: int = 0

    def __post_init__(self) -> None:
        if not self.lines or len(set(self.lines)) != len(self.lines):
            raise ValueError(f"lines {self.lines}: give each line a name of its own")
        if self.max_bytes < _LEAST_BYTES:
            raise ValueError(f"max_bytes is {self.max_bytes}: use at least {_LEAST_BYTES}")
        for name in ("wait_ns", "recover_ns", "first"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use 0 or more")
        for name in ("lag_ns", "lag_messages", "silent_ns", "max_behind", "max_jump"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use 1 or more")
        if self.max_packets < 2:
            raise ValueError(f"max_packets is {self.max_packets}: use 2 or more")


class Hole(NamedTuple):
    """Messages that are missing now, and since when (ns UTC)."""

    first: int
    last: int
    since_ns: int


class Arbiter:
    """``apply(data, packets) -> frames``; see the module. ``why``: words for BAD packets by their
    reason; ``name``: the connection that its frames name."""

    def __init__(self, config: ArbiterConfig, why: dict[int, str] | None = None) -> None:
        self.config = config
        self._why = {
            kernels.WHY_JUMP: "its sequence is far ahead of the feed's, and no other packet's is",
            **(why or {}),
        }
        self.name = "+".join(config.lines)
        #: Name of the session, for START: to be set before the first packet.
        self.session = b""
        lines = np.zeros(len(config.lines), kernels.LINE)
        lines["watched"] = 1
        settings = np.zeros(kernels.CONFIG_SIZE, np.int64)
        settings[kernels.WAIT_NS] = config.wait_ns
        settings[kernels.RECOVER_NS] = config.recover_ns
        settings[kernels.MAX_BEHIND] = config.max_behind
        settings[kernels.LAG_NS] = config.lag_ns
        settings[kernels.LAG_MESSAGES] = config.lag_messages
        settings[kernels.SILENT_NS] = config.silent_ns
        settings[kernels.MAX_JUMP] = config.max_jump
        settings[kernels.FIRST] = config.first
        self._state = kernels.State(
            np.zeros(kernels.STATE_SIZE, np.int64),
            settings,
            np.zeros(config.max_packets, kernels.HELD_PACKET),
            np.zeros(config.max_bytes, np.uint8),
            np.zeros(config.max_bytes, np.uint8),
            lines,
            np.zeros(kernels.MARK_RING, kernels.MARK),
        )

    def apply(self, data: NDArray[np.uint8], packets: NDArray[np.void]) -> pa.RecordBatch:
        """Frames (schemas.messages.frames.FRAMES) of packets (PACKET, in order of arrival) in
        ``data``.

        ``offset`` counts the bytes given out, so that it is that of a file of the same messages.
        No packet may be longer than ``max_bytes``.
        """
        assert len(packets) == 0 or packets["size"].max() <= self.config.max_bytes
        batches, at = [], 0
        while at < len(packets):
            output = self._room(packets[at:])
            at = int(arbitrate(self._state, output, data, packets, at))
            batches.append(self._frames(output))
        batches = [batch for batch in batches if batch.num_rows]
        if not batches:
            return _NOTHING
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)

    def flush(self) -> pa.RecordBatch:
        """Frames of everything that still waits: holes are given up, nothing more will come."""
        config, clock = self._state.config, int(self._state.counts[kernels.CLOCK])
        most, config[kernels.MAX_BEHIND] = config[kernels.MAX_BEHIND], -1
        try:
            return self.tick(clock)
        finally:
            config[kernels.MAX_BEHIND] = most

    def tick(self, now_ns: int) -> pa.RecordBatch:
        """Frames of time having passed without packets."""
        clock = np.zeros(1, PACKET)
        clock["kind"], clock["ts_recv"], clock["line"] = PacketKind.CLOCK, now_ns, -1
        return self.apply(np.zeros(1, np.uint8), clock)

    def _room(self, packets: NDArray[np.void]) -> kernels.Output:
        """Room for what so many packets make at most (but that of a burst of holes in one)."""
        counts = self._state.counts
        frames = kernels.FRAMES_EACH * (int(counts[kernels.HELD]) + len(packets) + 2)
        frames += 2 * len(self._state.lines) * (len(packets) + 1)
        size = int(counts[kernels.USED]) + int(packets["size"].sum()) + 16 * frames
        return kernels.Output(np.empty(frames, kernels.OUT), np.empty(size, np.uint8))

    def _frames(self, output: kernels.Output) -> pa.RecordBatch:
        counts = self._state.counts
        count, size = int(counts[kernels.FRAMES]), int(counts[kernels.BYTES])
        counts[kernels.FRAMES] = counts[kernels.BYTES] = 0
        rows = output.frames[:count]
        bounds = np.append(rows["begin"], size)
        payload = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), count, [None, pa.py_buffer(bounds), pa.py_buffer(output.data)]
        )
        notes = pa.nulls(count, pa.string())
        special = np.flatnonzero(rows["kind"] != FrameKind.DATA)
        if len(special):
            payload, notes = self._special(rows, special, payload)
        connection = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, np.int32)), pa.array([self.name], pa.string())
        )
        columns = [
            pa.array(np.ascontiguousarray(rows["offset"])),
            pa.array(np.ascontiguousarray(rows["ts_recv"])),
            pa.array(np.ascontiguousarray(rows["kind"])),
            connection, notes, payload,
        ]  # fmt: skip
        return pa.RecordBatch.from_arrays(columns, schema=FRAMES)

    def _special(
        self, rows: NDArray[np.void], special: NDArray[np.int64], payload: pa.LargeBinaryArray
    ) -> tuple[pa.LargeBinaryArray, pa.StringArray]:
        """Payloads and notes of all frames but DATA."""
        notes: list[str | None] = [None] * len(rows)
        told = np.zeros(len(rows), np.bool_)
        filled: list[bytes] = []
        for n in special.tolist():
            row = rows[n]
            if row["kind"] == FrameKind.LINE:
                note = self._line_note(row)
                told[n] = True
                filled.append(to_line_note(note))
                words = note.event.removeprefix("line_")
                notes[n] = f"line {note.line}: {words}"
                if note.behind:
                    notes[n] = f"line {note.line}: {words}, {note.behind} messages behind"
            elif row["kind"] == FrameKind.START:
                told[n] = True
                filled.append(to_start(int(row["first"]), self.session))
                session = self.session.decode("latin-1").strip()
                notes[n] = f"session {session} from message {row['first']} on"
            elif row["kind"] == FrameKind.BROKEN:
                text = self._why.get(int(row["what"]), "no packet")
                notes[n] = f"{self._line_name(int(row['line']))}: {text}"
            elif row["kind"] != FrameKind.END:
                word = FrameKind(int(row["kind"])).name.lower()
                notes[n] = f"messages {row['first']} to {row['last']}: {word}"
        if filled:
            replacements = pa.array(filled, pa.large_binary())
            payload = pc.replace_with_mask(payload, pa.array(told), replacements)
        return payload, pa.array(notes, pa.string())

    def _line_name(self, line: int) -> str:
        names = self.config.lines
        return f"line {names[line]}" if 0 <= line < len(names) else "asked for again"

    def _line_note(self, row: Any) -> LineNote:
        event = QualityKind(int(row["what"]))
        lags = event == QualityKind.LINE_LAGGING
        return LineNote(
            self.config.lines[int(row["line"])],
            event.name.lower(),
            int(row["first"]) or None,
            int(row["last"]) if lags else None,
        )

    @property
    def hole(self) -> Hole | None:
        """The first hole, if there is one."""
        holes = self.holes(1)
        return holes[0] if holes else None

    def holes(self, most: int) -> list[Hole]:
        """Holes to ask for again, at most ``most``."""
        counts = self._state.counts
        since = int(counts[kernels.SINCE])
        if since == 0:
            return []
        found: list[Hole] = []
        reached = int(counts[kernels.EXPECTED])
        for packet in self._state.held[: int(counts[kernels.HELD])]:
            if packet["first"] > reached:
                found.append(Hole(reached, int(packet["first"]) - 1, since))
            reached = max(reached, int(packet["next"]))
            if len(found) == most:
                return found
        if counts[kernels.HIGHEST] > reached:
            found.append(Hole(reached, int(counts[kernels.HIGHEST]) - 1, since))
        return found

    @property
    def clock_ns(self) -> int:
        """The latest arrival so far: what holes and lines are timed by."""
        return int(self._state.counts[kernels.CLOCK])

    @property
    def ended(self) -> bool:
        """The END frame has been given."""
        return bool(self._state.counts[kernels.ENDED])

    @property
    def next_sequence(self) -> int:
        """The sequence that goes out next; 0 before the first packet."""
        return int(self._state.counts[kernels.EXPECTED])

    def stats(self) -> dict[str, Any]:
        """Counts of messages, and of each line: status, packets, messages that were first,
        duplicates, bad packets."""
        counts = self._state.counts
        lines = {
            name: {
                "status": _STATUS[int(row["status"])],
                **{key: int(row[key]) for key in ("packets", "messages", "duplicates", "bad")},
            }
            for name, row in zip(self.config.lines, self._state.lines, strict=True)
        }
        return {name: int(counts[place]) for name, place in _COUNTS.items()} | {"lines": lines}

    def snapshot(self) -> Any:
        """(version, names of the lines, counters, held packets, their bytes, lines, marks)."""
        state = self._state
        held, used = int(state.counts[kernels.HELD]), int(state.counts[kernels.USED])
        return (
            SNAPSHOT_VERSION, self.config.lines, state.counts.copy(), state.held[:held].copy(),
            state.arena[:used].copy(), state.lines.copy(), state.marks.copy(),
        )  # fmt: skip

    def restore(self, value: Any) -> None:
        """Take a snapshot back; ValueError with the remedy if it is of another format."""
        version, names, counts, held, arena, lines, marks = value
        if version != SNAPSHOT_VERSION or names != self.config.lines:
            raise ValueError(
                f"state of lines {names} in format {version}, this is {self.config.lines} in "
                f"format {SNAPSHOT_VERSION}: record with the same lines, or begin a new recording"
            )
        if len(held) > self.config.max_packets or len(arena) > self.config.max_bytes:
            raise ValueError("more packets wait than max_packets and max_bytes allow: raise them")
        state = self._state
        state.counts[:] = counts
        state.held[: len(held)] = held
        state.arena[: len(arena)] = arena
        state.lines[:] = lines
        state.marks[:] = marks


_NOTHING: Final = pa.RecordBatch.from_pylist([], schema=FRAMES)
