"""Whether a database has rows of an interval (sinks.overlap)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from marketflow.schemas.derived import sql
from marketflow.schemas.moments import datetime_at_ms
from marketflow.sinks.overlap import Interval, first_table
from marketflow.sinks.timescale.connection import Link

_OUTAGE_S: Final = 60.0
#: A database without an index by arrival reads whole tables.
_STALL_S: Final = 4 * 3600.0


def holds(dsn: str, interval: Interval, written: Collection[str]) -> str | None:
    """First table with rows of the interval, where ``written`` are to be written. Raises
    SinkError, DatabaseFailed."""
    link = Link(dsn, "marketflow replay", _OUTAGE_S, _STALL_S)
    try:
        return first_table(
            lambda name, asked: link.run(lambda connection: _holds(connection, name, asked)),
            interval,
            written,
        )
    finally:
        link.drop()


def _holds(connection: Any, name: str, interval: Interval) -> bool:
    terms = ["true"]
    values: list[object] = []
    for operator, ms in ((">=", interval.first_ms), ("<", interval.end_ms)):
        if ms is not None:
            terms.append(f"ts_recv {operator} %s")
            values.append(datetime_at_ms(ms))
    if interval.venue is not None:
        terms.append("(venue = %s OR starts_with(venue, %s) AND NOT venue = ANY(%s))")
        values += [interval.venue, f"{interval.venue}_", sorted(interval.others)]
    text = f"SELECT 1 FROM {sql.STORE}.{sql.quoted(name)} WHERE {' AND '.join(terms)} LIMIT 1"
    return connection.execute(text, values).fetchone() is not None
