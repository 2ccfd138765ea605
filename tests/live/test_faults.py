"""What goes wrong between a venue and a recorder, over real sockets: it is recorded with its
reason, books are stale exactly as long as they have to be, and right afterwards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.recording.record import RecordOptions, record
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.errors import FeedFailed
from marketflow.sources.websocket.config import parse_live
from marketflow.sources.websocket.recorder import Recorder
from tests.support.captures import TestFrame
from tests.support.fake_venue.server import FakeVenue
from tests.support.patience import until
from tests.support.ports import free_port
from tests.support.recordings import (
    CASES,
    Case,
    capture_of,
    record_all,
    recorded,
    source_of,
    tables,
    venue_of,
)

_LEVELS = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")


def _flow(folder: Path, case: Case, lake: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return tables(f"parquet:{folder}?table=frames&venue={case.decoder.lower()}", lake)


def _books(rows: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[Any, ...]]:
    """The levels of each symbol's last valid book."""
    return {
        row["symbol"]: tuple(row[name] for name in _LEVELS)
        for row in rows["depth"]
        if row["book_state"] == "valid"
    }


def _outages(rows: dict[str, list[dict[str, Any]]], symbol: str) -> list[tuple[str, int]]:
    """(stale or valid, arrival) of a book in order."""
    return [
        (row["kind"], row["ts_recv"])
        for row in rows["quality_events"]
        if row["symbol"] == symbol and row["kind"] in ("stale", "valid")
    ]


def _direct(case: Case, data: Path, tmp_path: Path) -> dict[str, tuple[Any, ...]]:
    path, _ = capture_of(case, data, tmp_path)
    return _books(tables(f"capture:{path}", tmp_path / "direct")[1])


def _reasons(rows: list[TestFrame]) -> list[str]:
    return [frame.note or "" for frame in rows if frame.kind == FrameKind.DISCONNECT]


@pytest.mark.parametrize(
    ("name", "symbol", "fault", "reason"),
    [
        ("binance", "NKNUSDT", "disconnect:30:5", "the connection broke without a close"),
        ("okx", "BTC-USDT", "close:30:5", "closed by the venue: 1012 service restart"),
        ("bybit", "BTCUSDT", "disconnect:200:50", "the connection broke without a close"),
    ],
)
def test_a_lost_connection(
    name: str, symbol: str, fault: str, reason: str, data: Path, tmp_path: Path
) -> None:
    """Updates are missed meanwhile. The book is stale from the loss to its next full state."""
    case = CASES[name]
    books = 7 if name == "binance" else 0
    summary = record_all(case, venue_of(case, data, fault), tmp_path / "raw", books=books)
    [connection] = summary["connections"]
    assert (connection["connects"], connection["disconnects"]) == (2, 1)
    frames = recorded(tmp_path / "raw", case.decoder)
    assert _reasons(frames) == [reason, "the recorder was stopped"]
    lost = next(i for i, f in enumerate(frames) if f.kind == FrameKind.DISCONNECT)
    again = frames[lost + 1]
    assert again.kind == FrameKind.CONNECT
    sent = [
        [f.payload for f in part if f.kind == FrameKind.SENT]
        for part in (frames[:lost], frames[lost:])
    ]
    assert len(sent[0]) == len(sent[1]) > 0, "everything is subscribed again"
    done, rows = _flow(tmp_path / "raw", case, tmp_path / "lake")
    assert done["dead_letters"] == {}
    stale, valid, end = _outages(rows, symbol)
    assert stale == ("stale", frames[lost].ts_recv)
    full = next(
        f.ts_recv
        for f in frames[lost:]
        if symbol.encode() in f.payload[:120] + (f.note or "").encode()
        and (f.kind == FrameKind.HTTP or b'"snapshot"' in f.payload[:200])
        and b"tickers" not in f.payload[:60]
    )
    assert valid == ("valid", full)
    assert end == ("stale", frames[-1].ts_recv)
    between = [
        row
        for row in rows["quotes"]
        if row["symbol"] == symbol
        and row["origin"] == "book"
        and stale[1] <= row["ts_recv"] < valid[1]
    ]
    assert [row["book_state"] for row in between] == ["stale"]
    assert _books(rows) == _direct(case, data, tmp_path)


@pytest.mark.parametrize(("name", "books"), [("binance", 5), ("kraken_v1", 6)])
def test_cut_off_in_the_middle_of_a_snapshot(
    name: str, books: int, data: Path, tmp_path: Path
) -> None:
    """Half a book is no book: the REST answer is fetched again, the stream connected again."""
    case = CASES[name]
    venue = venue_of(case, data, "disconnect-mid-snapshot:2")
    summary = record_all(case, venue, tmp_path / "raw", books=books)
    frames = recorded(tmp_path / "raw", case.decoder)
    if name == "binance":
        assert summary["connections"][0]["connects"] == 1
        assert venue.requests["/api/v3/depth"] == 5
    else:
        assert _reasons(frames)[0].startswith("the connection broke without a close, inside a mes")
    done, rows = _flow(tmp_path / "raw", case, tmp_path / "lake")
    assert done["dead_letters"] == {}
    assert done["checksums_failed"] == 0
    assert _books(rows) == _direct(case, data, tmp_path)


