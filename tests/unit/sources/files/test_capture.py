"""Captures: exact times, order of arrival, and lines that are none."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.capture import CaptureReader, seconds_ns
from marketflow.sources.reader import Limits
from tests.reference.capture import frames
from tests.support.reading import Row, read_all, read_in_pieces, write

LINES = [
    b'{"t":"header","exchange":"X","recorded":1.5}',
    b'{"t":"http","conn":"h","ts":5.000000001,"url":"https:\\/\\/x","data":"{\\"a\\":\\"\\u00e9\\"}"}',
    b'{"t":"connect","conn":"ws","ts":1.25,"addr":"wss:a"}',
    b'{"t":"send","conn":"ws","ts":1.25,"data":"sub"}',
    b"no json",
    b'{"t":"recv","conn":"ws","ts":"3.9999999","b64":"AQI="}',
    b'{"t":"recv","conn":"ws","ts":2,"b64":"!"}',
    b'{"t":"what","ts":6}',
    b'{"t":"recv","conn":"ws","ts":1e1,"data":""}',
    b'{"t":"recv","conn":"ws","ts":11}',
    b'{"t":"disconnect","conn":"ws","ts":12,"reason":"reset"}',
]
EXPECTED = [
    (FrameKind.HEADER, 0, 0, "", None, LINES[0]),
    (FrameKind.CONNECT, 2, 1_250_000_000, "ws", "wss:a", b""),
    (FrameKind.SENT, 3, 1_250_000_000, "ws", None, b"sub"),
    (FrameKind.BROKEN, 4, 0, "", "not a capture line", LINES[4]),
    (FrameKind.BROKEN, 6, 0, "", "b64", LINES[6]),
    (FrameKind.DATA, 5, 3_999_999_900, "ws", None, b"\x01\x02"),
    (FrameKind.HTTP, 1, 5_000_000_001, "h", "https://x", '{"a":"é"}'.encode()),
    (FrameKind.BROKEN, 7, 0, "", "'what'", LINES[7]),
    (FrameKind.DATA, 8, 10_000_000_000, "ws", None, b""),
    (FrameKind.BROKEN, 9, 0, "", "neither data nor b64", LINES[9]),
    (FrameKind.DISCONNECT, 10, 12_000_000_000, "ws", "reset", b""),
]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_become_frames_in_order_of_arrival(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"feed{suffix}", b"\n".join(LINES))
    rows = read_all(CaptureReader([path]))
    starts = [sum(len(line) + 1 for line in LINES[:i]) for i in range(len(LINES))]
    for row, (kind, line, ts, connection, note, payload) in zip(rows, EXPECTED, strict=False):
        assert row._replace(note=None) == Row(kind, starts[line], ts, connection, None, payload)
        assert note == row.note or (note is not None and note in str(row.note))
    assert rows[-1] == Row(FrameKind.END, starts[-1] + len(LINES[-1]), 0, "", None, b"")


def test_stopping_and_cutting_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(5)
    lines = [
        json.dumps({"t": "recv", "conn": f"c{i % 3}", "ts": rng.randrange(50), "data": "x" * i})
        for i in range(120)
    ]
    data = "\n".join(lines).encode()
    paths = [write(tmp_path / name, data) for name in ("a", "b.zst", "c.gz")]
    cut = tmp_path / "cut.gz"
    cut.write_bytes(paths[2].read_bytes()[:-9])
    paths.append(cut)
    rows = read_all(CaptureReader(paths))
    times = [row.ts_recv for row in rows[:120]]
    assert times == sorted(times)
    small = Limits(max_rows=7, max_bytes=300, max_message_bytes=1000)
    assert read_all(CaptureReader(paths, limits=small)) == rows
    assert read_in_pieces(lambda p: CaptureReader(paths, p, small)) == rows
    assert [row.kind for row in rows[-2:]] == [FrameKind.TRUNCATED, FrameKind.END]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1633998512.132921", 1633998512132921000),
        (b'"1633998512.0633569"', 1633998512063356900),
        (b"1.5e9", 1_500_000_000_000_000_000),
        (b"0", 0),
        (b"1.0000000019", 1_000_000_001),
    ],
)
def test_seconds_are_exact(text: bytes, ns: int) -> None:
    assert seconds_ns(text) == ns


@pytest.mark.parametrize("text", [b"", b"-1", b"1e30", b'"x"', b"null", b"NaN"])
def test_seconds_that_are_none(text: bytes) -> None:
    with pytest.raises(ValueError, match="ts"):
        seconds_ns(text)


@pytest.mark.parametrize(
    "name",
    ["cryptofeed-captures/BINANCE", "cryptofeed-captures/HUOBI", "checksum-captures/OKX.open"],
)
def test_recorded_captures_agree_with_the_twin(data: Path, name: str) -> None:
    path = data / f"{name}.jsonl.zst"
    found = read_all(CaptureReader([path]))[:-1]
    assert [(r.kind, r.ts_recv, r.connection, r.note, r.payload) for r in found] == frames(path)
