"""Migrations of the database: plain numbered SQL files, applied once each, in order.

``infra/migrations/NNNN_name.sql`` is for every edition of TimescaleDB, ``NNNN_name.EDITION.sql``
for one (``apache``: Debian's build; ``timescale``: the Docker image and the clouds, with
columnstore, continuous aggregates and policies). Files of the full edition use statements that
were measured on it, word for word; here only the Apache edition can be run.

A file is one transaction together with the note that it was applied, unless its first line is
``-- marketflow: no transaction`` (continuous aggregates refuse one): then every statement stands
alone, can be repeated, and a file that broke off is simply run again. Applied files are never
changed: their checksums are kept in ``store.migrations``, and a change is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from marketflow.infra.reader import ROLE, let_read
from marketflow.sinks.timescale import dsn as dsn_module

FOLDER: Final = Path(__file__).resolve().with_name("migrations")
EDITIONS: Final = ("apache", "timescale")
#: Which edition runs here (the functions exist in both, so their presence says nothing).
EDITION_QUERY: Final = (
    "SELECT extversion, current_setting('timescaledb.license', true) "
    "FROM pg_extension WHERE extname='timescaledb'"
)
_ALONE: Final = "-- marketflow: no transaction"
#: Key of the advisory lock that keeps two runners apart: "mktflow" as a number.
_LOCK: Final = 0x6D6B74666C6F77
_LOCK_WAIT_S: Final = 60.0
_NOTES: Final = """
CREATE SCHEMA IF NOT EXISTS store;
CREATE TABLE IF NOT EXISTS store.migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(RuntimeError):
    """The database cannot be migrated; the text names the fix."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``edition`` None: for all."""

    name: str
    edition: str | None
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.text.startswith(_ALONE)

    @property
    def statements(self) -> list[str]:
        return split(self.text)


@dataclass(frozen=True, slots=True)
class Report:
    """What :func:`migrate` found and did."""

    edition: str
    version: str
    applied: list[str]
    present: list[str]
    #: DSN of the login that ``marketflow sql`` reads with; its password only where it is new.
    reader: str = ""
    #: What somebody with more rights has to do yet.
    note: str = ""


def split(text: str) -> list[str]:
    """The statements of a file: each ends with a ``;`` at the end of a line, outside ``$$``."""
    statements, lines, quoted = [], [], False
    for line in text.splitlines():
        if not quoted and (not line.strip() or line.startswith("--")):
            continue
        lines.append(line)
        quoted ^= line.count("$$") % 2 == 1
        if not quoted and line.rstrip().endswith(";"):
            statements.append("\n".join(lines).rstrip().removesuffix(";"))
            lines = []
    assert not lines, f"no ';' at the end of: {lines}"
    return statements


def read(folder: Path = FOLDER) -> list[Migration]:
    """All files in order."""
    found = []
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql")):
        _, dot, edition = path.stem.partition(".")
        assert not dot or edition in EDITIONS, f"{path}: no edition {edition!r}"
        found.append(Migration(path.stem, edition or None, path.read_text()))
    return found


def plan(files: Sequence[Migration], edition: str, applied: Mapping[str, str]) -> list[Migration]:
    """The files to apply now, in order; ``applied`` are names and checksums.

    Raises MigrationError when an applied file was changed or is not known here.
    """
    known = {file.name: file for file in files}
    for name, checksum in applied.items():
        if name not in known:
            raise MigrationError(
                f"the database has migration {name}, which this release does not know: it was "
                "migrated by a newer one; use that"
            )
        if known[name].checksum != checksum:
            raise MigrationError(
                f"infra/migrations/{name}.sql was changed after it had been applied: put the file "
                "back as it was (git checkout) and say the change in a new, higher-numbered file"
            )
    return [f for f in files if f.name not in applied and f.edition in (None, edition)]


