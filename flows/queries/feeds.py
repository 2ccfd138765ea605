"""The table ``feeds``, with the same columns in a lake and in a database
(infra/migrations/0013_feeds.sql).

A row is what one run claimed of one feed. ``rows`` (JSON: by table) and the event times are of what
the store holds of the feed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import duckdb

FEEDS: Final = "feeds"
#: Column and type, in order. What ends in ``_ns`` is nanoseconds since 1970, UTC.
COLUMNS: Final = {
    "feed": "BIGINT",
    "source": "VARCHAR",
    "venue": "VARCHAR",
    "state": "VARCHAR",
    "first_position": "BIGINT",
    "last_position": "BIGINT",
    "first_event": "TIMESTAMP_NS",
    "first_event_epoch_ns": "BIGINT",
    "last_event": "TIMESTAMP_NS",
    "last_event_epoch_ns": "BIGINT",
    "rows": "VARCHAR",
    "flow": "VARCHAR",
    "release": "VARCHAR",
    "settings": "VARCHAR",
    "run": "VARCHAR",
    "started": "TIMESTAMP_NS",
    "ended": "TIMESTAMP_NS",
    "identity": "VARCHAR",
    "digest": "VARCHAR",
    "parts": "VARCHAR",
}


def define_feeds(con: duckdb.DuckDBPyConnection, root: Path | None) -> None:
    """Make the table ``feeds`` of the lake as it is now; without a lake it has no rows."""
    rows = [] if root is None else _rows(root)
    values = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
    nothing = ", ".join(["NULL"] * len(COLUMNS))
    names = ", ".join(COLUMNS)
    shown = ", ".join(
        f"make_timestamp_ns({name}::BIGINT) AS {name}"
        if kind == "TIMESTAMP_NS"
        else f"{name}::{kind} AS {name}"
        for name, kind in COLUMNS.items()
    )
    con.execute(
        f"CREATE TEMP VIEW feeds AS SELECT {shown} FROM "
        f"(VALUES {values or f'({nothing})'}) AS known ({names}) WHERE {bool(rows)}"
    )


def _literal(value: Any) -> str:
    """A number, text or nothing in SQL."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _rows(root: Path) -> list[tuple[Any, ...]]:
    # Reads with numpy, which a query that does not ask for feeds starts without.
    from marketflow.sinks.lake.feeds import list_feeds

    found = []
    for feed in sorted(list_feeds(root), key=lambda each: (each["started"], each["number"])):
        counts = feed["rows"]
        values = {
            **feed,
            "feed": feed["number"],
            "first_position": feed["position"],
            "last_position": feed["reached"],
            "first_event": feed["first"],
            "first_event_epoch_ns": feed["first"],
            "last_event": feed["last"],
            "last_event_epoch_ns": feed["last"],
            "rows": _plain(counts),
            "settings": _plain(feed["settings"]),
            "parts": _plain(feed["parts"]),
        }
        found.append(tuple(values[name] for name in COLUMNS))
    return found


def _plain(value: Any) -> str:
    """JSON as a database writes its own: short names first, spaces behind colons and commas."""
    return json.dumps(_sorted(value), ensure_ascii=False)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda k: (len(k), k))}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
