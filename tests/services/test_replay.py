"""Replaying topics on a real broker: what the original run made, from anywhere, at any pace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.replay.plan import Wanted, make_plan
from marketflow.flows.replay.run import Order, replay
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sinks.timescale.config import TimescaleConfig
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.kafka.replay import Replay
from marketflow.sources.reader import Limits
from marketflow.sources.registry import parse_source
from tests.support.chance import chance
from tests.support.patience import PATIENCE_S
from tests.support.services.history import (
    STOPPED_AT,
    History,
    environment,
    quick,
    recorded_frames,
    tables_of,
    wait_for_rows,
)
from tests.support.services.topics import Cluster
from tests.support.stored import stored_rows

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]


def test_intervals_one_after_the_other_make_the_whole(history: History, tmp_path: Path) -> None:
    early, late = history.at(0.4), history.at(0.7)
    # The first two go into the same lake, one after the other.
    lakes = [tmp_path / "ab", tmp_path / "ab", tmp_path / "c"]
    bare = history.without_checkpoints(tmp_path / "bare")
    a = replay(history.order(lakes[0], end=early, original=bare), settings=quick())
    b = replay(
        history.order(lakes[1], start=early, end=late, original=history.recovery),
        settings=quick(shards=3),  # those of the original run hold
    )
    c = replay(history.order(lakes[2], start=late, original=bare), settings=quick())
    assert a["messages"] + b["messages"] + c["messages"] == 4000
    # The second began with the checkpoint, the third with the start of the topics.
    assert sum(i["begun"] for i in b["intervals"]) == STOPPED_AT
    assert all(i["begun"] == 0 for i in c["intervals"])
    assert [i["from"] for i in b["intervals"]] == [i["to"] for i in a["intervals"]]
    assert [i["to"] for i in b["intervals"]] == [i["from"] for i in c["intervals"]]
    whole, expected = tables_of(lakes[1:]), tables_of([history.lake])
    assert whole.keys() == expected.keys()
    for name, table in expected.items():
        assert whole[name].equals(table), name
    assert expected["bars"].num_rows > 500
    # And the cut is where it was said to be.
    cut = int(datetime.fromisoformat(late).timestamp() * 1000)
    for lake, is_late in ((lakes[1], False), (lakes[2], True)):
        arrived = tables_of([lake])["trades"]["ts_recv"].cast(pa.int64()).to_numpy()
        assert len(arrived) > 100
        assert ((arrived // 10**6 >= cut) == is_late).all()


def test_neither_pace_nor_kills_change_a_row(history: History, tmp_path: Path) -> None:
    start, end = history.at(0.5), history.at(0.8)
    bare = history.without_checkpoints(tmp_path / "bare")
    replay(
        history.order(tmp_path / "max", start=start, end=end, original=bare),
        settings=quick(),
    )
    expected = tables_of([tmp_path / "max"])
    assert len(expected["quotes"]) > 500
    paced = history.order(
        tmp_path / "paced", start=start, end=end, original=history.recovery, speed="40000x"
    )
    replay(paced, settings=quick())
    assert tables_of([tmp_path / "paced"]) == expected
    line = [
        sys.executable, "-m", "marketflow", "replay", "--brokers", history.brokers, "--json",
        "--sink", f"parquet:{tmp_path / 'rough'}", "--from", start, "--to", end,
        "--recovery", str(tmp_path / "recovery"), "--checkpoints", str(history.recovery),
    ]  # fmt: skip
    for topic in history.topics:
        line += ["--topic", f"{topic}?venue=binance"]
    landed, luck = 0, chance()
    for _ in range(2):
        child = subprocess.Popen(
            [*line, "--speed", "5000x"], env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_for_rows(child, tmp_path / "rough")
        with suppress(subprocess.TimeoutExpired):
            child.wait(luck.uniform(0.0, 1.0) if landed else 0.0)
        landed += child.poll() is None
        child.kill()
        child.communicate()
    assert landed
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert tables_of([tmp_path / "rough"]) == expected


def _damage(lake: Path, first_ms: int, end_ms: int) -> None:
    """Half of the interval's trades and quotes are lost, the others are wrong."""
    for path in [*lake.glob("trades/**/*.parquet"), *lake.glob("quotes/**/*.parquet")]:
        rows = pq.ParquetFile(path).read()
        arrived = rows["ts_recv"].cast(pa.int64()).to_numpy() // 10**6
        inside = (arrived >= first_ms) & (arrived < end_ms)
        lost = inside & (np.arange(len(inside)) % 2 == 0)
        wrong = pc.if_else(pa.array(inside), pa.scalar(7, pa.int64()), rows["sequence"])
        place = rows.schema.get_field_index("sequence")
        pq.write_table(
            rows.set_column(place, rows.schema.field(place), wrong).filter(pa.array(~lost)), path
        )


