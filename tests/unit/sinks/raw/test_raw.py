"""Where a recorder writes: files that are read back as they came, mistakes that name their fix."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest

from marketflow.flows.commands.app import exit_code
from marketflow.flows.errors import UsageError
from marketflow.flows.recording.record import record, seconds
from marketflow.flows.runtime.run import run
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.raw.files import RawFileOptions, RawFileWriter
from marketflow.sinks.raw.registry import open_raw
from marketflow.sources.errors import SourceError
from marketflow.sources.files.capture import CaptureReader
from marketflow.sources.files.paths import find_recorded
from marketflow.sources.files.recorded_frames import FramesReader
from marketflow.sources.reader import Limits, Reader
from marketflow.sources.registry import parse_source
from tests.support.captures import TestFrame, columns, frames

_ROWS = [
    TestFrame(b'{"code":"0"}', FrameKind.HTTP, "okx.0", "https://www.okx.com/x?a=b", 5),
    TestFrame(b"", FrameKind.CONNECT, "okx.0", "wss://ws.okx.com", 1_700_000_000_000_000_001),
    TestFrame(b"{}", FrameKind.SENT, "okx.0", None, 1_700_000_000_000_000_002),
    TestFrame(b"\xff\x00 no text", FrameKind.DATA, "okx.0", None, 1_700_000_000_000_000_003),
    TestFrame('{"größe":1}', FrameKind.DATA, "okx.1", None, 1_700_000_000_123_456_789),
    TestFrame(b"", FrameKind.DISCONNECT, "okx.0", "silent for 60 s", 1_700_000_001_000_000_000),
]


def _plain(rows: list[TestFrame]) -> list[TestFrame]:
    return [
        row._replace(payload=row.payload.encode() if isinstance(row.payload, str) else row.payload)
        for row in rows
    ]


def _read(reader: Reader) -> list[TestFrame]:
    found = []
    while (batch := reader.read()) is not None:
        found += [
            TestFrame(*row) for row in zip(*map(pa.Array.to_pylist, columns(batch)), strict=True)
        ]
    reader.close()
    return found


def _sealed(tmp_path: Path, parts: int) -> tuple[Path, ...]:
    writer = RawFileWriter(tmp_path, "OKX")
    for start in range(parts):
        writer.write(frames(_ROWS[start::parts]))
        writer.flush()
    writer.close()
    assert writer.files == parts
    return find_recorded(tmp_path, "OKX")


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    writer = RawFileWriter(tmp_path, "OKX")
    writer.write(frames(_ROWS[:2]))
    writer.write(frames(_ROWS[2:]))
    assert not list(tmp_path.rglob("*.parquet")), "not sealed yet"
    writer.close()
    *rows, end = _read(FramesReader(find_recorded(tmp_path, "OKX")))
    assert rows == [r._replace(offset=i) for i, r in enumerate(_plain(_ROWS))]
    assert (end.kind, end.offset) == (FrameKind.END, len(_ROWS))


def test_going_on_anywhere(tmp_path: Path) -> None:
    paths = _sealed(tmp_path, 2)
    whole = _read(FramesReader(paths))
    for limits in (Limits(1), Limits(2), Limits(max_rows=8, max_bytes=20)):
        reader, positions = FramesReader(paths, limits=limits), []
        given = 0
        while (batch := reader.read()) is not None:
            given += batch.num_rows
            positions.append((reader.position(), given))
        for position, count in positions:
            assert _read(FramesReader(paths, position, limits)) == whole[count:]


def test_sealed_by_size_and_by_time(tmp_path: Path) -> None:
    by_size = RawFileWriter(tmp_path / "size", "OKX", RawFileOptions(seal_bytes=100))
    by_size.write(frames(_ROWS))
    assert by_size.files == 1
    by_time = RawFileWriter(tmp_path / "time", "OKX", RawFileOptions(seal_after_s=0.01))
    by_time.write(frames(_ROWS))
    time.sleep(0.02)
    by_time.idle()
    by_time.idle()
    assert by_time.files == 1


def test_a_damaged_file_is_one_broken_frame(tmp_path: Path) -> None:
    first, second = _sealed(tmp_path, 2)
    first.write_bytes(first.read_bytes()[:-20])
    found = _read(FramesReader((first, second)))
    assert [f.kind for f in found[:1]] == [FrameKind.BROKEN]
    assert first.name in (found[0].note or "")
    assert len(found) == 1 + 3 + 1


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    writer = RawFileWriter(tmp_path, "OKX")
    writer.write(frames(_ROWS))
    folder = tmp_path / "frames" / "venue=OKX"
    folder.rmdir()
    with pytest.raises(LakeFailed, match="cannot write"):
        writer.close()
    folder.mkdir()
    writer.close()
    assert len(find_recorded(tmp_path, "OKX")) == 1, "nothing was lost by the failure"


def test_a_capture_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    for part in (_ROWS[:3], _ROWS[3:]):
        writers = open_raw(f"capture:{path}", ["OKX"])
        writers["OKX"].write(frames(part))
        writers["OKX"].close()
    header, *rows, _ = _read(CaptureReader([path]))
    assert header.kind == FrameKind.HEADER
    assert b'"exchange": "OKX"' in header.payload
    assert [r._replace(offset=0) for r in rows] == _plain(_ROWS)


def test_a_run_reads_the_folder(tmp_path: Path) -> None:
    _sealed(tmp_path, 1)
    done = run("market_data", [f"parquet:{tmp_path}?table=frames&venue=okx"], ["null:"])
    assert done["messages"] == 3
    assert done["dead_letters"] == {"malformed": 1, "unknown_message": 1}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("table=frames", "add venue=binance"),
        ("table=frames&venue=kraken", "has no frames of venue=kraken: it has venue=okx"),
        ("table=frames&venue=okx&symbol=A", "leave out symbol="),
    ],
)
def test_sources_that_cannot_be_read(query: str, problem: str, tmp_path: Path) -> None:
    _sealed(tmp_path, 1)
    with pytest.raises(SourceError, match=problem):
        parse_source(f"parquet:{tmp_path}?{query}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("timescale:postgresql://x/y", "raw frames go to kafka://HOST:PORT/raw, parquet:DIR"),
        ("parquet:", "raw frames go to"),
        ("parquet:x?seal=1", "unknown option 'seal'; parquet: takes seal_bytes, seal_after_s"),
        ("parquet:x?seal_after_s=0", "is no number above 0"),
        ("capture:x", "takes one venue, the sources are of BINANCE, OKX"),
        ("kafka://127.0.0.1:1/one", "takes one venue"),
        ("kafka://nowhere/raw", "is no HOST:PORT"),
    ],
)
def test_sinks_that_cannot_be_written(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError, match=problem):
        open_raw(text, ["BINANCE", "OKX"])


def test_wrong_use_of_record(tmp_path: Path) -> None:
    source, sink = "ws:okx?symbols=BTC-USDT", f"parquet:{tmp_path}"
    for problem, more in (
        ("--for or --until, not both", {"duration": "1s", "until": "2126-01-01"}),
        ("is over: give a moment to come", {"until": "2020-01-01"}),
        ("is no time such as 90s", {"duration": "soon"}),
        ("write kafka://HOST:PORT/PREFIX", {"resync": "md"}),
    ):
        with pytest.raises(UsageError, match=problem) as caught:
            record([source], [sink], **more)
        assert exit_code(caught.value) == 2
    with pytest.raises(UsageError, match="at least one --source"):
        record([], [sink])
    assert [seconds("--for", text) for text in ("90", "1.5h", "250ms")] == [90.0, 5400.0, 0.25]
