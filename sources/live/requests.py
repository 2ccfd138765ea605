"""Requests for a resync, read from their topic: what the books ask of a recorder.

Read from the end of the topic on: a recorder that starts asks for every book anyway. An outage of
the brokers is waited out; what was asked meanwhile is read afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.kafka import KafkaAddress
from schemas.resync import TOPIC, ResyncRequest, from_message
from sources.errors import SourceError

log = logging.getLogger("marketflow.live")

_NEWBORN_S: Final = 2.0
_CALL_S: Final = 10.0
_POLL_S: Final = 0.5


class ResyncRequests:
    """Calls ``ask`` with every new request below ``address`` (its name is the prefix of topics),
    in a thread of its own. SourceError where there is no such topic."""

    def __init__(self, address: KafkaAddress, ask: Callable[[ResyncRequest], None]) -> None:
        self._ask = ask
        self._topic = f"{address.name}.{TOPIC}"
        self._reason = ""
        self._stop = threading.Event()
        config = {
            **address.config(),
            "group.id": f"marketflow.record.{address.name}",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "error_cb": self._on_error,
            "log_level": 0,
        }
        try:
            self._consumer = Consumer(config)
            self._consumer.assign(
                [
                    TopicPartition(self._topic, number, self._end(number))
                    for number in range(self._partitions(address))
                ]
            )
        except KafkaException as error:
            why = self._reason or error.args[0].str()
            raise SourceError(
                f"kafka at {address.brokers} does not answer: {why}; check the address and the "
                "security settings of --resync"
            ) from None
        self._thread = threading.Thread(target=self._work, name="resync", daemon=True)
        self._thread.start()

    def _partitions(self, address: KafkaAddress) -> int:
        """Partitions of the topic. One that was created a moment ago may have no leader yet, or not
        be known to every broker."""
        deadline = time.monotonic() + _NEWBORN_S
        while True:
            found = self._consumer.list_topics(self._topic, timeout=_CALL_S).topics[self._topic]
            if found.error is None:
                return len(found.partitions)
            if time.monotonic() > deadline:
                raise SourceError(
                    f"kafka at {address.brokers} has no topic {self._topic} "
                    f"({found.error.str()}): create it with marketflow topics --brokers "
                    f"{address.brokers} --prefix {address.name}"
                )
            time.sleep(0.1)

    def _end(self, partition: int) -> int:
        """Where the topic ends now: what is asked from now on is heard."""
        place = TopicPartition(self._topic, partition)
        return int(self._consumer.get_watermark_offsets(place, timeout=_CALL_S)[1])

    def _on_error(self, error: KafkaError) -> None:
        self._reason = error.str()

    def _work(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(_POLL_S)
            if message is None:
                continue
            if (error := message.error()) is not None:
                log.warning("%s: %s", self._topic, error.str())
                self._stop.wait(_POLL_S)
                continue
            try:
                request = from_message(message.value() or b"")
            except ValueError as error:
                log.warning("%s: offset %s is no request: %s", self._topic, message.offset(), error)
                continue
            self._ask(request)
        self._consumer.close()

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
