"""What a feed decoder is, and the base of the venues that are decoded message by message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from operators.events import EventBatch

if TYPE_CHECKING:
    from operators.building import EventBuilder


class Decoded(NamedTuple):
    """Outcome of one frames batch: events, and dead letters (``dead_letters`` schema without
    shard, row_sequence, feed and partition, which normalise adds)."""

    events: EventBatch
    dead: pa.RecordBatch | None


class FeedDecoder(Protocol):
    """Bytes of one feed to events. Pure: the same frames give the same rows however they are cut.

    ``snapshot`` returns a small picklable value (format version first); ``restore`` takes it or
    raises ValueError with the remedy.
    """

    def apply(self, frames: pa.RecordBatch) -> Decoded: ...

    def snapshot(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


class Frame(NamedTuple):
    """One frame for message-wise venues; fields as in schemas.frames."""

    kind: int
    ts_recv: int
    connection: str
    note: str
    payload: bytes


class VenueDecoder:
    """Base of message-wise venues: declarations as class attributes, handlers as methods.

    A subclass sets VENUE and overrides :meth:`message`; it keeps per-connection facts (channel
    ids ...) in plain attributes listed in STATE, which make up its snapshot.
    A message that is not understood: ``out.dead(RejectReason..., detail)`` - never an exception.
    msgspec.DecodeError/ValidationError and UnicodeDecodeError raised inside ``message`` are turned
    into MALFORMED dead letters by the caller, and every row the frame had already built is undone.
    """

    VENUE: str = ""
    #: Names of the attributes that make up the snapshot.
    STATE: tuple[str, ...] = ()

    def message(self, frame: Frame, out: EventBuilder) -> None:
        """Decode one frame into ``out``."""
        raise NotImplementedError
