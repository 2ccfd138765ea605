"""Questions to a Kafka cluster besides messages: topics, ends, times, lag.

Wait out an outage with growing pauses, and log what is waited for, why, and for how long still.
An outage beyond the patience is an error. A refusal (wrong password, no permission) is an error at
once, with the broker's own reason.
"""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from marketflow.schemas.backoff import Backoff, Outage
from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.recovery import START_AGAIN
from marketflow.schemas.topic_wait import wait_for_topic
from marketflow.sources.errors import FeedFailed, SourceError

log = logging.getLogger("marketflow.kafka")

_T = TypeVar("_T")
#: How long one attempt may take: short at first, so that a refusal is told soon.
_FIRST_TIMEOUT_S: Final = 0.5
_TIMEOUT_S: Final = 5.0
_BACKOFF: Final = Backoff(first_s=0.25, longest_s=5.0)
#: At a first start nobody waits long for an address that may be mistyped.
START_PATIENCE_S: Final = 30.0
#: No waiting mends these.
_REFUSED: Final = {
    KafkaError._AUTHENTICATION: "check the username and the password",
    KafkaError._SSL: "check security=, ca=, certificate= and key=",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check the username and the password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the user needs Read and Describe on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the user needs Read on the group; or set group=",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the user is not let in",
}
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


def refusal(address: KafkaAddress, code: int, reason: str) -> SourceError | None:
    """The error to raise when waiting will not help."""
    fix = _REFUSED.get(code)
    return None if fix is None else SourceError(f"kafka at {address.brokers}: {reason}; {fix}")


