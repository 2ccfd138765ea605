"""Migrations on a real server: the schema they make, running them again, what they refuse."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest

from marketflow.infra import migrate as migrate_module
from marketflow.infra.migrate import MigrationError, migrate
from marketflow.schemas.derived import sql
from marketflow.schemas.shards import renumbered
from marketflow.schemas.tables import TABLES
from tests.support.services.dsn import replace_password

pytestmark = pytest.mark.services
Ask = Callable[[str], list[tuple]]
_CATALOG_NAMES = {"timestamptz": "timestamp with time zone"}


def _columns(ask: Ask, schema: str) -> dict[str, list[tuple[str, str, bool]]]:
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for table, *column in ask(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull "
        "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        f"WHERE c.relnamespace = '{schema}'::regnamespace AND a.attnum > 0 "
        "AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
    ):
        found.setdefault(table, []).append(tuple(column))
    return found


def test_the_migrated_tables_are_those_of_the_schemas(ask: Ask) -> None:
    found = _columns(ask, "store")
    for name, table in TABLES.items():
        assert found[name] == [
            (c.name, _CATALOG_NAMES.get(c.type, c.type), c.nullable) for c in sql.columns(table)
        ]
    times = dict(
        ask(
            "SELECT hypertable_name, column_name || ' ' || time_interval "
            "FROM timescaledb_information.dimensions WHERE hypertable_schema = 'store'"
        )
    )
    assert times.keys() == TABLES.keys()
    for name, table in TABLES.items():
        assert times[name].startswith(f"{table.time_field} ")


def test_the_views_show_what_the_lake_shows(ask: Ask, tmp_path: Path) -> None:
    from marketflow.flows.queries.duckdb_lake import open_lake
    from marketflow.sinks.lake.layout import prepare_lake

    prepare_lake(tmp_path)
    lake = open_lake(tmp_path)
    views = _columns(ask, "public")
    for name in TABLES:
        assert [column for column, *_ in views[name]] == lake.sql(f"FROM {name}").columns


def test_no_table_has_a_unique_index(ask: Ask) -> None:
    indexes = ask(
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'store' "
        "AND tablename NOT IN ('progress', 'migrations', 'runs', 'claims')"
    )
    assert {name for name, _ in indexes} == TABLES.keys()
    assert not [text for _, text in indexes if "UNIQUE" in text]


def test_again_changes_nothing(database: str) -> None:
    again = migrate(database, TABLES)
    assert again.applied == []
    assert again.edition == "apache"
    assert "0001_store" in again.present


def test_two_runners_wait_for_each_other(bare_database: str) -> None:
    reports = []
    runners = [
        threading.Thread(target=lambda: reports.append(migrate(bare_database, TABLES)))
        for _ in range(3)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sorted(len(report.applied) for report in reports)[:2] == [0, 0]
    assert len(reports) == 3


def _copied(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in migrate_module.FOLDER.glob("*.sql"):
        (folder / path.name).write_text(path.read_text())
    return folder


def test_a_changed_file_is_refused(database: str, tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    views = folder / "0002_views.sql"
    views.write_text(views.read_text() + "\n-- changed\n")
    with pytest.raises(MigrationError, match=r"0002_views\.sql was changed.*higher-numbered"):
        migrate(database, TABLES, folder=folder)
    views.unlink()
    with pytest.raises(MigrationError, match="newer"):
        migrate(database, TABLES, folder=folder)


def test_a_file_that_fails_leaves_nothing_and_can_be_mended(
    database: str, ask: Ask, tmp_path: Path
) -> None:
    folder = _copied(tmp_path)
    new = folder / "0099_new.sql"
    new.write_text("CREATE TABLE store.extra (a int);\n\nSELECT nonsense;\n")
    with pytest.raises(MigrationError, match="nonsense"):
        migrate(database, TABLES, folder=folder)
    assert ask("SELECT to_regclass('store.extra')") == [(None,)]
    new.write_text("CREATE TABLE store.extra (a int);\n")
    assert migrate(database, TABLES, folder=folder).applied == ["0099_new"]


def test_a_file_without_transaction_can_be_run_again(
    database: str, ask: Ask, tmp_path: Path
) -> None:
    folder = _copied(tmp_path)
    new = folder / "0099_new.sql"
    head = "-- marketflow: no transaction\nCREATE TABLE IF NOT EXISTS store.extra (a int);\n\n"
    new.write_text(head + "SELECT nonsense;\n")
    with pytest.raises(MigrationError, match="nonsense"):
        migrate(database, TABLES, folder=folder)
    assert ask("SELECT to_regclass('store.extra')::text") == [("store.extra",)]
    new.write_text(head)
    assert migrate(database, TABLES, folder=folder).applied == ["0099_new"]


def test_the_full_editions_clean_up_runs_here_too(database: str, ask: Ask) -> None:
    """It drops the plain views of the Apache edition before their continuous successors come."""
    files = {m.name: m for m in migrate_module.read()}
    clean_up = files["0004_trade_bars.timescale"].statements[0]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(clean_up)
        connection.execute(clean_up)
    assert ask("SELECT to_regclass('trade_bars_1m'), to_regclass('trade_bars_1d')") == [
        (None, None)
    ]


def test_the_server_knows_the_full_editions_statements(database: str) -> None:
    """Their functions and arguments: it refuses them for its licence, not as unknown."""
    files = {m.name: m for m in migrate_module.read()}
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in files["0007_trade_bars_history.timescale"].statements:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="license"):
                connection.execute(statement)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            connection.execute(statement.replace("start_offset", "begin_offset"))


def test_mistakes_are_told_with_their_fix(timescale, database: str) -> None:
    wrong = replace_password(database, "wrong")
    with pytest.raises(MigrationError, match="password is wrong"):
        migrate(wrong, TABLES)
    with pytest.raises(MigrationError, match="does not exist; create it"):
        migrate(timescale.url.rpartition("/")[0] + "/nowhere", TABLES)
    with pytest.raises(MigrationError, match="is it running"):
        migrate("postgresql://someone@127.0.0.1:1/x", TABLES)


def test_the_command_line(bare_database: str) -> None:
    command = [
        sys.executable,
        "-m",
        "marketflow",
        "migrate",
        "--json",
        "--dsn",
        bare_database,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"0001_store"' in done.stdout
    done = subprocess.run(
        [*command[:-1], replace_password(bare_database, "sesame")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "password is wrong" in done.stderr
    assert "sesame" not in done.stderr


def _older(folder: Path, below: str) -> Path:
    """The migrations that come before ``below``."""
    folder.mkdir()
    for path in migrate_module.FOLDER.glob("*.sql"):
        if path.name < below:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


_OLD_ROW = (
    "INSERT INTO store.trades (shard, row_sequence, ts_event, ts_event_ns, venue, symbol, price, "
    "size, notional, aggressor_side, status) VALUES (%s, %s, now(), 0, 'V', 'S', 1, 1, 1, 0, 0)"
)


def test_shards_of_the_release_before_get_numbers(bare_database: str, tmp_path: Path) -> None:
    """As those of a lake do (schemas.shards); views and their readers are as before."""
    migrate(bare_database, TABLES, folder=_older(tmp_path / "older", "0010"))
    old = [(-3, 0), (-1, 0), (0, 0), (0, 1), (17, 0), (4095, 5)]
    with psycopg.connect(bare_database, autocommit=True) as connection:
        for row in old:
            connection.execute(_OLD_ROW, row)
        assert "0011_shards" in migrate(bare_database, TABLES).applied
        shards = np.array([shard for shard, _ in old], np.int64)
        expected = list(zip(renumbered(shards).tolist(), [at for _, at in old], strict=True))
        query = "SELECT shard, row_sequence FROM trades ORDER BY 1, 2"
        assert connection.execute(query).fetchall() == expected
        assert migrate(bare_database, TABLES).applied == []


def test_rows_that_are_there_twice_are_not_renumbered(bare_database: str, tmp_path: Path) -> None:
    migrate(bare_database, TABLES, folder=_older(tmp_path / "older", "0010"))
    with psycopg.connect(bare_database, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(_OLD_ROW, (3, 7))
        with pytest.raises(MigrationError, match=r"1 rows twice by shard .*make a new one"):
            migrate(bare_database, TABLES)
        assert connection.execute("SELECT shard FROM trades").fetchall() == [(3,), (3,)]
