"""Compile and cache every kernel by sending small simulated feeds through the real flow."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import lines
from flows.run import run
from schemas.tables import TABLES
from sinks.copy_binary import compile_kernels

_FEEDS = ("sim:?events=20000&symbols=20&seed=1", "sim:?events=4000&symbols=3&format=binance")


def run_warmup(console: Console) -> dict[str, Any]:
    """Returns {seconds, feeds}; a second call takes a second or two, for everything is cached."""
    console.print("compiling kernels (once per release; cached afterwards) ...")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="marketflow-warmup-") as folder:
        for index, feed in enumerate(_FEEDS):
            run("market_data", [feed], [f"parquet:{Path(folder) / str(index)}"])
    for table in TABLES.values():
        compile_kernels(table)
    lines.warm()
    seconds = round(time.monotonic() - started, 1)
    console.print(f"kernels are ready ({seconds} s)")
    return {"seconds": seconds, "feeds": list(_FEEDS)}
