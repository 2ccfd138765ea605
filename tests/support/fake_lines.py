"""Redundant lines over real sockets, with faults on demand: MoldUDP64, SoupBinTCP, re-requests.

    python -m tests.support.fake_lines FILE|sim:?events=100000 \
        --mold HOST:PORT[?drop=3,4&delay_ms=5000] --mold HOST:PORT --rerequest PORT \
        --soup PORT[?disconnect=100] [--rate PACKETS_PER_S]

FILE is an ITCH file (length-prefixed; .gz, .zst). Faults of a mold line count packets from 0:
``drop``, ``duplicate``, ``swap`` (with the next one), ``garbage`` (in front of it) take lists
such as ``3,4``, or ``every:N``; ``delay_ms``; ``silent=FROM-TO`` (packets of an outage).
Of soup: ``disconnect=N,M`` (behind message N, once each), ``garbage=N``.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from marketflow.operators.arbitration import mold, soup
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.registry import open_reader, parse_source

SESSION = b"FAKE000001"
_DATAGRAM_BYTES = 1_400
_TICK_S = 0.005


@dataclass(frozen=True)
class MoldFaults:
    """Faults of a mold line; see the module."""

    drop: frozenset[int] = frozenset()
    duplicate: frozenset[int] = frozenset()
    swap: frozenset[int] = frozenset()
    garbage: frozenset[int] = frozenset()
    silent: range = range(0)
    delay_s: float = 0.0


@dataclass
class SoupFaults:
    """Faults of a soup line: behind which messages it disconnects, or sends garbage."""

    disconnect: list[int] = field(default_factory=list)
    garbage: list[int] = field(default_factory=list)


def itch_messages(url: str) -> list[bytes]:
    """Bodies of the messages of an ITCH source."""
    reader = open_reader(parse_source(url))
    bodies = []
    while (batch := reader.read()) is not None:
        for kind, block in zip(
            batch.column("kind").to_pylist(), batch.column("payload").to_pylist(), strict=True
        ):
            at = 0
            while kind == FrameKind.DATA and at < len(block):
                end = at + 2 + int.from_bytes(block[at : at + 2], "big")
                bodies.append(block[at + 2 : end])
                at = end
    reader.close()
    return [body for body in bodies if body]


def packed(
    messages: Sequence[bytes], seed: int = 1, most: int = 30
) -> list[tuple[int, list[bytes]]]:
    """(first sequence, messages) of datagrams of random length."""
    rng, packets, at = random.Random(seed), [], 0
    while at < len(messages):
        count, size = 0, 0
        for message in messages[at : at + rng.randint(1, most)]:
            size += 2 + len(message)
            if size > _DATAGRAM_BYTES and count:
                break
            count += 1
        packets.append((at + 1, list(messages[at : at + count])))
        at += count
    return packets


class FakeLines:
    """Sends ``messages`` over all lines at ``rate`` packets a second, then the end of the session.

    ``hold``: packets from this one on are not sent before :meth:`release`.
    """

    def __init__(
        self,
        messages: Sequence[bytes],
        molds: Sequence[tuple[tuple[str, int], MoldFaults]] = (),
        *,
        rate: float = 4000.0,
        hold: int | None = None,
        heartbeat_s: float = 0.05,
        end: bool = True,
    ) -> None:
        self.messages = list(messages)
        self.packets = packed(messages)
        self._molds = list(molds)
        self._rate = rate
        self._hold = len(self.packets) if hold is None else hold
        self._heartbeat_s = heartbeat_s
        self._end = end
        #: Messages that soup lines may have sent by now.
        self.published = 0
        self.done = False
        self.requests: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def start(self) -> FakeLines:
        """Begin to send."""
        self._run(self._publish)
        return self

    def release(self) -> None:
        """Go on behind ``hold``."""
        self._hold = len(self.packets)

    def stop(self) -> None:
        """Close everything."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def __enter__(self) -> FakeLines:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    # MoldUDP64

    def _publish(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        queues = [_Delayed(sock, address, faults.delay_s) for address, faults in self._molds]
        next_at = 0
        due_s = last_s = time.monotonic()
        while not self._stop.is_set():
            now_s = time.monotonic()
            while next_at < min(self._hold, len(self.packets)) and due_s <= now_s:
                for queue, (_, faults) in zip(queues, self._molds, strict=True):
                    self._packet(queue, faults, next_at, now_s)
                first, messages = self.packets[next_at]
                self.published = first - 1 + len(messages)
                next_at += 1
                due_s += 1 / self._rate
                last_s = now_s
            if next_at >= self._hold:
                due_s = max(due_s, now_s)
            finished = next_at == len(self.packets)
            if now_s - last_s >= self._heartbeat_s:
                count = mold.END_OF_SESSION if finished and self._end else mold.HEARTBEAT
                for queue, (_, faults) in zip(queues, self._molds, strict=True):
                    if next_at not in faults.silent:
                        queue.put(mold.signal(SESSION, self.published + 1, count), now_s)
                last_s = now_s
            self.done = finished and self._end
            for queue in queues:
                queue.send(time.monotonic())
            self._stop.wait(_TICK_S)

    def _packet(self, queue: _Delayed, faults: MoldFaults, at: int, now_s: float) -> None:
        if at in faults.garbage:
            for junk in (b"", b"junk", self._datagram(at)[:-3], b"X" * 60):
                queue.put(junk, now_s)
        if at in faults.silent:
            return
        order = [at]
        if at in faults.swap:
            order = []
        elif at - 1 in faults.swap:
            order = [at, at - 1]
        for k in order:
            if k not in faults.drop:
                for _ in range(1 + (k in faults.duplicate)):
                    queue.put(self._datagram(k), now_s)

    def _datagram(self, at: int) -> bytes:
        return mold.datagram(SESSION, *self.packets[at])

    def serve_requests(self, port: int = 0, *, skip: int = 0) -> int:
        """A re-request server; its port. The first ``skip`` requests are not answered."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port))
        sock.settimeout(0.05)
        self._sockets.append(sock)
        self._run(self._requests, sock, skip)
        return int(sock.getsockname()[1])

    def _requests(self, sock: socket.socket, skip: int) -> None:
        while not self._stop.is_set():
            try:
                data, peer = sock.recvfrom(100)
            except TimeoutError:
                continue
            request = mold.parse_request(data)
            assert request is not None and request[0] == SESSION, data
            _, first, count = request
            self.requests.append((first, count))
            if len(self.requests) <= skip:
                continue
            wanted = self.messages[first - 1 : min(first - 1 + count, self.published)]
            for start, messages in packed(wanted, seed=first):
                sock.sendto(mold.datagram(SESSION, first - 1 + start, messages), peer)

    # SoupBinTCP

    def serve_soup(self, faults: SoupFaults | None = None, port: int = 0) -> int:
        """A SoupBinTCP server; its port."""
        server = socket.create_server(("127.0.0.1", port))
        server.settimeout(0.05)
        self._sockets.append(server)
        self._run(self._accept, server, faults or SoupFaults())
        return int(server.getsockname()[1])

    def _accept(self, server: socket.socket, faults: SoupFaults) -> None:
        while not self._stop.is_set():
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            with peer, contextlib.suppress(OSError):
                self._serve(peer, faults)

    def _serve(self, peer: socket.socket, faults: SoupFaults) -> None:
        peer.settimeout(1)
        login = b""
        while len(login) < 49:
            login += peer.recv(100)
        if login[3:9].strip() == b"nobody":
            peer.sendall(soup.packet(b"J", b"A"))
            return
        wanted = int(login[29:49])
        at = (wanted or self.published + 1) - 1
        peer.sendall(soup.packet(b"A", SESSION + str(at + 1).rjust(20).encode()))
        last_s = time.monotonic()
        while not self._stop.is_set():
            upto = min([self.published, *(n for n in faults.disconnect if n > at)])
            if upto > at:
                block = b"".join(soup.packet(b"S", m) for m in self.messages[at:upto])
                at, last_s = upto, time.monotonic()
                if at in faults.disconnect:
                    faults.disconnect.remove(at)
                    peer.sendall(block + struct.pack(">H", 9) + b"S")  # cut inside a packet
                    return
                peer.sendall(block)
                if faults.garbage and at >= faults.garbage[0]:
                    faults.garbage.pop(0)
                    peer.sendall(b"\0\0garbage")
                    return
            elif self.done:
                peer.sendall(soup.packet(b"Z"))
                return
            if time.monotonic() - last_s > self._heartbeat_s:
                peer.sendall(soup.packet(b"H"))
                last_s = time.monotonic()
            if select.select([peer], [], [], _TICK_S)[0] and not peer.recv(4096):
                return


class _Delayed:
    """Datagrams of a line on their way, in order."""

    def __init__(self, sock: socket.socket, address: tuple[str, int], delay_s: float) -> None:
        self._sock, self._address, self._delay_s = sock, address, delay_s
        self._waiting: list[tuple[float, bytes]] = []

    def put(self, data: bytes, now_s: float) -> None:
        self._waiting.append((now_s + self._delay_s, data))

    def send(self, now_s: float) -> None:
        due = 0
        while due < len(self._waiting) and self._waiting[due][0] <= now_s:
            with contextlib.suppress(ConnectionRefusedError):
                self._sock.sendto(self._waiting[due][1], self._address)
            due += 1
        del self._waiting[:due]


def _places(text: str, total: int) -> frozenset[int]:
    if text.startswith("every:"):
        step = int(text.removeprefix("every:"))
        return frozenset(range(step - 1, total, step))
    return frozenset(int(part) for part in text.split(","))


def _mold(text: str, total: int) -> tuple[tuple[str, int], MoldFaults]:
    place, _, query = text.partition("?")
    host, _, port = place.rpartition(":")
    values: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        if name == "delay_ms":
            values["delay_s"] = int(value) / 1000
        elif name == "silent":
            begin, _, end = value.partition("-")
            values["silent"] = range(int(begin), int(end))
        else:
            values[name] = _places(value, total)
    return (host, int(port)), MoldFaults(**values)


def main() -> int:
    """Command line."""
    words = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument("source", help="an ITCH file, or a source such as sim:?events=100000")
    parser.add_argument("--mold", action="append", default=[])
    parser.add_argument("--soup", action="append", default=[])
    parser.add_argument("--rerequest", type=int)
    parser.add_argument("--rate", type=float, default=1000.0, help="packets a second")
    arguments = parser.parse_args()
    url = arguments.source
    if Path(url).exists():
        url = f"itch:{url}?date=2019-12-30"
    messages = itch_messages(url)
    total = len(packed(messages))
    lines = FakeLines(
        messages, [_mold(text, total) for text in arguments.mold], rate=arguments.rate
    )
    for text in arguments.soup:
        port, _, query = text.partition("?")
        faults = {name: [int(n) for n in value.split(",")] for name, value in parse_qsl(query)}
        lines.serve_soup(SoupFaults(**faults), int(port))
    if arguments.rerequest:
        lines.serve_requests(arguments.rerequest)
    print(f"{len(messages):,} messages in {total:,} packets; Ctrl-C stops", flush=True)
    with lines, contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            print(f"{lines.published:,} messages sent", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
