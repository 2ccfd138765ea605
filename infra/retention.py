"""What a database forgets, and how: policies where the server keeps them, dropped chunks elsewhere.

Nothing is forgotten unless asked for: a replay of old days would otherwise be gone at once. The
policies of the full edition use statements that were measured on it, word for word; only the
Apache edition's can be run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from schemas.tables import TABLES

#: Days that are kept; None: for ever. Books and quotes can be had again from the recorded feed;
#: trades, bars and what was said of instruments are small and are what people look back at.
KEEP_DAYS: Final[dict[str, int | None]] = {
    **dict.fromkeys(TABLES, None),
    "book_events": 30,
    "depth": 30,
    "quotes": 90,
    "dead_letters": 90,
    "quality_events": 365,
}


def first_day(as_of: date, days: int) -> date:
    """The oldest day that is kept."""
    return as_of - timedelta(days=days)


def statements(edition: str, keep: Mapping[str, int | None], as_of: date) -> dict[str, list[str]]:
    """By table what an edition is told. ``keep``: days by table, None for ever."""
    if edition == "timescale":
        return {table: _policy(table, days) for table, days in keep.items()}
    return {
        table: [f"SELECT drop_chunks('store.{table}', older_than => {_moment(as_of, days)})"]
        for table, days in keep.items()
        if days is not None
    }


def old_chunks(table: str, as_of: date, days: int) -> str:
    """Query for the chunks that are too old as a whole."""
    return f"SELECT show_chunks('store.{table}', older_than => {_moment(as_of, days)})"


def _moment(as_of: date, days: int) -> str:
    return f"timestamptz '{first_day(as_of, days).isoformat()} 00:00:00+00'"


def _policy(table: str, days: int | None) -> list[str]:
    """Policies cannot be changed, only put anew."""
    remove = f"SELECT remove_retention_policy('store.{table}', if_exists => true)"
    if days is None:
        return [remove]
    add = (
        f"SELECT add_retention_policy('store.{table}', "
        f"drop_after => interval '{days} days', if_not_exists => true)"
    )
    return [remove, add]
