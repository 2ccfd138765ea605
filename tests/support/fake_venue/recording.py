"""A capture as the fake venue replays it: messages of one market in time order, REST answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import capture_frames


class Event(NamedTuple):
    """A message or REST answer at its time (ns)."""

    ts: int
    kind: FrameKind
    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """Events in time order, without what the other side sent."""

    events: list[Event]

    def answer(self, target: str) -> str | None:
        """The recorded answer to a request: of the same path, and of the same query where several
        were recorded."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        best: tuple[int, str] | None = None
        for event in self.events:
            if event.kind != FrameKind.HTTP or urlsplit(event.url).path != path:
                continue
            recorded = parse_qs(urlsplit(event.url).query)
            wrong = sum(query.get(name) != value for name, value in recorded.items())
            if best is None or wrong < best[0]:
                best = (wrong, event.text)
        return None if best is None else best[1]


def load(path: Path, address_ends: str = "") -> Recording:
    """The recording; only of the connections whose address ends so (one of several markets)."""
    frames = capture_frames(path)
    mine = {
        frame.connection
        for frame in frames
        if frame.kind == FrameKind.CONNECT and (frame.note or "").endswith(address_ends)
    }
    events = []
    for frame in frames:
        is_http = frame.kind == FrameKind.HTTP
        if is_http or (frame.kind == FrameKind.DATA and frame.connection in mine):
            assert isinstance(frame.payload, bytes)
            text = frame.payload.decode()
            events.append(Event(frame.ts_recv, FrameKind(frame.kind), frame.note or "", text))
    return Recording(events)
