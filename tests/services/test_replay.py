"""Replaying topics on a real broker: what the original run made, from anywhere, at any pace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaException
from rich.console import Console

from marketflow.flows.errors import UsageError
from marketflow.flows.replay.plan import Wanted, make_plan, specs_of
from marketflow.flows.replay.run import Order, replay
from marketflow.flows.settings import Settings, load
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.timescale.config import TimescaleConfig
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.kafka.replay import Replay
from marketflow.sources.reader import Limits
from marketflow.sources.registry import open_reader, parse_source
from tests.support.chance import chance
from tests.support.lakes import table_rows
from tests.support.patience import PATIENCE_S, until
from tests.support.services.topics import Cluster
from tests.support.stored import stored_rows

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_FEED = "sim:?events=4000&symbols=4&seed=5&format=binance"
_SETTINGS = {"epoch_ms": 50, "batch_rows": 100}
_STOPPED_AT = 1400


@dataclass(frozen=True)
class History:
    """Two topics of two partitions, what a run made of them, and when their frames arrived."""

    brokers: str
    topics: tuple[str, ...]
    lake: Path
    recovery: Path
    times: np.ndarray

    def at(self, share: float) -> str:
        """The time after this share of the frames."""
        ns = int(self.times[int(share * len(self.times))])
        return datetime.fromtimestamp(-(-ns // 10**6) / 1000, UTC).isoformat()

    def without_checkpoints(self, folder: Path) -> Path:
        """The run's folder as if no checkpoint had been taken."""
        folder.mkdir()
        shutil.copy(self.recovery / "run.json", folder)
        return folder

    def order(self, lake: Path, *, speed: str = "max", **wanted: Any) -> Order:
        topics = tuple(f"{topic}?venue=binance" for topic in self.topics)
        asked = Wanted(self.brokers, topics, **wanted)
        return Order(asked, "market_data", (f"parquet:{lake}",), speed)


def _settings(**more: Any) -> Settings:
    return load(**_SETTINGS, **more)


def _environment() -> dict[str, str]:
    return {**os.environ, **{f"MARKETFLOW_{k.upper()}": str(v) for k, v in _SETTINGS.items()}}


def _frames() -> pa.RecordBatch:
    reader = open_reader(parse_source(_FEED))
    batches = []
    while (batch := reader.read()) is not None:
        batches.append(batch)
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0].slice(0, 4000)


def _parted(frames: pa.RecordBatch) -> list[pa.RecordBatch]:
    """The frames of every other symbol, each symbol with a connection of its own."""
    payloads = frames.column("payload").to_pylist()
    symbols = [(p.partition(b'"s":"')[2][:7] or p[11:18].upper()).decode() for p in payloads]
    place = frames.schema.get_field_index("connection")
    names = pa.array(symbols).dictionary_encode()
    named = frames.set_column(place, frames.schema.field(place), names)
    known = sorted(set(symbols))
    halves = np.array([known.index(symbol) % 2 for symbol in symbols])
    return [named.take(pa.array(np.flatnonzero(halves == half))) for half in (0, 1)]


def _told(kafka: Cluster, topics: Sequence[str], group: str) -> int:
    try:
        return sum(kafka.told(group, topic, 2) for topic in topics)
    except KafkaException:
        return 0  # a young broker does not know yet who keeps the group


def _follow(kafka: Cluster, line: list[str], topics: Sequence[str], group: str, rows: int) -> None:
    """Run until everything is read, then stop."""
    child = subprocess.Popen(
        line, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: child.poll() is not None or _told(kafka, topics, group) >= rows)
    child.terminate()
    _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, errors


