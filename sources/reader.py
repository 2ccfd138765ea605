"""The contract of readers: frames in batches, with an exact position to resume from.

Invariants of every reader: the frames do not depend on :class:`Limits`; opening a reader at
``position()`` gives exactly the frames that would have come next; the last frame is an END.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch, and so of a reader's memory.

    ``max_rows``: messages in a batch. ``max_bytes``: bytes read at once; a reader holds at most two
    such buffers (that of the last batch and the one it fills). A single message may be larger, up
    to ``max_message_bytes``; what is longer becomes a BROKEN frame.
    """

    max_rows: int = 8192
    max_bytes: int = 1 << 20
    max_message_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        assert self.max_rows > 0
        assert 0 < self.max_bytes <= self.max_message_bytes


DEFAULT_LIMITS: Final = Limits()


class Reader(Protocol):
    """A feed that is being read."""

    def read(self) -> pa.RecordBatch | None:
        """The next frames (schemas.messages.frames.FRAMES); None after the END frame. No rows:
        nothing has come yet (only a feed that waits for others says that)."""
        ...

    def position(self) -> Any:
        """Position of the next frame, for the opener: plain data."""
        ...

    def close(self) -> None:
        """Release files; safe to call twice."""
        ...


@runtime_checkable
class MeasuredReader(Reader, Protocol):
    """Reader that knows how much there is to read."""

    def progress(self) -> tuple[int, int]:
        """Amount read and whole amount: bytes of files as they lie on disk, or messages. Any
        thread may call it."""
        ...


@runtime_checkable
class CommittingReader(Reader, Protocol):
    """Reader that commits durable positions to its server."""

    def commit(self, position: Any) -> None:
        """Tell the server that the snapshot of this position is durable."""
        ...
