"""Redundant lines through a real broker: arbitrated, recorded to a raw topic, run from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marketflow.flows.recording.record import record
from marketflow.flows.runtime.run import run
from tests.support.fake_lines import FakeLines, MoldFaults, SoupFaults, itch_messages
from tests.support.line_rows import listening, rows
from tests.support.ports import free_port
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services

SIM = "sim:?events=4000&seed=3&symbols=4"


def test_lines_to_a_topic_and_from_it(kafka: Cluster, tmp_path: Path) -> None:
    topic = kafka.topic(2)
    messages, port = itch_messages(SIM), free_port()
    lossy = (("127.0.0.1", port), MoldFaults(drop=frozenset([20, 33, 40])))
    fake = FakeLines(messages, [lossy], hold=0).start()
    tcp = fake.serve_soup(SoupFaults(disconnect=[500]))
    urls = [
        f"mold:127.0.0.1:{port}?first=1&wait_ms=10&recover_ms=30000"
        f"&rerequest=127.0.0.1:{fake.serve_requests(skip=1)}",
        f"soup:127.0.0.1:{tcp}?line=tcp",
    ]
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(record, urls, [f"kafka://{kafka.brokers}/{topic}"], duration="60s")
        listening(port)
        fake.release()
        try:
            summary = work.result()
        finally:
            fake.stop()
    assert summary["arbiter"]["lost"] == 0
    source = f"kafka://{kafka.brokers}/{topic}?venue=xnas&date=2026-03-02&to=latest&group={topic}"
    run("market_data", [source], [f"parquet:{tmp_path / 'topic'}"])
    run("market_data", [SIM], [f"parquet:{tmp_path / 'direct'}"])
    # Another partition, other shards: the rows are the same.
    for name in ("trades", "book_events", "bars", "market_status"):
        found, wanted = (rows(tmp_path / lake, name) for lake in ("topic", "direct"))
        assert found is not None and wanted is not None
        keys = [(c, "ascending") for c in wanted.column_names if c not in ("shard", "row_sequence")]
        tables = [t.drop_columns(["shard", "row_sequence"]).sort_by(keys) for t in (found, wanted)]
        assert tables[0].to_pylist() == tables[1].to_pylist(), name
