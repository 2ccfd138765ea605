"""Kafka on a real broker: raw topics to frames, tables as Arrow frames, the flow into TimescaleDB,
and one message all the way through."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

from marketflow.flows import settings
from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order, replay
from marketflow.flows.runtime.run import run
from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import ServiceError
from marketflow.infra.services.kafka import Kafka
from marketflow.schemas.tables import TABLES
from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sinks.timescale.writer import copy_statement
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.kafka.consumer import ConsumerPool
from marketflow.sources.kafka.reader import KafkaReader
from marketflow.sources.reader import DEFAULT_LIMITS, Limits
from marketflow.sources.registry import parse_source
from tests.benchmarks import feeds, peers
from tests.benchmarks.harness import Result, benchmark
from tests.benchmarks.live import trade
from tests.support.batches import Feed
from tests.support.services.local import new_database, services_folder, start
from tests.support.services.topics import Cluster

_FLOW: Final = "market_data"
_MESSAGE: Final = bytes(range(200))
#: As the flow asks for them.
_LIMITS: Final = replace(DEFAULT_LIMITS, max_rows=262_144, max_bytes=4 << 20)
#: What makes a plain consumer fast; without the first it rests for a second every so often.
_TUNED: Final = {
    "fetch.queue.backoff.ms": 2,
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.message.max.bytes": 4 << 20,
    "enable.auto.commit": False,
    "log_level": 0,
}


@contextmanager
def _broker() -> Iterator[tuple[Cluster, Path] | None]:
    """A broker of our own and a folder; None where it cannot be had."""
    with services_folder() as folder:
        try:
            service = start("kafka", folder)
        except ServiceError:
            yield None
            return
        assert isinstance(service, Kafka)
        try:
            yield Cluster(service), folder
        finally:
            service.down()


def _fill(cluster: Cluster, topic: str, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": cluster.brokers, "linger.ms": 20, "batch.size": 1 << 20,
         "queue.buffering.max.messages": 1_000_000, "log_level": 0}
    )  # fmt: skip
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, _MESSAGE, partition=0)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0


def _bare(cluster: Cluster, topic: str, count: int) -> float:
    """Messages per second of a tuned ``consume`` loop that only counts."""
    consumer = Consumer({**_TUNED, "bootstrap.servers": cluster.brokers, "group.id": "bare"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    seen, started = 0, 0.0
    while seen < count:
        found = consumer.consume(20_000, 0.02)
        if found and not seen:
            started = time.perf_counter()
            first = len(found)
        seen += len(found)
    seconds = time.perf_counter() - started
    consumer.close()
    return (seen - first) / seconds


def _read(url: str, limits: Limits = _LIMITS) -> tuple[int, float]:
    """(rows, rows per second from the first on) of one partition read to its end."""
    config = topic_of(parse_source(url)).of_partition(0)
    reader = KafkaReader(ConsumerPool(threading.Event(), limits), config)
    rows, started, first = 0, 0.0, 0
    while (batch := reader.read()) is not None:
        if batch.num_rows and not rows:
            started, first = time.perf_counter(), batch.num_rows
        rows += batch.num_rows
    seconds = time.perf_counter() - started
    reader.close()
    return rows - 1, (rows - 1 - first) / seconds


def _in_turn(runs: int, *work: Callable[[], float]) -> list[float]:
    """Medians of works that are done one after the other, again and again."""
    found: list[list[float]] = [[] for _ in work]
    for _ in range(runs):
        for figures, one in zip(found, work, strict=True):
            figures.append(one())
    return [statistics.median(figures) for figures in found]


@benchmark("kafka raw", pinned=False)
def raw(quick: bool) -> Iterator[Result]:
    """A raw topic to columns of frames, beside the plainest consumer there is."""
    count = 100_000 if quick else 2_000_000
    with _broker() as found:
        if found is None:
            return
        cluster, _ = found
        topic = cluster.topic(1)
        _fill(cluster, topic, count)
        url = f"kafka://{cluster.brokers}/{topic}?venue=kraken&to=latest"
        runs = 1 if quick else 5
        bare, ours = _in_turn(runs, lambda: _bare(cluster, topic, count), lambda: _read(url)[1])
        arguments = (cluster.brokers, topic, str(count // 5))
        slow = {
            "bare tuned consume loop": bare,
            **peers.measure_here("kafka_bytewax", *arguments),
            **peers.measure("kafka", *arguments),
        }
    conditions = (
        f"{count:,} messages of {len(_MESSAGE)} bytes in one partition, from the first batch on, "
        "client and broker on 2 cores; libraries read a fifth of them"
    )
    yield Result("raw topic to columns", ours, "messages/s", 1e6, conditions, peers=slow)
    yield Result("raw topic to columns / bare loop", ours / bare, "×", 0.8, conditions)


@benchmark("kafka tables", pinned=False)
def tables(quick: bool) -> Iterator[Result]:
    """Quotes into and out of a topic as Arrow frames; writing is exactly once."""
    batches, rows = (8, 8192) if quick else (256, 8192)
    with _broker() as found:
        if found is None:
            return
        cluster, _ = found
        feed = Feed(np.random.default_rng(1), days=1)
        items = [feed.item(0, {"quotes": rows}) for _ in range(batches)]
        written, read = [], []
        for _ in range(1 if quick else 3):
            prefix = cluster.tables(1, ["quotes"])
            writer = KafkaWriter(KafkaConfig.parse(f"kafka://{cluster.brokers}/{prefix}"))
            started = time.perf_counter()
            for item in items:
                writer.write(item)
            writer.close()
            written.append(rows * batches / (time.perf_counter() - started))
            count, speed = _read(f"kafka://{cluster.brokers}/{prefix}.quotes?to=latest")
            assert count >= batches, count
            read.append(speed * rows * batches / count)
    conditions = f"{batches * rows:,} quotes in batches of {rows:,}, client and broker on 2 cores"
    yield Result("Arrow frames from a topic", statistics.median(read), "rows/s", 5e6, conditions)
    yield Result(
        "Arrow frames to a topic, exactly once", statistics.median(written), "rows/s", None,
        conditions,
    )  # fmt: skip


def _record(cluster: Cluster, topic: str, count: int) -> int:
    """A simulated Binance session in a raw topic, all of one connection."""
    messages = 0
    for batch in feeds.frames_of(f"sim:?events={count}&symbols=20&format=binance"):
        cluster.record(topic, batch)
        messages += batch.num_rows
    return messages


def _copy_rates(dsn: str, fresh: str, folder: Path, names: list[str]) -> dict[str, float]:
    """Seconds that the server takes to COPY the rows of each table from a file of its own."""
    migrate(fresh, TABLES)
    seconds = {}
    with psycopg.connect(dsn) as source, psycopg.connect(fresh) as target:
        for name in names:
            path = folder / f"{name}.bin"
            statement = copy_statement(name)
            columns = statement[statement.index("(") : statement.index(")") + 1]
            table = statement.split()[1]
            path.unlink(missing_ok=True)
            folder.chmod(0o777)
            source.execute(
                f"COPY (SELECT {columns[1:-1]} FROM {table}) TO '{path}' (FORMAT binary)"
            )
            started = time.perf_counter()
            target.execute(statement.replace("STDIN", f"'{path}'"))
            target.commit()
            seconds[name] = time.perf_counter() - started
    return seconds


@benchmark("kafka to timescale", pinned=False)
def to_timescale(quick: bool) -> Iterator[Result]:
    """The whole flow between two servers, beside what the slower of its two ends can do."""
    count = 20_000 if quick else 2_000_000
    wanted = ("trades", "quotes", "bars")
    with _broker() as found, services_folder() as folder:
        if found is None:
            return
        try:
            service = start("timescale", folder)
        except ServiceError:
            return
        cluster, _ = found
        try:
            topic = cluster.topic(1)
            _record(cluster, topic, count)
            url = f"kafka://{cluster.brokers}/{topic}?venue=binance&to=latest"
            ratios, rates = [], []
            chosen = settings.load(tables=",".join(wanted))
            run(_FLOW, [url], ["null:"], settings=chosen)  # kernels
            for _ in range(1 if quick else 3):
                messages, consumed = _read(url)
                with new_database(service) as dsn, new_database(service) as fresh:
                    migrate(dsn, TABLES)
                    summary = run(_FLOW, [url], [f"timescale:{dsn}"], settings=chosen)
                    names = [name for name in wanted if summary["tables"].get(name)]
                    copied = sum(_copy_rates(dsn, fresh, folder, names).values())
                bound = max(messages / consumed, copied)
                ratios.append(bound / summary["seconds"])
                rates.append(messages / summary["seconds"])
        finally:
            service.down()
    made = ", ".join(f"{summary['tables'][name]:,} {name}" for name in names)
    conditions = (
        f"{messages:,} Binance messages of 20 symbols -> {made}; against the time of reading the "
        "topic alone or of the server's own COPY of all rows from files, whichever is longer; "
        "start of the run included, flow, broker and database on 2 cores"
    )
    ratio = statistics.median(ratios)
    yield Result("Kafka to TimescaleDB / its slower end", ratio, "×", 0.8, conditions)
    yield Result("Kafka to TimescaleDB", statistics.median(rates), "messages/s", None, conditions)


@benchmark("kafka replay", pinned=False)
def replay_at_max(quick: bool) -> Iterator[Result]:
    """A recorded topic through the flow again, as fast as it goes."""
    count = 20_000 if quick else 3_000_000
    wanted = "trades,quotes,bars"
    with _broker() as found:
        if found is None:
            return
        cluster, _ = found
        topic = cluster.topic(1)
        _record(cluster, topic, count)
        order = Order(Wanted(cluster.brokers, (f"{topic}?venue=binance",)), _FLOW, ("null:",))
        url = f"kafka://{cluster.brokers}/{topic}?venue=binance&to=latest"
        chosen = settings.load(tables=wanted)
        replay(order, settings=chosen)  # kernels
        rates, read = [], []
        for _ in range(1 if quick else 3):
            rates.append(replay(order, settings=chosen)["messages_per_s"])
            read.append(_read(url)[1])
    conditions = (
        f"{count:,} Binance messages of 20 symbols in one partition -> {wanted} -> null:, start "
        "included, flow and broker on 2 cores"
    )
    yield Result(
        "replay at max", statistics.median(rates), "messages/s", 7e5, conditions,
        peers={"the topic to columns, nothing else": statistics.median(read)},
    )  # fmt: skip


@benchmark("kafka latency", pinned=False)
def latency(quick: bool) -> Iterator[Result]:
    """A trade into a raw topic, through the flow, to a reader of committed messages."""
    ticks = 50 if quick else 1000
    with _broker() as found:
        if found is None:
            return
        cluster, _ = found
        _bare_round_trips(cluster, ticks)  # a young broker is slow: its code is compiled on the way
        waited = _round_trips(cluster, ticks)
        bare = _bare_round_trips(cluster, ticks)
    conditions = (
        f"{ticks:,} trades, one each 10 ms; produce, normalise, books, bars, transaction committed "
        "(commit_ms=1), consumed with read_committed; flow, broker and client on 2 cores"
    )
    for quantile, target in ((50, 5.0), (99, 20.0)):
        yield Result(
            f"one trade, Kafka to Kafka, p{quantile}", float(np.percentile(waited, quantile)),
            "ms", target, conditions, better="lower",
            peers={"a bare transactional loop": float(np.percentile(bare, quantile))},
        )  # fmt: skip


@contextmanager
def _bare_relay(cluster: Cluster, topic: str, prefix: str) -> Iterator[None]:
    """A thread that hands every message on in a transaction of its own, and does nothing else."""
    consumer = Consumer({**_TUNED, "bootstrap.servers": cluster.brokers, "group.id": "relay"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    producer = Producer(
        {"bootstrap.servers": cluster.brokers, "transactional.id": prefix, "linger.ms": 0,
         "socket.nagle.disable": True, "log_level": 0}
    )  # fmt: skip
    producer.init_transactions(30)
    done = threading.Event()

    def relay() -> None:
        while not done.is_set():
            message = consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            number = json.loads(message.value() or b"")["data"]["t"]
            producer.begin_transaction()
            producer.produce(f"{prefix}.trades", f'{{"trade_id":"{number}"}}', partition=0)
            producer.commit_transaction(30)

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        consumer.close()


def _bare_round_trips(cluster: Cluster, ticks: int) -> list[float]:
    """Milliseconds of each tick where nothing is done with it."""
    topic, prefix = cluster.topic(1), cluster.tables(1)
    with _bare_relay(cluster, topic, prefix):
        return _tick(cluster, topic, prefix, ticks)


def _round_trips(cluster: Cluster, ticks: int) -> list[float]:
    """Milliseconds of each tick; the first ones, which load kernels, are left out."""
    topic, prefix = cluster.topic(1), cluster.tables(1)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "marketflow", "run", "market_data", "--json",
             "--source", f"kafka://{cluster.brokers}/{topic}?venue=binance",
             "--sink", f"kafka://{cluster.brokers}/{prefix}?commit_ms=1&format=json"],
            stdout=subprocess.DEVNULL, stderr=errors, env=dict(os.environ),
        )  # fmt: skip
        try:
            return _tick(cluster, topic, prefix, ticks)
        except TimeoutError:
            errors.seek(0)
            raise RuntimeError(errors.read()[-800:].decode()) from None
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def _tick(cluster: Cluster, topic: str, prefix: str, ticks: int) -> list[float]:
    producer = Producer({"bootstrap.servers": cluster.brokers, "linger.ms": 0, "log_level": 0})
    consumer = Consumer(
        {**_TUNED, "bootstrap.servers": cluster.brokers, "group.id": "latency",
         "isolation.level": "read_committed", "fetch.wait.max.ms": 5}
    )  # fmt: skip
    consumer.assign([TopicPartition(f"{prefix}.trades", 0, 0)])
    waited, warm = [], 20
    for number in range(ticks + warm):
        sent = time.perf_counter()
        producer.produce(topic, trade(number, time.time_ns() // 1_000_000), partition=0)
        producer.flush(10)
        deadline = sent + 60
        while True:
            message = consumer.poll(0.01)
            if message is not None and message.error() is None:
                assert json.loads(message.value() or b"")["trade_id"] == str(number)
                break
            if time.perf_counter() > deadline:
                raise TimeoutError
        waited.append(1000 * (time.perf_counter() - sent))
        time.sleep(0.01)
    consumer.close()
    return waited[warm:]
