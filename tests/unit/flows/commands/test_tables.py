"""``marketflow tables``: what it shows is what queries find, and the docs page is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marketflow.flows.commands.app import app
from marketflow.flows.errors import UsageError
from marketflow.flows.queries.describe import described, page
from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.root import ROOT


def test_columns_and_types_are_those_of_the_views(tmp_path: Path) -> None:
    ParquetWriter(tmp_path).close()
    con = open_lake(tmp_path)
    for table in described():
        view = con.sql(f"FROM {table['table']}")
        assert [c["column"] for c in table["columns"]] == view.columns
        assert [c["type"] for c in table["columns"]] == [str(kind) for kind in view.types]


def test_every_quantity_has_a_unit_and_every_column_a_meaning() -> None:
    kinds = {Kind.DECIMAL, Kind.SUM, Kind.TIME, Kind.DECIMALS, Kind.COUNTS}
    for table in TABLES.values():
        for field in table.fields:
            assert field.doc
            assert field.measure or field.kind not in kinds, f"{table.name}.{field.name}"


def test_the_page_of_the_docs_is_up_to_date() -> None:
    made = page(described())
    assert (ROOT / "docs" / "tables.md").read_text() == made, (
        "marketflow tables --markdown > docs/tables.md"
    )


def test_one_table_for_people_and_for_machines() -> None:
    shown = CliRunner().invoke(app, ["tables", "trades"], env={"COLUMNS": "80"}).stdout
    assert "aggressor_side" in shown and "bid_prices" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    [table] = json.loads(CliRunner().invoke(app, ["tables", "trades", "--json"]).stdout)
    price = next(c for c in table["columns"] if c["column"] == "price")
    assert price == {
        "column": "price",
        "type": "DECIMAL(28,12)",
        "unit": "quote currency per unit",
        "nullable": False,
        "meaning": "price traded",
        "words": None,
    }
    side = next(c for c in table["columns"] if c["column"] == "aggressor_side")
    assert side["words"] == ["none", "buy", "sell"]
    with pytest.raises(UsageError, match="no table 'trade': did you mean trades"):
        described("trade")
