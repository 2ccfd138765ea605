"""Compaction of a lake and migration of a database, with a report for people."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.infra.retention import lawful_day
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.compact import compact, count_before, drop_before
from marketflow.sinks.lake.layout import FORMAT, check_known, files_of, format_of
from marketflow.sinks.timescale.dsn import check, shown


def compact_lake(
    lake: Path, before: str | None, yes: bool, legal_days: int, console: Console
) -> dict[str, Any]:
    """Drop dates before ``before`` (YYYY-MM-DD) where given, then merge small files.

    Raises UsageError with what would go unless ``yes``; SinkError; LakeFailed.
    """
    dropped: dict[str, int] = {}
    if before is not None:
        try:
            day = date.fromisoformat(before)
        except ValueError:
            raise UsageError(f"--before {before!r} is no date such as 2026-03-02") from None
        today = datetime.now(UTC).date()
        first = {name: lawful_day(name, day, today, legal_days) for name in TABLES}
        if not yes:
            would = {name: count_before(lake, name, first[name]) for name in TABLES}
            told = ", ".join(f"{name} {count}" for name, count in would.items() if count)
            raise UsageError(
                f"--before {before} would drop these files: {told or 'none'}; nothing was dropped "
                "or merged: repeat with --yes"
            )
        dropped = {name: drop_before(lake, name, first[name]) for name in TABLES}
    report = compact(lake)
    result = {"files_dropped": {k: v for k, v in dropped.items() if v}, **report}
    table = Table(title=f"compacted {lake}", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    return result


def bring_up_lake(lake: Path, console: Console) -> dict[str, Any]:
    """Bring a lake up to this release. Raises SinkError, LakeFailed, or UsageError where rows are
    there twice."""
    from marketflow.sinks.lake.migrate import migrate_lake

    check_known(lake)
    if format_of(lake) < FORMAT:
        _check_once(lake)
    report = migrate_lake(lake)
    done = f"{report['files']} files rewritten" if report["files"] else "nothing to do"
    console.print(f"{lake}: {done}")
    return {"lake": str(lake), **report}


def _check_once(lake: Path) -> None:
    """Nobody can tell rows apart that several runs have written with the same identity."""
    import duckdb

    for table in TABLES:
        paths = [str(path) for path in files_of(lake, table)]
        if not paths:
            continue
        with duckdb.connect() as connection:
            twice = connection.execute(
                "SELECT count(*) FROM (SELECT 1 FROM read_parquet(?, union_by_name=true) "
                "GROUP BY shard, row_sequence HAVING count(*) > 1)",
                [paths],
            ).fetchone()
        if twice is not None and twice[0]:
            raise UsageError(
                f"{lake} has {twice[0]:,} rows of {table} twice by shard and row_sequence: several "
                "runs wrote into it; make a new lake and run each source into it again"
            )


def migrate_database(
    dsn: str, console: Console, new_reader_password: bool = False
) -> dict[str, Any]:
    """Bring the database up to this release. Raises UsageError or RunFailed with the fix."""
    from marketflow.flows.catalogue import all_tables
    from marketflow.infra.migrate import MigrationError, migrate

    try:
        check(dsn)
        report = migrate(dsn, all_tables(), console.print, new_reader_password=new_reader_password)
    except SinkError as error:
        raise UsageError(str(error)) from None
    except MigrationError as error:
        raise RunFailed(str(error)) from None
    done = f"applied {', '.join(report.applied)}" if report.applied else "nothing to do"
    console.print(f"{shown(dsn)} (TimescaleDB {report.version}, {report.edition}): {done}")
    if report.note:
        console.print(f"[yellow]{escape(report.note)}[/yellow]")
    elif "@" in report.reader and ":" in report.reader.partition("://")[2].partition("@")[0]:
        console.print("The login that marketflow sql reads with, shown this once:")
        console.print(f"marketflow sql --dsn '{report.reader}'", soft_wrap=True, highlight=False)
    return {"database": shown(dsn), **asdict(report)}
