"""From a lost frame back to a right book, on a real broker: the fake venue drops a frame, the flow
sees the gap and asks, the recorder fetches that instrument's book, and the book is right again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.resync import TOPIC, from_message
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.kafka.resync_requests import ResyncRequests
from tests.support.lakes import table_rows
from tests.support.patience import PATIENCE_S, until
from tests.support.recordings import (
    CASES,
    Case,
    Recording,
    of_market,
    source_of,
    tables,
    venue_of,
)
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services


class Setting:
    """A raw topic, topics for tables and requests, and a flow between them."""

    def __init__(self, kafka: Cluster, case: Case, folder: Path) -> None:
        self.kafka, self.case, self.lake = kafka, case, folder / "lake"
        self.raw = kafka.topic(1)
        self.sink = f"kafka://{kafka.brokers}/{self.raw}"
        self.prefix = kafka.tables(2)
        requests = kafka.topic(1, f"{self.prefix}.{TOPIC}")
        self._asked: list[Any] = []
        self._reader = Consumer(
            {"bootstrap.servers": kafka.brokers, "group.id": requests, "log_level": 0}
        )
        self._reader.assign([TopicPartition(requests, 0, 0)])

    def start_flow(self) -> subprocess.Popen[str]:
        source = (
            f"kafka://{self.kafka.brokers}/{self.raw}?venue={self.case.decoder.lower()}"
            f"&group={self.raw}"
        )
        line = [
            sys.executable, "-m", "marketflow", "run", "market_data", "--json",
            "--source", source, "--sink", f"kafka://{self.kafka.brokers}/{self.prefix}",
            "--sink", f"parquet:{self.lake}", "--recovery", str(self.lake.with_name("recovery")),
        ]  # fmt: skip
        return subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "MARKETFLOW_EPOCH_MS": "200"},
        )  # fmt: skip

    def asked(self) -> list[Any]:
        """Every request so far."""
        while (message := self._reader.poll(0.2)) is not None:
            if message.error() is None:
                self._asked.append(from_message(message.value()))
        return self._asked

    def is_stale(self) -> bool:
        return any(request.kind == "stale" for request in self.asked())

    def close(self) -> list[Any]:
        """Every request, and no more of them."""
        asked = self.asked()
        self._reader.close()
        return asked

    def rows(self, name: str, symbol: str) -> list[dict[str, Any]]:
        table = table_rows(self.lake, name)
        assert table is not None
        names = [c for c in table.column_names if not pa.types.is_timestamp(table[c].type)]
        return [r for r in table.select(names).to_pylist() if r["symbol"] == symbol]


@pytest.mark.parametrize(("name", "symbol", "books"), [("binance", "NKNUSDT", 4)])
def test_a_lost_frame_is_mended(
    name: str, symbol: str, books: int, kafka: Cluster, data: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    setting = Setting(kafka, case, tmp_path)
    venue = venue_of(case, data, "drop:40", speed=20.0)
    flow = setting.start_flow()
    recording = Recording(
        [source_of(case, venue)],
        [setting.sink],
        resync=f"kafka://{kafka.brokers}/{setting.prefix}",
    )
    try:
        until(lambda: venue.updates >= 60 or recording.error is not None)
        assert recording.error is None, recording.error
        venue.hold(True)
        # Whose 40th update was lost depends on the capture; that one asks, and nobody else.
        until(lambda: setting.is_stale() or flow.poll() is not None, "nobody asked")
        until(lambda: venue.books > books, "the recorder did not ask the venue")
        venue.hold(False)
        until(venue.finished.is_set)
        summary = recording.stop()
        until(lambda: _read(setting) >= summary["frames"])
    finally:
        flow.terminate()
        out, errors = flow.communicate(timeout=PATIENCE_S)
        venue.stop()
    asked = setting.close()
    assert flow.returncode == 0, errors
    done = json.loads(out)
    assert done["dead_letters"] == {}
    [connection] = summary["connections"]
    assert connection["connects"] == 1, "mended without a new connection"
    first = next(request for request in asked if request.kind == "stale")
    assert (first.venue, first.symbol) == (case.decoder, symbol)
    assert connection["resyncs"] >= 1
    events = setting.rows("quality_events", symbol)
    kinds = [event["kind"] for event in events if event["kind"] in ("gap", "stale", "valid")]
    # The last outage is the end: the recorder said that it was stopped.
    assert kinds == ["gap", "stale", "valid", "stale"]
    others = {r["symbol"] for r in _all(setting) if r["kind"] in ("gap", "valid")}
    assert others == {symbol}, "another book was touched"
    assert _last_valid(setting.rows("depth", symbol)) == _expected(case, data, tmp_path, symbol)


def test_without_a_topic_or_a_broker_nobody_listens(kafka: Cluster) -> None:
    with pytest.raises(SourceError, match=rf"has no topic nobody\.{TOPIC}: .*marketflow topics"):
        ResyncRequests(KafkaAddress(kafka.brokers, "nobody"), print, patience_s=5)
    with pytest.raises(FeedFailed, match=r"127\.0\.0\.1:1 does not answer .*check the address"):
        ResyncRequests(KafkaAddress("127.0.0.1:1", "md"), print, patience_s=0.1)


def _read(setting: Setting) -> int:
    """How far the flow has come: it tells the group of the topic."""
    return setting.kafka.told(setting.raw, setting.raw, 1)


def _all(setting: Setting) -> list[dict[str, Any]]:
    table = table_rows(setting.lake, "quality_events")
    assert table is not None
    return table.select(["symbol", "kind"]).to_pylist()


def _last_valid(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    names = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    valid = [r for r in rows if r["book_state"] == "valid"]
    return tuple(valid[-1][name] for name in names)


def _expected(case: Case, data: Path, tmp_path: Path, symbol: str) -> tuple[Any, ...]:
    """The last book of the capture itself, read without any of this."""
    _, rows = tables(f"capture:{of_market(case, data, tmp_path)}", tmp_path / "direct")
    return _last_valid([row for row in rows["depth"] if row["symbol"] == symbol])
