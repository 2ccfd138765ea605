"""Topics that know their feeds, on a real broker: a feed is below a prefix once, and counted."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.runtime.run import run
from marketflow.schemas.shards import feed_of
from marketflow.schemas.tables import TABLES
from marketflow.sinks import tally as tallies
from marketflow.sinks.errors import SinkError
from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.feeds import FeedsTopic, Known, TopicLineage
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sinks.lineage import Claim, FeedClaim, new_run, writer_of
from tests.reference.kafka import read_messages
from tests.support.chance import chance
from tests.support.feeds_contract import LONG, Store, ended, load, started
from tests.support.lake_model import LakeRows
from tests.support.patience import PATIENCE_S, until
from tests.support.services.kafka_writing import ROWS, items
from tests.support.services.topics import Cluster

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_SHORT = "sim:?events=600&symbols=4&seed=3"


class TopicStore(Store):
    """Topics below a prefix."""

    def __init__(self, kafka: Cluster, *, knows_feeds: bool = True) -> None:
        self._kafka = kafka
        self.prefix = kafka.tables(2, knows_feeds=knows_feeds)
        self.url = f"kafka://{kafka.brokers}/{self.prefix}?commit_ms=20"
        self.config = KafkaConfig.parse(self.url)

    def topic(self) -> FeedsTopic:
        return FeedsTopic(self.config.address, PATIENCE_S)

    def known(self) -> Known:
        return self.topic().read()

    def rows(self) -> LakeRows:
        return {
            name: {(row["shard"], row["row_sequence"]): tuple(row.values()) for row in rows}
            for name in TABLES
            if (rows := self._kafka.rows(self.prefix, name))
        }

    def feeds(self) -> list[dict[str, Any]]:
        known = self.known()
        held = tallies.merged(known.counts.values())
        return [
            {"feed": e.number, "rows": held[e.number].rows if e.number in held else {}}
            for e in known.entries()
        ]

    def fresh(self) -> Store:
        return TopicStore(self._kafka)

    def lineage(self) -> TopicLineage:
        return TopicLineage(self.config.address, PATIENCE_S)

    def let_go(self) -> None:
        """Undo what killed writers left open: it hides what is behind it from readers."""
        topic = self.topic()
        known = self.known_uncommitted()
        topic.fence(known.counts)

    def known_uncommitted(self) -> Known:
        known = Known()
        for message in read_messages(
            self._kafka.brokers, f"{self.prefix}.feeds", 0, "read_uncommitted"
        ):
            known.note(message)
        return known


@pytest.fixture
def store(kafka: Cluster) -> TopicStore:
    return TopicStore(kafka)


def _claim(number: int = 7, run: str = "") -> Claim:
    feed = FeedClaim(
        number, f"digest-{number}", "{}", f"sim:?seed={number}", None, ({"simulator": number},)
    )
    return Claim(run or new_run(), "market_data", "1", {}, (feed,))


def test_a_feed_is_there_once(kafka: Cluster, store: TopicStore) -> None:
    load(store, _SHORT)
    before = store.rows()
    assert before
    assert store.counts() == store.counted()
    (entry,) = store.known().entries()
    about = store.known().runs[entry.run]
    assert (about["complete"], about["superseded"], about["flow"]) == (True, False, "market_data")
    # Messages of strangers say nothing of feeds.
    for key, value in ((b"\xff", b"{}"), (b"run/x", b"garbage"), (b"claim/1/2", b"[]")):
        kafka.send(f"{store.prefix}.feeds", [value], key=key)
    remedy = r"holds sim:.* already .* whole\).*--recovery.*or name another prefix.*id=NAME"
    with pytest.raises(UsageError, match=remedy) as caught:
        load(store, _SHORT)
    assert "--replace" not in str(caught.value)
    assert store.rows() == before
    load(store.fresh(), _SHORT)


def test_two_feeds_at_the_same_time(store: TopicStore) -> None:
    children = [started(store, f"sim:?events=4000&symbols=8&seed={seed}") for seed in (5, 6)]
    for child in children:
        ended(child)
    assert len(store.counts()) == 2
    assert store.counts() == store.counted()


def test_counts_are_those_of_the_rows_whenever_it_is_killed(
    store: TopicStore, tmp_path: Path
) -> None:
    recovery = ["--recovery", str(tmp_path / "recovery")]
    luck = chance()
    for _ in range(3):
        child = started(store, LONG, *recovery)
        until(lambda c=child: c.poll() is not None or _first_rows(store), "rows")  # type: ignore[misc]
        with suppress(subprocess.TimeoutExpired):
            child.wait(luck.uniform(0.0, 1.0))
        child.kill()
        child.communicate()
        store.let_go()
        assert store.counts() == store.counted()
    if not all(about["complete"] for about in store.known().runs.values()):
        with pytest.raises(UsageError, match=r"in part: a run was cut off.*--recovery"):
            load(store, LONG)
    ended(started(store, LONG, *recovery))
    assert store.counts() == store.counted()
    assert [about["complete"] for about in store.known().runs.values()] == [True]


def _first_rows(store: TopicStore) -> bool:
    return any(store.known_uncommitted().counts.values())


def test_a_writer_goes_on_counting_where_it_was(kafka: Cluster) -> None:
    """Killed after a commit that no snapshot knows of: those rows are not counted again."""
    prefix = kafka.tables(2, tuple(ROWS), knows_feeds=True)
    config = KafkaConfig.parse(f"kafka://{kafka.brokers}/{prefix}")
    first = KafkaWriter(config, "w0", "run-1")
    for item in items(10):
        first.write(item)
    state = first.snapshot()
    for item in items(20)[10:]:
        first.write(item)
    first.snapshot()
    first.abandon()
    second = KafkaWriter(config, "w0", "run-1")
    second.restore(state)
    for item in items(30)[10:]:
        second.write(item)
    second.close()
    (held,) = FeedsTopic(config.address, PATIENCE_S).read().counts["w0"].values()
    assert held.rows == {name: 30 * rows for name, rows in ROWS.items()}
    assert held.rows == {name: len(kafka.rows(prefix, name)) for name in ROWS}


def test_of_simultaneous_starts_one_wins(store: TopicStore) -> None:
    children = [started(store, _SHORT) for _ in range(2)]
    said = [child.communicate(timeout=PATIENCE_S)[1] for child in children]
    assert sum(child.returncode == 0 for child in children) == 1, said
    assert store.counts() == store.counted()
    assert len(store.known().entries()) == 1


def test_of_simultaneous_claims_the_last_holds(store: TopicStore) -> None:
    claims = [_claim() for _ in range(4)]
    threads = [threading.Thread(target=store.lineage().claim, args=(c,)) for c in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    known = store.known()
    assert set(known.runs) == {claim.run for claim in claims}
    assert sum(not about["superseded"] for about in known.runs.values()) == 1
    assert len(known.entries()) == 1


def test_a_void_claim_is_taken_over(store: TopicStore) -> None:
    first, second = _claim(), _claim()
    begun = KafkaWriter(store.config, writer_of(first.run, 0))
    holder = store.lineage()
    holder.claim(first)
    begun.snapshot()  # it has begun, and has no rows
    store.lineage().claim(second)
    (entry,) = store.known().entries()
    assert entry.run == second.run
    # The first run, in whatever way it goes on.
    with pytest.raises(SinkError, match="it is shut out"):
        begun.write(items(1)[0])
        begun.snapshot()
    begun.abandon()
    again = KafkaWriter(store.config, writer_of(first.run, 0))
    with pytest.raises(SinkError, match="was replaced by another run, it cannot go on"):
        again.write(items(1)[0])
    again.abandon()
    for go_on in (lambda: holder.claim(first), lambda: holder.complete(first.run, {})):
        with pytest.raises(SinkError, match="was replaced by another run, it cannot go on"):
            go_on()
    # The second has rows: its claim is not void.
    writer = KafkaWriter(store.config, writer_of(second.run, 0))
    writer.write(items(1)[0])
    writer.close()
    with pytest.raises(SinkError, match="in part: a run was cut off"):
        store.lineage().claim(_claim())
    store.lineage().claim(second)
    store.lineage().claim(_claim(8))
    assert len(store.known().entries()) == 2


def test_parts_of_topics_end_where_they_were_read_to(store: TopicStore) -> None:
    def claim(start: int) -> Claim:
        part = {"topic": "t", "partition": 0, "start": start}
        feed = FeedClaim(start, str(start), "{}", f"kafka:{start}", None, (part,), start)
        return Claim(new_run(), "market_data", "1", {}, (feed,))

    first = claim(1)
    lineage = store.lineage()
    lineage.claim(first)
    lineage.complete(first.run, {1: 50})
    (entry,) = store.known().entries()
    assert entry.parts == ({"topic": "t", "partition": 0, "start": 1, "end": 50},)
    with pytest.raises(SinkError, match="already"):
        store.lineage().claim(claim(40))
    store.lineage().claim(claim(50))


def test_a_deployment_without_the_topic(kafka: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    store = TopicStore(kafka, knows_feeds=False)
    run("market_data", [_SHORT], [store.url])
    warnings = [r.getMessage() for r in caplog.records if ".feeds" in r.getMessage()]
    assert len(warnings) == 1
    assert f"marketflow topics --brokers {kafka.brokers} --prefix {store.prefix}" in warnings[0]
    found: Counter[int] = Counter()
    for rows in store.rows().values():
        found.update(feed_of(shard) for shard, _ in rows)
    assert len(found) == 1
