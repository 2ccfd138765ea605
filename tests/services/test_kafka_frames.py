"""Raw topics on a real broker: what comes out, from where to where, and after every mishap."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.sources.errors import FeedFailed, SourceError
from tests.reference.kafka import Row, read_frames
from tests.support.patience import PATIENCE_S, until
from tests.support.services.topics import Cluster, Reading, frames_of, read_all

pytestmark = pytest.mark.services
_START_NS = 1_700_000_000_000_000_000


def frames(rows: int, seed: int = 1, connections: int = 3) -> pa.RecordBatch:
    """Frames of all kinds, as a recorder has them."""
    chance = random.Random(seed)
    kinds = [FrameKind.DATA] * 20 + [
        kind for kind in FrameKind if kind not in (FrameKind.END, FrameKind.DATA)
    ]
    picked = [chance.choice(kinds) for _ in range(rows)]
    return pa.RecordBatch.from_pydict(
        {
            "offset": np.arange(rows),
            "ts_recv": _START_NS + np.arange(rows) * 1_000_003,
            "kind": np.array(picked, np.int8),
            "connection": pa.array(
                [f"conn-{chance.randrange(connections)}ü" for _ in range(rows)]
            ).dictionary_encode(),
            "note": [None if k == FrameKind.DATA else f"note {k} €" for k in picked],
            "payload": [chance.randbytes(chance.randrange(300)) for _ in range(rows)],
        },
        schema=FRAMES,
    )


def url(kafka: Cluster, topic: str, query: str = "") -> str:
    return f"kafka://{kafka.brokers}/{topic}?venue=binance{query}"


def end(offset: int) -> Row:
    return (offset, 0, int(FrameKind.END), "", None, b"")


@pytest.fixture
def hundred(kafka: Cluster) -> str:
    """A topic of one partition with 100 messages, a millisecond apart."""
    topic = kafka.topic()
    kafka.record(topic, frames(100, connections=1))
    return topic


@pytest.mark.parametrize("max_rows", [1, 7, 5000])
def test_every_frame_comes_back_as_it_was(kafka: Cluster, max_rows: int) -> None:
    topic = kafka.topic(3)
    sent = frames(700, connections=7)
    kafka.record(topic, sent)
    found: list[Row] = []
    for partition in range(3):
        rows = read_all(url(kafka, topic, "&to=latest"), partition, max_rows=max_rows)
        assert rows[:-1] == read_frames(kafka.brokers, topic, partition)
        assert rows[-1] == end(len(rows) - 1)
        assert [row[0] for row in rows] == list(range(len(rows)))
        found += rows[:-1]
    expected = frames_of([sent])
    assert sorted(row[1:] for row in found) == sorted(row[1:] for row in expected)
    for connection in {row[3] for row in expected}:
        of_it = [row[1:] for row in expected if row[3] == connection]
        assert [row[1:] for row in found if row[3] == connection] == of_it


def test_messages_of_others(kafka: Cluster) -> None:
    """No headers, other headers, keys that are no text, no value at all, words we do not know."""
    topic = kafka.topic()
    kafka.send(topic, [b"plain"], timestamp=1_700_000_000_123)
    kafka.send(topic, [b"x"], key=b"\xff\xfe", headers=[("ts_recv", b"short"), ("k", None)])
    kafka.send(topic, [b"y"], headers=[("kind", b"surprise")])
    kafka.send(topic, [b"z"], headers=[("kind", b"end")])
    kafka.send(topic, [None, b""])  # type: ignore[list-item]
    kafka.send(topic, [b"h"], headers=[("kind", b"http"), ("note", b"\xff"), ("kin", b"x")])
    rows = read_all(url(kafka, topic, "&to=latest"))
    assert rows[0][1:] == (1_700_000_000_123_000_000, 0, "", None, b"plain")
    assert rows[1][2:] == (FrameKind.DATA, "\\xff\\xfe", None, b"x")
    for row, word in ((rows[2], "surprise"), (rows[3], "end")):
        assert row[2] == FrameKind.BROKEN
        assert f"{word!r}, no kind of a frame" in str(row[4])
    assert [row[5] for row in rows[4:6]] == [b"", b""]
    assert rows[6][2:] == (FrameKind.HTTP, "", "�", b"h")


def test_where_a_feed_starts_and_ends(kafka: Cluster, hundred: str) -> None:
    stamps = [row[1] for row in read_frames(kafka.brokers, hundred, 0)]

    def offsets(query: str) -> list[int]:
        return [row[0] for row in read_all(url(kafka, hundred, query))]

    def moment(row: int) -> str:
        """The time of a row's message; rows are more than a millisecond apart."""
        return datetime.fromtimestamp(stamps[row] // 1_000_000 / 1000, UTC).isoformat()

    whole = list(range(101))
    assert offsets("&to=latest") == whole
    assert offsets("&from=earliest&to=100") == whole
    assert offsets("&from=latest&to=latest") == [100]
    assert offsets("&from=40&to=45") == [40, 41, 42, 43, 44, 45]
    assert offsets("&from=0:99&to=0:100") == [99, 100]
    assert offsets(f"&from={moment(30)}&to={moment(33)}") == [30, 31, 32, 33]
    assert offsets(f"&from={moment(99)}&to=2024-01-01") == [99, 100]
    assert offsets("&from=2024-01-01&to=latest") == [100]
    assert offsets("&from=50&to=50") == [50]
    assert offsets("&from=50&to=10") == [50]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("&from=101", "offset 101 is not in"),
        ("&from=1:5", "gives no offset for partition 0"),
        ("&from=0&to=1:5", "to gives no offset for partition 0"),
    ],
)
def test_starts_that_are_not_there(kafka: Cluster, hundred: str, query: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        Reading(url(kafka, hundred, query))


def test_an_end_that_is_still_to_come(kafka: Cluster) -> None:
    """By message: the first one at or past the time ends the feed. By clock: nothing comes."""
    for first_late, payloads in ((2, [b"a", b"b", b"late", b"c"]), (2, [b"a", b"b"])):
        topic = kafka.topic()
        now_ms = time.time_ns() // 1_000_000
        until_ms = now_ms + 1500
        until = datetime.fromtimestamp(until_ms / 1000, UTC).isoformat()
        reading = Reading(url(kafka, topic, f"&to={until}"))
        for payload in payloads:
            kafka.send(topic, [payload], timestamp=until_ms if payload == b"late" else now_ms)
        rows = reading.all()
        reading.close()
        assert [row[5] for row in rows] == [b"a", b"b", b""]
        assert rows[-1] == end(first_late)


def test_going_on_from_any_position(kafka: Cluster, hundred: str) -> None:
    where = url(kafka, hundred, "&to=97")
    expected = read_all(where)
    chance = random.Random(3)
    for _ in range(3):
        found: list[Row] = []
        position: Any = None
        while True:
            reading = Reading(where, 0, position, max_rows=chance.randrange(1, 40))
            for _ in range(chance.randrange(1, 60)):
                batch = reading.reader.read()
                found += [] if batch is None else frames_of([batch])
            position = reading.reader.position()
            reading.close()
            if batch is None:
                break
        assert found == expected
    # After the END frame there is nothing, not a second one.
    reading = Reading(where, 0, position)
    assert reading.reader.read() is None
    reading.close()


def test_all_partitions_are_served_by_one_consumer(kafka: Cluster) -> None:
    topic = kafka.topic(4)
    for partition in range(4):
        kafka.send(topic, [b"%d-%d" % (partition, n) for n in range(500)], partition)
    first = Reading(url(kafka, topic, "&to=latest"), 0, max_rows=64)
    readers = [first.reader, *(first.beside(partition) for partition in (1, 2, 3))]
    assert len(first.pool._fetchers) == 1
    found: dict[int, list[bytes]] = {0: [], 1: [], 2: [], 3: []}
    live = dict(enumerate(readers))
    deadline = time.monotonic() + PATIENCE_S
    while live:
        assert time.monotonic() < deadline
        for partition, reader in list(live.items()):
            batch = reader.read()
            if batch is None:
                del live[partition]
            else:
                found[partition] += batch.column("payload").to_pylist()
    for partition in range(4):
        assert found[partition][:-1] == [b"%d-%d" % (partition, n) for n in range(500)]
    for reader in readers:
        reader.close()
    assert not first.pool._fetchers


def test_markers_of_transactions_do_not_hide_the_end(kafka: Cluster) -> None:
    topic = kafka.topic()
    producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": topic})
    producer.init_transactions(PATIENCE_S)
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number)
        producer.flush(PATIENCE_S)
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.abort_transaction(PATIENCE_S)
    rows = read_all(url(kafka, topic, "&to=latest"))
    assert [row[5] for row in rows] == [b"0", b"2", b""]
    assert rows[-1] == end(6)


