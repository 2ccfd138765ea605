"""Which statements an edition gets, and that the checked-in SQL is that of the field tables.

The full edition cannot be run here: its statements are compared with those that were measured on
it (TimescaleDB 2.29.2 on PostgreSQL 17).
"""

from __future__ import annotations

from datetime import date

import pytest

from infra import retention
from infra.migrate import Migration, MigrationError, plan, read, split
from schemas import sql
from schemas.tables import TABLES

FILES = {m.name: m for m in read()}


def told(edition: str) -> list[str]:
    return [s for m in plan(read(), edition, {}) for s in m.statements]


def test_the_checked_in_ddl_is_that_of_the_field_tables() -> None:
    store, views = [], {}
    for table in TABLES.values():
        store += [sql.create_table(table), sql.create_hypertable(table), sql.create_index(table)]
        views[table.name] = sql.create_view(table)
    assert FILES["0001_store"].statements == store
    # A view that was appended to is replaced by a later file.
    found = {}
    for migration in FILES.values():
        for statement in migration.statements:
            if statement.startswith('CREATE OR REPLACE VIEW "'):
                found[statement.split('"')[1]] = statement
    assert found == views


def test_numbers_are_unique_per_edition_and_files_end_well() -> None:
    for edition in ("apache", "timescale"):
        numbers = [m.name[:4] for m in plan(read(), edition, {})]
        assert numbers == sorted(set(numbers))
    for migration in FILES.values():
        assert migration.text.endswith(";\n")
        assert "merge_chunks" not in migration.text


def test_the_apache_edition_gets_only_what_it_can_run() -> None:
    text = "\n".join(told("apache"))
    for word in ("columnstore", "continuous", "_policy", "compress", "gapfill", "add_job"):
        assert word not in text
    assert "CREATE OR REPLACE VIEW trade_bars_1m AS" in text


def test_the_full_edition_gets_columnstore_and_continuous_aggregates() -> None:
    statements = told("timescale")
    for table, time in (("trades", "ts_event"), ("quotes", "ts_event"), ("bars", "ts_open")):
        settings = (
            f"timescaledb.enable_columnstore, timescaledb.segmentby='symbol', "
            f"timescaledb.orderby='{time}, row_sequence'"
        )
        assert f"ALTER TABLE store.{table} SET ({settings})" in statements
        after = "after => interval '1 day', if_not_exists => true"
        assert f"CALL add_columnstore_policy('store.{table}', {after})" in statements
    text = "\n".join(statements)
    assert (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS trade_bars_1m\n"
        "WITH (timescaledb.continuous, timescaledb.materialized_only=false) AS" in text
    )
    assert "first(price, (ts_event, ts_event_ns, row_sequence)) AS open" in text
    assert text.count("WITH NO DATA") == 2
    assert "CALL refresh_continuous_aggregate('trade_bars_1m', NULL, NULL)" in statements
    assert "SELECT add_continuous_aggregate_policy('trade_bars_1m', " in text
    assert "CREATE OR REPLACE VIEW trade_bars" not in text
    # A continuous aggregate refuses a transaction.
    assert not FILES["0004_trade_bars.timescale"].in_transaction
    assert FILES["0001_store"].in_transaction


def test_both_editions_have_the_same_bars_from_trades() -> None:
    def columns(name: str) -> list[str]:
        return [
            line.strip()
            for line in FILES[name].text.splitlines()
            if " AS " in line and "VIEW" not in line and not line.startswith("WITH")
        ]

    assert columns("0004_trade_bars.apache") == columns("0004_trade_bars.timescale")


def test_a_change_of_edition_brings_what_is_missing() -> None:
    applied = {m.name: m.checksum for m in plan(read(), "apache", {})}
    names = [m.name for m in plan(read(), "timescale", applied)]
    assert names == ["0004_trade_bars.timescale", "0005_columnstore.timescale"]


def test_a_changed_or_unknown_file_is_refused() -> None:
    one = Migration("0001_a", None, "SELECT 1;\n")
    with pytest.raises(MigrationError, match=r"0001_a\.sql was changed.*higher-numbered"):
        plan([one], "apache", {"0001_a": "other"})
    with pytest.raises(MigrationError, match="newer"):
        plan([one], "apache", {"0001_a": one.checksum, "0002_b": "x"})
    assert plan([one], "apache", {"0001_a": one.checksum}) == []


def test_statements_are_split_outside_of_bodies() -> None:
    text = "-- head\nSELECT 1;\n\nDO $$\nBEGIN\n    x;\nEND\n$$;\nSELECT\n    2;\n"
    assert split(text) == ["SELECT 1", "DO $$\nBEGIN\n    x;\nEND\n$$", "SELECT\n    2"]
    with pytest.raises(AssertionError, match="no ';'"):
        split("SELECT 1")


def test_retention_by_edition() -> None:
    keep = {"quotes": 30, "trades": None}
    day = date(2026, 3, 31)
    assert retention.statements("apache", keep, day) == {
        "quotes": [
            "SELECT drop_chunks('store.quotes', older_than => timestamptz '2026-03-01 00:00:00+00')"
        ]
    }
    remove = "SELECT remove_retention_policy('store.{}', if_exists => true)"
    assert retention.statements("timescale", keep, day) == {
        "quotes": [
            remove.format("quotes"),
            "SELECT add_retention_policy('store.quotes', "
            "drop_after => interval '30 days', if_not_exists => true)",
        ],
        "trades": [remove.format("trades")],
    }
    assert retention.KEEP_DAYS.keys() == TABLES.keys()
