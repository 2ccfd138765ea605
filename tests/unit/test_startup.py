"""A query starts without what it does not need: each of these takes longer than the query."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sinks.parquet import ParquetWriter
from tests.batches import Feed

_RUN = """
import sys
from flows.cli import main
sys.argv = ["marketflow", *sys.argv[1:]]
main()
sys.stderr.write(" ".join(sys.modules))
"""
_HEAVY = {
    "bytewax", "confluent_kafka", "databento_dbn", "fastavro", "msgspec", "numba", "numpy",
    "polars", "psycopg", "pyarrow.parquet", "pydantic_settings", "websockets",
}  # fmt: skip


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_a_query_imports_nothing_heavy(tmp_path: Path, form: str) -> None:
    lake = tmp_path / "lake"
    writer = ParquetWriter(lake)
    writer.write(Feed(np.random.default_rng(1)).item(0, {"trades": 30, "depth": 30}))
    writer.close()
    query = "SELECT t.*, bid_prices FROM trades t JOIN depth USING (row_sequence) LIMIT 2"
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "sql", "--lake", lake, "--format", form, query],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bid_prices" in done.stdout
    assert not _HEAVY & set(done.stderr.split())