@pytest.fixture(scope="module")
def history(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The run followed the topics, two processes, stopped (a checkpoint is there), then one."""
    frames = _frames()
    topics = (kafka.topic(2), kafka.topic(2))
    folder = tmp_path_factory.mktemp("history")
    line = [
        sys.executable, "-m", "marketflow", "run", "market_data", "--checkpoint-every", "1d",
        "--sink", f"parquet:{folder / 'lake'}", "--recovery", str(folder / "recovery"),
    ]  # fmt: skip
    for topic in topics:
        line += ["--source", f"kafka://{kafka.brokers}/{topic}?venue=binance&group=history"]
    for first, rows, processes in ((0, _STOPPED_AT, 2), (_STOPPED_AT, 4000 - _STOPPED_AT, 1)):
        for topic, half in zip(topics, _parted(frames.slice(first, rows)), strict=True):
            kafka.record(topic, half)
        started = [*line, "--processes", str(processes)]
        _follow(kafka, started, topics, "history", first + rows)
    times = np.sort(frames.column("ts_recv").to_numpy())
    return History(kafka.brokers, topics, folder / "lake", folder / "recovery", times)


def _whole(lakes: list[Path]) -> dict[str, pa.Table]:
    """The tables of several lakes put together."""
    found = {}
    for name in TABLES:
        parts = [part for part in (table_rows(lake, name) for lake in lakes) if part is not None]
        if parts:
            order = [("shard", "ascending"), ("row_sequence", "ascending")]
            found[name] = pa.concat_tables(parts).sort_by(order).combine_chunks()
    return found


def test_intervals_one_after_the_other_make_the_whole(history: History, tmp_path: Path) -> None:
    early, late = history.at(0.4), history.at(0.7)
    # The first two go into the same lake, one after the other.
    lakes = [tmp_path / "ab", tmp_path / "ab", tmp_path / "c"]
    bare = history.without_checkpoints(tmp_path / "bare")
    a = replay(history.order(lakes[0], end=early, original=bare), settings=_settings())
    b = replay(
        history.order(lakes[1], start=early, end=late, original=history.recovery),
        settings=_settings(shards=3),  # those of the original run hold
    )
    c = replay(history.order(lakes[2], start=late, original=bare), settings=_settings())
    assert a["messages"] + b["messages"] + c["messages"] == 4000
    # The second began with the checkpoint, the third with the start of the topics.
    assert sum(i["begun"] for i in b["intervals"]) == _STOPPED_AT
    assert all(i["begun"] == 0 for i in c["intervals"])
    assert [i["from"] for i in b["intervals"]] == [i["to"] for i in a["intervals"]]
    assert [i["to"] for i in b["intervals"]] == [i["from"] for i in c["intervals"]]
    whole, expected = _whole(lakes[1:]), _whole([history.lake])
    assert whole.keys() == expected.keys()
    for name, table in expected.items():
        assert whole[name].equals(table), name
    assert expected["bars"].num_rows > 500
    # And the cut is where it was said to be.
    cut = int(datetime.fromisoformat(late).timestamp() * 1000)
    for lake, is_late in ((lakes[1], False), (lakes[2], True)):
        arrived = _whole([lake])["trades"]["ts_recv"].cast(pa.int64()).to_numpy()
        assert len(arrived) > 100
        assert ((arrived // 10**6 >= cut) == is_late).all()


def test_neither_pace_nor_kills_change_a_row(history: History, tmp_path: Path) -> None:
    start, end = history.at(0.5), history.at(0.8)
    bare = history.without_checkpoints(tmp_path / "bare")
    replay(
        history.order(tmp_path / "max", start=start, end=end, original=bare), settings=_settings()
    )
    expected = _whole([tmp_path / "max"])
    assert len(expected["quotes"]) > 500
    paced = history.order(
        tmp_path / "paced", start=start, end=end, original=history.recovery, speed="40000x"
    )
    replay(paced, settings=_settings())
    assert _whole([tmp_path / "paced"]) == expected
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
            [*line, "--speed", "5000x"], env=_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        _wait_for_rows(child, tmp_path / "rough")
        with suppress(subprocess.TimeoutExpired):
            child.wait(luck.uniform(0.0, 1.0) if landed else 0.0)
        landed += child.poll() is None
        child.kill()
        child.communicate()
    assert landed
    done = subprocess.run(
        line, env=_environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert _whole([tmp_path / "rough"]) == expected


def _wait_for_rows(child: subprocess.Popen, lake: Path) -> None:
    until(lambda: child.poll() is not None or list(lake.glob("_marketflow/*/run-*/log-*")))


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


def test_a_back_fill_makes_the_stores_those_of_an_undisturbed_run(
    history: History, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, sinks = tmp_path / "lake", (f"timescale:{database}",)
    shutil.copytree(history.lake, lake)
    rebuilt = replace(history.order(lake, original=history.recovery), sinks=sinks)
    replay(rebuilt, settings=_settings())
    right, stored = _whole([lake]), stored_rows(database)
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
            replay(twice, settings=_settings())
    assert _whole([lake]) != right
    order = replace(
        history.order(
            lake, start=times[0], end=times[1], original=history.recovery, replaces=True
        ),
        sinks=(f"parquet:{lake}", *sinks), recovery=tmp_path / "back-fill", replace=True,
    )  # fmt: skip

    def lost(*_: object) -> dict[str, int]:
        raise ConnectionError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(TimescaleConfig, "back_fill", lost)
        with pytest.raises(ConnectionError):
            replay(order, settings=_settings())
    # Each store is the old one or the new one.
    assert _whole([lake]) == right
    assert stored_rows(database) == damaged
    summary = replay(order, settings=_settings())
    assert summary["rows_written"] > summary["rows_replaced"] > 0
    assert _whole([lake]) == right
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
        replay(again, settings=_settings())
    assert stored_rows(database) == missing


def test_topics_are_merged_in_order_of_time(history: History) -> None:
    plan = make_plan(history.order(Path("unused")).wanted, 16)
    specs = specs_of(plan)
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
    cut = replay(history.order(tmp_path / "cut", end=end), settings=_settings())
    ended = replay(history.order(tmp_path / "ended", end=end, ends=True), settings=_settings())
    assert cut["messages"] == ended["messages"]
    assert _whole([tmp_path / "cut"])["bars"]["is_final"].to_pylist().count(False) == 0
    assert _whole([tmp_path / "ended"])["bars"]["is_final"].to_pylist().count(False) > 0


def test_an_end_that_is_still_to_come_is_where_the_topic_ends(
    kafka: Cluster, tmp_path: Path
) -> None:
    topic = kafka.topic()
    kafka.record(topic, _frames().slice(0, 500))
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for number, end in enumerate(("2099-01-01", "501", "latest")):
        lake = tmp_path / str(number)
        order = Order(
            Wanted(kafka.brokers, (f"{topic}?venue=binance",), end=end), "market_data",
            (f"parquet:{lake}",),
        )  # fmt: skip
        assert replay(order, settings=_settings(), console=console)["messages"] == 500
    assert console.export_text().count("still to come") == 2
    assert _whole([tmp_path / "0"]) == _whole([tmp_path / "1"]) == _whole([tmp_path / "2"])


def test_what_retention_removed_is_said(kafka: Cluster) -> None:
    topic = kafka.topic()
    frames = _frames().slice(0, 600)
    kafka.record(topic, frames)
    kafka.forget(topic, 0, 100)
    name = f"{topic}?venue=binance"
    arrived = datetime.fromtimestamp(int(frames.column("ts_recv")[50].as_py()) / 1e9, UTC)
    for start in ("50", arrived.isoformat(), "400"):
        order = Order(Wanted(kafka.brokers, (name,), start), "market_data", ("null:",))
        with pytest.raises(UsageError, match=r"retention has removed (50|0) to 100.*Replay what"):
            replay(order, settings=_settings())
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    rest = Order(Wanted(kafka.brokers, (name,), "earliest"), "market_data", ("null:",))
    assert replay(rest, settings=_settings(), console=console)["messages"] == 500
    assert "removed 100 messages" in console.export_text()


def test_an_interval_that_is_empty_says_what_there_is(history: History) -> None:
    """And offsets may be given for the partitions that are meant."""
    console = Console(record=True, width=400, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    topic = f"{history.topics[0]}?venue=binance"
    past = Wanted(history.brokers, (topic,), "2001-01-01", "2001-01-02")
    done = replay(Order(past, "market_data", ("null:",)), settings=_settings(), console=console)
    assert done["messages"] == 0
    told = console.export_text()
    assert "nothing lies in this interval; partition 0 has offsets 0 to " in told
    assert "partition 1 has offsets 0 to " in told
    assert str(datetime.fromtimestamp(history.times[0] / 1e9, UTC).date()) in told
    one = Wanted(history.brokers, (topic,), "1:10", "1:30")
    done = replay(Order(one, "market_data", ("null:",)), settings=_settings(), console=console)
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
        replay(order, settings=_settings())


def test_a_topic_that_the_run_did_not_read(history: History, kafka: Cluster) -> None:
    other = kafka.topic()
    wanted = Wanted(history.brokers, (other,), original=history.recovery)
    with pytest.raises(UsageError, match=f"did not read a topic {other}: it read kafka:"):
        replay(Order(wanted, "market_data", ("null:",)), settings=_settings())


def test_a_checkpoint_does_without_what_was_removed(
    history: History, kafka: Cluster, tmp_path: Path
) -> None:
    """Last here: the beginning of the topics is gone afterwards."""
    start = history.at(0.6)
    order = history.order(tmp_path / "before", start=start, original=history.recovery)
    begun = replay(order, settings=_settings())["intervals"]
    for interval in begun:
        kafka.forget(interval["topic"], interval["partition"], interval["begun"])
    order = history.order(tmp_path / "after", start=start, original=history.recovery)
    replay(order, settings=_settings())
    assert _whole([tmp_path / "after"]) == _whole([tmp_path / "before"])
    # All that is left has the numbers it had.
    replay(history.order(tmp_path / "left", original=history.recovery), settings=_settings())
    left, original = _whole([tmp_path / "left"])["quotes"], _whole([history.lake])["quotes"]
    assert 0 < len(left) < len(original)
    key = ["shard", "row_sequence"]
    found = original.join(left.select(key), key, join_type="left semi").sort_by(
        [(name, "ascending") for name in key]
    )
    assert found.combine_chunks().equals(left)
