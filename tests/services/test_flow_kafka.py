"""The whole flow from a raw topic to topics and a lake: killed, resumed, split among processes, it
ends as one that reads the same frames from a file would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.shards import feed_of, local_of
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import TRADES
from tests.reference.kafka import read_messages
from tests.support.batches import Feed
from tests.support.chance import chance
from tests.support.lakes import last_change, table_rows, until_it_writes
from tests.support.patience import PATIENCE_S, until
from tests.support.services.small_record import _FEED, record
from tests.support.services.topics import Cluster, plain
from tests.support.states import assert_plain_folder

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "100", "MARKETFLOW_BATCH_ROWS": "200"}
_KILLS = 3


def command(source: str, sinks: Sequence[str], *more: str) -> list[str]:
    line = [
        sys.executable,
        "-m",
        "marketflow",
        "run",
        "market_data",
        "--json",
        "--source",
        source,
    ]
    for sink in sinks:
        line += ["--sink", sink]
    return [*line, *more]


def run(line: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        line, capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT}, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def kill_all(child: subprocess.Popen) -> None:
    """The run and its worker processes, which have sessions of their own."""
    family = psutil.Process(child.pid).children(recursive=True)
    for process in (psutil.Process(child.pid), *family):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.communicate()


def lake(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a lake by table; the venue of its folders is left out."""
    found = {}
    for name in TABLES:
        table = table_rows(folder, name)
        if table is not None:
            found[name] = plain(table.combine_chunks().to_batches()[0])
    return found


