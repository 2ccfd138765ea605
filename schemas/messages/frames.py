"""Frames: bytes as received, on their way from a source to normalise.

One row is one venue message (a WebSocket text, a Kafka record) or, for packed binary feeds, one
block of whole messages. Sources emit them in feed order; where a batch is cut means nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import pyarrow as pa


class FrameKind(IntEnum):
    """What a frame is. Append only: recorded topics carry it."""

    DATA = 0  # received on a stream
    HTTP = 1  # a REST answer; ``note`` is its URL
    CONNECT = 2  # a connection was opened; ``note`` is its address
    SENT = 3  # what the recorder sent (subscriptions)
    HEADER = 4  # about the recording or file itself (capture header, DBN metadata)
    DISCONNECT = 5  # the connection was lost; ``note`` is the reason
    END = 6  # the feed is over: nothing will ever follow
    TRUNCATED = 7  # bytes at the end of a file that are no whole message
    BROKEN = 8  # bytes the source could not even unpack; ``note`` says why
    # Of redundant lines (schemas.messages.lines says what their payloads are).
    GAP = 9  # messages are missing on all lines; nothing follows before FILLED or LOST
    FILLED = 10  # what the GAP before said is missing has come, and follows
    LOST = 11  # messages that will never come
    LINE = 12  # a line went down, lags or recovered
    START = 13  # a recording of lines begins


#: ``offset``: bytes into the uncompressed feed, counted over all its paths (Kafka: the offset).
#: ``ts_recv``: ns UTC, 0 where the feed has no arrival time.
FRAMES: Final = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("ts_recv", pa.int64(), nullable=False),
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("connection", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("note", pa.string(), nullable=True),
        pa.field("payload", pa.large_binary(), nullable=False),
    ],
    metadata={"marketflow.table": "frames", "marketflow.version": "1"},
)
