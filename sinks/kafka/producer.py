"""A transactional producer that survives outages: what it was given is committed, once, in order.

Messages of the open transaction are kept until its commit is known. When the brokers make it void
(an outage, a time-out) they are sent again in a new one: readers of committed messages never see
the first attempt. A second producer with the same transactional id fences this one for good.

Everything is bounded: a transaction by size, the queue of the library by memory (full: ``send``
waits), waiting by ``patience_s``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from marketflow.schemas.backoff import Backoff, Outage
from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.kafka import Message
from marketflow.schemas.recovery import START_AGAIN, START_ANEW
from marketflow.sinks.errors import KafkaFailed, SinkError

log = logging.getLogger("marketflow.kafka")

_T = TypeVar("_T")
_CALL_S: Final = 5.0
_BACKOFF: Final = Backoff(first_s=0.1, longest_s=5.0)
_MAX_OPEN_BYTES: Final = 16 << 20
MAX_MESSAGE_BYTES: Final = 16 << 20
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED})
_DELETED: Final = (
    "the topic was deleted: create it with marketflow topics and start the same command again if "
    f"the run had written nothing to it, else {START_ANEW}"
)
#: No waiting mends these.
_REFUSED: Final = {
    KafkaError._AUTHENTICATION: "check the username and the password",
    KafkaError._SSL: "check security=, ca=, certificate= and key=",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check the username and the password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the user needs Write and Describe on the topics",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "the user needs Write and Describe on the transactional id"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the user is not let in",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes",
    KafkaError.INVALID_TIMESTAMP: (
        "the topic takes no such times: set its message.timestamp.before.max.ms and .after.max.ms"
    ),
    KafkaError.UNKNOWN_TOPIC_OR_PART: _DELETED,
    KafkaError._UNKNOWN_TOPIC: _DELETED,
    KafkaError._UNKNOWN_PARTITION: "the topic has fewer partitions than at the start",
}

#: What a broker says of topics that it does not know: it may have begun or woken a moment ago.
_UNKNOWN: Final = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
#: How long it may take to know them again.
_SETTLE_S: Final = 30.0


class Fenced(SinkError):  # noqa: N818 - reads as what happened
    """Another producer has our transactional id now."""


class Sent(NamedTuple):
    """A message and where it goes."""

    topic: str
    partition: int
    message: Message


class Patience:
    """Waits between attempts of one call; does not wait where ``given_up``."""

    def __init__(
        self, brokers: str, doing: str, patience_s: float, given_up: threading.Event
    ) -> None:
        self._brokers, self._doing, self._given_up = brokers, doing, given_up
        self._outage = Outage(_BACKOFF, patience_s, since_s=time.monotonic())

    def wait(self, why: str) -> None:
        """Say what is waited for, and wait; KafkaFailed when it has been long enough."""
        retry = self._outage.failed(time.monotonic(), why)
        if retry.left_s <= 0 or self._given_up.is_set():
            raise KafkaFailed(
                f"kafka at {self._brokers} does not answer ({self._doing}): {why}; mend that and "
                f"{START_AGAIN}"
            )
        log.warning(
            "waiting for kafka at %s (%s): %s; giving up in %.0f s",
            self._brokers, self._doing, why, retry.left_s,
        )  # fmt: skip
        self._given_up.wait(retry.pause_s)


class Link:
    """The producer. Used under its owner's lock.

    ``next_offsets`` is, per (topic, partition), the offset after our last message there.
    ``linger_ms``: how long a message may wait for others to travel with. ``last``: makes what is
    sent at the end of every transaction.
    """

    def __init__(
        self,
        address: KafkaAddress,
        transactional_id: str,
        patience_s: float,
        linger_ms: int,
    ) -> None:
        self.address = address
        #: How long the brokers keep a transaction open whose producer is silent: an outage that we
        #: wait out must not be taken for our death. (15 minutes is what brokers allow by default.)
        self.transaction_s = min(900, int(patience_s) + 60)
        self.transactional_id = transactional_id
        self.next_offsets: dict[tuple[str, int], int] = {}
        #: Nobody waits for what is open any more: an outage is not waited out.
        self.given_up = threading.Event()
        self.last: Callable[[], Sent | None] = lambda: None
        self._patience_s = patience_s
        self._code, self._reason = 0, ""
        self._delivery: KafkaError | None = None
        self._open: list[Sent] = []
        self._open_bytes = 0
        self._begun = False
        self._void = False
        self._fenced = False
        config: dict[str, Any] = {
            **address.config(),
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 1000 * self.transaction_s,
            "linger.ms": linger_ms,
            "compression.type": "lz4",
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": 65_536,
            "on_delivery": self._delivered,
            "error_cb": self._on_error,
            "log_level": 0,
        }
        try:
            self._producer = Producer(config)
        except KafkaException as error:
            raise SinkError(f"kafka: {error.args[0].str()}") from None

    def _on_error(self, error: KafkaError) -> None:
        if self._code not in _REFUSED:
            self._code, self._reason = error.code(), error.str()

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._delivery = self._delivery or error
            return
        key = (message.topic(), message.partition())
        self.next_offsets[key] = max(self.next_offsets.get(key, 0), message.offset() + 1)

    # -- calls that may have to be repeated ---------------------------------------------------

    def _patience(self, doing: str) -> Patience:
        return Patience(self.address.brokers, doing, self._patience_s, self.given_up)

    def ask(self, doing: str, call: Callable[[], _T]) -> _T:
        """The result of ``call``, however often it takes. Raises SinkError, KafkaFailed."""
        patience = self._patience(doing)
        settled_s = time.monotonic() + _SETTLE_S
        while True:
            self._code, self._reason = 0, ""
            try:
                return call()
            except KafkaException as error:
                cause: KafkaError = error.args[0]
            self._serve()
            if cause.code() not in _UNKNOWN or time.monotonic() > settled_s:
                self.check(cause)
            patience.wait(self._reason or cause.str())

    def _serve(self) -> None:
        """Have the library tell what it knows: delivery reports, errors."""
        try:
            self._producer.poll(0)
        except KafkaException as error:
            self.check(error.args[0])

    def check(self, error: KafkaError) -> None:
        """Raise what waiting cannot mend."""
        brokers = self.address.brokers
        if error.code() in _FENCED:
            raise Fenced(
                f"kafka at {brokers}: another run writes as {self.transactional_id!r} now, or this "
                f"one was frozen for more than {self.transaction_s} s; it is shut out: start "
                "a run once at a time"
            )
        for code, reason in ((self._code, self._reason), (error.code(), error.str())):
            if code in _REFUSED:
                raise SinkError(f"kafka at {brokers}: {reason}; {_REFUSED[code]}")
        if error.fatal():
            raise KafkaFailed(f"kafka at {brokers}: {error.str()}; {START_AGAIN}")

    def list_topics(self) -> dict[str, int]:
        """Partitions of every topic."""
        listed: Any = self.ask("topics", lambda: self._producer.list_topics(timeout=_CALL_S))
        return {name: len(topic.partitions) for name, topic in listed.topics.items()}

    def open(self) -> None:
        """Shut out every earlier producer of our id; its open transaction is undone. Once."""
        if not self._fenced:
            self.ask("becoming the writer", lambda: self._producer.init_transactions(_CALL_S))
            self._fenced = True

    # -- messages -----------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether anything was sent that is not committed."""
        return bool(self._open)

    def send(self, topic: str, partition: int, message: Message) -> None:
        """Put a message into the transaction, which is begun where none is open."""
        self._add(Sent(topic, partition, message))

    def _add(self, sent: Sent) -> None:
        self._open.append(sent)
        self._open_bytes += len(sent.message.value)
        if not self._void:
            self._try(sent)

    def commit_if_full(self) -> None:
        """Commit a transaction that is large, or void: after a batch, never in the middle of one,
        so that what :attr:`last` says of the rows is true."""
        if self._open_bytes > _MAX_OPEN_BYTES or self._void:
            self.commit()

    def _try(self, sent: Sent) -> None:
        """Hand a message to the library; where its transaction is void it is sent again later."""
        topic, partition, (key, value, headers, ts_ms) = sent
        try:
            if not self._begun:
                self._producer.begin_transaction()
                self._begun = True
            patience: Patience | None = None
            while True:
                try:
                    self._producer.produce(
                        topic, value, key, partition, timestamp=ts_ms, headers=headers
                    )
                    self._producer.poll(0)
                    return
                except BufferError:
                    # The library's queue is full: that is how slow brokers slow us.
                    self._producer.poll(0.1)
                if patience is None:
                    patience = Patience(
                        self.address.brokers, "sending", self._patience_s, self.given_up
                    )
                elif self._reason:
                    patience.wait(self._reason)
        except KafkaException as error:
            self.check(error.args[0])
            self._void = True

    def commit(self) -> None:
        """Make everything sent visible; returns when it is. Raises SinkError, KafkaFailed."""
        if not self._open:
            return
        last = self.last()
        if last is not None:
            self._add(last)
        patience = self._patience("committing")
        while True:
            self._code, self._reason = 0, ""
            try:
                if self._void:
                    self._again()
                self._producer.commit_transaction(_CALL_S)
                self._forget()
                return
            except KafkaException as error:
                cause: KafkaError = error.args[0]
            self._serve()
            if self._delivery is not None:
                self.check(self._delivery)
            self.check(cause)
            self._check_topics()
            self._void = self._void or cause.txn_requires_abort() or not cause.retriable()
            patience.wait(self._reason or cause.str())

    def _check_topics(self) -> None:
        """SinkError if a topic was deleted: the library would wait for it for ever."""
        try:
            known = self._producer.list_topics(timeout=_CALL_S).topics
        except KafkaException:
            return
        for topic in sorted({sent.topic for sent in self._open} - known.keys()):
            raise SinkError(f"kafka at {self.address.brokers}: {topic}: {_DELETED}")

    def _again(self) -> None:
        """Undo the void transaction and send its messages anew."""
        if self._begun:
            self._producer.abort_transaction(_CALL_S)
            self._begun = False
        self._void, self._delivery = False, None
        for sent in self._open:
            self._try(sent)
            if self._void:
                return

    def _forget(self) -> None:
        self._open.clear()
        self._open_bytes = 0
        self._begun, self._void, self._delivery = False, False, None

    def drop(self) -> None:
        """Undo what is not committed, as far as the brokers can be reached; never raises."""
        if self._begun:
            try:
                self._producer.abort_transaction(_CALL_S)
            except KafkaException as error:
                log.warning("kafka: the open transaction ends by itself: %s", error.args[0].str())
        self._forget()
