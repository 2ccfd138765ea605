"""Compaction and retention of a lake, with a report for people."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sinks.compact import compact, drop_before

from flows.errors import UsageError
from schemas.tables import TABLES


def compact_lake(lake: Path, before: str | None, console: Console) -> dict[str, Any]:
    """Drop dates before ``before`` (YYYY-MM-DD) where given, then merge small files."""
    dropped: dict[str, int] = {}
    if before is not None:
        try:
            day = date.fromisoformat(before)
        except ValueError:
            raise UsageError(f"--before {before!r} is no date such as 2026-03-02") from None
        dropped = {name: drop_before(lake, name, day) for name in TABLES}
    report = compact(lake)
    result = {"files_dropped": {k: v for k, v in dropped.items() if v}, **report}
    table = Table(title=f"compacted {lake}", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    return result
