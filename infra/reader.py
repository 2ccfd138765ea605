"""The login that ``marketflow sql --dsn`` reads a database with: it may read, and nothing else.

A role of its own, because whatever a session with more rights gives up (SET ROLE, a read-only
transaction) its next statement can take back. It is one for the server, its rights are given in
each database by ``marketflow migrate``. Its password is made by whoever makes the role first and
is shown there: ``services up`` keeps it in the service's folder, ``migrate`` shows it once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final

import psycopg
from psycopg import sql

ROLE: Final = "marketflow_reader"
#: Views beside those of the tables (infra/migrations).
OTHER_VIEWS: Final = ("trade_bars_1m", "trade_bars_1d", "feeds")

_KNOWN: Final = f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'"
_RIGHTS: Final = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
#: What a login could write with, in words; nothing where it can only read. Roles it belongs to
#: count, it could become them.
_POWERS: Final = """
WITH mine AS (
    SELECT oid, rolname, rolsuper, rolcreaterole OR rolcreatedb OR rolreplication AS makes
    FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')
)
SELECT CASE
    WHEN (SELECT bool_or(rolsuper) FROM mine) THEN 'is a superuser'
    WHEN (SELECT bool_or(makes) FROM mine) THEN 'may make roles or databases'
    WHEN EXISTS (SELECT FROM mine WHERE rolname IN (
        'pg_database_owner', 'pg_write_all_data', 'pg_maintain', 'pg_signal_backend',
        'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'
    )) THEN 'has a powerful role'
    WHEN EXISTS (
        SELECT FROM mine, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema'
          AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT LIKE '%timescaledb\\_%'
          AND has_table_privilege(mine.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
    ) THEN 'may write into tables'
END
"""


def make_reader(connection: psycopg.Connection[Any], password: str) -> None:
    """Create the login, or give it this password. Raises psycopg.Error without the right to."""
    verb = "ALTER" if connection.execute(_KNOWN).fetchone() else "CREATE"
    try:
        connection.execute(sql.SQL(f"{verb} ROLE {ROLE} {_RIGHTS} PASSWORD {{}}").format(password))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        return make_reader(connection, password)  # somebody was faster
    connection.execute(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")


def let_read(
    connection: psycopg.Connection[Any], tables: Iterable[str], renew: bool = False
) -> str | None:
    """Let the login read the views of these tables and of bars; make it where the server has none.

    Returns its new password (also with ``renew``), or None where it was there. Raises
    psycopg.errors.InsufficientPrivilege where the role is missing and we may not make one.
    """
    password = None
    if renew or connection.execute(_KNOWN).fetchone() is None:
        password = secrets.token_urlsafe(16)
        make_reader(connection, password)
    database = sql.Identifier(connection.info.dbname)
    # Where an earlier release's files are applied, views of later ones are not there yet.
    there = "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
    others = [name for (name,) in connection.execute(there, (list(OTHER_VIEWS),))]
    views = sql.SQL(", ").join(map(sql.Identifier, (*tables, *others)))
    role = sql.Identifier(ROLE)
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(views, role))
    return password


def power(connection: psycopg.Connection[Any]) -> str | None:
    """What this session's login could write with; None where it can only read."""
    row = connection.execute(_POWERS).fetchone()
    assert row is not None
    found: str | None = row[0]
    return found
