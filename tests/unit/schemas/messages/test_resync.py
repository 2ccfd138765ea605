"""Which quality events ask for a resync: one request per book and outage."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from marketflow.schemas.messages import resync
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.tables.market_data import QUALITY_EVENTS


def rows(*events: tuple[str, str, int | None]) -> pa.RecordBatch:
    """Rows of (symbol, kind, cause) numbered from 0."""
    made: list[dict[str, Any]] = [
        {
            "shard": 3, "row_sequence": number, "ts_event": 1000 + number, "ts_recv": 2000 + number,
            "venue": "OKX", "symbol": symbol, "kind": kind, "cause_id": cause,
        }
        for number, (symbol, kind, cause) in enumerate(events)
    ]  # fmt: skip
    return wire_rows.to_batch(QUALITY_EVENTS, made)


def asked(*events: tuple[str, str, int | None]) -> list[tuple[str, str, int]]:
    found = resync.requests_of(rows(*events))
    return [(request.symbol, request.kind, request.row_sequence) for request in found]


def test_a_gap_and_what_follows_from_it_is_one_request() -> None:
    assert asked(("A", "gap", None), ("A", "stale", 0)) == [("A", "stale", 1)]


def test_each_book_asks_for_itself() -> None:
    assert asked(("A", "gap", None), ("A", "stale", 0), ("B", "no_snapshot", None)) == [
        ("A", "stale", 1), ("B", "no_snapshot", 2),
    ]  # fmt: skip


def test_a_fault_of_a_book_that_is_stale_already_asks_again() -> None:
    """A gap among the deltas that wait for a snapshot: the one that was coming will not do."""
    assert asked(("A", "gap", None)) == [("A", "gap", 0)]


@pytest.mark.parametrize("kind", ["valid", "late", "duplicate", "disconnect", "locked"])
def test_others_ask_for_nothing(kind: str) -> None:
    assert asked(("A", kind, None)) == []


def test_messages_there_and_back() -> None:
    [request] = resync.requests_of(rows(("A", "stale", None)))
    key, value = resync.to_message(request)
    assert key == b"OKX/A"
    assert resync.from_message(value) == request
    assert (request.ts_recv, request.shard) == (2000, 3)
    with pytest.raises(ValueError):
        resync.from_message(b'{"venue":"OKX"}')
