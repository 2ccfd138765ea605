"""Compile and cache every kernel ahead of time, so that no later start waits for the compiler."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from marketflow.flows.catalogue import DEFAULT_FLOW
from marketflow.flows.recording.line_pump import LINES
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.kernels import all_parts, prepare
from marketflow.flows.runtime.run import run

_FEEDS = ("sim:?events=20000&symbols=20&seed=1", "sim:?events=4000&symbols=3&format=binance")


def run_warmup(console: Console) -> dict[str, Any]:
    """Returns {seconds, kernels, feeds}: how long the compiler took, and how many kernels small
    simulated feeds through the real flow needed besides; a second call takes a second or two."""
    seconds = prepare([*all_parts(), LINES], "all feeds", console)
    before, before_s = COMPILING.kernels, COMPILING.seconds
    with tempfile.TemporaryDirectory(prefix="marketflow-warmup-") as folder:
        for index, feed in enumerate(_FEEDS):
            run(DEFAULT_FLOW, [feed], [f"parquet:{Path(folder) / str(index)}"])
    seconds += COMPILING.seconds - before_s
    console.print(f"all kernels are ready ({seconds:.1f} s of compiling)")
    return {
        "seconds": round(seconds, 1),
        "kernels": COMPILING.kernels - before,
        "feeds": list(_FEEDS),
    }
