"""Ports for servers of tests, which nobody else takes before they are bound, or while a server that
was killed is away.

Below the range that the kernel gives to connections, for those take any port that is free at the
moment; and held by a lock as long as this process lives, for other processes of tests look too.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO, Final

_FIRST: Final = 20_000
#: Kafka's broker has three in a row.
_ROW: Final = 4
_held: Final[list[IO[str]]] = []


def free_port() -> int:
    """A port of the loopback that is this process's from now on, and the three behind it."""
    with Path("/proc/sys/net/ipv4/ip_local_port_range").open() as file:
        end = int(file.read().split()[0])
    rows = range(_FIRST, end - _ROW, _ROW)
    assert rows, f"connections have all ports from {end} on"
    folder = Path(tempfile.gettempdir()) / f"marketflow-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    # Processes begin to look at different places.
    begin = os.getpid() * 97
    for k in range(len(rows)):
        port = rows[(begin + k) % len(rows)]
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for at in range(port, port + _ROW):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", at))
        except OSError:
            lock.close()
        else:
            _held.append(lock)
            return port
    raise AssertionError(f"no port between {_FIRST} and {end} is free")
