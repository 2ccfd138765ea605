"""Arrow, numpy, SQL, Avro and expectations say the same of every field of every table."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from decimal import Decimal
from enum import IntEnum
from typing import Any

import duckdb
import fastavro
import numpy as np
import pyarrow as pa
import pytest

from marketflow.schemas import codes, tables, units
from marketflow.schemas.derived import arrow, avro, expectations, sql
from marketflow.schemas.derived import kernel_rows as rows
from marketflow.schemas.fields import Field, Kind, Table
from tests.contract import schema_history

TABLES = pytest.mark.parametrize("table", tables.TABLES.values(), ids=lambda t: t.name)

#: The translation, written down a second time: Arrow, SQL, Avro.
EXPECTED: dict[Kind, tuple[str, str, Any]] = {
    Kind.SHARD: ("int64", "bigint", "long"),
    Kind.INT32: ("int32", "integer", "int"),
    Kind.INT64: ("int64", "bigint", "long"),
    Kind.UINT8: ("uint8", "smallint", "int"),
    Kind.BOOL: ("bool", "boolean", "boolean"),
    Kind.DECIMAL: ("decimal128(28, 12)", "numeric(28,12)", "decimal 28 12"),
    Kind.SUM: ("decimal128(38, 12)", "numeric(38,12)", "decimal 38 12"),
    Kind.TIME: ("timestamp[ns, tz=UTC]", "timestamptz", "timestamp-nanos"),
    Kind.CODE: (
        "dictionary<values=string, indices=int8, ordered=0>",
        "smallint",
        "enum",
    ),
    Kind.NAME: ("dictionary<values=string, indices=int32, ordered=0>", "text", "string"),
    Kind.ID: ("string", "text", "string"),
    Kind.TEXT: ("string", "text", "string"),
    Kind.BYTES: ("large_binary", "bytea", "bytes"),
    Kind.DECIMALS: (
        "list<item: decimal128(28, 12) not null>",
        "numeric(28,12)[]",
        "array of decimal 28 12",
    ),
    Kind.COUNTS: ("list<item: int32 not null>", "integer[]", "array of int"),
}


def avro_name(kind: Any) -> str:
    """An Avro type in one phrase."""
    if isinstance(kind, str):
        return kind
    if kind["type"] == "array":
        return f"array of {avro_name(kind['items'])}"
    if kind.get("logicalType") == "decimal":
        return f"decimal {kind['precision']} {kind['scale']}"
    return str(kind.get("logicalType", kind["type"]))


def sample(field: Field, n: int) -> Any:
    """A legal value; row 0 has the extremes, row 1 nulls where they may be."""
    if field.nullable and n == 1:
        return None
    match field.kind:
        case Kind.SHARD | Kind.INT32:
            return 7
        case Kind.INT64:
            return 2**63 - 1 if n == 0 else 1
        case Kind.UINT8:
            return 7
        case Kind.BOOL:
            return n == 0
        case Kind.DECIMAL:
            return Decimal(f"{units.PRICE_LIMIT}E-12") if n == 0 else Decimal("0.000000000001")
        case Kind.SUM:
            return Decimal(f"{units.SUM_LIMIT}E-12") if n == 0 else Decimal("0.000000000001")
        case Kind.TIME:
            return 1_700_000_000_123_456_789 + n
        case Kind.CODE:
            assert field.codes is not None
            return codes.words(field.codes)[-1 if n == 0 else 0]
        case Kind.BYTES:
            return b"\0\xff"
        case Kind.DECIMALS:
            return [Decimal(f"{units.PRICE_LIMIT}E-12"), Decimal(-1)] if n == 0 else []
        case Kind.COUNTS:
            return [1, 2**31 - 1] if n == 0 else []
    return "é ' \"" if n == 0 else "x"


def samples(table: Table) -> list[dict[str, Any]]:
    return [{f.name: sample(f, n) for f in table.fields} for n in range(3)]


def arrow_table(table: Table, values: list[dict[str, Any]]) -> pa.Table:
    columns = []
    for field in table.fields:
        column = [row[field.name] for row in values]
        kind = arrow.arrow_type(field)
        if field.kind is Kind.CODE:
            known = arrow.dictionary(field)
            at = [None if v is None else known.to_pylist().index(v) for v in column]
            columns.append(pa.DictionaryArray.from_arrays(pa.array(at, pa.int8()), known))
        else:
            columns.append(pa.array(column, kind))
    return pa.Table.from_arrays(columns, schema=arrow.schema(table))


@TABLES
def test_every_field_is_translated_alike(table: Table) -> None:
    schema, record = arrow.schema(table), avro.schema(table)
    assert schema.names == [f["name"] for f in record["fields"]] == list(table.names)
    assert schema.metadata[b"marketflow.version"] == str(record["marketflow.version"]).encode()
    stored = {c.name: c for c in sql.columns(table)}
    for field, entry in zip(table.fields, record["fields"], strict=True):
        in_arrow, in_sql, in_avro = EXPECTED[field.kind]
        assert str(schema.field(field.name).type) == in_arrow
        assert schema.field(field.name).nullable == field.nullable
        assert (stored[field.name].type, stored[field.name].nullable) == (in_sql, field.nullable)
        kind = entry["type"]
        if field.nullable:
            assert kind[0] == "null"
            assert entry["default"] is None
            kind = kind[1]
        else:
            assert "default" not in entry
        assert avro_name(kind) == in_avro
        if field.codes is not None:
            assert kind["symbols"] == arrow.dictionary(field).to_pylist()
        if field.kind is Kind.TIME:
            rest = stored.pop(f"{field.name}_ns")
            assert (rest.type, rest.nullable, rest.is_remainder) == (
                "smallint",
                field.nullable,
                True,
            )
        stored.pop(field.name)
    assert not stored


@TABLES
def test_kernel_rows_hold_every_field(table: Table) -> None:
    if {f.kind for f in table.fields} & {Kind.TEXT, Kind.BYTES}:
        with pytest.raises(TypeError, match="no kernel form"):
            rows.row_dtype(table)
        return
    dtype = rows.row_dtype(table)
    left = set(dtype.names or ())
    assert dtype.itemsize % 8 == 0
    for field in table.fields:
        if field.name in ("shard", "row_sequence"):
            continue
        names = {field.name}
        if field.kind in (Kind.SUM, Kind.ID):
            names = {f"{field.name}_hi", f"{field.name}_lo"}
        if field.kind is Kind.ID:
            names.add(f"{field.name}_kind")
        if field.name in ("venue", "symbol"):
            names = {"instrument"}
        elif field.kind in (Kind.DECIMAL, Kind.DECIMALS):
            assert dtype[rows.scale_of(field)] == np.int8
            assert dtype[field.name].base == np.int64
        left -= names
    assert left <= {"price_scale", "size_scale", "bid_levels", "ask_levels", "instrument"}


def test_words_are_in_code_order() -> None:
    coded = schema_history.coded()
    assert {f.codes.__name__ for t in tables.TABLES.values() for f in t.fields if f.codes} <= {
        *coded
    }
    for name, known in coded.items():
        enum: type[IntEnum] = getattr(codes, name)
        assert [enum[word.upper()] for word in known] == list(range(len(enum)))


@TABLES
def test_avro_round_trip(table: Table) -> None:
    schema = fastavro.parse_schema(copy.deepcopy(avro.schema(table)))
    json.dumps(avro.schema(table))
    values = samples(table)
    for row in values:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, row)
        buffer.seek(0)
        back = fastavro.schemaless_reader(buffer, schema)
        assert back == row


@TABLES
def test_an_appended_field_reads_as_null_from_older_messages(table: Table) -> None:
    old = fastavro.parse_schema(copy.deepcopy(avro.schema(table)))
    newer = replace(
        table, version=table.version + 1, fields=(*table.fields, Field("more", Kind.SUM, "", True))
    )
    new = fastavro.parse_schema(copy.deepcopy(avro.schema(newer)))
    row = samples(table)[0]
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, old, row)
    buffer.seek(0)
    assert fastavro.schemaless_reader(buffer, old, new) == {**row, "more": None}


@TABLES
def test_sql_stores_and_shows_every_value(table: Table) -> None:
    # DuckDB speaks enough of the dialect to run all but the Timescale statement.
    values = samples(table)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'; CREATE SCHEMA store")
        for statement in sql.statements(table):
            if "create_hypertable" not in statement:
                db.execute(statement)
        for row in values:
            stored = []
            for column in sql.columns(table):
                value = row[column.field.name]
                if value is not None and column.field.codes is not None:
                    value = codes.words(column.field.codes).index(value)
                if value is not None and column.field.kind is Kind.TIME:
                    value = value % 1000 if column.is_remainder else value // 1000
                stored.append(value)
            marks = ", ".join(
                "make_timestamptz(?::bigint)" if c.type == "timestamptz" else "?"
                for c in sql.columns(table)
            )
            db.execute(f"INSERT INTO store.{table.name} VALUES ({marks})", stored)
        shown = db.sql(f"SELECT * FROM {table.name}").to_arrow_table().to_pylist()
    for row, found in zip(values, shown, strict=True):
        for field in table.fields:
            if field.kind is Kind.TIME:
                assert found[f"{field.name}_epoch_ns"] == row[field.name]
            else:
                value = row[field.name]
                if value is None and field.codes is not None:
                    value = codes.words(field.codes)[0]
                assert found[field.name] == value


@TABLES
def test_hypertable_and_index_name_the_time_field(table: Table) -> None:
    assert f"by_range('{table.time_field}'" in sql.create_hypertable(table)
    assert f'"{table.time_field}")' in sql.create_index(table)


@TABLES
def test_expectations_hold_for_correct_rows(table: Table) -> None:
    found = expectations.expectations(table)
    json.dumps(found)
    data = arrow_table(table, samples(table))
    by_kind: dict[str, dict[str, dict[str, Any]]] = {}
    for item in found:
        kwargs = item["kwargs"]
        by_kind.setdefault(item["expectation_type"], {})[kwargs.get("column", "")] = kwargs
    not_null = by_kind.get("expect_column_values_to_not_be_null", {})
    in_set = by_kind.get("expect_column_values_to_be_in_set", {})
    between = by_kind.get("expect_column_values_to_be_between", {})
    for field in table.fields:
        assert (field.name in not_null) == (not field.nullable)
        assert (field.name in in_set) == (field.codes is not None)
        limited = field.positive or field.non_negative or field.kind is Kind.UINT8
        assert (field.name in between) == limited
        values = (
            [v for v in data.column(field.name).to_pylist() if v is not None] if limited else []
        )
        for value in values:
            low, high = between[field.name]["min_value"], between[field.name].get("max_value")
            assert value > low if between[field.name].get("strict_min") else value >= low
            assert high is None or value <= high
    (identity,) = by_kind["expect_compound_columns_to_be_unique"].values()
    assert identity["column_list"] == ["shard", "row_sequence"]
    (order,) = by_kind["expect_table_columns_to_match_ordered_list"].values()
    assert order["column_list"] == data.schema.names


def test_no_version_on_record_has_changed() -> None:
    record = json.loads(schema_history.RECORD.read_text())
    broken, new = schema_history.differences(record, tables.TABLES, schema_history.coded())
    assert not broken
    assert not new, "run: python -m tests.contract.schema_history"


def _differences(table: Table) -> tuple[list[str], list[str]]:
    record = json.loads(schema_history.RECORD.read_text())
    changed = {**tables.TABLES, table.name: table}
    return schema_history.differences(record, changed, schema_history.coded())


def test_a_change_without_a_new_version_is_caught() -> None:
    more = Field("more", Kind.TEXT, "", True)
    trades = tables.TABLES["trades"]
    appended = replace(trades, fields=(*trades.fields, more))
    assert "without a new version" in _differences(appended)[0][0]
    assert _differences(replace(appended, version=3)) == ([], ["trades version 3"])
    inserted = replace(trades, version=3, fields=(more, *trades.fields))
    assert "only append" in _differences(inserted)[0][0]
    required = replace(trades, version=3, fields=(*trades.fields, replace(more, nullable=False)))
    assert "must be nullable" in _differences(required)[0][0]


def test_reordered_codes_and_lost_tables_are_caught() -> None:
    record = json.loads(schema_history.RECORD.read_text())
    words = schema_history.coded()
    swapped = {**words, "Side": ["none", "ask", "bid"]}
    assert "Side" in schema_history.differences(record, tables.TABLES, swapped)[0][0]
    longer = {**words, "Side": [*words["Side"], "cross"]}
    assert schema_history.differences(record, tables.TABLES, longer) == ([], ["codes of Side"])
    fewer = {name: t for name, t in tables.TABLES.items() if name != "bars"}
    assert "bars is gone" in schema_history.differences(record, fewer, words)[0][0]
