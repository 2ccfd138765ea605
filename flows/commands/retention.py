"""``marketflow retention``: what is older than it should be goes, from a lake or a database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.errors import nearest as near_name
from marketflow.infra.migrate import MigrationError, detect_edition
from marketflow.infra.retention import (
    KEEP_DAYS,
    LEGAL_DAYS,
    LEGAL_TABLES,
    drop_chunks,
    first_day,
    lawful_day,
    newest,
    old_chunks,
    policies,
)
from marketflow.schemas.moments import date_of
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.compact import count_before, drop_before
from marketflow.sinks.lake.layout import check_lake, list_partitions
from marketflow.sinks.timescale import dsn as dsn_module

Keep = dict[str, int | None]
_NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What retention is asked: ``changes`` are TABLE=DAYS, ``as_of`` a day, ``newest`` (that of the
    newest row), or None (today)."""

    changes: Sequence[str] = ()
    as_of: str | None = None
    legal_days: int = LEGAL_DAYS
    dry_run: bool = False


def forget(lake: Path | None, dsn: str | None, wanted: Wanted, console: Console) -> dict[str, Any]:
    """Drop what is too old of a database or a lake, or set the policies that will.

    Returns {"tables": {name: {"keep_days", "dropped"}}, ...}; ``dropped`` counts files of a lake,
    chunks of a database, and is null where a policy was set. Raises UsageError or RunFailed.
    """
    keep = _keep(wanted)
    if dsn is not None:
        report = _from_database(dsn, keep, wanted)
    else:
        assert lake is not None
        report = {"lake": str(lake), "tables": _from_lake(lake, keep, wanted)}
    report["dry_run"] = wanted.dry_run
    _print(report, console)
    return report


def _keep(wanted: Wanted) -> Keep:
    keep = dict(KEEP_DAYS)
    for change in wanted.changes:
        table, _, days = change.partition("=")
        if table not in TABLES:
            near = near_name(table, TABLES)
            raise UsageError(
                f"--keep {change!r}: no table {table!r}{near}; known: {', '.join(TABLES)}"
            )
        if days != "forever" and not (days.isdigit() and days.isascii() and 0 < int(days) < 10**5):
            raise UsageError(f"--keep {change!r} is not TABLE=DAYS or TABLE=forever")
        keep[table] = None if days == "forever" else int(days)
        if table in LEGAL_TABLES and days != "forever" and int(days) < wanted.legal_days:
            raise UsageError(
                f"--keep {change!r}: {table} is kept for {wanted.legal_days} days by law; ask for "
                "more days, or set --legal-days to the period that holds for you"
            )
    return keep


def _day(as_of: str | None, newest_day: Callable[[], date | None]) -> date:
    if as_of is None:
        return _today()
    if as_of == _NEWEST:
        return newest_day() or _today()
    try:
        return date.fromisoformat(as_of)
    except ValueError:
        raise UsageError(
            f"--as-of {as_of!r} is no date such as 2026-03-02, nor {_NEWEST}"
        ) from None


def _today() -> date:
    return datetime.now(UTC).date()


def _first(table: str, day: date, days: int, wanted: Wanted) -> date:
    return lawful_day(table, first_day(day, days), _today(), wanted.legal_days)


def _from_lake(lake: Path, keep: Mapping[str, int | None], wanted: Wanted) -> Any:
    report = {}
    try:
        check_lake(lake)
        day = _day(wanted.as_of, lambda: _newest_of_lake(lake))
        for table, days in keep.items():
            if days is not None:
                first = _first(table, day, days, wanted)
                if wanted.dry_run:
                    dropped = count_before(lake, table, first)
                else:
                    dropped = drop_before(lake, table, first)
                report[table] = {"keep_days": days, "dropped": dropped}
    except SinkError as error:
        raise UsageError(str(error)) from None
    return report


def _newest_of_lake(lake: Path) -> date | None:
    days = [p.day for table in TABLES for p in list_partitions(lake, table)[-1:]]
    return date_of(max(days)) if days else None


def _from_database(dsn: str, keep: Mapping[str, int | None], wanted: Wanted) -> dict[str, Any]:
    try:
        dsn_module.check(dsn)
        with dsn_module.connect(dsn, "marketflow retention", autocommit=True) as connection:
            _, edition = detect_edition(connection)
            if edition == "timescale" and wanted.as_of is None:
                for told in policies(keep).values() if not wanted.dry_run else ():
                    for statement in told:
                        _run(connection, statement)
                tables = {t: {"keep_days": d, "dropped": None} for t, d in keep.items() if d}
            else:
                tables = _drop_chunks(connection, keep, wanted)
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


def _drop_chunks(
    connection: psycopg.Connection[Any], keep: Mapping[str, int | None], wanted: Wanted
) -> dict[str, dict[str, int | None]]:
    def newest_day() -> date | None:
        found = [_run(connection, newest(table))[0][0] for table in TABLES]
        return max((moment.astimezone(UTC).date() for moment in found if moment), default=None)

    day = _day(wanted.as_of, newest_day)
    tables: dict[str, dict[str, int | None]] = {}
    for table, days in keep.items():
        if days is None:
            continue
        first = _first(table, day, days, wanted)
        old = len(_run(connection, old_chunks(table, first)))
        if not wanted.dry_run:
            _run(connection, drop_chunks(table, first))
        tables[table] = {"keep_days": days, "dropped": old}
    return tables


def _run(connection: psycopg.Connection[Any], statement: str) -> list[Any]:
    return connection.execute(statement).fetchall()


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
