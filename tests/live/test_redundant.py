"""Two connections that ask a venue for the same: recorded once, over real sockets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from marketflow.operators.arbitration.sequences import sequence_of
from marketflow.schemas.messages.frames import FrameKind
from tests.support.patience import until
from tests.support.recordings import CASES, Recording, recorded, source_of, tables, venue_of


def test_two_connections_are_recorded_as_one(data: Path, tmp_path: Path) -> None:
    case = CASES["binance"]
    venue = venue_of(case, data, clients=2)
    sources = [source_of(case, venue, f"&line={line}") for line in ("east", "west")]
    recording = Recording(sources, [f"parquet:{tmp_path / 'raw'}"])
    until(lambda: venue.finished.is_set() or recording.error is not None, "the venue is not done")
    until(lambda: venue.books >= 2 * 4 or recording.error is not None)
    try:
        summary = recording.stop()
    finally:
        venue.stop()
    (lines,) = summary["lines"].values()
    assert lines["duplicates"] > 100
    assert lines["skipped"] == 0
    rows = recorded(tmp_path / "raw", case.decoder)
    assert {row.connection for row in rows} == {"binance.east+binance.west"}
    numbered = Counter(
        row.payload
        for row in rows
        if row.kind == FrameKind.DATA and sequence_of(case.decoder, bytes(row.payload))  # type: ignore[arg-type]
    )
    assert set(numbered.values()) == {1}
    _, found = tables(
        f"parquet:{tmp_path / 'raw'}?table=frames&venue={case.decoder.lower()}", tmp_path / "lake"
    )
    kinds = Counter(row["kind"] for row in found["quality_events"])
    assert not kinds.keys() & {"gap", "duplicate", "out_of_order", "no_snapshot"}
    # Stopped: both lines, and with the last one the books.
    assert kinds == {"line_down": 2, "disconnect": 4, "stale": 4}
