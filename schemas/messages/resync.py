"""Requests of the books to the recorder: which instrument needs its full book again, since when.

Topic ``<prefix>.resync_requests``, a JSON object per message, key ``VENUE/SYMBOL``. A request is
derived from ``quality_events`` and goes out with those rows, so it is there exactly once. It names
the outage by the arrival (``ts_recv``) of the frame that revealed it: a recorder that has asked for
the book since then has answered already.
"""

from __future__ import annotations

from typing import Final

import msgspec
import pyarrow as pa

from marketflow.schemas.codes import QualityKind

TOPIC: Final = "resync_requests"
#: A book became stale, or never had a full state.
_OUTAGES: Final = frozenset({QualityKind.STALE.name.lower(), QualityKind.NO_SNAPSHOT.name.lower()})
#: Faults that can also hit a book that is stale already, and make it miss the state it had coming.
_FAULTS: Final = frozenset(
    kind.name.lower()
    for kind in (
        QualityKind.GAP, QualityKind.BAD_CHECKSUM, QualityKind.CROSSED, QualityKind.CAPACITY,
    )
)  # fmt: skip


class ResyncRequest(msgspec.Struct, frozen=True):
    """One book that needs its full state. Times are ns UTC; ``shard`` and ``row_sequence`` name
    the quality event."""

    venue: str
    symbol: str
    kind: str
    ts_event: int
    ts_recv: int
    shard: int
    row_sequence: int


_decode: Final = msgspec.json.Decoder(ResyncRequest).decode


def requests_of(rows: pa.RecordBatch) -> list[ResyncRequest]:
    """What rows of ``quality_events`` ask for: one request per instrument of the batch, for the
    latest of its outages."""
    kinds = rows.column("kind").to_pylist()
    if not _OUTAGES.union(_FAULTS).intersection(kinds):
        return []
    names = ("venue", "symbol", "shard", "row_sequence", "cause_id")
    columns = [rows.column(name).to_pylist() for name in names]
    times = [rows.column(name).cast(pa.int64()).to_pylist() for name in ("ts_event", "ts_recv")]
    causes = {cause for cause in columns[-1] if cause is not None}
    found: dict[tuple[str, str], ResyncRequest] = {}
    for kind, venue, symbol, shard, number, _, ts_event, ts_recv in zip(
        kinds, *columns, *times, strict=True
    ):
        # A fault that made a valid book stale is named by the row that says so.
        if kind in _OUTAGES or (kind in _FAULTS and number not in causes):
            found[venue, symbol] = ResyncRequest(
                venue, symbol, kind, ts_event, ts_recv or 0, shard, number
            )
    return list(found.values())


def to_message(request: ResyncRequest) -> tuple[bytes, bytes]:
    """(key, value) of the request's message."""
    return f"{request.venue}/{request.symbol}".encode(), msgspec.json.encode(request)


def from_message(value: bytes) -> ResyncRequest:
    """The request of a message; ValueError if it is none."""
    return _decode(value)
