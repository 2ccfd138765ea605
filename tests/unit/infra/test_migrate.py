"""Which statements an edition gets, and that the checked-in SQL is that of the field tables.

The full edition cannot be run here: its statements are compared with those that were measured on
it (TimescaleDB 2.29.2 on PostgreSQL 17).
"""

from __future__ import annotations

import re
from datetime import date

import pytest

from marketflow.infra import retention
from marketflow.infra.migrate import Migration, MigrationError, plan, read, split
from marketflow.schemas.derived import sql
from marketflow.schemas.tables import TABLES

FILES = {m.name: m for m in read()}


def told(edition: str) -> list[str]:
    return [s for m in plan(read(), edition, {}) for s in m.statements]


def _altered(create: str) -> str:
    """A table's first DDL as later files change it: columns appended, or null allowed, and the
    shard a longer number."""
    if not create.startswith("CREATE TABLE"):
        return create
    create = create.replace('"shard" smallint', '"shard" bigint')
    head = f"ALTER TABLE {create.split()[5]} "
    lines = create.removesuffix("\n)").split(",\n")
    for migration in FILES.values():
        for statement in migration.statements:
            if not statement.startswith(head) or "SET (" in statement:
                continue
            change = statement.removeprefix(head)
            if change.startswith("ADD COLUMN IF NOT EXISTS "):
                lines.append("    " + change.removeprefix("ADD COLUMN IF NOT EXISTS "))
                continue
            assert change.endswith(" DROP NOT NULL"), statement
            name = change.removeprefix("ALTER COLUMN ").removesuffix(" DROP NOT NULL")
            lines = [
                line.removesuffix(" NOT NULL") if f" {name} " in line else line for line in lines
            ]
    return ",\n".join(lines) + "\n)"


def test_the_checked_in_ddl_is_that_of_the_field_tables() -> None:
    store, views = [], {}
    for table in TABLES.values():
        store += [sql.create_table(table), sql.create_hypertable(table), sql.create_index(table)]
        views[table.name] = sql.create_view(table)
    assert [_altered(statement) for statement in FILES["0001_store"].statements] == store
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


def bar_views(edition: str) -> dict[str, str]:
    """By name what the bars from trades are selected by."""
    found = {}
    for statement in told(edition):
        made = re.match(r"CREATE (?:OR REPLACE|MATERIALIZED) VIEW .*?(trade_bars_1.)\b", statement)
        if made:
            select = statement.partition("AS\nSELECT")[2]
            found[made[1]] = select.removesuffix("\nWITH NO DATA")
    return found


def test_both_editions_have_the_same_bars_from_trades() -> None:
    """Columns, filters and groups alike, so that the rows are the same."""
    assert bar_views("apache").keys() == {"trade_bars_1m", "trade_bars_1d"}
    assert bar_views("apache") == bar_views("timescale")
    assert all("GROUP BY 1, 2, 3" in select for select in bar_views("apache").values())


def test_the_bars_of_the_full_edition_reach_back_to_the_first_trade() -> None:
    """Whenever it is loaded: a policy of the last days forgets files, back-fills, --replace."""
    policies: dict[str, str] = {}
    statements = told("timescale")
    for statement in statements:
        name = next((n for n in ("trade_bars_1m", "trade_bars_1d") if f"'{n}'" in statement), "")
        if "remove_continuous_aggregate_policy" in statement:
            del policies[name]
        elif "add_continuous_aggregate_policy" in statement:
            assert name not in policies  # a second one is left out without an error
            policies[name] = statement
    assert policies == {
        name: f"SELECT add_continuous_aggregate_policy('{name}', start_offset => NULL, "
        f"end_offset => interval '{end}', schedule_interval => interval '1 minute', "
        "if_not_exists => true)"
        for name, end in (("trade_bars_1m", "2 minutes"), ("trade_bars_1d", "1 day"))
    }
    # What has been missing is made, after what it is made from, and up to no open bar.
    minutes, days = (
        statements.index(f"CALL refresh_continuous_aggregate('{name}', NULL, now() - {end})")
        for name, end in (
            ("trade_bars_1m", "interval '2 minutes'"),
            ("trade_bars_1d", "interval '1 day'"),
        )
    )
    assert minutes < days < statements.index(policies["trade_bars_1m"])
    assert not FILES["0007_trade_bars_history.timescale"].in_transaction


def test_a_change_of_edition_brings_what_is_missing() -> None:
    applied = {m.name: m.checksum for m in plan(read(), "apache", {})}
    names = [m.name for m in plan(read(), "timescale", applied)]
    assert names == [
        "0004_trade_bars.timescale",
        "0005_columnstore.timescale",
        "0007_trade_bars_history.timescale",
        "0010_rows_again.timescale",
        "0012_columnstore.timescale",
    ]


def test_a_database_of_an_earlier_release_gets_the_new_policies() -> None:
    applied = {m.name: m.checksum for m in plan(read(), "timescale", {}) if m.name < "0007"}
    names = [m.name for m in plan(read(), "timescale", applied)]
    assert names[0] == "0007_trade_bars_history.timescale"


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
    first = retention.first_day(date(2026, 3, 31), 30)
    assert retention.drop_chunks("quotes", first) == (
        "SELECT drop_chunks('store.quotes', older_than => timestamptz '2026-03-01 00:00:00+00')"
    )
    remove = "SELECT remove_retention_policy('store.{}', if_exists => true)"
    assert retention.policies(keep) == {
        "quotes": [
            remove.format("quotes"),
            "SELECT add_retention_policy('store.quotes', "
            "drop_after => interval '30 days', if_not_exists => true)",
        ],
        "trades": [remove.format("trades")],
    }
    assert retention.KEEP_DAYS.keys() == TABLES.keys()