def test_the_group_is_told_where_we_are(kafka: Cluster, hundred: str) -> None:
    group = f"lag-{hundred}"
    reading = Reading(url(kafka, hundred, f"&group={group}"))
    reading.rows(100)
    reading.reader.commit(reading.reader.position())
    until(lambda: kafka.told(group, hundred, 1) == 100)
    reading.close()


# -- mishaps --------------------------------------------------------------------------------------


def test_a_position_that_retention_removed_is_refused(kafka: Cluster, hundred: str) -> None:
    reading = Reading(url(kafka, hundred), max_rows=10)
    reading.rows(10)
    position = reading.reader.position()
    reading.close()
    kafka.forget(hundred, 0, 60)
    with pytest.raises(SourceError, match=r"begins at offset 60.*removed \d+ messages.*retention"):
        Reading(url(kafka, hundred), 0, position)
    assert [row[0] for row in read_all(url(kafka, hundred, "&to=latest"))] == [*range(60, 101)]


def test_messages_removed_while_they_were_still_to_come(kafka: Cluster, hundred: str) -> None:
    reading = Reading(url(kafka, hundred))
    kafka.send(hundred, [b"x"] * 50)
    kafka.forget(hundred, 0, 140)
    try:
        rows = reading.rows(150)
    except SourceError as error:
        assert "no longer has what comes next" in str(error)
    else:  # they were in memory before they were removed
        assert [row[0] for row in rows] == list(range(150))
    reading.close()


