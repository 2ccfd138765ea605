"""A query starts without what it does not need: each of these takes longer than the query."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketflow.sinks.jsonl import json_values
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.batches import Feed

_RUN = """
import sys
from marketflow.flows.commands.app import main
sys.argv = ["marketflow", *sys.argv[1:]]
main()
sys.stderr.write(" ".join(sys.modules))
"""
_HEAVY = {
    "bytewax", "confluent_kafka", "databento_dbn", "fastavro", "msgspec", "numba", "numpy",
    "polars", "psycopg", "pyarrow.compute", "pyarrow.parquet", "pydantic", "websockets",
}  # fmt: skip


def test_few_values_are_written_as_many_are() -> None:
    """Few without pyarrow.compute, many with it."""
    rng = np.random.default_rng(4)
    times = [0, -1, 999, 10**9, 2**63 - 1, -(2**62), *rng.integers(-(2**62), 2**62, 300).tolist()]
    for scale in (0, 2, 12, 20):
        digits = [0, 1, -1, 10**20, -(10**17) + 3, *rng.integers(-(10**9), 10**9, 300).tolist()]
        values = [None, *(Decimal(f"{n}E-{scale}") for n in digits)]
        column = pa.array(values, pa.decimal128(38, scale))
        for trim in (True, False):
            many = json_values(pa.concat_arrays([column] * 4), trim=trim)
            assert json_values(column, trim=trim) * 4 == many
    column = pa.array([None, *times], pa.timestamp("ns"))[1:]
    assert json_values(column) * 4 == json_values(pa.concat_arrays([column] * 4))


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
