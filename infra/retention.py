"""What a database forgets, and how: policies where the server keeps them, dropped chunks elsewhere.

Nothing is forgotten unless asked for: a replay of old days would otherwise be gone at once. The
policies of the full edition use statements that were measured on it, word for word; only the
Apache edition's can be run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

from marketflow.schemas.tables import TABLES

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

#: Records that the law wants kept: five years, seven on request (MiFID II, RTS 24; SEC 17a-4: six).
#: Nothing of them is dropped before, whatever is asked.
LEGAL_TABLES: Final = ("orders", "executions", "audit")
LEGAL_DAYS: Final = 7 * 365 + 2


def first_day(as_of: date, days: int) -> date:
    """The oldest day that is kept."""
    return as_of - timedelta(days=days)


def lawful_day(table: str, wanted: date, today: date, legal_days: int = LEGAL_DAYS) -> date:
    """The first day to keep of ``table``: ``wanted``, or the start of the legal period before
    it."""
    return min(wanted, first_day(today, legal_days)) if table in LEGAL_TABLES else wanted


def policies(keep: Mapping[str, int | None]) -> dict[str, list[str]]:
    """By table what the full edition is told, which then forgets by its own clock. ``keep``: days
    by table, None for ever."""
    return {table: _policy(table, days) for table, days in keep.items()}


def drop_chunks(table: str, first: date) -> str:
    """Statement that drops the chunks which lie before the day ``first`` as a whole."""
    return f"SELECT drop_chunks('store.{table}', older_than => {_moment(first)})"


def old_chunks(table: str, first: date) -> str:
    """Query for the chunks that :func:`drop_chunks` would drop."""
    return f"SELECT show_chunks('store.{table}', older_than => {_moment(first)})"


def newest(table: str) -> str:
    """Query for the time of a table's newest row."""
    return f"SELECT max({TABLES[table].time_field}) FROM store.{table}"


def _moment(first: date) -> str:
    return f"timestamptz '{first.isoformat()} 00:00:00+00'"


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
