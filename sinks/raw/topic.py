"""Raw frames to a ``raw.<venue>`` topic: what a recorder writes before anybody else sees it.

- Unit of parallelism: a process; a connection's frames stay in order, in one partition.
- Delivery: at least once into the topic (idempotent producer: a retry doubles nothing, a crash may
  lose what was not flushed yet); a live feed has no position to go back to.
- A slow broker blocks ``write``; a message that cannot be delivered ends the recording.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.kafka import partition_of_connection, raw_messages
from marketflow.schemas.topic_wait import wait_for_topic
from marketflow.sinks.errors import KafkaFailed, SinkError
from marketflow.sinks.kafka.producer import MAX_MESSAGE_BYTES

log = logging.getLogger("marketflow.kafka")

_CALL_S: Final = 10.0


class RawTopicWriter:
    """Writer of frames (schemas.messages.frames.FRAMES) to the topic that ``address`` names.

    Raises SinkError where the topic is missing, KafkaFailed where a frame was not delivered.
    """

    def __init__(self, address: KafkaAddress, flush_s: float = 60.0) -> None:
        self._topic = address.name
        self._brokers = address.brokers
        self._flush_s = flush_s
        self._failed: KafkaError | None = None
        self._reason = ""
        config: dict[str, Any] = {
            **address.config(),
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 65_536,
            "message.timeout.ms": int(1000 * flush_s),
            "on_delivery": self._delivered,
            "error_cb": self._on_error,
            "delivery.report.only.error": True,
            "log_level": 0,
        }
        try:
            self._producer = Producer(config)
            self._partitions = self._known()
        except KafkaException as error:
            raise KafkaFailed(self._text(error.args[0])) from None
        self._places: dict[str, int] = {}

    def _known(self) -> int:
        """Partitions of the topic, which is waited for."""
        why = ""

        def look() -> int | None:
            nonlocal why
            found = self._producer.list_topics(self._topic, timeout=_CALL_S).topics[self._topic]
            why = "" if found.error is None else found.error.str()
            return None if found.error is not None else len(found.partitions)

        def missing() -> str:
            return (
                f"kafka at {self._brokers} has no topic {self._topic} ({why}): create it with "
                f"marketflow topics --brokers {self._brokers} --raw "
                f"{self._topic.removeprefix('raw.')}"
            )

        found = wait_for_topic(
            look,
            missing,
            self._flush_s,
            clock=time.monotonic,
            pause=time.sleep,
            tell=log.warning,
        )
        if found is None:
            raise SinkError(missing())
        return found

    def _on_error(self, error: KafkaError) -> None:
        self._reason = error.str()

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        self._failed = self._failed or error

    def _text(self, error: KafkaError) -> str:
        return f"kafka at {self._brokers}: {self._topic}: {self._reason or error.str()}"

    def write(self, frames: pa.RecordBatch) -> None:
        """Send every frame but END; blocks while the queue is full."""
        produce, places = self._producer.produce, self._places
        for connection, (key, value, headers, ts_ms) in raw_messages(frames):
            partition = places.get(connection)
            if partition is None:
                partition = partition_of_connection(connection, self._partitions)
                places[connection] = partition
            while True:
                try:
                    produce(self._topic, value, key, partition, timestamp=ts_ms, headers=headers)
                    break
                except BufferError:
                    self._producer.poll(0.05)
                except KafkaException as error:
                    raise KafkaFailed(self._text(error.args[0])) from None
                self._check()
        self._producer.poll(0)
        self._check()

    def idle(self) -> None:
        """Nothing came for a moment: hear how the deliveries went. Raises KafkaFailed."""
        self._producer.poll(0)
        self._check()

    def close(self) -> None:
        """Wait until everything is durable."""
        self.flush()

    def flush(self) -> None:
        """Wait until everything written is durable. KafkaFailed if it cannot be made so."""
        left = self._producer.flush(self._flush_s)
        self._check()
        if left:
            raise KafkaFailed(
                f"kafka at {self._brokers}: {left} frames for {self._topic} were not taken in "
                f"{self._flush_s:.0f} s: {self._reason or 'the brokers are slow'}"
            )

    def _check(self) -> None:
        if self._failed is not None:
            raise KafkaFailed(self._text(self._failed))