@pytest.mark.parametrize("processes", [1, 2])
def test_a_back_fill_makes_the_stores_those_of_an_undisturbed_run(
    history: History,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
) -> None:
    lake, sinks = tmp_path / "lake", (f"timescale:{database}",)
    shutil.copytree(history.lake, lake)
    rebuilt = replace(history.order(lake, original=history.recovery), sinks=sinks)
    replay(rebuilt, settings=quick())
    right, stored = tables_of([lake]), stored_rows(database)
    assert {name: len(rows) for name, rows in stored.items()} == {
        n: len(t) for n, t in right.items()
    }
    times = (history.at(0.4), history.at(0.7))
    bounds = [int(datetime.fromisoformat(time).timestamp() * 1000) for time in times]
    _damage(lake, *bounds)
    with psycopg.connect(database) as connection:
        where = f"ts_recv >= '{times[0]}' AND ts_recv < '{times[1]}'"
        connection.execute(f"UPDATE store.trades SET sequence = 7 WHERE {where}")
        gone = connection.execute(f"DELETE FROM store.quotes WHERE {where}").rowcount
    assert gone > 100
    damaged = stored_rows(database)
    middle = {"start": times[0], "end": times[1], "original": history.recovery}
    for sink in (f"parquet:{lake}", *sinks):
        twice = replace(history.order(lake, **middle), sinks=(sink,))
        with pytest.raises(UsageError, match=r"rows of this interval already.*--replace"):
            replay(twice, settings=quick())
    assert tables_of([lake]) != right
    order = replace(
        history.order(
            lake, start=times[0], end=times[1], original=history.recovery, replaces=True
        ),
        sinks=(f"parquet:{lake}", *sinks), recovery=tmp_path / "back-fill", replace=True,
        processes=processes,
    )  # fmt: skip

    def lost(*_: object) -> dict[str, int]:
        raise ConnectionError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(TimescaleConfig, "back_fill", lost)
        with pytest.raises(RunFailed, match="the database is away"):
            replay(order, settings=quick())
    # Each store is the old one or the new one.
    assert tables_of([lake]) == right
    assert stored_rows(database) == damaged
    summary = replay(order, settings=quick())
    assert summary["rows_written"] > summary["rows_replaced"] > 0
    assert tables_of([lake]) == right
    assert stored_rows(database) == stored
    with psycopg.connect(database) as connection:
        left = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'backfill%'")
        assert left.fetchall() == []
        # As if the decoder that made the rows had missed the interval's last one.
        inside = f"FROM store.quotes WHERE {where}"
        last = connection.execute(
            f"SELECT shard, max(row_sequence) {inside} GROUP BY shard LIMIT 1"
        ).fetchone()
        assert last is not None
        place = "WHERE shard = %s AND row_sequence"
        connection.execute(f"DELETE FROM store.quotes {place} = %s", last)
        connection.execute(
            f"UPDATE store.quotes SET row_sequence = row_sequence - 1 {place} > %s", last
        )
    missing = stored_rows(database)
    again = replace(order, sinks=sinks, recovery=tmp_path / "another")
    with pytest.raises(UsageError, match="another number of rows of quotes"):
        replay(again, settings=quick())
    assert stored_rows(database) == missing


def test_topics_are_merged_in_order_of_time(history: History) -> None:
    plan = make_plan(find(DEFAULT_FLOW), history.order(Path("unused")).wanted, 16)
    sources = [parse_source(text) for text in plan.sources]
    specs = [feed.spec(sources) for feed in plan.feeds]
    spans = [(span, topic_of(specs[span.feed])) for span in plan.spans]
    limits = replace(Limits(), max_rows=50)
    reader = Replay(spans, None, threading.Event(), limits=limits)
    latest, rows, ended = 0, 0, 0
    deadline = time.monotonic() + PATIENCE_S
    while (items := reader.read()) is not None:
        assert time.monotonic() < deadline
        if items and items[0][1].column("kind")[0].as_py() == FrameKind.END:
            ended += len(items)
            continue
        stamps = [frames.column("ts_recv").to_numpy() for _, frames in items]
        if stamps:
            assert min(s.min() for s in stamps) >= latest
            latest = max(s.max() for s in stamps)
            rows += sum(map(len, stamps))
    assert reader.progress() == {"replayed": 4000, "to_replay": 4000, "warm_up": 0}
    reader.close()
    assert (rows, ended) == (4000, 4)


def test_a_cut_does_not_end_the_feed_unless_it_is_told_to(history: History, tmp_path: Path) -> None:
    end = history.at(0.3)
    cut = replay(history.order(tmp_path / "cut", end=end), settings=quick())
    ended = replay(history.order(tmp_path / "ended", end=end, ends=True), settings=quick())
    assert cut["messages"] == ended["messages"]
    assert tables_of([tmp_path / "cut"])["bars"]["is_final"].to_pylist().count(False) == 0
    assert tables_of([tmp_path / "ended"])["bars"]["is_final"].to_pylist().count(False) > 0


