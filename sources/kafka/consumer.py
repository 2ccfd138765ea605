"""One consumer for all partitions that a process reads: outages, refusals, growth of topics.

The engine polls every partition in turn; the first that finds nothing of its own fetches for all.
Rows that wait for their partition's turn are bounded by one batch and the one fetched last.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError

from marketflow.schemas.recovery import START_AGAIN, START_ANEW
from marketflow.sources.errors import FeedFailed, SourceError
from marketflow.sources.kafka.cluster import Cluster, log, refusal
from marketflow.sources.kafka.config import KafkaConfig
from marketflow.sources.kafka.librdkafka import Consumer, Event, Part, Place
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

_POLL_MS: Final = 5
_FIRST_ASK: Final = 256
_FETCH_BYTES: Final = 4 << 20
#: Between looks at the topics: deleted, created anew, grown?
WATCH_S: Final = 15.0
#: Fetched messages that a consumer keeps.
QUEUE_KB: Final = 65_536
_CONFIG: Final[dict[str, str | int]] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # Without these the client rests for a second whenever its queue was full for a moment.
    "fetch.queue.backoff.ms": 2,
    "queued.min.messages": 1_000_000,
    "fetch.message.max.bytes": 4 << 20,
    "log_level": 0,
}
REMEDY: Final = (
    "raise the topic's retention (retention.ms, retention.bytes), and to go on with what is left "
    f"(from=earliest) {START_ANEW}"
)


class ConsumerPool:
    """Consumers that the Kafka feeds of a process share: one per cluster, group and kind of end."""

    def __init__(
        self,
        stop: threading.Event,
        limits: Limits = DEFAULT_LIMITS,
        watch_s: float = WATCH_S,
        queue_kb: int = QUEUE_KB,
    ) -> None:
        self.stop = stop
        self.queue_kb = queue_kb
        self.limits = limits
        self.watch_s = watch_s
        #: Why the run stops and must be started again; None: it does not.
        self.restart: str | None = None
        self._fetchers: dict[tuple[Any, ...], Fetcher] = {}

    def fetcher(self, config: KafkaConfig) -> Fetcher:
        """The consumer of this feed; opened at the first call."""
        key = (config.address, config.group, config.end is not None)
        if key not in self._fetchers:
            self._fetchers[key] = Fetcher(config, self, lambda: self._fetchers.pop(key, None))
        return self._fetchers[key]

    def ask_restart(self, reason: str) -> None:
        """Stop every feed where it is; the reason is for the operator."""
        self.restart = self.restart or reason
        log.warning("%s", reason)
        self.stop.set()


class PartitionReader(Protocol):
    """Reader of one partition, as its fetcher sees it."""

    place: Place
    bounded: bool

    def caught_up(self, offset: int) -> None:
        """Note that every message before ``offset`` was polled."""
        ...


class Fetcher:
    """One consumer and the rows it has fetched for each partition."""

    def __init__(
        self, config: KafkaConfig, pool: ConsumerPool, forget: Callable[[], object]
    ) -> None:
        self.pool = pool
        self.cluster = Cluster(config.address, config.group, pool.stop, config.patience_s)
        self._patience_s = config.patience_s
        self._forget = forget
        self._readers: dict[Place, PartitionReader] = {}
        self._waiting: dict[Place, deque[Part]] = {}
        self._rows = 0
        self._ask = _FIRST_ASK
        self._emitted = 0
        self._down = threading.Event()
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self._topic_ids: dict[str, str] = {}
        #: Partitions of each topic, as the cluster told last.
        self.counts: dict[str, int] = {}
        settings = {
            **_CONFIG,
            **config.address.config(),
            "group.id": config.group,
            "queued.max.messages.kbytes": pool.queue_kb,
            # Only a feed with an end needs to know where a partition ends now, and then soon.
            "enable.partition.eof": str(config.end is not None).lower(),
            "fetch.wait.max.ms": 500 if config.end is None else 20,
        }
        self._consumer = Consumer(settings, self._on_error, pool.limits.max_rows)
        self._watch = threading.Thread(target=self._watch_cluster, name="kafka", daemon=True)

    # -- life ---------------------------------------------------------------------------------

    def topic(self, name: str) -> str:
        """The topic's id; from now on its partitions are counted. SourceError without a topic."""
        if name not in self.counts:
            self.counts[name] = self.cluster.partitions(name)
            self._topic_ids[name] = self.cluster.topic_id(name)
            if not self._watch.is_alive():
                self._watch.start()
        return self._topic_ids[name]

    def join(self, reader: PartitionReader) -> None:
        """Register the reader of a partition."""
        self._readers[reader.place] = reader

    def begin(self, place: Place, offset: int) -> None:
        """Fetch a partition from this offset on."""
        self._waiting[place] = deque()
        self._consumer.add([(*place, offset)])

    def end(self, place: Place) -> None:
        """Stop fetching a partition."""
        waiting = self._waiting.pop(place, None)
        if waiting is not None:
            self._rows -= sum(part.frames.num_rows for part in waiting)
            self._consumer.remove(place)

    def leave(self, reader: PartitionReader) -> None:
        """Unregister a reader; the last one closes the consumer."""
        if self._readers.pop(reader.place, None) is None:
            return
        self.end(reader.place)
        if not self._readers:
            self._closed.set()
            self._down.set()
            self._consumer.close()
            if self._watch.is_alive():
                self._watch.join()
            self.cluster.close()
            self._forget()

    # -- messages -----------------------------------------------------------------------------

    def poll(self, place: Place, seen: int) -> tuple[Part | None, int]:
        """The next messages of a partition, or None, and a number to pass to the next call.

        The call waits, for five milliseconds at most, only if no partition had messages since
        ``seen``: an idle partition delays no other.
        """
        if self._failure is not None:
            raise self._failure
        waiting = self._waiting[place]
        if not waiting and self._rows < self.pool.limits.max_rows:
            idle = seen == self._emitted and not self._rows
            self._fetch(_POLL_MS if idle else 0)
        if not waiting:
            return None, self._emitted
        part = waiting.popleft()
        self._rows -= part.frames.num_rows
        self._emitted += 1
        return part, self._emitted

    def _fetch(self, timeout_ms: int) -> None:
        fetched = self._consumer.fetch(self._ask, timeout_ms)
        rows = 0
        for place, part in fetched.parts.items():
            # A partition that was just left may still have messages on their way.
            if place in self._waiting:
                self._waiting[place].append(part)
                rows += part.frames.num_rows
        self._rows += rows
        if rows:
            fits = max(1, _FETCH_BYTES * rows // max(fetched.bytes, 1))
            self._ask = min(fits, self.pool.limits.max_rows)
        for event in fetched.events:
            self._on_event(event)
        if self._failure is not None:
            raise self._failure

    def _on_event(self, event: Event) -> None:
        reader = self._readers.get((event.topic, event.partition))
        where = f"{event.topic}[{event.partition}]"
        brokers = self.cluster.address.brokers
        match event.code:
            case KafkaError._PARTITION_EOF:
                if reader is not None:
                    reader.caught_up(event.offset)
            case KafkaError._AUTO_OFFSET_RESET:
                raise SourceError(
                    f"kafka at {brokers}: {where} no longer has what comes next: {event.text}; "
                    + REMEDY
                )
            case KafkaError.UNKNOWN_TOPIC_OR_PART | KafkaError._UNKNOWN_TOPIC:
                raise self._gone(event.topic)
            case code if (error := refusal(self.cluster.address, code, event.text)) is not None:
                raise error
            case _:
                # The library tries again by itself; whether it may, the outage watch decides.
                self._on_error(event.code, f"{where}: {event.text}")

    # -- outages and growth -------------------------------------------------------------------

    def _on_error(self, code: int, reason: str) -> None:
        self.cluster.note(code, reason)
        self._failure = self._failure or refusal(self.cluster.address, code, reason)
        self._down.set()

    def _watch_cluster(self) -> None:
        """Thread: check the cluster after every error, and every ``watch_s``."""
        while not self._closed.is_set():
            wrong = self._down.wait(self.pool.watch_s)
            if self._closed.is_set():
                return
            self._down.clear()
            try:
                if wrong:
                    started = time.monotonic()
                    answers = self.cluster.ask(_answers, self._patience_s, "reading")
                    assert answers
                    waited_s = time.monotonic() - started
                    if waited_s > 1.0:
                        log.warning(
                            "kafka at %s answers again after %.0f s",
                            self.cluster.address.brokers, waited_s,
                        )  # fmt: skip
                self._look_after_topics()
            except (FeedFailed, SourceError) as error:
                self._failure = error
                return

    def _gone(self, topic: str) -> FeedFailed:
        return FeedFailed(
            f"kafka at {self.cluster.address.brokers}: topic {topic} was deleted while it was "
            f"read; what was read is safe. Create it again and {START_ANEW}"
        )

    def _look_after_topics(self) -> None:
        """Check for topics that were deleted, created anew or grown, if a broker answers."""
        found = self.cluster.counts()
        if found is None:
            return
        for topic, before in list(self.counts.items()):
            if topic not in found:
                raise self._gone(topic)
            topic_id = self.cluster.topic_id(topic)
            if topic_id and topic_id != self._topic_ids[topic]:
                raise self._gone(topic)
            count = found[topic]
            if count <= before:
                continue
            self.counts[topic] = count
            log.warning("kafka topic %s has %d partitions, %d before", topic, count, before)
            slots = [partition for name, partition in list(self._readers) if name == topic]
            bounded = any(r.bounded for r in list(self._readers.values()) if r.place[0] == topic)
            if not bounded and count - 1 > max(slots, default=-1):
                self.pool.ask_restart(
                    f"kafka topic {topic} has {count} partitions now, more than this run has room "
                    f"for: {START_AGAIN}"
                )


def _answers(client: Any, timeout_s: float) -> bool:
    client.list_topics(timeout=timeout_s)
    return True
