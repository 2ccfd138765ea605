"""The obvious reader of raw topics: a message at a time, through confluent-kafka's own consumer."""

from __future__ import annotations

import time
from typing import Any, Final

from confluent_kafka import Consumer, Message, TopicPartition

from marketflow.schemas.messages.frames import FrameKind
from tests.support.patience import PATIENCE_S

#: What is committed may become visible as late as this on a busy machine.
_VISIBLE_S: Final = 60.0

#: offset, ts_recv, kind, connection, note, payload
Row = tuple[int, int, int, str, str | None, bytes]


def read_frames(brokers: str, topic: str, partition: int) -> list[Row]:
    """Every committed message of a partition as a frame."""
    return [_frame(message) for message in read_messages(brokers, topic, partition)]


def read_messages(
    brokers: str,
    topic: str,
    partition: int,
    isolation: str = "read_committed",
    visible_s: float = _VISIBLE_S,
) -> list[Any]:
    """Every message of a partition, from its first to what is its last now. What was committed a
    moment ago may not be visible yet: it is waited for, ``visible_s`` at most (an open transaction
    of a writer that died hides what is behind it for longer)."""
    config = {
        "bootstrap.servers": brokers,
        "group.id": "reference",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 10,
        "log_level": 0,
    }
    place = TopicPartition(topic, partition)
    whole = Consumer({**config, "isolation.level": "read_uncommitted"})
    _, end = whole.get_watermark_offsets(place, timeout=PATIENCE_S)
    whole.close()
    consumer = Consumer({**config, "isolation.level": isolation})
    found: list[Message] = []
    deadline = time.monotonic() + visible_s
    try:
        low, _ = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=PATIENCE_S
        )
        consumer.assign([TopicPartition(topic, partition, low)])
        while True:
            message = consumer.poll(PATIENCE_S)
            assert message is not None, f"{topic}[{partition}] does not come to an end"
            offset = message.offset()
            assert offset is not None
            if error := message.error():
                assert error.name() == "_PARTITION_EOF", error
                if offset >= end or time.monotonic() > deadline:
                    return found
                consumer.assign([TopicPartition(topic, partition, offset)])
                time.sleep(0.05)
                continue
            found.append(message)
    finally:
        consumer.close()


def _frame(message: Any) -> Row:
    headers = dict(message.headers() or ())
    kind, note = FrameKind.DATA, headers.get("note")
    if "kind" in headers:
        kind = FrameKind[headers["kind"].decode().upper()]
    stamp = headers.get("ts_recv", b"")
    ts_recv = (
        int.from_bytes(stamp, "big", signed=True)
        if len(stamp) == 8
        else max(0, message.timestamp()[1]) * 1_000_000
    )
    key = (message.key() or b"").decode("utf-8", "backslashreplace")
    text = None if note is None else note.decode()
    return (message.offset(), ts_recv, int(kind), key, text, message.value() or b"")
