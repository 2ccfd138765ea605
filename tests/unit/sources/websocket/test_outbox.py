"""Frames between two threads: what both of them change at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.websocket.config import parse_live
from marketflow.sources.websocket.connection import Line
from marketflow.sources.websocket.outbox import Outbox, Received


class Socket:
    """Whether it reads."""

    reading = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


def test_a_socket_reads_on_when_the_outbox_is_emptied_while_it_fills() -> None:
    """The thread that takes frames is faster than the one that has just filled the outbox: its
    word to go on comes before the other's word to stop."""
    outbox = Outbox(max_bytes=1000)
    (spec,) = parse_live(["ws:okx?symbols=BTC-USDT&url=ws://127.0.0.1:1"])
    line = Line(spec, outbox, 1.0)
    socket: Any = Socket()
    line._socket = socket
    later: list[Callable[[], None]] = []

    def overtaken() -> None:
        outbox.on_change = lambda: later.append(line.follow_outbox)
        assert outbox.poll(0.0)
        later.append(line.follow_outbox)

    outbox.on_change = overtaken
    outbox.put(Received("OKX", "okx.0", FrameKind.DATA, 1, None, bytes(2000)))
    assert len(later) == 2
    for call in later:
        call()
    assert socket.reading

    outbox.put(Received("OKX", "okx.0", FrameKind.DATA, 2, None, bytes(2000)))
    later[-1]()
    assert not socket.reading
