"""A venue that ticks: sends one message at a time to a socket, each with the time it left.

``python -m tests.benchmarks.live FD TICKS GAP_MS KIND`` runs in a process of its own, so that the
flow under measurement does nothing but wait, as it does behind a real connection.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from marketflow.schemas.messages import frame_batches as framing
from tests.support.root import ROOT

_WAIT_S: Final = 0.001
_AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


def trade(number: int, now_ms: int) -> bytes:
    """A Binance spot trade."""
    price = 61_837_63 + number % 7
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{now_ms},"s":"BTCUSDT","t":{number},'
        f'"p":"{price // 100}.{price % 100:02}000000","q":"0.02000000","T":{now_ms},"m":true,'
        f'"M":true}}}}'
    ).encode()


def quote(number: int, now_ms: int) -> bytes:
    """A Binance spot bookTicker; each differs from the one before."""
    return (
        f'{{"stream":"btcusdt@bookTicker","data":{{"u":{number + 1},"s":"BTCUSDT",'
        f'"b":"61837.63000000","B":"{1 + number % 9}.78826000","a":"61837.64000000",'
        f'"A":"1.54698000"}}}}'
    ).encode()


def one_frame(message: bytes, ts_recv: int, offset: int = 0) -> pa.RecordBatch:
    """A frames batch of one message."""
    return framing.batch(
        np.array([offset], np.int64),
        framing.payloads(pa.py_buffer(message), np.array([0, len(message)], np.int64)),
        ts_recv=np.array([ts_recv], np.int64),
    )


def _send(line: socket.socket, ticks: int, gap_s: float, make: Any) -> None:
    for number in range(ticks):
        time.sleep(gap_s)
        body = make(number, time.time_ns() // 1_000_000)
        line.send(time.time_ns().to_bytes(8, "little") + body)
    line.close()


@contextmanager
def venue(ticks: int, gap_ms: float, kind: str) -> Iterator[socket.socket]:
    """The socket that the venue's messages arrive at; each behind the 8-byte time it was sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [
        sys.executable, "-m", "tests.benchmarks.live",
        str(theirs.fileno()), str(ticks), str(gap_ms), kind,
    ]  # fmt: skip
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        child.wait()


class _Line(StatefulSourcePartition[tuple[str, pa.RecordBatch], None]):
    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._ready = select.poll()
        self._ready.register(line, select.POLLIN)
        self._offset = 0

    def next_batch(self) -> list[tuple[str, pa.RecordBatch]]:
        # Blocks for at most a millisecond, so that the engine stays responsive.
        if not self._ready.poll(_WAIT_S * 1000):
            return []
        message = self._line.recv(65_536)
        if not message:
            raise StopIteration
        batch = one_frame(message[8:], int.from_bytes(message[:8], "little"), self._offset)
        self._offset += 1
        return [("0", batch)]

    def next_awake(self) -> datetime:
        return _AT_ONCE

    def snapshot(self) -> None:
        return None


class LiveSource(FixedPartitionedSource[tuple[str, pa.RecordBatch], None]):
    """Frames of one message each, as they arrive. ``ts_recv`` is when the venue sent it."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def list_parts(self) -> list[str]:
        return ["0"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: None
    ) -> StatefulSourcePartition[tuple[str, pa.RecordBatch], None]:
        return _Line(self._line)


class Arrivals:
    """A writer that notes how long each row of ``table`` was under way, in ns."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.waited: list[int] = []
        self.thread = ""

    def write(self, rows: Any) -> None:
        batch = rows.tables.get(self._table)
        if batch is not None and batch.num_rows:
            now = time.time_ns()
            self.waited += [now - sent.value for sent in batch.column("ts_recv")]
            self.thread = threading.current_thread().name

    def snapshot(self) -> None:
        return None

    def restore(self, state: Any) -> None:
        """Nothing to go back to."""

    def reassign(self, states: Any, keeps: Any) -> None:
        """Nothing to begin with."""

    def close(self) -> None:
        """Nothing to release."""


if __name__ == "__main__":
    _fd, _ticks, _gap_ms, _kind = sys.argv[1:]
    _send(
        socket.socket(fileno=int(_fd)), int(_ticks), float(_gap_ms) / 1000,
        trade if _kind == "trade" else quote,
    )  # fmt: skip
