"""Datagrams off real sockets: stamps, drops, cut ones, multicast; and the URLs of lines."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.recording.record import record
from marketflow.sources.errors import SourceError
from marketflow.sources.lines.config import parse_lines
from marketflow.sources.lines.kernels.stamps import read_stamps
from marketflow.sources.lines.udp import SLOT_BYTES, Datagrams, UdpSocket
from marketflow.sources.registry import parse_source

SLOTS = 16


def opened(host: str = "127.0.0.1", port: int = 0, **more: object) -> tuple[UdpSocket, np.ndarray]:
    memory = np.zeros((SLOTS + 1) * SLOT_BYTES, np.uint8)
    return UdpSocket(host, port, memory, SLOT_BYTES, SLOTS, **more), memory  # type: ignore[arg-type]


def payloads(memory: np.ndarray, got: Datagrams) -> list[bytes]:
    return [
        memory[begin : begin + abs(size)].tobytes()
        for begin, size in zip(got.begins.tolist(), got.sizes.tolist(), strict=True)
    ]


def test_many_at_once_in_order_with_the_kernels_stamps() -> None:
    udp, memory = opened()
    sent = [b"%d" % k * (k + 1) for k in range(SLOTS + 3)]
    before = time.time_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in sent:
            sender.sendto(data, udp.address)
    after = time.time_ns()
    first = udp.read(after + 10**9)
    assert payloads(memory, first) == sent[:SLOTS]
    assert udp.is_full
    # When they arrived, not when they were read.
    assert np.all(np.diff(first.ts_recv) >= 0)
    assert before - 10**7 <= first.ts_recv[0] <= first.ts_recv[-1] <= after + 10**7
    rest = udp.read(after)
    assert payloads(memory, rest) == sent[SLOTS:]
    assert not udp.is_full
    assert len(udp.read(after)) == 0
    assert udp.stamps == "kernel"
    udp.close()
    udp.close()


def test_what_does_not_fit_is_told_by_its_size() -> None:
    udp, memory = opened()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * (SLOT_BYTES + 1), udp.address)
        sender.sendto(b"y" * SLOT_BYTES, udp.address)
    got = udp.read(1)
    assert got.sizes.tolist() == [-SLOT_BYTES, SLOT_BYTES]
    assert payloads(memory, got)[1] == b"y" * SLOT_BYTES
    udp.close()


def test_what_the_kernel_drops_is_counted() -> None:
    udp, _ = opened(buffer_bytes=4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(200):
            sender.sendto(b"z" * 1000, udp.address)
        read = 0
        while got := len(udp.read(1)):
            read += got
        sender.sendto(b"the next one brings the count", udp.address)
        read += len(udp.read(1))
    assert udp.drops > 0
    assert read + udp.drops == 201
    udp.close()


def test_a_group_is_joined_on_an_interface() -> None:
    for interface in ("127.0.0.1", "lo"):
        udp, memory = opened("239.255.17.4", interface=interface)
        other, _ = opened("239.255.17.4", udp.address[1], interface=interface)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            sender.sendto(b"to all", ("239.255.17.4", udp.address[1]))
        assert payloads(memory, udp.read(1)) == [b"to all"]
        assert len(other.read(1)) == 1
        udp.close()
        other.close()


def test_addresses_that_cannot_be_had() -> None:
    with pytest.raises(SourceError, match=r"192\.0\.2\.1:5: .*address of this machine"):
        opened("192.0.2.1", 5, interface="")
    with pytest.raises(SourceError, match="on nosuch0"):
        opened("239.1.1.1", 5, interface="nosuch0")


def control(*messages: tuple[int, int, bytes]) -> bytes:
    parts = [struct.pack("<Qii", 16 + len(d), level, kind) + d for level, kind, d in messages]
    return b"".join(part.ljust(-(-len(part) // 8) * 8, b"\0") for part in parts)


def spec(seconds: int, ns: int) -> bytes:
    return struct.pack("<qq", seconds, ns)


@pytest.mark.parametrize(
    ("messages", "stamp", "counts"),
    [
        ([(1, 35, spec(5, 7))], 5_000_000_007, (0, 0, -1)),
        ([(1, 40, struct.pack("<I", 9)), (1, 35, spec(5, 7))], 5_000_000_007, (0, 0, 9)),
        # The card's own clock, if it is near the system's.
        ([(1, 35, spec(5, 7)), (1, 37, spec(0, 0) * 2 + spec(5, 1))], 5_000_000_001, (0, 1, -1)),
        ([(1, 35, spec(5, 7)), (1, 37, spec(0, 0) * 2 + spec(42, 1))], 5_000_000_007, (0, 0, -1)),
        ([(1, 37, spec(0, 0) * 2 + spec(5, 1))], 77, (1, 0, -1)),
        ([(0, 35, spec(5, 7))], 77, (1, 0, -1)),
        ([], 77, (1, 0, -1)),
    ],
)
def test_stamps_of_the_card_and_the_kernel(
    messages: list[tuple[int, int, bytes]], stamp: int, counts: tuple[int, int, int]
) -> None:
    data = control(*messages)
    width = 192
    memory = np.frombuffer(data.ljust(width, b"\0"), np.uint8)
    stamps = np.zeros(1, np.int64)
    assert read_stamps(memory, width, np.array([len(data)]), 77, stamps) == counts
    assert stamps[0] == stamp


def test_lines_share_what_is_the_feeds() -> None:
    found = parse_lines(
        [
            "mold:239.1.1.1:26400?interface=eth0&wait_ms=20&rerequest=10.0.0.1:26401",
            "mold:239.1.1.2:26400?line=backup&buffer_mb=32",
            "soup:feed.example:9000?username=me&password=hidden&sequence=0&session=20191230A",
        ]
    )
    assert found.name == "A+backup+C"
    assert (found.wait_ms, found.recover_ms, found.session) == (20, 2000, "20191230A")
    assert found.lines[0].rerequest == ("10.0.0.1", 26401)
    assert "hidden" not in repr(found)
    assert parse_lines(["mold:127.0.0.1:5"]).recover_ms == 0


def test_a_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_SOUP_PASSWORD", "fromenv")
    (line,) = parse_lines(["soup:h:1?username=me"]).lines
    assert line.password == "fromenv"


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        (["mold:239.1.1.1"], "no HOST:PORT"),
        (["mold:239.1.1.1:99999"], "no HOST:PORT"),
        (["mold:h:1?rerequest=x"], "rerequest=x is not HOST:PORT"),
        (["mold:h:1?interfase=lo"], "did you mean interface"),
        (["mold:h:1?wait_ms=soon"], "wait_ms=soon is not a whole number"),
        (["mold:h:1?lag_ms=0"], "whole number of 1 to"),
        (["mold:h:1?line=a b"], "letters, digits"),
        (["mold:h:1?line"], "line=VALUE"),
        (["mold:h:1?line=B", "mold:h:2"], "two lines are called B"),
        (["mold:h:1?wait_ms=1", "mold:h:2?wait_ms=2"], "lines of one feed"),
        (["soup:h:1?username=toolong"], "at most 6"),
        (["soup:h:1?rerequest=h:2"], "no parameter"),
    ],
)
def test_urls_that_cannot_be_meant(urls: list[str], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse_lines(urls)


def test_a_date_is_of_frames_only(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="leave it out of tables"):
        parse_source(f"parquet:{path}?table=trades&date=2026-03-02")


def test_lines_are_recorded_first() -> None:
    with pytest.raises(SourceError, match=r"mold: is a live feed.*marketflow record"):
        parse_source("mold:239.1.1.1:26400")
    with pytest.raises(UsageError, match="ws: sources apart"):
        record(["mold:127.0.0.1:5", "ws:binance?symbols=X"], ["parquet:x"])
    with pytest.raises(UsageError, match="capture: cannot hold"):
        record(["mold:127.0.0.1:5"], ["capture:x"])
