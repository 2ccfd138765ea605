"""Topics pass the contract of readers (tests/support/reader_contract.py) on a real broker."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from marketflow.schemas.messages.frames import FrameKind
from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.kafka.consumer import ConsumerPool
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, Reader
from marketflow.sources.registry import SCHEMES, open_reader, parse_source
from tests.support import reader_contract as contract
from tests.support.batches import Feed
from tests.support.reader_cases import WITH_SERVER, frames
from tests.support.reader_contract import Opener, Shape
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
SHAPES = {"raw": contract.BY_ROWS, "json": contract.ROWS, "arrow": contract.BY_ROWS}
LIMITS = Limits(max_rows=17)


def opener_of(kafka: Cluster, topic: str, query: str) -> Opener:
    """Readers of partition 0, each with a consumer of its own, up to the end of now."""
    url = f"kafka://{kafka.brokers}/{topic}?to=latest&patience_s=20{query}"
    config = topic_of(parse_source(url)).of_partition(0)

    def opener(position: Any, limits: Limits) -> Reader:
        pool = ConsumerPool(threading.Event(), limits)
        return open_reader(config, position, limits, lambda: pool)

    return opener


@pytest.fixture(params=SHAPES)
def feed(request: pytest.FixtureRequest, kafka: Cluster) -> tuple[Opener, Shape]:
    """60 raw frames, or rows of a table in several messages."""
    kind: str = request.param
    if kind == "raw":
        topic = kafka.topic()
        kafka.record(topic, frames(60))
        return opener_of(kafka, topic, "&venue=binance"), SHAPES[kind]
    prefix = kafka.tables(1, ("trades",))
    rows = Feed(np.random.default_rng(4))
    config = KafkaConfig.parse(f"kafka://{kafka.brokers}/{prefix}?format={kind}&partitions=1")
    writer = KafkaWriter(config, "w0")
    for shard in (0, 1, 0):
        writer.write(rows.item(shard, {"trades": 20}))
    writer.close()
    return opener_of(kafka, f"{prefix}.trades", ""), SHAPES[kind]


def test_schemes_with_a_server_are_those_of_this_file() -> None:
    assert {name for name, scheme in SCHEMES.items() if scheme.by_partition} == WITH_SERVER


def test_cuts_change_nothing(feed: tuple[Opener, Shape]) -> None:
    contract.check_cuts(*feed)


def test_a_stop_anywhere_loses_nothing(feed: tuple[Opener, Shape]) -> None:
    contract.check_stops(*feed, LIMITS)


def test_an_empty_topic_ends_cleanly(kafka: Cluster) -> None:
    contract.check_empty(opener_of(kafka, kafka.topic(), "&venue=binance"))


def test_a_missing_topic_is_named(kafka: Cluster) -> None:
    url = f"kafka://{kafka.brokers}/raw.missing?patience_s=0.1"
    config = topic_of(parse_source(url)).of_partition(0)
    pool = ConsumerPool(threading.Event())
    with pytest.raises(SourceError, match=r"has no topic raw\.missing"):
        open_reader(config, None, DEFAULT_LIMITS, lambda: pool)


@pytest.mark.parametrize("query", ["&venue=binance", "&table=trades"])
def test_garbage_becomes_dead_letters(kafka: Cluster, query: str) -> None:
    topic, chance = kafka.topic(), random.Random(3)
    starts = (b"", b"{", b"\0\0\0\0\1", b"\xff\xff\xff\xff", b'{"ts_event":')
    kafka.send(topic, [chance.choice(starts) + chance.randbytes(40) for _ in range(100)])
    rows = contract.flat(contract.drain(opener_of(kafka, topic, query)(None, LIMITS)))
    assert len(rows) == 101
    assert rows[-1].kind is FrameKind.END
    if "table" in query:
        assert all(row.kind is FrameKind.BROKEN and row.note for row in rows[:-1])