def migrate(
    dsn: str,
    tables: Collection[str],
    say: Callable[[str], None] = lambda _: None,
    folder: Path = FOLDER,
    *,
    new_reader_password: bool = False,
) -> Report:
    """Bring the database up to this release; nothing to do is fine. Raises MigrationError.

    The login that ``marketflow sql`` reads with is made where the server has none, and may read
    the views of ``tables`` in this database afterwards; ``new_reader_password`` gives it another
    password.
    """
    try:
        with dsn_module.connect(dsn, "marketflow migrate", autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            _take_lock(connection, say)
            report = _migrate(connection, say, folder)
            password, note = None, ""
            try:
                password = let_read(connection, tables, new_reader_password)
            except psycopg.errors.InsufficientPrivilege as error:
                note = (
                    f"no login for marketflow sql: {dsn_module.one_line(error)}; as a superuser "
                    f"CREATE ROLE {ROLE} LOGIN PASSWORD '…', then migrate again"
                )
            reader = "" if note else dsn_module.with_login(dsn, ROLE, password)
            return replace(report, reader=reader, note=note)
    except psycopg.Error as error:
        raise MigrationError(_explained(dsn, error)) from error


def _explained(dsn: str, error: psycopg.Error) -> str:
    refused = dsn_module.refusal(dsn, error)
    if refused is not None:
        return refused
    text = f"{dsn_module.shown(dsn)}: {dsn_module.one_line(error)}"
    if error.sqlstate is None:
        return f"{text}; is it running and reachable? (marketflow services up starts a local one)"
    if error.sqlstate == "42501":
        return f"{text}; migrate as the owner of the database, or GRANT CREATE ON DATABASE to him"
    return f"{text}; nothing of the file that failed is kept, mend it and run migrate again"


def _take_lock(connection: psycopg.Connection[Any], say: Callable[[str], None]) -> None:
    """Held until the connection closes."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    told = False
    while not _one(connection, f"SELECT pg_try_advisory_lock({_LOCK})"):
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has been running for {_LOCK_WAIT_S:.0f} s: wait for it to "
                "end, or end its session (pg_stat_activity: 'marketflow migrate')"
            )
        if not told:
            say("another migration is running: waiting for it")
            told = True
        time.sleep(0.2)


def _migrate(
    connection: psycopg.Connection[Any], say: Callable[[str], None], folder: Path
) -> Report:
    version, edition = detect_edition(connection)
    connection.execute(_NOTES)
    rows = connection.execute("SELECT name, checksum FROM store.migrations").fetchall()
    applied = dict(rows)
    todo = plan(read(folder), edition, applied)
    for migration in todo:
        say(f"applying {migration.name}")
        _apply(connection, migration)
    return Report(edition, version, [m.name for m in todo], sorted(applied))


def detect_edition(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """(version, edition) of the extension, which is created where it is only installed.

    Raises MigrationError where the server has no TimescaleDB.
    """
    found = connection.execute(EDITION_QUERY).fetchone()
    if found is None:
        try:
            connection.execute("CREATE EXTENSION timescaledb")
        except psycopg.Error as error:
            raise MigrationError(
                f"this database has no TimescaleDB and it cannot be added: "
                f"{dsn_module.one_line(error)}; install it on the server (shared_preload_libraries "
                "= 'timescaledb'), then CREATE EXTENSION timescaledb as a superuser"
            ) from error
        found = connection.execute(EDITION_QUERY).fetchone()
        assert found is not None
    version, edition = found
    if edition not in EDITIONS:
        raise MigrationError(f"timescaledb.license is {edition!r}; known: {', '.join(EDITIONS)}")
    return str(version), str(edition)


def _apply(connection: psycopg.Connection[Any], migration: Migration) -> None:
    if migration.in_transaction:
        with connection.transaction():
            _run(connection, migration)
    else:
        _run(connection, migration)


def _run(connection: psycopg.Connection[Any], migration: Migration) -> None:
    for statement in migration.statements:
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            error.add_note(f"infra/migrations/{migration.name}.sql: {statement[:200]}")
            raise
    connection.execute(
        "INSERT INTO store.migrations (name, checksum) VALUES (%s, %s)",
        (migration.name, migration.checksum),
    )


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
