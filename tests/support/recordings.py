"""Recording from a fake venue in a test, and bringing what was recorded beside the capture."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from marketflow.flows.recording.record import RecordOptions, record
from marketflow.flows.runtime.run import run
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.raw.files import RawFileWriter
from marketflow.sources.files.paths import find_recorded
from marketflow.sources.files.recorded_frames import FramesReader
from tests.support.captures import TestFrame, capture_frames, columns, frames, read_lines
from tests.support.fake_venue.faults import parse_faults
from tests.support.fake_venue.recording import load
from tests.support.fake_venue.server import FakeVenue
from tests.support.lakes import table_rows
from tests.support.patience import PATIENCE_S, until


@dataclass(frozen=True, slots=True)
class Case:
    """A venue, its capture, and what to ask for to get all of it that makes rows."""

    venue: str
    decoder: str
    capture: str
    query: str
    topics: int
    market: str = ""


CASES = {
    case.venue: case
    for case in (
        Case(
            "binance", "BINANCE", "cryptofeed-captures/BINANCE.jsonl.zst",
            "symbols=NKNUSDT,BLZETH,LRCBTC,RUNEEUR&channels=book,aggTrade,quotes", 12,
        ),
        Case(
            "coinbase", "COINBASE", "cryptofeed-captures/COINBASE.jsonl.zst",
            "symbols=BTC-USD,ETH-USD&channels=book,trades,quotes,candles", 9,
        ),
        Case(
            "kraken_v1", "KRAKEN", "checksum-captures/KRAKEN.open.jsonl.zst",
            "symbols=XMR/USD,GRT/ETH,OMG/USD,XBT/CHF,ADA/XBT&depth=1000", 15,
        ),
        Case(
            "kraken", "KRAKEN", "checksum-captures/KRAKEN.open.jsonl.zst",
            "symbols=XMR/USD,GRT/ETH,OMG/USD,XBT/CHF,ADA/XBT&depth=1000&channels=book,trades", 10,
        ),
        Case(
            "okx", "OKX", "checksum-captures/OKX.open.jsonl.zst",
            "symbols=BTC-USDT&channels=book,trades,tickers", 3,
        ),
        Case(
            "bybit", "BYBIT", "cryptofeed-captures/BYBIT.jsonl.zst",
            "symbols=BTCUSDT,ETHUSDT&channels=book,trades,tickers", 6, "spot",
        ),
    )
}  # fmt: skip


def venue_of(case: Case, data: Path, *faults: str, **more: Any) -> FakeVenue:
    """The case's venue, serving."""
    recording = load(data / case.capture, case.market)
    more = {"topics": case.topics, **more}
    return FakeVenue(case.venue, recording, parse_faults(list(faults)), **more).start()


def source_of(case: Case, venue: FakeVenue, more: str = "") -> str:
    return f"ws:{case.venue}?{case.query}&url={venue.url}&rest={venue.rest}{more}"


class Recording:
    """A recording that runs in a thread until :meth:`stop`."""

    def __init__(self, sources: list[str], sinks: list[str], **more: Any) -> None:
        self._stop = threading.Event()
        self.summary: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._arguments = (sources, sinks, more)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        sources, sinks, more = self._arguments
        try:
            self.summary = record(sources, sinks, stop=self._stop, **more)
        except BaseException as error:
            self.error = error

    def stop(self) -> dict[str, Any]:
        """Stop gracefully; the summary, or what was raised."""
        self._stop.set()
        return self.wait()

    def wait(self) -> dict[str, Any]:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.summary


def record_all(
    case: Case, venue: FakeVenue, folder: Path, books: int = 0, options: RecordOptions | None = None
) -> dict[str, Any]:
    """Record until the venue has sent everything, and answered for so many books."""
    recording = Recording([source_of(case, venue)], [f"parquet:{folder}"], options=options)
    until(lambda: venue.finished.is_set() or recording.error is not None, "the venue is not done")
    until(lambda: venue.books >= books, f"{venue.books} books were sent")
    try:
        return recording.stop()
    finally:
        venue.stop()


def recorded(folder: Path, decoder: str) -> list[TestFrame]:
    """Every frame of a recorder's folder."""
    reader = FramesReader(find_recorded(folder, decoder))
    found = []
    while (batch := reader.read()) is not None:
        found += [
            TestFrame(*row) for row in zip(*map(pa.Array.to_pylist, columns(batch)), strict=True)
        ]
    return [frame for frame in found if frame.kind != FrameKind.END]


def with_recorded_times(rows: list[TestFrame], capture: list[TestFrame]) -> list[TestFrame]:
    """The frames with the arrival times that the capture has for the same bytes: everything else
    is then comparable to the last column. The recorder's own end (it was stopped) is left out."""
    times: dict[bytes, deque[int]] = defaultdict(deque)
    for frame in capture:
        if frame.kind in (FrameKind.DATA, FrameKind.HTTP):
            assert isinstance(frame.payload, bytes)
            times[frame.payload].append(frame.ts_recv)
    stamped, last = [], min(frame.ts_recv for frame in capture if frame.ts_recv)
    for frame in rows:
        if frame.kind == FrameKind.DISCONNECT:
            continue
        if frame.kind in (FrameKind.DATA, FrameKind.HTTP):
            assert isinstance(frame.payload, bytes)
            known = times[frame.payload]
            assert known, f"not in the capture: {frame.payload[:200]!r}"
            # An answer that was recorded several times counts as of the last.
            last = known.popleft() if len(known) > 1 and frame.note is None else known[-1]
        stamped.append(frame._replace(ts_recv=last))
    return stamped


def keep(rows: list[TestFrame], folder: Path, decoder: str) -> str:
    """The frames as a recorder would have kept them; the source that reads them."""
    writer = RawFileWriter(folder, decoder)
    writer.write(frames(rows))
    writer.close()
    return f"parquet:{folder}?table=frames&venue={decoder.lower()}"


def of_market(case: Case, data: Path, tmp_path: Path) -> Path:
    """The capture of the case's connections alone."""
    lines = [json.loads(line) for line in read_lines(data / case.capture)]
    others = {
        line["conn"]
        for line in lines
        if line["t"] == "connect" and not line["addr"].endswith(case.market)
    }
    path = tmp_path / "capture.jsonl"
    kept = [line for line in lines if line.get("conn") not in others]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return path


def tables(source: str, lake: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Summary and rows by table of the flow over a source."""
    summary = run("market_data", [source], [f"parquet:{lake}"])
    rows = {}
    for name in TABLES:
        found = table_rows(lake, name)
        if found is not None:
            rows[name] = _plain(found)
    return summary, rows


def _plain(found: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python values; times are ns."""
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in found.columns
    ]
    rows: list[dict[str, Any]] = pa.table(columns, names=found.column_names).to_pylist()
    return rows


def capture_of(case: Case, data: Path, tmp_path: Path) -> tuple[Path, list[TestFrame]]:
    """The capture to compare with: a file, and its frames."""
    path = of_market(case, data, tmp_path)
    return path, capture_frames(path)
