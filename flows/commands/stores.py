"""Commands that look after stores and servers: compact, retention, migrate, services, topics.

:mod:`flows.commands.app` puts them among the others; the options that several commands have are
here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from marketflow.flows.console import stderr_console
from marketflow.flows.errors import UsageError

err = stderr_console()
LAKE = Path("lake")
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only what would go is shown.")]
LegalDays = Annotated[
    int,
    typer.Option(min=0, help="Days that orders, executions and audit are kept whatever is asked."),
]

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout, for machines.")]
Lake = Annotated[Path | None, typer.Option("--lake", help="Folder of the lake (default: lake).")]
Dsn = Annotated[
    str | None,
    typer.Option("--dsn", help="Database: postgresql://user@host/db (password: PGPASSWORD)."),
]


def print_json(value: Any) -> None:
    """Write the JSON twin of a summary to stdout."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def compact(
    lake: Lake = None,
    before: Annotated[
        str | None, typer.Option(help="Also drop every date before this day (with --yes).")
    ] = None,
    yes: Yes = False,
    legal_days: LegalDays = 2557,
    as_json: Json = False,
) -> None:
    """Merge a lake's small files, safely beside a running writer; results stay identical."""
    from marketflow.flows.commands.maintenance import compact_lake

    report = compact_lake(lake or LAKE, before, yes, legal_days, err)
    if as_json:
        print_json(report)


def retention(
    lake: Lake = None,
    dsn: Dsn = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="TABLE=DAYS or TABLE=forever, instead of the default (repeatable)."),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="Day to count from, or newest: that of the newest row (default: today)."),
    ] = None,
    yes: Yes = False,
    legal_days: LegalDays = 2557,
    as_json: Json = False,
) -> None:
    """Forget what is old: whole days of a lake, whole chunks of a database. Never by itself.

    Kept by default: book_events and depth 30 days, quotes and dead_letters 90, quality_events
    365, all else for ever. Where the server can keep policies (full TimescaleDB) they are set, and
    it goes on by itself; the Apache edition and a lake forget when this is run, so run it daily.
    """
    from marketflow.flows.commands.retention import Wanted, forget

    wanted = Wanted(keep or (), as_of, legal_days, dry_run=not yes)
    report = forget(lake or LAKE, dsn, wanted, err)
    if as_json:
        print_json(report)
    if not yes:
        raise UsageError("nothing was dropped: repeat with --yes")


def migrate(
    dsn: Annotated[
        str | None, typer.Option("--dsn", help="postgresql://user@host/db (password: PGPASSWORD).")
    ] = None,
    lake: Annotated[Path | None, typer.Option("--lake", help="Folder of a lake instead.")] = None,
    new_reader_password: Annotated[
        bool, typer.Option("--new-reader-password", help="Another password for sql's login.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a database or a lake up to this release. Again: changes nothing.

    A database gets its hypertables, views and indexes; files of a lake of the release before are
    rewritten, while nobody writes.

    Makes the login marketflow_reader, which sql reads with, where the server has none, and shows
    its DSN then.
    """
    from marketflow.flows.commands.maintenance import bring_up_lake, migrate_database
    from marketflow.flows.errors import UsageError

    if lake is not None:
        report = bring_up_lake(lake, err)
    elif dsn is not None:
        report = migrate_database(dsn, err, new_reader_password)
    else:
        raise UsageError("say what to migrate: --dsn of a database, or --lake DIR")
    if as_json:
        print_json(report)


def feeds(lake: Lake = None, dsn: Dsn = None, as_json: Json = False) -> None:
    """Show the feeds that were loaded into a lake or a database: state, rows and times.

    Running: a run that lives reads it. Complete: it was read to its end. Cut off: the run was
    stopped or killed before; it goes on with its --recovery. All columns: --json, or
    sql "SELECT * FROM feeds".
    """
    from rich.console import Console

    from marketflow.flows.commands.feeds import known_feeds, print_feeds

    found = known_feeds(lake or LAKE, dsn)
    if as_json:
        print_json(found)
    else:
        print_feeds(found, Console())


def services(
    action: Annotated[str, typer.Argument(help="up, down, status, env or reset.")],
    only: Annotated[
        str | None, typer.Option(help="Only these, such as kafka,timescale,prometheus.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="For reset: forget all data.")] = False,
    as_json: Json = False,
) -> None:
    """Local Kafka, TimescaleDB and Prometheus: containers where Docker answers, else packages.

    env prints the variables that every command takes its addresses from:
    eval "$(marketflow services env)"
    """
    from marketflow.flows.commands.services import exports, print_states, run_action

    states = run_action(action, only, yes, err)
    if as_json:
        print_json(states)
    elif action == "env":
        sys.stdout.write("".join(f"{line}\n" for line in exports(states)))
    else:
        print_states(states, err)


def topics(
    brokers: Annotated[str, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT].")],
    prefix: Annotated[str, typer.Option(help="Topics of tables are PREFIX.<table>.")] = "md",
    partitions: Annotated[int, typer.Option(min=1, max=1024, help="Of each topic.")] = 4,
    raw: Annotated[str, typer.Option(help="Venues recorded as raw.<venue>, comma-separated.")] = "",
    output: Annotated[str, typer.Option("--format", help="arrow, avro or json.")] = "arrow",
    security: Annotated[str, typer.Option(help="plaintext, ssl, sasl_plaintext, sasl_ssl.")] = "",
    as_json: Json = False,
) -> None:
    """Create the Kafka topics that are missing; show those that differ, and change none of them.

    User, password and certificates come from MARKETFLOW_KAFKA_* (USERNAME, PASSWORD, CA ...).
    """
    from marketflow.flows.commands.topics import print_topics, run_topics

    venues = [venue for venue in raw.split(",") if venue]
    outcomes = run_topics(brokers, prefix, partitions, venues, output, security)
    if as_json:
        print_json(outcomes)
    else:
        print_topics(outcomes, err)


COMMANDS = (feeds, compact, retention, migrate, services, topics)
