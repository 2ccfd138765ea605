"""``kafka://``: a topic per table, exactly once for readers of committed messages.

Rows of a shard go to partition shard modulo P, in order. They are sent in transactions that are
committed after ``commit_ms`` at the latest, and at every snapshot.

- Unit of parallelism: a process of a run (sinks.lineage.writer_of); its shards are its own.
- The snapshot holds, per partition, the offset after our last message, and per table and shard the
  next row_sequence. Going on, the rows behind those offsets that are committed already are found
  by scanning (sinks.kafka.scan) and are not sent again; a batch that straddles them is cut.
- Rows of ``quality_events`` that show a book without its full state also make a message of
  ``<prefix>.resync_requests`` (schemas.messages.resync), where that topic is there.
- Every transaction with rows also holds their sum by feed, in ``<prefix>.feeds`` where that topic
  is there (sinks.kafka.feeds). A run that was superseded there writes no more.
- Guarantee: exactly once, for consumers with isolation.level=read_committed, across crashes of the
  process, of the brokers and of both; without a recovery folder at least nothing is lost within a
  run. The flow makes the same rows again, so it does not matter that they are cut into other
  messages.
- A run that is started again shuts its earlier processes out (transactional id
  ``marketflow.<prefix>.<writer>``): a frozen one that wakes up again ends with an error. Other runs
  may write to the prefix meanwhile.
  A writer that dies leaves a transaction open, which readers of committed messages wait for: until
  the run is started again, or for ``patience_s`` and a minute.
- Slow brokers block ``write``: memory stays below the library's queue (64 MB) and one transaction.
- Outages are waited out for ``patience_s``, and so is a topic that is not there; a message that is
  refused ends the flow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from marketflow.schemas.fields import Table
from marketflow.schemas.messages import feeds as feeds_topic
from marketflow.schemas.messages import resync
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.kafka import Message
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW
from marketflow.schemas.shards import partition_of_shard
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import QUALITY_EVENTS
from marketflow.schemas.topic_wait import wait_for_topic
from marketflow.sinks import tally as tallies
from marketflow.sinks.errors import SinkError
from marketflow.sinks.kafka import encode as kafka_messages
from marketflow.sinks.kafka.config import KafkaConfig
from marketflow.sinks.kafka.feeds import FeedsTopic, count_message
from marketflow.sinks.kafka.producer import Link, Sent
from marketflow.sinks.kafka.scan import Offsets, Scanner
from marketflow.sinks.marks import Gapless, Marks, copied, highest, mark, of_shards
from marketflow.sinks.writer import RowsLike

log = logging.getLogger("marketflow.kafka")

SNAPSHOT_VERSION: Final = 3
_SCAN_S: Final = 30.0
#: How long a message may wait for others to travel with.
_LINGER_MS: Final = 5


class KafkaWriter:
    """Writer of the topics below one prefix. ``recovery`` identifies the recovery folder that
    snapshots go to, None without one; ``midway``: see sinks.config.Opening.

    Raises SinkError (what was asked cannot be done) and KafkaFailed (outage, refusal).
    """

    def __init__(
        self,
        config: KafkaConfig,
        writer: str = "w0",
        recovery: str | None = None,
        midway: bool = False,
    ) -> None:
        self._config, self._options = config, config.options
        self._writer = writer
        self._run = recovery or ""
        name = f"marketflow.{config.prefix}.{writer}"
        linger_ms = min(_LINGER_MS, config.options.commit_ms // 2)
        self._link = Link(config.address, name, config.options.patience_s, linger_ms)
        # A transaction that another writer left open hides what is behind it until it times out.
        self._scanner = Scanner(self._link, name, self._run, self._link.transaction_s + _SCAN_S)
        self._partitions: dict[str, int] = {}
        self._asks_resync = self._counts_feeds = False
        #: Rows that the writer has sent in its life, for the topic of feeds.
        self._tally: tallies.Tally = {}
        self._offsets: Offsets = {}
        self._taken = Gapless(midway)
        #: Rows that are in the topics already.
        self._written: Marks = {}
        self._encoders: dict[str, Callable[[pa.RecordBatch], Iterator[Message]]] = {}
        self._opened = False
        self._change = threading.Condition()
        self._pause = threading.Event()
        self._closed = False
        self._committed_s = 0.0
        self._failure: BaseException | None = None
        self._committer = threading.Thread(target=self._commit_on_time, name="kafka", daemon=True)

    # -- life ---------------------------------------------------------------------------------

    def fence(self) -> None:
        """Shut out whoever still writes; its open transaction is undone."""
        self._link.open()

    def restore(self, state: Any) -> None:
        """Go on from a snapshot: shut out whoever still writes, find what is there already."""
        if not isinstance(state, tuple) or state[0] != SNAPSHOT_VERSION:
            raise SinkError(
                f"recovery state of the kafka sink is not of format {SNAPSHOT_VERSION}: "
                f"{OTHER_RELEASE}"
            )
        _, partitions, offsets, marks, ahead = state
        self._find_topics(partitions)
        for topic, count in partitions.items():
            if self._partitions.get(topic) != count:
                raise SinkError(
                    f"kafka topic {topic} had {count} partitions when the run was interrupted and "
                    f"has {self._partitions.get(topic, 'none')} now: a shard would change its "
                    f"partition; {START_ANEW}"
                )
        self._become_the_writer()
        # A topic that is younger than the snapshot holds nothing from before it.
        self._offsets = {place: offsets.get(place, 0) for place in self._places()}
        self._taken.restore(marks)
        self._written = highest([ahead, self._scanner.written(self._offsets)])
        self._start()

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """Rows behind the earliest of the offsets are looked for, whoever wrote them."""
        partitions, offsets = states[0][1:3]
        for _, _, others, _, _ in states:
            offsets = {
                place: min(offset, others.get(place, 0)) for place, offset in offsets.items()
            }
        marks = of_shards(highest(state[3] for state in states), keeps)
        # Each has seen rows of the others' shards too, some earlier than others.
        ahead = of_shards(highest(state[4] for state in states), keeps)
        return (SNAPSHOT_VERSION, partitions, offsets, marks, ahead)

    def _open(self) -> None:
        """A fresh start, unless there was a restore."""
        if self._opened:
            return
        self._find_topics()
        self._become_the_writer()
        if self._run:
            self._offsets, again = self._scanner.begin(self._places())
            if again:
                # An earlier start of this run ended before its first snapshot was durable.
                self._written = self._scanner.written(self._offsets)
        self._start()

    def _become_the_writer(self) -> None:
        """Shut out whoever still writes as we do, then go on counting where it was."""
        self._link.open()
        if self._counts_feeds:
            address, patience_s = self._config.address, self._options.patience_s
            feeds = FeedsTopic(address, patience_s, self._link.given_up)
            self._tally = feeds.begin_to_count(self._writer)
            self._link.last = self._count

    def _count(self) -> Sent:
        return count_message(self._config.prefix, self._writer, self._tally)

    def _start(self) -> None:
        self._opened = True
        self._committer.start()

    def _find_topics(self, wanted: Collection[str] = ()) -> None:
        """Find the topics of our tables; ``wanted`` ones, and at least one, are waited for: what
        was created a moment ago may not be known to every broker yet."""
        options = self._options

        def look() -> bool | None:
            self._look()
            return bool(self._partitions.keys() >= set(wanted) and self._partitions) or None

        if not wait_for_topic(
            look,
            lambda: self._no_topic(wanted),
            options.patience_s,
            clock=time.monotonic,
            pause=self._link.given_up.wait,
            tell=log.warning,
        ):
            raise SinkError(self._no_topic(wanted))
        for topic, count in self._partitions.items():
            if options.partitions is not None and count != options.partitions:
                raise SinkError(
                    f"kafka topic {topic} has {count} partitions, the sink says partitions="
                    f"{options.partitions}: say partitions={count} (a new run may use another "
                    "prefix)"
                )

    def _look(self) -> None:
        """Which of our topics there are now. A topic that grows meanwhile stays as it was for us:
        a shard would change its partition."""
        prefix = self._config.prefix
        known = self._link.list_topics()
        topics = {f"{prefix}.{name}" for name in TABLES} & known.keys()
        self._partitions = {topic: known[topic] for topic in topics} | self._partitions
        self._asks_resync = f"{prefix}.{resync.TOPIC}" in known
        self._counts_feeds = f"{prefix}.{feeds_topic.TOPIC}" in known

    def _no_topic(self, wanted: Collection[str]) -> str:
        brokers, prefix = self._config.address.brokers, self._config.prefix
        missing = [topic for topic in wanted if topic not in self._partitions]
        text = f"kafka at {brokers} has no topic {', '.join(missing) or f'{prefix}.<table>'}: "
        text += f"create it with marketflow topics --brokers {brokers} --prefix {prefix}"
        return text + (" (a new run may leave the table out with --tables)" if missing else "")

    def _places(self) -> list[tuple[str, int]]:
        return [(topic, p) for topic, count in self._partitions.items() for p in range(count)]

    # -- rows ---------------------------------------------------------------------------------

    def write(self, rows: RowsLike) -> None:
        """Send the rows of one shard; blocks while the brokers are slower than we are."""
        with self._change:
            self._check()
            self._open()
            try:
                for name, batch in rows.tables.items():
                    if batch.num_rows:
                        self._send(TABLES[name], rows.shard, batch)
            except BaseException as error:  # part of a batch is sent: no clock may commit it
                self._failure = error
                raise
            self._change.notify_all()

    def _send(self, table: Table, shard: int, batch: pa.RecordBatch) -> None:
        batch = self._unwritten(table.name, shard, batch)
        if not batch.num_rows:
            return
        topic = f"{self._config.prefix}.{table.name}"
        if topic not in self._partitions:
            self._find_topics([topic])
        partition = partition_of_shard(shard, self._partitions[topic])
        for message in self._encoder(table)(kafka_messages.cut_raw(batch)):
            self._link.send(topic, partition, message)
        tallies.add_rows(self._tally, table, shard, batch)
        if table.name == QUALITY_EVENTS.name and self._asks_resync:
            self._ask_resync(batch)
        self._link.commit_if_full()

    def _ask_resync(self, events: pa.RecordBatch) -> None:
        """What these rows ask of the recorder, in the same transaction: once, as they are."""
        for request in resync.requests_of(events):
            key, value = resync.to_message(request)
            message = Message(key, value, [], 0)
            self._link.send(f"{self._config.prefix}.{resync.TOPIC}", 0, message)

    def _unwritten(self, table: str, shard: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows that are not in the topic yet."""
        first, _ = self._taken.advance(table, shard, batch)
        return batch.slice(max(0, mark(self._written, table, shard) - first))

    def _encoder(self, table: Table) -> Callable[[pa.RecordBatch], Iterator[Message]]:
        if table.name not in self._encoders:
            self._encoders[table.name] = self._made_encoder(table)
        return self._encoders[table.name]

    def _made_encoder(self, table: Table) -> Callable[[pa.RecordBatch], Iterator[Message]]:
        run = self._run.encode()
        if self._options.format == "arrow":
            return lambda batch: kafka_messages.arrow_messages(table, batch, run)
        values: Callable[[pa.RecordBatch], list[bytes]] = kafka_messages.json_values
        if self._options.format == "avro":
            schema_id = wire_rows.local_schema_id(table)
            if self._options.registry:
                topic = f"{self._config.prefix}.{table.name}"
                schema_id = kafka_messages.registered_id(self._options.registry, topic, table)
            values = kafka_messages.avro_values(table, schema_id)
        return lambda batch: kafka_messages.row_messages(table, batch, run, values(batch))

    # -- commits ------------------------------------------------------------------------------

    def _commit_on_time(self) -> None:
        """Thread: commit what has been open for ``commit_ms``."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._link.pending)
                if self._closed:
                    return
            # Rows that come meanwhile join the transaction; the first one after a rest goes alone.
            due_s = self._committed_s + self._options.commit_ms / 1000
            if self._pause.wait(due_s - time.monotonic()):
                return
            with self._change:
                if self._closed or self._failure is not None:
                    return
                try:
                    self._link.commit()
                    self._committed_s = time.monotonic()
                except BaseException as error:  # it is raised again in the writer's thread
                    self._failure = error
                    return

    def snapshot(self) -> Any:
        """(version, partitions per topic, offsets, marks, marks of rows that are in the topics
        before those offsets and have not come again yet). None without a recovery identity:
        nothing will ever be restored."""
        with self._change:
            self._check()
            self._open()
            self._link.commit()
            if not self._run:
                return None
            self._offsets |= self._link.next_offsets
            return (
                SNAPSHOT_VERSION,
                dict(self._partitions),
                dict(self._offsets),
                copied(self._taken.marks),
                self._ahead(),
            )

    def _ahead(self) -> Marks:
        """One shard may write on while another is still behind what an earlier start had sent: the
        offsets go over that, and it would be sent twice after the next crash."""
        return {
            table: {s: n for s, n in shards.items() if n > mark(self._taken.marks, table, s)}
            for table, shards in self._written.items()
        }

    def idle(self) -> None:
        """Nothing to do: commits have a clock of their own."""
        self._check()

    def close(self) -> None:
        """Commit, and let go."""
        with self._change:
            self._check()
            self._open()
            self._link.commit()
        self._end()

    def finish(self) -> None:
        """Nothing is kept for later."""

    def abandon(self) -> None:
        """Let go without committing; what is open is undone."""
        self._link.given_up.set()
        self._end()
        with self._change:
            self._link.drop()

    def _end(self) -> None:
        self._pause.set()
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._committer.is_alive():
            self._committer.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
