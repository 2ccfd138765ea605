"""The Kafka sink on a real broker: every row once, whoever dies, freezes or comes back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketflow.sinks.errors import KafkaFailed, SinkError
from marketflow.sinks.kafka.writer import KafkaWriter
from tests.reference.kafka import read_messages
from tests.support.chance import chance
from tests.support.patience import PATIENCE_S, until
from tests.support.services.kafka_writing import ROWS, expected, items, pieces, sink
from tests.support.services.small_flow import ITEMS, killed
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
_TABLES = tuple(ROWS)


@pytest.fixture
def prefix(kafka: Cluster) -> str:
    """Topics of the tables that are written here, two partitions each."""
    return kafka.tables(2, _TABLES)


def stored(kafka: Cluster, prefix: str) -> dict[str, list[dict[str, Any]]]:
    return {name: kafka.rows(prefix, name) for name in _TABLES}


def write(writer: KafkaWriter, first: int, last: int) -> None:
    luck = chance()
    for item in items(last)[first:]:
        for piece in pieces(item, luck):
            writer.write(piece)


@pytest.mark.parametrize(("chosen", "kills"), [("arrow", 4), ("json", 2)])
def test_the_writing_process_is_killed_at_random_moments(
    kafka: Cluster, prefix: str, tmp_path: Path, chosen: str, kills: int
) -> None:
    landed = killed(
        "tests.support.services.kafka_writing", kafka.brokers, prefix, str(tmp_path), chosen,
        kills=kills, longest_s=0.7,
    )  # fmt: skip
    assert landed
    assert stored(kafka, prefix) == expected()


def test_rows_after_the_snapshot_are_found_and_not_sent_again(kafka: Cluster, prefix: str) -> None:
    first = sink(kafka.brokers, prefix)
    write(first, 0, 20)
    state = first.snapshot()
    write(first, 20, 31)
    first.snapshot()
    write(first, 31, 33)
    first.abandon()
    second = sink(kafka.brokers, prefix)
    second.restore(state)
    write(second, 20, 40)
    second.close()
    assert stored(kafka, prefix) == expected(40)
    # The messages of what was there already are still the first ones.
    messages = read_messages(kafka.brokers, f"{prefix}.trades", 0)
    assert {dict(m.headers())["run"] for m in messages} == {b"run-1"}


def test_shards_that_come_again_at_different_paces(kafka: Cluster) -> None:
    """One shard is beyond what the first start had sent, and snapshotted; the other, in the same
    partition, is behind."""
    prefix = kafka.tables(1, _TABLES)
    ahead, behind = (item for item in items(2))
    more = items(5)[3]
    assert (ahead.shard, behind.shard, more.shard) == (0, 1, 0)
    first = sink(kafka.brokers, prefix)
    state = first.snapshot()
    first.write(ahead)
    first.write(behind)
    first.snapshot()
    first.abandon()
    for moves in (False, True):
        second = sink(kafka.brokers, prefix)
        second.restore(state)
        if not moves:
            second.write(ahead)
            second.write(more)
        state = second.snapshot()
        second.abandon()
        state = second.reassign([state], lambda _: True) if moves else state
    third = sink(kafka.brokers, prefix)
    third.restore(state)
    third.write(behind)
    third.close()
    for name, rows in ROWS.items():
        assert len(kafka.rows(prefix, name, 1)) == 3 * rows, name


def test_a_shard_that_moves_takes_along_what_anybody_has_seen_of_it(
    kafka: Cluster, prefix: str
) -> None:
    """Writers of one run read each other's rows when they go on, each as far as they were then."""
    empty = sink(kafka.brokers, prefix).snapshot()
    states = [(*empty[:4], {"trades": {1: seen}, "quotes": {2: 3}}) for seen in (9, 5)]
    for order in (states, states[::-1]):
        moved = sink(kafka.brokers, prefix).reassign(order, lambda shard: shard == 1)
        assert moved == (*empty[:4], {"trades": {1: 9}, "quotes": {}})


