"""Tables for people: as narrow as the values, digits left out in them alone, a screen at most."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from marketflow.flows.queries.answer_table import print_table
from marketflow.flows.queries.answers import Answer
from marketflow.flows.queries.sql import print_query
from marketflow.schemas.derived.arrow import dictionary, schema
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.batches import Item
from tests.support.pages import blocks, pages

NS = 1_723_161_360_123_456_789  # 2024-08-08 23:56:00.123456789


def shown(
    answer: Answer, *, width: int = 80, height: int = 25, terminal: bool = True,
    rows: int | None = None,
) -> list[str]:  # fmt: skip
    """The lines of a table, without colours."""
    page = io.StringIO()
    console = Console(
        file=page, width=width, height=height, force_terminal=terminal, color_system=None
    )
    print_table(answer, console, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue()).splitlines()


def answer(**columns: pa.Array) -> Answer:
    batch = pa.RecordBatch.from_pydict(columns)
    return Answer.of(batch.schema, iter([batch]))


def decimals(*values: str | None, scale: int = 12) -> pa.Array:
    kind = pa.decimal128(38, scale)
    return pa.array([None if v is None else Decimal(v) for v in values], kind)


def column(lines: list[str]) -> list[str]:
    """The cells of a table of one column, with their room."""
    return [line.strip("│") for line in lines if line.startswith("│")]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (decimals("61234.56", "0.5", "100", None), ["61234.56", "0.5", "100", "NULL"]),
        (decimals("100", "2000"), ["100", "2000"]),
        (decimals("0.000000000001", "-7"), ["0.000000000001", "-7"]),
        (decimals("2.0123456789012345678901234", scale=25), ["2.012345679"]),
        (decimals("0.00000000000000000001234", scale=25), ["0.00000000000000000001234"]),
        (pa.array([0.1 + 0.2, 2.0, 1e30, None]), ["0.3", "2", "1e+30", "NULL"]),
        (pa.array([12345678901234567890], pa.uint64()), ["12345678901234567890"]),
        (pa.array([True, False, None]), ["true", "false", "NULL"]),
        (pa.array([NS, None], pa.timestamp("ns")), ["2024-08-08 23:56:00.123456789", "NULL"]),
        (pa.array([NS // 10**6 * 10**6], pa.timestamp("ns")), ["2024-08-08 23:56:00.123"]),
        (pa.array([NS // 10**9 * 10**6], pa.timestamp("us")), ["2024-08-08 23:56:00"]),
    ],
)
def test_needless_digits_are_left_out(values: pa.Array, cells: list[str]) -> None:
    lines = column(shown(answer(x=values)))
    assert [line.strip() for line in lines] == cells
    assert len({line.index(".") for line in lines if "." in line}) <= 1  # one below the other


def test_lists_stand_one_below_the_other() -> None:
    kind = pa.list_(pa.decimal128(28, 12))
    prices = pa.array([[Decimal("61234.5"), Decimal(61234)], [Decimal(1)]], kind)
    lines = shown(answer(a=prices, b=pa.array([[1, 2], None], pa.list_(pa.int32()))))
    body = [line for line in lines if line.startswith(("│", "├"))]
    assert [re.sub(r"\s+", " ", line) for line in body] == [
        "│ 61234.5 │ 1 │", "│ 61234 │ 2 │", "├─────────┼──────┤", "│ 1 │ NULL │",
    ]  # fmt: skip


def test_the_table_gets_tighter_before_rows_stand_one_below_the_other() -> None:
    times = pa.array([NS], pa.timestamp("ns"))

    def wide(**more: pa.Array) -> Answer:
        return answer(kind=pa.array(["out_of_order"]), first=times, last=times, **more)

    framed = shown(wide(), width=90)
    assert framed[0].startswith("┏")
    tight = shown(wide(), width=74)
    assert not tight[0].startswith("┏") and "2024-08-08 23:56:00.123456789" in tight[2]
    named = shown(wide(a_name_that_is_long=pa.array([1])), width=80)
    assert [line.split()[-1] for line in named[:5]] == ["a_", "name_", "that_", "is_", "long"]
    folded = shown(wide(), width=54)
    assert folded[2].split() == ["out_of_order", "2024-08-08", "2024-08-08"]
    assert folded[3].split() == ["23:56:00.123456789"] * 2
    below = shown(wide(), width=40)
    assert below[0].startswith("row 1 ─")
    assert below[2] == "first  2024-08-08 23:56:00.123456789"
    piped = shown(wide(), width=40, terminal=False)
    assert piped[0].startswith("┏") and len(piped[0]) == 80


@pytest.mark.parametrize("rows", [None, 0, 5])
def test_a_screen_at_most_unless_asked(
    rows: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def many() -> Iterator[pa.RecordBatch]:
        for start in range(0, 3000, 1000):
            yield pa.RecordBatch.from_pydict({"x": pa.array(range(start, start + 1000))})

    lines = shown(Answer(pa.schema({"x": pa.int64()}), many()), rows=rows)
    said = capsys.readouterr().err
    if rows == 0:
        assert len(lines) == 3000 + 4 and said == ""
    elif rows == 5:
        assert len(lines) == 5 + 4 and "the first 5 rows: --rows 0 shows all" in said
    else:
        assert len(lines) < 25 and "the first 19 rows" in said
    piped = shown(Answer(pa.schema({"x": pa.int64()}), many()), rows=rows, terminal=False)
    assert len(piped) == {None: 1000, 0: 3000, 5: 5}[rows] + 4


def test_long_lists_and_rows_below_each_other_fit_a_screen_too() -> None:
    lists = pa.array([list(range(100)), [1]], pa.list_(pa.int64()))
    lines = shown(answer(x=lists))
    assert len(lines) < 25 and "… 82 more" in "\n".join(lines)
    wide = {f"column_{i}": pa.array(["x" * 60] * 50) for i in range(8)}
    assert len(shown(answer(**wide))) <= 25


def test_no_rows_and_no_values() -> None:
    assert len(shown(answer(x=pa.array([], pa.int64())))) == 4
    assert column(shown(answer(x=pa.array([None, None]))))[0].strip() == "NULL"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as a venue makes them: nanoseconds, prices of 7 digits, books of 10 levels."""
    root = tmp_path_factory.mktemp("table") / "lake"
    values: dict[str, Any] = {
        "venue": "binance", "symbol": "BTCUSDT", "interval": "1m",
        "book_state": "valid", "aggressor_side": "sell", "side": "bid", "kind": "out_of_order",
        "status": "normal", "action": "add",
    }  # fmt: skip
    tables = {}
    for name in ("trades", "quotes", "bars", "depth", "quality_events"):
        columns = []
        for field in schema(TABLES[name]):
            kind = field.type
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            if field.name in values:
                made = pa.array([values[field.name]] * 40, plain)
            elif pa.types.is_dictionary(kind) and TABLES[name].field(field.name).kind is Kind.CODE:
                words = dictionary(TABLES[name].field(field.name))
                made = pa.array([words[0].as_py()] * 40, plain)
            elif field.name == "row_sequence":
                made = pa.array(range(40), plain)
            elif pa.types.is_timestamp(plain):
                made = pa.array([NS + i * 61_000_000_001 for i in range(40)]).cast(plain)
            elif pa.types.is_decimal(plain):
                made = pa.array([Decimal("61234.56") + i for i in range(40)], plain)
            elif pa.types.is_list(plain):
                item = plain.value_type
                level = Decimal("61234.56") if pa.types.is_decimal(item) else 3
                made = pa.array([[level] * 10] * 40, plain)
            elif pa.types.is_boolean(plain):
                made = pa.array([True] * 40, plain)
            elif pa.types.is_integer(plain):
                made = pa.array([0] * 40, plain)
            else:
                made = pa.array(["x"] * 40).cast(plain)
            columns.append(made.dictionary_encode().cast(kind) if plain != kind else made)
        tables[name] = pa.RecordBatch.from_arrays(columns, schema=schema(TABLES[name]))
    writer = ParquetWriter(root)
    writer.write(Item(0, tables))
    writer.close()
    return root


def queries_of_pages() -> list[str]:
    """The queries that the README pages offer, in their blocks of SQL."""
    texts = [b.text + "\n" for page in pages() for b in blocks(page) if b.language == "sql"]
    return [query for text in texts for query in text.split(";\n") if "SELECT" in query]


@pytest.mark.parametrize("query", queries_of_pages())
def test_the_queries_of_the_pages_fit_80_columns(lake: Path, query: str) -> None:
    query = query.replace("2024-08-08 23:56:00", "2024-08-09 23:56:00")
    page = io.StringIO()
    console = Console(file=page, width=80, height=25, force_terminal=True, color_system=None)
    print_query(query, lake, None, "table", None, console)
    lines = page.getvalue().splitlines()
    assert "─ " not in lines[0] and not lines[0].startswith("row 1")
    assert max(map(len, lines)) <= 80
    assert 3 < len(lines) <= 25
    assert "000000" not in page.getvalue()
