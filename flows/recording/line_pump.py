"""Redundant lines of a sequenced feed as batches of frames: sockets, framing, arbiter.

One round takes what all sockets have, puts it into order of arrival and hands it to the arbiter.
What a socket could not give in one round is not overtaken by what another received after it.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.flows.catalogue import Part
from marketflow.operators.arbitration.lines import Arbiter, ArbiterConfig
from marketflow.operators.arbitration.mold import WORDS, MoldDecoder, datagram
from marketflow.operators.arbitration.soup import LOGOUT, SoupClient, SoupError, State, packet
from marketflow.schemas.messages.lines import PACKET
from marketflow.schemas.units import NS_PER_MS, NS_PER_S
from marketflow.sources.errors import FeedFailed
from marketflow.sources.lines.config import LineConfig, LinesConfig, MoldConfig, SoupConfig
from marketflow.sources.lines.tcp import TcpLine
from marketflow.sources.lines.udp import SLOT_BYTES, UdpSocket

_SLOTS: Final = 256
_SOUP_BYTES: Final = 1 << 20
#: How long the other lines have to fill a hole before it is asked for.
_ASK_AFTER_NS: Final = 5 * NS_PER_MS
_ASK_AGAIN_NS: Final = 50 * NS_PER_MS
#: Holes that are asked for at once.
_ASK_MOST: Final = 64
_PACE_S: Final = 0.001
#: Timers of TCP lines are looked at so often.
_TIMERS_S: Final = 0.25
_NO_PACKETS: Final = np.zeros(0, PACKET)


@dataclass(slots=True)
class LineReport:
    """What a line has done. ``frames``: its packets; ``messages``: those of its messages that went
    out (it was first, or alone); ``drops``: datagrams the kernel dropped because we were slow;
    ``stamps``: where arrival times come from; ``resyncs``: requests for missing messages."""

    connection: str
    state: str = "up"
    frames: int = 0
    bytes: int = 0
    messages: int = 0
    duplicates: int = 0
    bad: int = 0
    drops: int = 0
    stamps: str = "clock"
    buffer_bytes: int = 0
    connects: int = 0
    disconnects: int = 0
    resyncs: int = 0
    refused: int = 0
    reason: str = ""


class _Line:
    """Packets of a line that have been received and are not due yet."""

    waiting: NDArray[np.void]

    def due(self, horizon: int | None) -> NDArray[np.void]:
        """Packets up to that time; the rest stays."""
        packets = self.waiting
        if horizon is None or not len(packets):
            self.waiting = _NO_PACKETS
            return packets
        ready = packets["ts_recv"] <= horizon
        self.waiting = packets[~ready]
        return packets[ready]


class _Mold(_Line):
    """A MoldUDP64 line, or the socket that asks for missing messages."""

    def __init__(self, udp: UdpSocket, index: int, decoder: MoldDecoder) -> None:
        self.udp = udp
        self._index = index
        self._decoder = decoder
        self.waiting = _NO_PACKETS
        self.frames = self.bytes = 0

    def fileno(self) -> int:
        return self.udp.fileno()

    def read(self, memory: NDArray[np.uint8], now_ns: int) -> None:
        """Fill ``waiting``, unless something of the round before is still there."""
        if len(self.waiting):
            return
        got = self.udp.read(now_ns)
        if len(got):
            self.waiting = self._decoder.apply(memory, *got, self._index)
            self.frames += len(got)
            self.bytes += int(np.abs(got.sizes).sum())

    @property
    def horizon(self) -> int | None:
        """The time up to which this socket has given everything; None: all it has."""
        if len(self.waiting) and self.udp.is_full:
            return int(self.waiting["ts_recv"].max())
        return None


class _Soup(_Line):
    """A SoupBinTCP line."""

    def __init__(self, spec: SoupConfig, index: int, session: str, base: int) -> None:
        self.tcp = TcpLine(spec.host, spec.port, _SOUP_BYTES)
        self.client = SoupClient(
            index,
            spec.username,
            spec.password,
            session,
            spec.sequence,
        )
        self._base = base
        self._spec = spec
        self.waiting = _NO_PACKETS
        self.frames = self.bytes = self.disconnects = 0

    def read(self, memory: NDArray[np.uint8], now_ns: int, session: bytes) -> None:
        """Fill ``waiting``, unless something of the round before is still there. FeedFailed: the
        server will not have us, ever."""
        if self.client.state is State.ENDED or len(self.waiting):
            return
        tcp, client, now_s = self.tcp, self.client, now_ns / NS_PER_S
        if tcp.step(now_s):
            tcp.send(client.connect(now_ns))
        if not tcp.is_open:
            return
        made: list[NDArray[np.void]] = []
        lost, before = tcp.read(), tcp.size
        try:
            self._receive(memory, made, now_ns)
            own = client.session.rjust(10).encode("ascii")
            if client.state is State.OPEN and session not in (b"", own):
                lost = f"session {client.session}, but the other lines' is {session.decode()}"
                made.clear()
            tcp.send(client.idle(now_ns))
        except SoupError as error:
            if error.final:
                raise FeedFailed(f"{self._spec.text}: {error}") from None
            lost = str(error)
        self.bytes += before - tcp.size
        if client.state is State.ENDED:
            tcp.send(LOGOUT)
            tcp.close()
        elif lost is not None:
            made.append(client.lose(now_ns))
            tcp.drop(now_s, lost)
            self.disconnects += 1
        if made:
            self.waiting = np.concatenate(made)
            self.frames += len(self.waiting)

    def _receive(self, memory: NDArray[np.uint8], made: list[Any], now_ns: int) -> None:
        """All whole packets; their messages fit, for they are shorter than what frames them."""
        used = 0
        while self.tcp.size:
            out = memory[self._base + used : self._base + _SOUP_BYTES]
            got = self.client.receive(self.tcp.data, self.tcp.size, out, self._base + used, now_ns)
            made.append(got.packets)
            used += int(got.packets["size"].sum())
            if not got.taken:
                return
            self.tcp.consume(got.taken)


LINES: Final = Part(
    "lines",
    15,
    ("marketflow.operators.arbitration.kernels.arbiter:arbitrate",),
    "marketflow.flows.recording.line_pump:warm",
)


def warm() -> None:
    """Have the kernels compiled, or loaded, before anything comes that would have to wait."""
    decoder, now = MoldDecoder(), np.ones(1, np.int64)
    data = np.frombuffer(datagram(b"warm".rjust(10), 1, [b"x"]), np.uint8).copy()
    packets = decoder.apply(data, 0 * now, now * len(data), now, 0)
    Arbiter(ArbiterConfig(("A",))).apply(data, packets)
    client = SoupClient(0)
    client.connect(1)
    login = packet(b"A", b"1".rjust(30)) + packet(b"S", b"x")
    client.receive(np.frombuffer(login, np.uint8).copy(), len(login), data, 0, 1)


class LinePump:
    """The lines of ``spec``: :meth:`pump` gives what has come. Raises SourceError for an address
    that cannot be had."""

    def __init__(self, spec: LinesConfig) -> None:
        warm()
        asked = [line.rerequest for line in spec.lines if line.rerequest]
        sizes = [
            _SLOTS * SLOT_BYTES if isinstance(ln, MoldConfig) else _SOUP_BYTES for ln in spec.lines
        ]
        bases = np.cumsum([0, *sizes])
        self._memory = np.zeros(int(bases[-1]) + (_SLOTS * SLOT_BYTES if asked else 1), np.uint8)
        self.decoder = MoldDecoder(spec.session)
        self.arbiter = Arbiter(
            ArbiterConfig(
                tuple(line.name for line in spec.lines),
                wait_ns=spec.wait_ms * NS_PER_MS,
                recover_ns=spec.recover_ms * NS_PER_MS,
                lag_ns=spec.lag_ms * NS_PER_MS,
                silent_ns=spec.down_ms * NS_PER_MS,
                first=spec.first,
            ),
            WORDS,
        )
        self._spec = spec
        self._lines: list[_Mold | _Soup] = []
        self._servers = asked
        self._asker: _Mold | None = None
        self._asked: dict[tuple[int, int], int] = {}
        self._paced = (0, 0, 0)
        self.requests = 0
        try:
            for index, line in enumerate(spec.lines):
                self._lines.append(self._open(line, index, int(bases[index])))
            if asked:
                socket = UdpSocket("0.0.0.0", 0, self._memory, int(bases[-1]), _SLOTS)
                self._asker = _Mold(socket, len(spec.lines), self.decoder)
        except BaseException:
            self.close()
            raise

    def _open(self, line: MoldConfig | SoupConfig, index: int, base: int) -> _Mold | _Soup:
        if isinstance(line, SoupConfig):
            return _Soup(line, index, self._spec.session, base)
        socket = UdpSocket(
            line.host, line.port, self._memory, base, _SLOTS,
            interface=line.interface,
            buffer_bytes=line.buffer_mb << 20,
        )  # fmt: skip
        return _Mold(socket, index, self.decoder)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where each mold line listens."""
        return [line.udp.address for line in self._lines if isinstance(line, _Mold)]

    @property
    def session(self) -> bytes:
        """Name of the session, 10 bytes; b"" before anything has come."""
        if self.decoder.session is not None:
            return self.decoder.session
        for line in self._lines:
            if isinstance(line, _Soup) and line.client.state in (State.OPEN, State.ENDED):
                return line.client.session.rjust(10).encode("ascii")
        return b""

    def pump(self, timeout_s: float) -> pa.RecordBatch:
        """Frames (schemas.messages.frames.FRAMES) of what has come within ``timeout_s``; often
        none."""
        self._poll(timeout_s)
        now_ns = time.time_ns()
        molds = [line for line in self._lines if isinstance(line, _Mold)]
        if self._asker is not None:
            molds.append(self._asker)
        for mold in molds:
            mold.read(self._memory, now_ns)
        horizons = [mold.horizon for mold in molds if mold is not self._asker]
        soups = [line for line in self._lines if isinstance(line, _Soup)]
        for soup in soups:
            soup.read(self._memory, now_ns, self.session)
        self.arbiter.session = self.session
        pace = self._pace(now_ns)
        horizon = min((h for h in (*horizons, pace) if h is not None), default=None)
        packets = np.concatenate([line.due(horizon) for line in self._lines])
        packets = packets[np.argsort(packets["ts_recv"], kind="stable")]
        if self._asker is not None:
            packets = np.concatenate([self._asker.due(None), packets])
        if len(packets):
            frames = self.arbiter.apply(self._memory, packets)
        else:
            frames = self.arbiter.tick(now_ns if horizon is None else min(now_ns, horizon))
        self._ask(now_ns)
        return frames

    def _pace(self, now_ns: int) -> int | None:
        """Up to when packets are due while missing ones can be asked for; None: all.

        Where we are behind (packets have waited in the kernel), stamps run faster than time does:
        the answers would come too late for holes that are timed by stamps. So a round takes no
        more than one wait, and stamps do not pass a hole faster than time.
        """
        waiting = [int(ln.waiting["ts_recv"].min()) for ln in self._lines if len(ln.waiting)]
        if self._asker is None or not waiting:
            return None
        most = min(waiting) + max(self._spec.wait_ms, 1) * NS_PER_MS
        hole = self.arbiter.hole
        if hole is None:
            return most
        if self._paced[0] != hole.first:
            self._paced = (hole.first, now_ns, self.arbiter.clock_ns)
        _, began_ns, clock_ns = self._paced
        return min(most, clock_ns + now_ns - began_ns)

    def _poll(self, timeout_s: float) -> None:
        """Wait for any socket, or until something is due by the clock."""
        poll = select.poll()
        if any(len(line.waiting) for line in self._lines):
            if self._asker is not None and self.arbiter.hole is not None:
                poll.register(self._asker.fileno(), select.POLLIN)
                poll.poll(_PACE_S * 1000)
            return
        for line in [*self._lines, self._asker]:
            if isinstance(line, _Mold):
                poll.register(line.fileno(), select.POLLIN)
            elif line is not None:
                timeout_s = min(timeout_s, _TIMERS_S)
                if line.tcp.fileno() >= 0:
                    poll.register(line.tcp.fileno(), line.tcp.events)
        if self.arbiter.hole is not None:
            timeout_s = min(timeout_s, _ASK_AFTER_NS / NS_PER_S)
        poll.poll(max(timeout_s, 0) * 1000)

    def _ask(self, now_ns: int) -> None:
        """Ask the servers, in turn, for what is missing for too long."""
        if self._asker is None or self.decoder.session is None:
            return
        asked: dict[tuple[int, int], int] = {}
        for first, last, since_ns in self.arbiter.holes(_ASK_MOST):
            if now_ns - since_ns < _ASK_AFTER_NS:
                break
            asked_ns = self._asked.get((first, last), 0)
            if now_ns - asked_ns >= _ASK_AGAIN_NS:
                server = self._servers[self.requests % len(self._servers)]
                self._asker.udp.send(self.decoder.request(first, last), server)
                self.requests += 1
                asked_ns = now_ns
            asked[first, last] = asked_ns
        self._asked = asked

    def flush(self) -> pa.RecordBatch:
        """Frames of what still waits for missing messages: nothing more will come."""
        return self.arbiter.flush()

    @property
    def ended(self) -> bool:
        """The session is over, and everything of it has been given."""
        return self.arbiter.ended

    def reports(self) -> list[LineReport]:
        """What each line has done, in order."""
        counts = self.arbiter.stats()["lines"]
        return [
            self._report(spec, line, counts[spec.name])
            for spec, line in zip(self._spec.lines, self._lines, strict=True)
        ]

    def _report(self, spec: LineConfig, line: _Mold | _Soup, counts: dict[str, Any]) -> LineReport:
        report = LineReport(
            spec.name, counts["status"], line.frames, line.bytes, counts["messages"],
            counts["duplicates"], counts["bad"],
        )  # fmt: skip
        if isinstance(line, _Mold):
            report.drops, report.stamps = line.udp.drops, line.udp.stamps
            report.buffer_bytes = line.udp.buffer_bytes
            report.connects = int(line.frames > 0)
            report.resyncs = self.requests if spec.rerequest is not None else 0
            report.reason = "" if line.frames else f"nothing has come to {spec.host}:{spec.port}"
        else:
            report.connects, report.disconnects = line.tcp.connects, line.disconnects
            report.reason = line.tcp.reason
        return report

    def close(self) -> None:
        """Close all sockets; safe to call twice."""
        for line in self._lines:
            if isinstance(line, _Mold):
                line.udp.close()
            else:
                if line.client.state is State.OPEN:
                    line.tcp.send(LOGOUT)
                line.tcp.close()
        if self._asker is not None:
            self._asker.udp.close()
