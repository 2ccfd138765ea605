"""What a query may be: one statement that only reads, by lists of what is allowed.

A lake's query is judged by DuckDB's own parse of it, so nothing depends on how it is written; the
connection (flows.queries.duckdb_lake) reads only below the lake's folder besides. A database's
query is judged by its first word and by the functions it names; the login it runs as cannot write
(infra.reader), the transaction is read-only and never committed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import duckdb

from marketflow.flows.errors import UsageError

if TYPE_CHECKING:
    import psycopg  # a lake's query starts without it

_INSTEAD: Final = "write a SELECT; to keep a result use --format parquet --out FILE"
_GAP: Final = r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_LEAD: Final = re.compile(rf"\A{_GAP}", re.DOTALL)
_EXPLAIN: Final = re.compile(
    rf"explain\b{_GAP}"
    r"(\((?=\s*(?:analyze|format|verbose|costs|buffers|timing|settings|summary)\b)[^()]*\)"
    rf"|(?:analyze\b{_GAP})?(?:verbose\b)?){_GAP}",
    re.DOTALL | re.IGNORECASE,
)

_QUERIES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
#: What may stand in a FROM with arguments. Files are the lake's: the connection sees no others.
_TABLE_FUNCTIONS: Final = frozenset({
    "range", "generate_series", "unnest", "repeat", "repeat_row", "histogram",
    "histogram_values", "json_each", "json_tree", "glob", "read_parquet", "parquet_scan",
    "parquet_metadata", "parquet_file_metadata", "parquet_kv_metadata", "parquet_schema",
    "duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_memory",
    "duckdb_settings", "duckdb_tables", "duckdb_types", "duckdb_views", "pg_timezone_names",
    "pragma_table_info", "pragma_version", "summary", "test_all_types",
})  # fmt: skip


def lake_statement(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """The query as it may run. Raises UsageError for anything but one statement that reads."""
    statements = con.extract_statements(query)
    if len(statements) != 1:
        raise UsageError(f"one SELECT at a time, not {len(statements)} statements")
    kind = statements[0].type.name
    start = _start(query)
    explained = _EXPLAIN.match(query, start)
    if kind == "EXPLAIN" and explained is not None:
        inner = lake_statement(con, query[explained.end() :])
        return f"EXPLAIN {explained[1]} {inner}"
    if kind != "SELECT":
        raise _refused(kind, "a lake is read-only")
    [(text,)] = con.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        raise UsageError(f"{parsed['error_message']}: {_INSTEAD}")
    _check_parse(parsed["statements"])
    return query


def _check_parse(value: Any) -> None:
    """Every query inside the query reads, too (a CTE may be a COPY or an INSERT)."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if "cte_map" in part and kind not in _QUERIES:
                raise _refused(str(kind).removesuffix("_QUERY_NODE"), "a lake is read-only")
            if kind == "TABLE_FUNCTION":
                name = part["function"]["function_name"].lower()
                if name not in _TABLE_FUNCTIONS:
                    raise UsageError(
                        f"{name}(…) is not allowed here: a query reads the tables of its lake; "
                        "FROM takes their names (such as FROM trades), read_parquet of the lake's "
                        "own files, generate_series, unnest"
                    )
            pending.extend(part.values())


_READS: Final = re.compile(r"(?:select|with|values|table)\b|\(", re.IGNORECASE)
_SHOW: Final = re.compile(r"show\b", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W\d]\w*")
#: Volatile, and yet no more than an answer.
_HARMLESS: Final = frozenset({
    "approximate_row_count", "array_sample", "array_shuffle", "bernoulli",
    "chunks_detailed_size", "clock_timestamp", "current_query", "gen_random_uuid",
    "hypertable_approximate_detailed_size", "hypertable_approximate_size",
    "hypertable_detailed_size", "hypertable_index_size", "hypertable_size", "interpolate",
    "locf", "pg_collation_actual_version", "pg_database_size", "pg_indexes_size",
    "pg_is_in_recovery", "pg_jit_available", "pg_relation_size", "pg_table_size",
    "pg_tablespace_size", "pg_total_relation_size", "random", "random_normal", "show_chunks",
    "system", "time_bucket_gapfill", "timeofday", "uuidv4", "uuidv7",
})  # fmt: skip
_VOLATILE: Final = """
SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE (p.provolatile = 'v' OR p.prosecdef OR p.prokind = 'p') AND p.proname = ANY(%(words)s)
  AND (n.nspname NOT LIKE '\\_timescaledb%%' OR n.nspname = ANY(%(words)s))
"""


def is_cursor_query(query: str) -> bool:
    """Whether a cursor can be declared for it: rows may come a batch at a time then."""
    return _READS.match(query, _start(query)) is not None


def check_database_query(connection: psycopg.Connection[Any], query: str) -> None:
    """Raise UsageError for anything but a statement that reads."""
    start = _start(query)
    explained = _EXPLAIN.match(query, start)
    inner = start if explained is None else explained.end()
    if not _READS.match(query, inner) and (explained or not _SHOW.match(query, inner)):
        word = _WORD.match(query, inner)
        raise _refused("this" if word is None else word[0], "the database is only read")
    # Any function with a name in the text, wherever it stands: nothing to be fooled by. Words
    # that are escaped (U&"…") cannot be seen.
    if re.search(r"u&[\"']", query, re.IGNORECASE):
        raise UsageError("U&-escapes are not allowed here: write the characters themselves")
    words = sorted({word.lower() for word in _WORD.findall(query)} - _HARMLESS)
    found = connection.execute(_VOLATILE, {"words": words}).fetchone()
    if found is not None:
        raise UsageError(
            f"{found[0]} is not allowed here, a function of that name may do more than read; a "
            f"column or text of that name is taken for it. {_INSTEAD.capitalize()}"
        )


def _start(query: str) -> int:
    """Where the first word is: queries may begin with comments."""
    lead = _LEAD.match(query)
    assert lead is not None
    return lead.end()


def _refused(kind: str, why: str) -> UsageError:
    return UsageError(f"{kind.upper()} is not allowed here, {why}: {_INSTEAD}")
