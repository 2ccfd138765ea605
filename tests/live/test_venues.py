"""Five venues over real sockets: what is recorded is what the capture holds, and makes the same
tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marketflow.schemas.messages.frames import FrameKind
from tests.support.lakes import assert_same_lakes
from tests.support.recordings import (
    CASES,
    capture_of,
    keep,
    record_all,
    recorded,
    tables,
    venue_of,
    with_recorded_times,
)


@pytest.mark.parametrize("name", ["coinbase", "kraken_v1", "okx", "bybit"])
def test_the_same_tables_as_the_capture(name: str, data: Path, tmp_path: Path) -> None:
    """Books that come in the stream: row for row, to the last column."""
    case = CASES[name]
    path, capture = capture_of(case, data, tmp_path)
    summary = record_all(case, venue_of(case, data), tmp_path / "raw")
    assert [c["disconnects"] for c in summary["connections"]] == [0], "a stop of ours is none"
    channels = summary["connections"][0]["channels"]
    assert all(count for name, count in channels.items() if name), channels
    assert summary["connections"][0]["refused"] == 0
    rows = recorded(tmp_path / "raw", case.decoder)
    kinds = [frame.kind for frame in rows]
    assert (
        kinds.index(FrameKind.CONNECT) < kinds.index(FrameKind.SENT) < kinds.index(FrameKind.DATA)
    )
    assert rows[-1].kind == FrameKind.DISCONNECT
    assert rows[-1].note == "the recorder was stopped"
    assert {frame.connection for frame in rows} == {f"{name}.0"}
    source = keep(with_recorded_times(rows, capture), tmp_path / "again", case.decoder)
    live, _ = tables(source, tmp_path / "live")
    direct, _ = tables(f"capture:{path}", tmp_path / "direct")
    assert live["checksums_verified"] == direct["checksums_verified"]
    assert live["dead_letters"] == direct["dead_letters"] == {}
    counts = assert_same_lakes(tmp_path / "live", tmp_path / "direct", same_feed=False)
    assert counts["quotes"] > 40
    assert counts["trades"] > 2


def test_the_newer_kraken_has_the_same_books(data: Path, tmp_path: Path) -> None:
    """API v2, out of the recording of v1: every checksum holds, all books and trades are those
    of the recording."""
    case = CASES["kraken"]
    record_all(case, venue_of(case, data, "disconnect:1000:20"), tmp_path / "raw")
    rows = recorded(tmp_path / "raw", "KRAKEN")
    assert [f.kind for f in rows].count(FrameKind.CONNECT) == 2
    live, live_rows = tables(
        f"parquet:{tmp_path / 'raw'}?table=frames&venue=kraken", tmp_path / "live"
    )
    direct, direct_rows = tables(f"capture:{data / case.capture}", tmp_path / "direct")
    assert live["dead_letters"] == {}
    assert live["checksums_failed"] == 0
    # Twenty updates were missed while nobody was connected.
    assert live["checksums_verified"] == direct["checksums_verified"] - 20
    names = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    last = [
        {r["symbol"]: [r[n] for n in names] for r in found["depth"] if r["book_state"] == "valid"}
        for found in (live_rows, direct_rows)
    ]
    assert last[0] == last[1]
    trades = [
        [(r["price"], r["size"], r["ts_event"]) for r in found["trades"]]
        for found in (live_rows, direct_rows)
    ]
    assert trades[0] == trades[1] != []


def test_binance_equals_the_capture_once_its_books_are_there(data: Path, tmp_path: Path) -> None:
    """Its snapshots are fetched when the recorder is ready for them, not when that of the capture
    was: from where both books are valid, every row is the same."""
    case = CASES["binance"]
    path, capture = capture_of(case, data, tmp_path)
    venue = venue_of(case, data)
    summary = record_all(case, venue, tmp_path / "raw", books=4)
    assert venue.requests["/api/v3/depth"] == 4
    assert summary["connections"][0]["snapshots"] == 4
    rows = recorded(tmp_path / "raw", "BINANCE")
    first_depth = next(i for i, f in enumerate(rows) if b'"depthUpdate"' in f.payload)
    first_book = next(i for i, f in enumerate(rows) if "/depth?" in (f.note or ""))
    assert first_depth < first_book, "a snapshot was asked for before the stream was there"
    source = keep(with_recorded_times(rows, capture), tmp_path / "again", "BINANCE")
    live, live_rows = tables(source, tmp_path / "live")
    direct, direct_rows = tables(f"capture:{path}", tmp_path / "direct")
    assert live["dead_letters"] == direct["dead_letters"] == {}
    assert live["stale_books"] == 0
    trades = [[_plain(r) for r in found["trades"]] for found in (live_rows, direct_rows)]
    assert trades[0] == trades[1] != []
    assert _venue_quotes(live_rows) == _venue_quotes(direct_rows)
    compared = 0
    for symbol in ("NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"):
        for table in ("quotes", "depth"):
            ours, theirs = (_valid(r[table], symbol) for r in (live_rows, direct_rows))
            start = max(ours[0]["sequence"], theirs[0]["sequence"])
            after = [[_plain(r) for r in rows if r["sequence"] > start] for rows in (ours, theirs)]
            assert after[0] == after[1], (symbol, table)
            compared += len(after[0])
    assert compared > 80


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without its identity: of another feed, with more or fewer rows before it."""
    return {name: row[name] for name in row if name not in ("shard", "row_sequence")}


def _venue_quotes(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    found = [_plain(r) for r in rows["quotes"] if r["origin"] == "venue"]
    assert found
    return sorted(found, key=lambda r: (r["symbol"], r["sequence"]))


def _valid(rows: list[dict[str, Any]], symbol: str) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if row["symbol"] == symbol
        and row.get("origin", "book") == "book"
        and row["book_state"] == "valid"
    ]
