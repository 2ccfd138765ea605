"""``marketflow feeds``: what was loaded into a store, by which run, and how far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marketflow.flows.queries.sql import query_rows

_QUERY: Final = "SELECT * FROM feeds ORDER BY started, feed"
_JSON: Final = ("rows", "settings", "parts")


def known_feeds(lake: Path | None, dsn: str | None) -> list[dict[str, Any]]:
    """The feeds of a lake, or of a database. Raises UsageError, RunFailed."""
    found = query_rows(_QUERY, lake, dsn)
    return [{**row, **{name: json.loads(row[name]) for name in _JSON}} for row in found]


def print_feeds(feeds: list[dict[str, Any]], console: Console) -> None:
    """A line per feed with rows, readable at 80 columns. Partitions that a topic may get later are
    claimed beforehand: those without a row are only counted."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("source", overflow="fold", ratio=1)
    table.add_column("state")
    table.add_column("rows", justify="right")
    table.add_column("first event", no_wrap=True)
    table.add_column("last event", no_wrap=True)
    held = [feed for feed in feeds if feed["rows"]]
    for feed in held:
        rows = f"{sum(feed['rows'].values()):,}"
        times = (_short(feed["first_event"]), _short(feed["last_event"]))
        table.add_row(*map(Text, (feed["source"], feed["state"], rows, *times)))
    if held:
        console.print(table)
    if empty := len(feeds) - len(held):
        console.print(f"feeds without a row: {empty} (--json shows them)")
    if not feeds:
        console.print("no feeds: nothing was loaded yet")


def _short(time: Any) -> str:
    return "" if time is None else str(time)[:16].replace("T", " ")