def test_an_end_that_is_still_to_come_is_where_the_topic_ends(
    kafka: Cluster, tmp_path: Path
) -> None:
    topic = kafka.topic()
    kafka.record(topic, recorded_frames().slice(0, 500))
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for number, end in enumerate(("2099-01-01", "501", "latest")):
        lake = tmp_path / str(number)
        order = Order(
            Wanted(kafka.brokers, (f"{topic}?venue=binance",), end=end), "market_data",
            (f"parquet:{lake}",),
        )  # fmt: skip
        assert replay(order, settings=quick(), console=console)["messages"] == 500
    assert console.export_text().count("still to come") == 2
    assert tables_of([tmp_path / "0"]) == tables_of([tmp_path / "1"]) == tables_of([tmp_path / "2"])


def test_what_retention_removed_is_said(kafka: Cluster) -> None:
    topic = kafka.topic()
    frames = recorded_frames().slice(0, 600)
    kafka.record(topic, frames)
    kafka.forget(topic, 0, 100)
    name = f"{topic}?venue=binance"
    arrived = datetime.fromtimestamp(int(frames.column("ts_recv")[50].as_py()) / 1e9, UTC)
    for start in ("50", arrived.isoformat(), "400"):
        order = Order(Wanted(kafka.brokers, (name,), start), "market_data", ("null:",))
        with pytest.raises(UsageError, match=r"retention has removed (50|0) to 100.*Replay what"):
            replay(order, settings=quick())
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    rest = Order(Wanted(kafka.brokers, (name,), "earliest"), "market_data", ("null:",))
    assert replay(rest, settings=quick(), console=console)["messages"] == 500
    assert "removed 100 messages" in console.export_text()


def test_an_interval_that_is_empty_says_what_there_is(history: History) -> None:
    """And offsets may be given for the partitions that are meant."""
    console = Console(record=True, width=400, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    topic = f"{history.topics[0]}?venue=binance"
    past = Wanted(history.brokers, (topic,), "2001-01-01", "2001-01-02")
    done = replay(Order(past, "market_data", ("null:",)), settings=quick(), console=console)
    assert done["messages"] == 0
    told = console.export_text()
    assert "nothing lies in this interval; partition 0 has offsets 0 to " in told
    assert "partition 1 has offsets 0 to " in told
    assert str(datetime.fromtimestamp(history.times[0] / 1e9, UTC).date()) in told
    one = Wanted(history.brokers, (topic,), "1:10", "1:30")
    done = replay(Order(one, "market_data", ("null:",)), settings=quick(), console=console)
    assert [(i["partition"], i["from"], i["to"]) for i in done["intervals"]] == [(1, 10, 30)]


@pytest.mark.parametrize(
    ("wanted", "fix"),
    [
        ({"start": "30", "end": "20"}, "--from 30 is not before --to 20"),
        ({"start": "2026-01-02", "end": "2026-01-01"}, "is not before --to"),
        ({"start": "4001"}, "ends at offset"),
        ({"start": "7:3"}, "has no partition 7, only 0 to 1"),
        ({"start": "0:3", "end": "1:9"}, "name no partition in common"),
        ({"start": "yesterday"}, "one of earliest, latest, an offset"),
        ({"original": Path("/nowhere")}, "no recovery folder of a run"),
    ],
)
def test_what_cannot_be_replayed(history: History, wanted: dict[str, Any], fix: str) -> None:
    topic = f"{history.topics[0]}?venue=binance"
    order = Order(Wanted(history.brokers, (topic,), **wanted), "market_data", ("null:",))
    with pytest.raises(UsageError, match=fix):
        replay(order, settings=quick())


def test_a_topic_that_the_run_did_not_read(history: History, kafka: Cluster) -> None:
    other = kafka.topic()
    wanted = Wanted(history.brokers, (other,), original=history.recovery)
    with pytest.raises(UsageError, match=f"did not read a topic {other}: it read kafka:"):
        replay(Order(wanted, "market_data", ("null:",)), settings=quick())


def test_a_checkpoint_does_without_what_was_removed(
    history: History, kafka: Cluster, tmp_path: Path
) -> None:
    """Last here: the beginning of the topics is gone afterwards."""
    start = history.at(0.6)
    order = history.order(tmp_path / "before", start=start, original=history.recovery)
    begun = replay(order, settings=quick())["intervals"]
    for interval in begun:
        kafka.forget(interval["topic"], interval["partition"], interval["begun"])
    order = history.order(tmp_path / "after", start=start, original=history.recovery)
    replay(order, settings=quick())
    assert tables_of([tmp_path / "after"]) == tables_of([tmp_path / "before"])
    # All that is left has the numbers it had.
    replay(history.order(tmp_path / "left", original=history.recovery), settings=quick())
    left, original = (
        tables_of([tmp_path / "left"])["quotes"],
        tables_of([history.lake])["quotes"],
    )
    assert 0 < len(left) < len(original)
    key = ["shard", "row_sequence"]
    found = original.join(left.select(key), key, join_type="left semi").sort_by(
        [(name, "ascending") for name in key]
    )
    assert found.combine_chunks().equals(left)