def test_garbage_is_one_dead_letter(data: Path, tmp_path: Path) -> None:
    case = CASES["okx"]
    record_all(case, venue_of(case, data, "garbage:10", "duplicate:20"), tmp_path / "raw")
    done, rows = _flow(tmp_path / "raw", case, tmp_path / "lake")
    assert done["dead_letters"] == {"malformed": 1}
    assert rows["dead_letters"][0]["raw"] == b"\0{]not a message"
    assert _outages(rows, "BTC-USDT")[:-1] == [], "stale only when the recorder was stopped"
    assert _books(rows) == _direct(case, data, tmp_path)


def test_a_silent_venue_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes, pings are not answered: connected again, and the books with it."""
    case = CASES["okx"]
    venue = venue_of(case, data, "silent:30")
    [spec] = parse_live([source_of(case, venue)])
    monkeypatch.setattr(type(spec.venue), "SILENCE_S", 0.5)
    monkeypatch.setattr(type(spec.venue), "PING_S", 0.1)
    recorder = Recorder([spec])
    recorder.start()
    until(lambda: recorder.reports()[0].connects >= 2)
    recorder.stop()
    until(lambda: recorder.stopped)
    venue.stop()
    notes = [note for batch in _taken(recorder) for note in batch.column("note").to_pylist()]
    assert "silent for 0.5 s" in notes


def _taken(recorder: Recorder) -> list[Any]:
    found = []
    while batches := recorder.poll(0.0):
        found += batches.values()
    return found


def _reading(case: Case, venue: FakeVenue, **options: Any) -> Recorder:
    recorder = Recorder(parse_live([source_of(case, venue)]), **options)
    recorder.start()
    return recorder


def test_a_slow_reader_makes_the_venue_wait(data: Path) -> None:
    """Nobody takes frames for a while: reading stops at the limit, and nothing is lost."""
    case = CASES["coinbase"]
    venue = venue_of(case, data)
    limit = 200_000
    recorder = _reading(case, venue, max_bytes=limit)
    until(lambda: recorder.pauses >= 1)
    report = recorder.reports()[0]
    seen, most = report.bytes, 0
    until(lambda: report.bytes == seen)
    found = []
    while not venue.finished.is_set():
        found += recorder.poll(0.05).values()
    recorder.stop()
    while not recorder.stopped:
        batches = recorder.poll(0.05)
        found += batches.values()
        most = max(most, *(batch.nbytes for batch in batches.values()), 0)
    found += _taken(recorder)
    venue.stop()
    texts = [
        text
        for batch in found
        for kind, text in zip(
            batch.column("kind").to_pylist(), batch.column("payload").to_pylist(), strict=True
        )
        if kind == FrameKind.DATA
    ]
    sent = [e.text.encode() for e in venue.recording.events if e.kind == FrameKind.DATA]
    assert texts == sent
    assert report.disconnects == 0, "only the end, and that was ours"


def test_a_reader_that_stays_slow_is_disconnected(data: Path) -> None:
    case = CASES["coinbase"]
    venue = venue_of(case, data)
    recorder = _reading(case, venue, max_bytes=100_000, stall_s=0.3)
    report = recorder.reports()[0]
    until(lambda: report.slow_disconnects >= 1)
    assert report.connects == 1, "not connected again while nobody reads"
    found = []
    while report.connects < 2:
        found += recorder.poll(0.05).values()
    recorder.stop()
    until(lambda: recorder.stopped)
    found += _taken(recorder)
    venue.stop()
    notes = [note for batch in found for note in batch.column("note").to_pylist()]
    assert "slow reader: nothing was taken for 0.3 s" in notes


def test_nobody_there(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    source = f"ws:okx?symbols=BTC-USDT&url=ws://{address}&rest=http://{address}"
    with pytest.raises(FeedFailed, match="no source could be reached within 1 s") as caught:
        record([source], [f"capture:{tmp_path / 'raw'}"], options=RecordOptions(patience_s=1.0))
    assert f"cannot connect to ws://{address}/ws/v5/public: " in str(caught.value)
    assert (
        "refused" in str(caught.value).lower() or "connect call failed" in str(caught.value).lower()
    )


def test_a_book_is_asked_for_once_per_outage(data: Path) -> None:
    """A request names the frame that showed the outage: what was asked for since has answered."""
    case = CASES["bybit"]
    venue = venue_of(case, data, speed=10.0)
    recorder = _reading(case, venue)
    until(lambda: venue.updates > 20)
    found = []
    report = recorder.reports()[0]
    for _ in range(3):
        recorder.resync("BYBIT", "BTCUSDT", time.time_ns())
    recorder.resync("BYBIT", "NOSUCH", time.time_ns())
    recorder.resync("BYBIT_LINEAR", "BTCUSDT", time.time_ns())
    until(lambda: venue.books >= 1)
    until(lambda: report.resyncs == 1)
    recorder.resync("BYBIT", "BTCUSDT", 1)
    until(venue.finished.is_set)
    recorder.stop()
    until(lambda: recorder.stopped)
    found = _taken(recorder)
    venue.stop()
    assert report.resyncs == 1
    sent = [
        payload
        for batch in found
        for kind, payload in zip(
            batch.column("kind").to_pylist(), batch.column("payload").to_pylist(), strict=True
        )
        if kind == FrameKind.SENT
    ]
    assert sent[-2:] == [
        b'{"op": "unsubscribe", "args": ["orderbook.200.BTCUSDT"]}',
        b'{"op": "subscribe", "args": ["orderbook.200.BTCUSDT"]}',
    ]
