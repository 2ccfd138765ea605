"""``marketflow retention``: what is older than it should be goes, from a lake or a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from rich.console import Console
from rich.table import Table

from flows import settings
from flows.errors import RunFailed, UsageError
from infra.migrate import MigrationError, detect_edition
from infra.retention import KEEP_DAYS, first_day, old_chunks, statements
from schemas.tables import TABLES
from sinks import dsn as dsn_module
from sinks.compact import drop_before
from sinks.errors import SinkError
from sinks.lake import check_lake, list_files

Keep = dict[str, int | None]


def forget(
    lake: Path | None,
    dsn: str | None,
    changes: Sequence[str],
    as_of: str | None,
    dry_run: bool,
    console: Console,
) -> dict[str, Any]:
    """Drop what is too old, or set the policies that will; ``changes`` are TABLE=DAYS.

    Returns {"tables": {name: {"keep_days", "dropped"}}, ...}; ``dropped`` counts files of a lake,
    chunks of a database, and is null where a policy was set. Raises UsageError or RunFailed.
    """
    keep = _keep(changes)
    day = _day(as_of)
    if dsn is not None:
        report = _from_database(dsn, keep, day, dry_run)
    else:
        folder = lake if lake is not None else Path(settings.load().lake)
        report = {"lake": str(folder), "tables": _from_lake(folder, keep, day, dry_run)}
    report["dry_run"] = dry_run
    _print(report, console)
    return report


def _keep(changes: Sequence[str]) -> Keep:
    keep = dict(KEEP_DAYS)
    for change in changes:
        table, _, days = change.partition("=")
        if table not in TABLES:
            raise UsageError(f"--keep {change!r}: no table {table!r}; known: {', '.join(TABLES)}")
        if days != "forever" and not (days.isdigit() and days.isascii() and 0 < int(days) < 10**5):
            raise UsageError(f"--keep {change!r} is not TABLE=DAYS or TABLE=forever")
        keep[table] = None if days == "forever" else int(days)
    return keep


def _day(as_of: str | None) -> date:
    if as_of is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(as_of)
    except ValueError:
        raise UsageError(f"--as-of {as_of!r} is no date such as 2026-03-02") from None


def _from_lake(lake: Path, keep: Mapping[str, int | None], day: date, dry_run: bool) -> Any:
    report = {}
    try:
        check_lake(lake)
        for table, days in keep.items():
            if days is not None:
                first = first_day(day, days)
                if dry_run:
                    files = [f for f in list_files(lake, table) if _filed(f) < first]
                    dropped = len(files)
                else:
                    dropped = drop_before(lake, table, first)
                report[table] = {"keep_days": days, "dropped": dropped}
    except SinkError as error:
        raise UsageError(str(error)) from None
    return report


def _filed(path: Path) -> date:
    folder = next(p for p in path.parents if p.name.startswith("date="))
    return date.fromisoformat(folder.name.removeprefix("date="))


def _from_database(
    dsn: str, keep: Mapping[str, int | None], day: date, dry_run: bool
) -> dict[str, Any]:
    try:
        dsn_module.check(dsn)
        with dsn_module.connect(dsn, "marketflow retention", autocommit=True) as connection:
            _, edition = detect_edition(connection)
            tables = {}
            for table, told in statements(edition, keep, day).items():
                days = keep[table]
                old = None
                if days is not None and edition == "apache":
                    old = len(_run(connection, old_chunks(table, day, days)))
                if not dry_run:
                    for statement in told:
                        _run(connection, statement)
                if days is not None:
                    tables[table] = {"keep_days": days, "dropped": old}
            return {"database": dsn_module.shown(dsn), "edition": edition, "tables": tables}
    except SinkError as error:
        raise UsageError(str(error)) from None
    except MigrationError as error:
        raise RunFailed(str(error)) from None
    except psycopg.Error as error:
        refused = dsn_module.refusal(dsn, error)
        text = refused or f"{dsn_module.shown(dsn)}: {dsn_module.one_line(error)}"
        if error.sqlstate in ("42P01", "3F000"):
            text += "; run: marketflow migrate --dsn DSN"
        raise RunFailed(text) from None


def _run(connection: psycopg.Connection[Any], statement: str) -> list[Any]:
    return connection.execute(cast(LiteralString, statement)).fetchall()


def _print(report: dict[str, Any], console: Console) -> None:
    where = report.get("database") or report["lake"]
    said = "would go" if report["dry_run"] else "gone"
    table = Table(title=f"{where}: older than their days", title_justify="left")
    table.add_column("table")
    table.add_column("kept, days", justify="right")
    table.add_column(f"{'chunks' if 'database' in report else 'files'} {said}", justify="right")
    for name, row in report["tables"].items():
        dropped = "the server's policy" if row["dropped"] is None else str(row["dropped"])
        table.add_row(name, str(row["keep_days"]), dropped)
    console.print(table)