class Cluster:
    """Questions to one cluster, with this much patience where none is named. ``stop`` ends a wait
    early (as an outage would)."""

    def __init__(
        self,
        address: KafkaAddress,
        group: str,
        stop: threading.Event,
        patience_s: float = START_PATIENCE_S,
    ) -> None:
        self.address = address
        self._patience_s = patience_s
        self._stop = stop
        self._code, self._reason = 0, ""
        quiet = {**address.config(), "error_cb": self._on_error, "log_level": 0}
        try:
            self._client = Consumer(
                {**quiet, "group.id": group, "enable.auto.commit": False},
            )
            self._admin = AdminClient({**address.config(), "log_level": 0})
        except KafkaException as error:
            raise SourceError(f"kafka: {error.args[0].str()}") from None

    def _on_error(self, error: KafkaError) -> None:
        self.note(error.code(), error.str())

    def note(self, code: int, reason: str) -> None:
        """Remember why things fail: a refusal stays, anything else is replaced."""
        if self._code not in _REFUSED:
            self._code, self._reason = code, reason

    def ask(self, question: Callable[[Consumer, float], _T], patience_s: float, what: str) -> _T:
        """The answer of ``question(client, timeout_s)``, however often it takes. FeedFailed after
        ``patience_s`` of outage."""
        outage = Outage(_BACKOFF, patience_s, since_s=time.monotonic())
        timeout_s = _FIRST_TIMEOUT_S
        while True:
            self._code, self._reason = 0, ""
            try:
                return question(self._client, timeout_s)
            except KafkaException as error:
                cause: KafkaError = error.args[0]
            self._client.poll(0)  # tells error_cb what was behind it
            refused = refusal(self.address, self._code, self._reason) or refusal(
                self.address, cause.code(), cause.str()
            )
            if refused is not None:
                raise refused
            why = self._reason or cause.str()
            retry = outage.failed(time.monotonic(), why)
            if retry.left_s <= 0:
                raise FeedFailed(
                    f"kafka at {self.address.brokers} does not answer ({what}): {why}; check the "
                    f"address and that the brokers run, then {START_AGAIN}"
                )
            if outage.failures > 1:
                log.warning(
                    "waiting for kafka at %s (%s): %s; giving up in %.0f s",
                    self.address.brokers, what, why, retry.left_s,
                )  # fmt: skip
            timeout_s = min(2 * timeout_s, _TIMEOUT_S)
            if self._stop.wait(retry.pause_s):
                raise FeedFailed(f"stopped while waiting for kafka at {self.address.brokers}")

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic; SourceError naming the fix if there is none such. It is
        waited for: what was created a moment ago may not be known to every broker yet."""

        def count(client: Consumer, timeout_s: float) -> int | None:
            found = client.list_topics(topic, timeout=timeout_s).topics[topic]
            if found.error is None:
                return len(found.partitions)
            if found.error.code() in _GONE:
                return None
            raise KafkaException(found.error)

        found = wait_for_topic(
            lambda: self.ask(count, self._patience_s, f"partitions of {topic}"),
            lambda: self._no_topic(topic),
            self._patience_s,
            clock=time.monotonic,
            pause=self._stop.wait,
            tell=log.warning,
        )
        if found is None:
            raise SourceError(self._no_topic(topic))
        return found

    def _no_topic(self, topic: str) -> str:
        known = self.ask(
            lambda client, timeout_s: list(client.list_topics(timeout=timeout_s).topics),
            self._patience_s,
            "topics",
        )
        near = difflib.get_close_matches(topic, known, n=1)
        hint = f"did you mean {near[0]}? Or " if near else ""
        return (
            f"kafka at {self.address.brokers} has no topic {topic}: {hint}create it with "
            f"marketflow topics --brokers {self.address.brokers}"
        )

    def topic_id(self, topic: str) -> str:
        """The id a topic got when it was created; empty where the cluster does not tell."""
        try:
            future = self._admin.describe_topics(TopicCollection([topic]))[topic]
            return str(future.result(timeout=_TIMEOUT_S).topic_id)
        except (KafkaException, TimeoutError):
            return ""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset that is kept, offset after the last)."""
        place = TopicPartition(topic, partition)

        def query(client: Consumer, timeout_s: float) -> tuple[int, int]:
            low, high = client.get_watermark_offsets(place, timeout=timeout_s)
            return low, high

        return self.ask(query, self._patience_s, f"ends of {topic}[{partition}]")

    def at_time(self, topic: str, partition: int, ms: int) -> int | None:
        """Offset of the first message at or after a time; None if there is none yet."""

        def query(client: Consumer, timeout_s: float) -> int:
            place = TopicPartition(topic, partition, ms)
            (found,) = client.offsets_for_times([place], timeout=timeout_s)
            if found.error is not None:
                raise KafkaException(found.error)
            return int(found.offset)

        offset = self.ask(query, self._patience_s, f"times of {topic}[{partition}]")
        return None if offset < 0 else offset

    def time_at(self, topic: str, partition: int, offset: int) -> int | None:
        """Timestamp (ms) of the first message at or after an offset; None if none comes soon."""

        def query(client: Consumer, timeout_s: float) -> int | None:
            client.assign([TopicPartition(topic, partition, offset)])
            try:
                message = client.poll(timeout_s)
            finally:
                client.unassign()
            if message is None:
                return None
            if message.error() is not None:
                raise KafkaException(message.error())
            return int(message.timestamp()[1])

        return self.ask(query, START_PATIENCE_S, f"time of {topic}[{partition}] {offset}")

    def commit(self, positions: Iterable[tuple[str, int, int]]) -> None:
        """Commit positions to the group, for tools that watch lag. A run does not rely on them."""
        offsets = [TopicPartition(*position) for position in positions]
        try:
            self._client.commit(offsets=offsets, asynchronous=True)
            self._client.poll(0)
        except KafkaException as error:
            log.warning("kafka group is not told positions: %s", error.args[0].str())

    def counts(self) -> dict[str, int] | None:
        """Partitions of every topic; None if no broker answers."""
        try:
            known = self._client.list_topics(timeout=_TIMEOUT_S).topics
        except KafkaException:
            return None
        return {topic: len(found.partitions) for topic, found in known.items()}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