def within_feed(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows whose shards are those within their feed; -1 for the feed's own."""
    return {
        name: [{**r, "shard": local_of(r["shard"]) if r["shard"] >= 0 else -1} for r in rows]
        for name, rows in tables.items()
    }


def topics(kafka: Cluster, prefix: str, like: dict[str, list[dict[str, Any]]]) -> Any:
    """Rows of the topics by table, with the columns that the lake's rows have."""
    found = {}
    for name, rows in like.items():
        names = rows[0].keys()
        found[name] = [{n: row[n] for n in names} for row in kafka.rows(prefix, name)]
    return found


def test_one_partition_gives_what_the_file_gives(kafka: Cluster, tmp_path: Path) -> None:
    topic = kafka.topic(1, "raw.binance")
    messages = record(kafka, topic, 1)
    run(command(_FEED, [f"parquet:{tmp_path / 'file'}"]))
    prefix = kafka.tables(2)
    sinks = [f"parquet:{tmp_path / 'topic'}", f"kafka://{kafka.brokers}/{prefix}"]
    summary = run(command(f"kafka://{kafka.brokers}/{topic}?to=latest", sinks))
    assert summary["messages"] == messages
    assert summary["dead_letters"] == {}
    expected = lake(tmp_path / "file")
    assert len(expected["quotes"]) > 1000
    found = lake(tmp_path / "topic")
    assert topics(kafka, prefix, found) == found
    # Two feeds, by what they begin with: of a shard the one within its feed is the same.
    assert within_feed(found) == within_feed(expected)


def test_killed_and_split_it_ends_as_undisturbed(kafka: Cluster, tmp_path: Path) -> None:
    topic = kafka.topic(3)
    record(kafka, topic, 3)
    source = f"kafka://{kafka.brokers}/{topic}?venue=binance&to=latest"
    working_s = run(command(source, [f"parquet:{tmp_path / 'calm'}"]))["seconds"]
    expected = lake(tmp_path / "calm")
    assert len({feed_of(row["shard"]) for row in expected["quotes"]}) > 1
    prefix = kafka.tables(2)
    sinks = [f"kafka://{kafka.brokers}/{prefix}?commit_ms=10", f"parquet:{tmp_path / 'rough'}"]
    rough = command(source, sinks, "--recovery", str(tmp_path / "recovery"), "--processes", "2")
    landed, luck = 0, chance()
    for kill in range(_KILLS + 1):
        before = last_change(tmp_path / "rough")
        child = subprocess.Popen(
            rough, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
        if kill < _KILLS:
            until_it_writes(child, tmp_path / "rough", before)
            with suppress(subprocess.TimeoutExpired):
                # The first one surely: how long a run takes is the machine's affair.
                child.wait(luck.uniform(0.0, 0.5) * working_s if landed else 0.0)
                break
            kill_all(child)
            landed += 1
            continue
        _, errors = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, errors
    assert landed
    assert lake(tmp_path / "rough") == expected
    assert topics(kafka, prefix, expected) == expected
    assert_plain_folder(tmp_path / "recovery", "feed", "sinks")


def test_a_partition_more_at_the_next_start(kafka: Cluster, tmp_path: Path) -> None:
    """A run that follows its topic, stopped and started again, has feeds for all partitions."""
    topic = kafka.topic(1)
    kafka.send(topic, [b"first"] * 5)
    recovery, folder = tmp_path / "recovery", tmp_path / "lake"
    line = command(
        f"kafka://{kafka.brokers}/{topic}?venue=kraken&group={topic}", [f"parquet:{folder}"],
        "--recovery", str(recovery),
    )  # fmt: skip
    _run_until(line, lambda: kafka.told(topic, topic, 1) == 5)
    kafka.grow(topic, 8)
    for partition in range(1, 8):
        kafka.send(topic, [b"later"] * 3, partition)
    summary = _run_until(line, lambda: kafka.told(topic, topic, 8) == 5 + 7 * 3)
    assert summary["stopped"]
    note = json.loads((recovery / "run.json").read_text())
    assert [feed[1] for feed in note["feeds"]] == list(range(12))
    letters = lake(folder)["dead_letters"]
    expected = [0] * 5 + [partition for partition in range(1, 8) for _ in range(3)]
    assert sorted(row["partition"] for row in letters) == expected


@pytest.mark.parametrize("chosen", ["arrow", "json"])
def test_dead_letters_say_where_they_come_from(kafka: Cluster, tmp_path: Path, chosen: str) -> None:
    """Bytes that nobody can read, and a number that no book can hold, of a topic's partition 1;
    rows of a version to come. The rest goes on."""
    trade = b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":%d,'
    trade += b'"p":"%s","q":"1.0","T":1723161255342,"m":true,"M":true}}'
    raw, rows = kafka.topic(2), kafka.topic(1)
    kafka.send(raw, [b"{", trade % (1, b"7"), trade % (2, b"9" * 18 + b"00")], 1)
    known = Feed(np.random.default_rng(1)).batch(TRADES, 0, 3)
    metadata = {"marketflow.table": "trades", "marketflow.version": "99"}
    newer = pa.BufferOutputStream()
    with pa.ipc.new_stream(newer, known.replace_schema_metadata(metadata).schema) as out:
        out.write_batch(known.replace_schema_metadata(metadata))
    kafka.send(rows, [wire.to_arrow(TRADES, known).to_pybytes(), newer.getvalue().to_pybytes()])
    prefix = kafka.tables(2)
    sinks = [f"kafka://{kafka.brokers}/{prefix}?format={chosen}", f"parquet:{tmp_path}"]
    line = command(f"kafka://{kafka.brokers}/{raw}?venue=binance&to=latest", sinks)
    line += ["--source", f"kafka://{kafka.brokers}/{rows}?table=trades&to=latest"]
    summary = run(line)
    assert summary["tables"]["trades"] == 4
    found = [
        {name: value.decode() for name, value in message.headers()}
        for partition in range(2)
        for message in read_messages(kafka.brokers, f"{prefix}.dead_letters", partition)
    ]
    letters = lake(tmp_path)["dead_letters"]
    assert sorted(found, key=str) == sorted(
        (
            {
                "reason": row["reason"],
                "topic": row["feed"].removeprefix("kafka:"),
                "partition": str(row["partition"]),
                "offset": str(row["offset"]),
            }
            for row in letters
        ),
        key=str,
    )
    places = {(row["feed"], row["partition"], row["offset"]) for row in letters}
    assert places == {(f"kafka:{raw}", 1, 0), (f"kafka:{raw}", 1, 2), (f"kafka:{rows}", 0, 1)}


def _run_until(line: list[str], enough: Callable[[], bool]) -> dict[str, Any]:
    """Run until ``enough`` holds, then stop gracefully; the summary."""
    child = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **_ENVIRONMENT},
    )  # fmt: skip
    until(lambda: child.poll() is not None or enough())
    child.terminate()
    out, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, errors
    summary: dict[str, Any] = json.loads(out)
    return summary
