"""What a killed process left open is undone before another process of the run waits for it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import recovery
from marketflow.flows.runtime.partitions import Feed, Listed
from marketflow.flows.runtime.rescale import rescale, shut_out
from marketflow.flows.runtime.stats import RunStats
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.lineage import FeedClaim, writer_of
from marketflow.sinks.registry import parse_sink
from tests.reference.kafka import read_messages
from tests.support.chance import chance
from tests.support.services.kafka_writing import ROWS, items, pieces
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
_FLOW = find(DEFAULT_FLOW)
_SINKS = (_FLOW.step_id(_FLOW.output), "0")
_SHARDS = 16
#: The brokers undo a dead writer's transaction after patience_s and a minute: no test lasts that.
_QUERY = "?patience_s=840&commit_ms=600000"
#: Writes as process ``WRITER`` of the run, never commits, and waits to be killed.
_LEAVES_OPEN = """
import sys, time
from marketflow.sinks.lineage import FeedClaim, writer_of
from marketflow.sinks.registry import parse_sink
from tests.support.services.kafka_writing import items
url, writer, run = sys.argv[1:]
sink = parse_sink(url).open(writer, run)
sink._committed_s = time.monotonic()  # what comes after a rest would be committed at once
sink.write(items(2)[1])
assert sink._link._producer.flush(60) == 0
print("open", flush=True)
time.sleep(3600)
"""


def _run_of_two(folder: Path, sinks: list[str]) -> str:
    """A recovery folder of a run with two processes that has written two items so far."""
    recovery.prepare(folder, {"flow": "market_data"}, 2)
    claim = FeedClaim(0, "", "", "", None, ())
    recovery.keep_feeds(folder, [Listed(Feed(0, partition), claim) for partition in range(2)])
    run = recovery.identity(folder)
    states = []
    for process in range(2):
        opened = [parse_sink(url).open(writer_of(run, process), run) for url in sinks]
        writers = [RunStats(_FLOW), *opened]
        states.append({_SINKS: pickle.dumps(tuple(writer.snapshot() for writer in writers))})
        for writer in writers[1:]:
            writer.abandon()
    recovery.lay_out(folder, states)
    return run


def _left_open(kafka: Cluster, url: str, prefix: str, writer: str, run: str) -> None:
    """A process that writes as this writer is killed in the middle of a transaction."""
    command = [sys.executable, "-c", _LEAVES_OPEN, url, writer, run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "open\n"
        finally:
            child.kill()
    topic = f"{prefix}.trades"
    assert read_messages(kafka.brokers, topic, 1, "read_uncommitted")
    assert not read_messages(kafka.brokers, topic, 1, visible_s=3.0)


def _rescaled(folder: Path, url: str, run: str) -> Any:
    rescale(_FLOW, folder, [url], _SHARDS, 1)
    return parse_sink(url).open(recovery.writer_id(folder, 0), run)


def _resumed(folder: Path, url: str, run: str) -> Any:
    shut_out(_FLOW, folder, [url], 2)
    return parse_sink(url).open(recovery.writer_id(folder, 0), run)


@pytest.mark.parametrize("goes_on", [_rescaled, _resumed])
@pytest.mark.parametrize("dead", [0, 1])
def test_a_transaction_that_a_killed_process_left_open_keeps_nobody_waiting(
    kafka: Cluster, tmp_path: Path, dead: int, goes_on: Callable[[Path, str, str], KafkaWriter]
) -> None:
    prefix = kafka.tables(2, tuple(ROWS))
    url = f"kafka://{kafka.brokers}/{prefix}{_QUERY}"
    run = _run_of_two(tmp_path / "recovery", [url])
    _left_open(kafka, url, prefix, writer_of(run, dead, 1), run)
    writer = goes_on(tmp_path / "recovery", url, run)
    (_, state) = pickle.loads(recovery.states(tmp_path / "recovery", 0)[_SINKS])
    writer.restore(state)
    for piece in pieces(items(2)[1], chance()):
        writer.write(piece)
    writer.close()
    assert len(kafka.rows(prefix, "trades")) == ROWS["trades"]


@pytest.mark.parametrize("start", [rescale, shut_out])
def test_a_run_that_is_alive_is_not_shut_out_by_a_second_start(
    kafka: Cluster, tmp_path: Path, start: Callable[..., None]
) -> None:
    prefix = kafka.tables(2, tuple(ROWS))
    lake, folder = tmp_path / "lake", tmp_path / "recovery"
    sinks = [f"parquet:{lake}", f"kafka://{kafka.brokers}/{prefix}{_QUERY}"]
    run = _run_of_two(folder, sinks)
    first, second = (writer_of(run, process, 1) for process in range(2))
    alive = ParquetWriter(lake, second, run), parse_sink(sinks[1]).open(first, run)
    for writer in alive:
        writer.write(items(1)[0])
    arguments = (_SHARDS, 1) if start is rescale else (2,)
    with pytest.raises(UsageError, match=rf"is being written by process \d+ \(as {second}\)"):
        start(_FLOW, folder, sinks, *arguments)
    for writer in alive:
        writer.close()
    assert len(kafka.rows(prefix, "trades")) == ROWS["trades"]