def test_a_crash_before_the_first_snapshot(kafka: Cluster, prefix: str) -> None:
    """The run starts anew and finds what its first attempt left; another run does not."""
    before = sink(kafka.brokers, prefix, run=None)
    before.close()
    first = sink(kafka.brokers, prefix)
    write(first, 0, 9)
    first._link.commit()
    first.abandon()
    again = sink(kafka.brokers, prefix)
    write(again, 0, 12)
    again.close()
    assert stored(kafka, prefix) == expected(12)
    other = sink(kafka.brokers, prefix, run="run-2")
    write(other, 0, 1)
    other.close()
    newest = read_messages(kafka.brokers, f"{prefix}.trades", 0)[-1]
    assert dict(newest.headers())["run"] == b"run-2"


def test_a_zombie_is_shut_out(kafka: Cluster, prefix: str) -> None:
    zombie = sink(kafka.brokers, prefix, "?commit_ms=60000")
    write(zombie, 0, 10)
    state = zombie.snapshot()
    write(zombie, 10, 15)  # not committed: it froze here
    topic, deadline = f"{prefix}.trades", time.monotonic() + PATIENCE_S
    committed = len(read_messages(kafka.brokers, topic, 0, visible_s=3.0))
    while len(read_messages(kafka.brokers, topic, 0, "read_uncommitted")) <= committed:
        assert time.monotonic() < deadline
    successor = sink(kafka.brokers, prefix)
    successor.restore(state)
    with pytest.raises(SinkError, match="another run writes as"):
        write(zombie, 15, 16)
        zombie.snapshot()
    zombie.abandon()
    write(successor, 10, 20)
    successor.close()
    assert stored(kafka, prefix) == expected(20)
    everything = read_messages(kafka.brokers, topic, 0, "read_uncommitted")
    assert len(everything) > len(read_messages(kafka.brokers, topic, 0))


def test_a_frozen_process_wakes_up_too_late(kafka: Cluster, prefix: str, tmp_path: Path) -> None:
    module = "tests.support.services.kafka_writing"
    command = [sys.executable, "-m", module, kafka.brokers, prefix, str(tmp_path)]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == "ready\n"
    with kafka.ends(f"{prefix}.{_TABLES[0]}", 2) as ends:
        until(lambda: any(ends()), "nothing is written")
    frozen.send_signal(signal.SIGSTOP)
    successor = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE_S)
    assert successor.returncode == 0
    frozen.send_signal(signal.SIGCONT)
    _, errors = frozen.communicate(timeout=PATIENCE_S)
    if frozen.returncode != 0:  # else it had written everything before it was frozen
        assert "another run writes as" in errors
    assert stored(kafka, prefix) == expected()


def in_background(work: Callable[[], None]) -> Callable[[], None]:
    """Run ``work`` in a thread; call the result to wait for it and raise what it raised."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()

    def join() -> None:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        for failure in failures:
            raise failure

    return join


@pytest.mark.parametrize("mishap", ["killed", "frozen"])
def test_the_broker_is_away_in_the_middle(kafka: Cluster, prefix: str, mishap: str) -> None:
    """Who is patient goes on; who is not ends with an error, loses nothing, and goes on later."""
    other = kafka.tables(2, _TABLES)
    away = threading.Event()
    writer = sink(kafka.brokers, prefix, "?commit_ms=20")
    impatient = sink(kafka.brokers, other, "?patience_s=5")
    write(impatient, 0, 10)
    state = impatient.snapshot()

    luck = chance()

    def work() -> None:
        for number, item in enumerate(items(150)):
            for piece in pieces(item, luck):
                writer.write(piece)
            if number == 40:
                away.set()
            time.sleep(0.01)
        writer.snapshot()
        writer.close()

    join = in_background(work)
    assert away.wait(PATIENCE_S)
    if mishap == "frozen":
        kafka.freeze(3.0)
    else:
        kafka.kill()
        try:
            with pytest.raises(KafkaFailed, match=r"does not answer.*nothing is lost or doubled"):
                write(impatient, 10, ITEMS)
                impatient.snapshot()
        finally:
            kafka.restart()
    join()
    impatient.abandon()
    assert stored(kafka, prefix) == expected(150)
    resumed = sink(kafka.brokers, other)
    resumed.restore(state)
    write(resumed, 10, 30)
    resumed.close()
    assert stored(kafka, other) == expected(30)


# -- what cannot be -------------------------------------------------------------------------------


def test_topics_that_are_missing(kafka: Cluster, prefix: str) -> None:
    nothing = sink(kafka.brokers, "nowhere", "?patience_s=5")
    with pytest.raises(SinkError, match=r"no topic nowhere\.<table>.*marketflow topics"):
        write(nothing, 0, 1)
    nothing.abandon()
    less = kafka.tables(2, ("quotes", "dead_letters"))
    writer = sink(kafka.brokers, less, "?patience_s=5")
    with pytest.raises(SinkError, match=rf"no topic {less}\.trades: .*leave the table out"):
        write(writer, 0, 1)
    writer.abandon()
    wrong = sink(kafka.brokers, prefix, "?partitions=3")
    with pytest.raises(SinkError, match="say partitions=2"):
        write(wrong, 0, 1)
    wrong.abandon()


def test_topics_that_come_while_they_are_waited_for(
    kafka: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other, as a busy cluster gets to know them."""
    prefix = f"{kafka.topic()}.later"
    writer = sink(kafka.brokers, prefix)
    join = in_background(lambda: write(writer, 0, 5))
    for name in _TABLES:
        until(lambda: caplog.messages and "giving up" in caplog.messages[-1])
        assert (
            f"has no topic {prefix}.{'<table>' if name == _TABLES[0] else name}: create"
            in (caplog.messages[-1])
        )
        caplog.clear()
        kafka.topic(2, f"{prefix}.{name}")
    join()
    writer.close()
    assert stored(kafka, prefix) == expected(5)
    # Nobody waits for a topic when the run is over.
    stopped = sink(kafka.brokers, "nowhere")
    caplog.clear()
    join = in_background(lambda: write(stopped, 0, 1))
    until(lambda: "giving up" in caplog.text)
    stopped._link.given_up.set()
    with pytest.raises(SinkError, match=r"no topic nowhere\.<table>"):
        join()
    stopped.abandon()


