"""Quotes into a table by libraries: psycopg executemany, ADBC ingest. Arguments: DSN, Arrow file.

A hypertable of eight columns with one index; nothing is noted of what was written: less than what
the sink does.
"""

from __future__ import annotations

import json
import sys
import time

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa

_COLUMNS = (
    ("ts_event", "timestamptz"), ("venue", "text"), ("symbol", "text"),
    ("bid_price", "numeric(28, 12)"), ("bid_size", "numeric(28, 12)"),
    ("ask_price", "numeric(28, 12)"), ("ask_size", "numeric(28, 12)"), ("sequence", "bigint"),
)  # fmt: skip


def _table(dsn: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS peer")
        connection.execute(f"CREATE TABLE peer ({columns})")
        connection.execute("SELECT create_hypertable('peer', by_range('ts_event'))")
        connection.execute("CREATE INDEX ON peer (symbol, ts_event)")


def _executemany(dsn: str, rows: pa.Table) -> float:
    values = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    _table(dsn)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.executemany(f"INSERT INTO peer VALUES ({', '.join(['%s'] * len(_COLUMNS))})", values)
        connection.commit()
        return len(values) / (time.perf_counter() - started)


def _adbc(dsn: str, rows: pa.Table) -> float:
    _table(dsn)
    with adbc.connect(dsn) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.adbc_ingest("peer", rows, mode="append")
        connection.commit()
        return float(rows.num_rows) / (time.perf_counter() - started)


def main() -> None:
    dsn, path = sys.argv[1:]
    with pa.OSFile(path) as file:
        rows = pa.ipc.open_file(file).read_all().select([name for name, _ in _COLUMNS])
    print(
        json.dumps(
            {
                "psycopg executemany": _executemany(dsn, rows.slice(0, rows.num_rows // 4)),
                "ADBC ingest": _adbc(dsn, rows),
            }
        )
    )


if __name__ == "__main__":
    main()
