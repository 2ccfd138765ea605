"""Slow twin of operators.arbitration.lines: one message at a time, dictionaries and sorting.

Says what goes out as plain items, in order: ("message", sequence, bytes, ts), ("gap" | "filled" |
"lost", first, last), ("start", first), ("line", name, event, position, behind or None),
("broken", bytes), ("end",).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from marketflow.operators.arbitration.lines import ArbiterConfig
from marketflow.schemas.messages.lines import PacketKind as K

MARKS_PER_LAG = 32


class Packet(NamedTuple):
    """A packet; ``messages`` are the bodies without their lengths."""

    line: int
    first: int
    messages: tuple[bytes, ...] = ()
    ts: int = 1
    kind: int = K.DATA

    @property
    def next(self) -> int:
        return self.first + len(self.messages)

    @property
    def size(self) -> int:
        return sum(2 + len(m) for m in self.messages)


@dataclass
class Line:
    name: str
    position: int = 0
    last_ts: int = 0
    status: str = "up"


@dataclass
class TwinArbiter:
    config: ArbiterConfig
    items: list[tuple[Any, ...]] = field(default_factory=list)
    expected: int = 0
    highest: int = 0
    clock: int = 0
    since: int = 0
    told: int = 0
    end: int = 0
    rival: int = 0
    ended: bool = False
    waiting: list[Packet] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = [Line(name) for name in self.config.lines]

    def take(self, packet: Packet) -> None:
        """One packet."""
        if self.ended:
            return
        if packet.line < len(self.lines):
            self._time(packet.ts)
        line = self.lines[packet.line] if 0 <= packet.line < len(self.lines) else None
        sequenced = packet.kind <= K.END
        if packet.kind == K.BAD or (sequenced and not self._believed(packet)):
            self.items.append(("broken", _block(packet)))
            sequenced = False
        elif packet.kind == K.DOWN and line and line.status != "down":
            self._say(line, "down", packet.ts)
        if sequenced:
            self._sequenced(packet)
        if line and (sequenced or packet.kind == K.UP):
            line.last_ts = self.clock
            self._watch(line, packet)
        if self.expected:
            self._settle()
        if 0 < self.end <= self.expected:
            self.items.append(("end",))
            self.ended = True

    def _sequenced(self, packet: Packet) -> None:
        if not self.expected:
            self.expected = self.config.first or packet.first
            self.highest = max(self.highest, self.expected)
            self.items.append(("start", self.expected))
        if packet.next > self.highest:
            self.highest = packet.next
            interval = self.config.lag_ns // MARKS_PER_LAG
            if self.marks and self.clock - self.marks[-1][1] < interval:
                self.marks[-1] = (self.highest, self.marks[-1][1])
            else:
                self.marks.append((self.highest, self.clock))
        if packet.kind == K.END:
            self.end = packet.first
        elif packet.messages and packet.next > self.expected:
            if not self.told and packet.first <= self.expected:
                self._out(packet)
            else:
                self._wait(packet)

    def _wait(self, packet: Packet) -> None:
        limits = self.config.max_packets, self.config.max_bytes
        while self.waiting and not (
            len(self.waiting) < limits[0]
            and sum(p.size for p in self.waiting) + packet.size <= limits[1]
        ):
            self._lose()
            self._release()
        if packet.next <= self.expected:
            return
        before = [p for p in self.waiting if p.first <= packet.first]
        if not (before and before[-1].next >= packet.next):
            self.waiting.append(packet)
            self.waiting.sort(key=lambda p: p.first)

    def _out(self, packet: Packet) -> None:
        for number, message in enumerate(packet.messages, packet.first):
            if number >= self.expected:
                self.items.append(("message", number, message, packet.ts))
        self.expected = packet.next
        self.since = 0

    def _release(self) -> None:
        while self.waiting and self.waiting[0].first <= self.expected:
            packet = self.waiting.pop(0)
            if packet.next > self.expected:
                self._out(packet)

    def _last_missing(self) -> int:
        return (self.waiting[0].first if self.waiting else self.highest) - 1

    def _lose(self) -> None:
        if self.told and self.waiting and self.waiting[0].first <= self.expected:
            self.items.append(("filled", self.expected, self.told))
            self.told = 0
            self._release()
            if not self.waiting and self.highest <= self.expected:
                return
        last = self._last_missing()
        self.items.append(("lost", self.expected, last))
        self.expected, self.told, self.since = last + 1, 0, 0

    def _settle(self) -> None:
        config = self.config
        while True:
            if self.told:
                reached = self.expected
                for packet in self.waiting:
                    if packet.first <= reached:
                        reached = max(reached, packet.next)
                if reached > self.told:
                    self.items.append(("filled", self.expected, self.told))
                    self.told = 0
                    continue
            else:
                self._release()
            if not self.waiting and self.highest <= self.expected:
                self.since = 0
                return
            if not self.since:
                self.since = max(1, min([self.clock, *(p.ts for p in self.waiting)]))
            waited = self.clock - self.since
            urgent = self.highest - self.expected > config.max_behind
            if not self.told and config.recover_ns and not urgent:
                if waited < config.wait_ns:
                    return
                self.told = self._last_missing()
                self.items.append(("gap", self.expected, self.told))
            elif waited < config.wait_ns + config.recover_ns and not urgent:
                return
            else:
                self._lose()

    def _believed(self, packet: Packet) -> bool:
        far = self.config.max_jump
        if not self.expected or packet.first <= self.highest + far:
            return True
        near = self.rival > 0 and 0 <= packet.first - self.rival <= far
        self.rival = packet.first
        return near

    # Lines.

    def _say(self, line: Line, status: str, ts: int) -> None:
        line.status = status
        event = "line_recovered" if status == "up" else f"line_{status}"
        behind = max(self.highest - line.position, 0)
        behind_told = behind if status == "lagging" else None
        self.items.append(("line", line.name, event, line.position or None, behind_told, ts))

    def _time(self, ts: int) -> None:
        begun = self.clock == 0
        self.clock = max(self.clock, ts)
        for line in self.lines:
            if begun:
                line.last_ts = self.clock
            elif line.status != "down" and self.clock - line.last_ts > self.config.silent_ns:
                self._say(line, "down", self.clock)

    def _watch(self, line: Line, packet: Packet) -> None:
        config = self.config
        advanced = packet.kind <= K.END and packet.next > line.position
        if advanced:
            line.position = packet.next
        behind = max(self.highest - line.position, 0)
        known, lag = advanced or behind > 0, 0
        if packet.kind <= K.END and known:
            wanted = line.position + (not advanced)
            lag = self.clock - next((ts for at, ts in self.marks if at >= wanted), self.clock)
        if known and (lag > config.lag_ns or behind > config.lag_messages):
            if line.status != "lagging":
                self._say(line, "lagging", packet.ts)
        elif line.status == "down" or (
            line.status == "lagging"
            and known
            and lag <= config.lag_ns // 2
            and behind <= config.lag_messages // 2
        ):
            self._say(line, "up", packet.ts)


def _block(packet: Packet) -> bytes:
    return b"".join(len(m).to_bytes(2, "big") + m for m in packet.messages)
