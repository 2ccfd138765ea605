"""Read requests for a resync, by which the books ask a recorder for a full book.

Reading starts at the end of the topic: a recorder that starts asks for every book anyway. Wait out
an outage of the brokers; requests made meanwhile are read afterwards.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.resync import TOPIC, ResyncRequest, from_message
from marketflow.sources.kafka.cluster import START_PATIENCE_S, Cluster

log = logging.getLogger("marketflow.live")

_POLL_S: Final = 0.5


class ResyncRequests:
    """Calls ``ask`` with every new request below ``address`` (its name is the prefix of topics),
    in a thread of its own. SourceError where there is no such topic, FeedFailed where no broker
    answers for ``patience_s``."""

    def __init__(
        self,
        address: KafkaAddress,
        ask: Callable[[ResyncRequest], None],
        patience_s: float = START_PATIENCE_S,
    ) -> None:
        self._ask = ask
        self._topic = f"{address.name}.{TOPIC}"
        self._stop = threading.Event()
        group = f"marketflow.record.{address.name}"
        # What is asked from now on is heard.
        ends = _ends(Cluster(address, group, self._stop, patience_s), self._topic)
        self._consumer = Consumer(
            {
                **address.config(),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        self._consumer.assign(ends)
        self._thread = threading.Thread(target=self._work, name="resync", daemon=True)
        self._thread.start()

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


def _ends(cluster: Cluster, topic: str) -> list[TopicPartition]:
    """Where each partition of the topic ends now."""
    try:
        return [
            TopicPartition(topic, number, cluster.bounds(topic, number)[1])
            for number in range(cluster.partitions(topic))
        ]
    finally:
        cluster.close()