def test_no_such_topic(kafka: Cluster, hundred: str) -> None:
    with pytest.raises(SourceError, match=rf"no topic {hundred}x: did you mean {hundred}\?"):
        Reading(url(kafka, f"{hundred}x", "&patience_s=5"))
    with pytest.raises(SourceError, match="create it with marketflow topics --brokers"):
        Reading(url(kafka, "nothing-like-it", "&patience_s=5"))


def test_a_topic_that_comes_while_it_is_waited_for(
    kafka: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{kafka.topic()}.later"

    def make() -> None:
        until(lambda: "Waiting for it" in caplog.text)
        kafka.topic(1, name)

    maker = threading.Thread(target=make)
    maker.start()
    reading = Reading(url(kafka, name))
    maker.join()
    reading.close()


def test_a_topic_deleted_while_it_is_read(kafka: Cluster, hundred: str) -> None:
    reading = Reading(url(kafka, hundred))
    reading.rows(100)
    position = reading.reader.position()
    kafka.delete(hundred)
    with pytest.raises(FeedFailed, match="was deleted while it was read"):
        reading.rows(1)
    reading.close()
    kafka.topic(name=hundred)
    kafka.send(hundred, [b"x"] * 200)
    with pytest.raises(SourceError, match="deleted and created anew"):
        Reading(url(kafka, hundred), 0, position)


def test_partitions_that_are_added_are_read_from_their_start(kafka: Cluster) -> None:
    topic = kafka.topic(1)
    kafka.send(topic, [b"old"] * 5)
    first = Reading(url(kafka, topic, "&from=latest"), 0)
    spare = first.beside(1, late=True)
    assert spare.read().num_rows == 0
    assert spare.position()[1] == -1
    kafka.grow(topic, 2)
    kafka.send(topic, [b"new-%d" % n for n in range(20)], 1)
    found: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < 20:
        assert time.monotonic() < deadline
        assert first.reader.read().num_rows == 0
        found += spare.read().column("payload").to_pylist()
    assert found == [b"new-%d" % n for n in range(20)]
    assert first.pool.restart is None
    # There is no third reader: the run must be told to start again.
    kafka.grow(topic, 3)
    assert first.stop.wait(PATIENCE_S)
    assert "has 3 partitions now" in str(first.pool.restart)
    spare.close()
    first.close()


def test_a_wrong_password_is_said_as_such(kafka: Cluster, hundred: str) -> None:
    sasl = f"kafka://127.0.0.1:{kafka.service.sasl_port}/{hundred}?venue=binance&to=latest"
    let_in = f"&security=sasl_plaintext&username=marketflow&password={kafka.service.sasl_password}"
    assert len(read_all(sasl + let_in)) == 101
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"Authentication failed.*check the username") as caught:
        Reading(sasl + "&security=sasl_plaintext&username=marketflow&password=hunter2")
    assert "hunter2" not in str(caught.value)
    assert time.monotonic() - started < 30  # an outage would be waited out for five minutes


def test_nobody_there(hundred: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FeedFailed, match=r"does not answer \(partitions of .*Connection refused"):
        Reading("kafka://127.0.0.1:9/raw.binance?patience_s=3")
    assert "waiting for kafka at 127.0.0.1:9" in caplog.text


def test_a_broker_that_is_killed_and_comes_back(
    kafka: Cluster, hundred: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is patient misses nothing; who is not ends with an error."""
    topic = kafka.topic()
    sent = frames(3000, connections=1)
    kafka.record(topic, sent.slice(0, 2000))
    patient = Reading(url(kafka, topic), max_rows=50)
    impatient = Reading(url(kafka, hundred, "&patience_s=5"))
    found = patient.rows(500)
    impatient.rows(100)
    kafka.kill()
    found += patient.rows(100)
    with pytest.raises(FeedFailed, match=r"does not answer \(reading\)"):
        impatient.rows(1)
    impatient.close()

    def come_back() -> None:
        until(lambda: "waiting for kafka" in caplog.text)
        kafka.restart()
        kafka.record(topic, sent.slice(2000))

    helper = threading.Thread(target=come_back)
    helper.start()
    found += patient.rows(3000 - len(found))
    helper.join()
    patient.close()
    assert [row[1:] for row in found] == [row[1:] for row in frames_of([sent])]
    assert "waiting for kafka" in caplog.text


def test_a_broker_that_freezes_for_a_while(kafka: Cluster) -> None:
    topic = kafka.topic()
    kafka.send(topic, [b"%d" % n for n in range(1000)])
    reading = Reading(url(kafka, topic), max_rows=50)
    found = reading.rows(200)
    kafka.freeze(2.0)
    kafka.send(topic, [b"%d" % n for n in range(1000, 1200)])
    found += reading.rows(1200 - len(found))
    reading.close()
    assert [row[5] for row in found] == [b"%d" % n for n in range(1200)]