def test_topics_that_are_not_what_the_run_left(kafka: Cluster, prefix: str) -> None:
    writer = sink(kafka.brokers, prefix)
    write(writer, 0, 10)
    state = writer.snapshot()
    write(writer, 10, 12)
    writer.close()
    kafka.forget(f"{prefix}.quotes", 0, _end(kafka, f"{prefix}.quotes"))
    resumed = sink(kafka.brokers, prefix)
    with pytest.raises(SinkError, match="retention has removed"):
        resumed.restore(state)
    resumed.abandon()
    for name in _TABLES:
        kafka.delete(f"{prefix}.{name}")
        kafka.topic(2, f"{prefix}.{name}")
    resumed = sink(kafka.brokers, prefix)
    with pytest.raises(SinkError, match="created anew"):
        resumed.restore(state)
    resumed.abandon()
    kafka.grow(f"{prefix}.trades", 3)
    resumed = sink(kafka.brokers, prefix)
    with pytest.raises(SinkError, match="had 2 partitions when the run was interrupted and has 3"):
        resumed.restore(state)
    resumed.abandon()


def _end(kafka: Cluster, topic: str) -> int:
    return read_messages(kafka.brokers, topic, 0, "read_uncommitted")[-1].offset() + 1


def test_a_topic_deleted_while_it_is_written(kafka: Cluster, prefix: str) -> None:
    writer = sink(kafka.brokers, prefix)
    write(writer, 0, 3)
    writer.snapshot()
    kafka.delete(f"{prefix}.quotes")
    with pytest.raises(SinkError, match="the topic was deleted: create it"):
        for number in range(3, ITEMS):
            write(writer, number, number + 1)
            writer.snapshot()
    writer.abandon()


def test_wrong_password(kafka: Cluster, prefix: str) -> None:
    brokers = f"127.0.0.1:{kafka.service.sasl_port}"
    sasl = "?security=sasl_plaintext&username=marketflow&password="
    writer = sink(brokers, prefix, sasl + "hunter2")
    with pytest.raises(SinkError, match=r"Authentication failed.*check the username") as caught:
        write(writer, 0, 1)
    assert "hunter2" not in str(caught.value)
    writer.abandon()
    writer = sink(brokers, prefix, sasl + kafka.service.sasl_password)
    write(writer, 0, 5)
    writer.close()
    assert stored(kafka, prefix) == expected(5)


def test_rows_become_visible_soon(kafka: Cluster, prefix: str) -> None:
    writer = sink(kafka.brokers, prefix, "?commit_ms=50", run=None)
    write(writer, 0, 1)
    deadline = time.monotonic() + PATIENCE_S
    while stored(kafka, prefix) != expected(1):
        assert time.monotonic() < deadline
    writer.close()
