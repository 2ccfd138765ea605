"""Kernels are compiled before a run, in several processes; what compiles is said and counted."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest
from numba.core import event

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.market_data.compiled import BOOKS, ITCH, ROWS
from marketflow.flows.recording.line_pump import LINES
from marketflow.flows.runtime.compiling import COMPILING, Compiling
from marketflow.flows.runtime.kernels import SIMULATORS, _crews, parts_of
from marketflow.flows.runtime.run import timed
from marketflow.sources.registry import parse_source
from tests.support.root import ROOT

_COLD = """
import json, logging, sys, time
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.catalogue import load
from marketflow.flows.market_data.compiled import ITCH
from marketflow.flows.recording.line_pump import LINES
from marketflow.flows.runtime.kernels import prepare
said = prepare([ITCH, LINES], "a test")
again = prepare([ITCH, LINES], "a test")
for part in (ITCH, LINES):
    load(part.warm)()
print(json.dumps({"first": said, "again": again, "here": COMPILING.kernels}))
"""


def test_what_was_compiled_beside_is_not_compiled_here(tmp_path: Path) -> None:
    """From an empty cache: two processes compile, this one only loads."""
    done = subprocess.run(
        [sys.executable, "-c", _COLD], capture_output=True, text=True, timeout=280, cwd=ROOT,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"] > 0
    assert found["again"] == 0
    assert found["here"] == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0] == f"compiling kernels for a test, once, about {LINES.seconds} s"
    assert said[1].startswith("kernels are ready (")
    assert len(said) == 2


def test_processes_take_about_as_long_as_each_other() -> None:
    simulator = SIMULATORS["itch"]
    crews = _crews([ITCH, BOOKS, ROWS, simulator], 2)
    assert crews == [[BOOKS], [ROWS, simulator, ITCH]]
    assert _crews([ITCH, BOOKS], 1) == [[BOOKS, ITCH]]
    assert _crews([ITCH], 8) == [[ITCH]]


@pytest.mark.parametrize(
    ("source", "sink", "parts"),
    [
        ("sim:", "null:", ["books", "rows", "itch", "simulator"]),
        ("sim:?format=binance", "null:", ["books", "rows", "binance", "simulator_binance"]),
        ("kafka://h:1/raw.binance", "null:", ["books", "rows", "binance"]),
        ("kafka://h:1/frames?venue=xnas", "null:", ["books", "rows", "itch"]),
        ("kafka://h:1/raw.okx", "timescale:postgresql://h/d", ["books", "rows", "timescale"]),
    ],
)
def test_a_run_prepares_what_it_needs(source: str, sink: str, parts: list[str]) -> None:
    found = parts_of(find(DEFAULT_FLOW), [parse_source(source)], [sink])
    assert [part.name for part in found] == parts


def test_what_compiles_meanwhile_is_said_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = Compiling()
    names: list[str] = []
    listener.on_done = names.append

    @numba.njit
    def inner(x: int) -> int:
        return x + 1

    @numba.njit
    def outer(x: int) -> int:
        return inner(x) * 2

    event.register("numba:compile", listener)
    try:
        with caplog.at_level(logging.WARNING):
            started = time.monotonic()
            assert outer(1) == 4
            assert outer(1.5) == 5.0
    finally:
        event.unregister("numba:compile", listener)
    assert [name.rpartition(".")[2] for name in names][:2] == ["inner", "outer"]
    assert listener.kernels == len(names) >= 4
    assert 0 < listener.seconds <= time.monotonic() - started
    assert listener.name == ""
    said = [r for r in caplog.records if "compiling kernels" in r.getMessage()]
    assert len([r for r in said if "outer" in r.getMessage()]) >= 1


def test_the_compiler_is_left_out_of_rates() -> None:
    @numba.njit
    def slow(x: int) -> int:
        return x * 3

    before, began = COMPILING.seconds, time.monotonic()
    with timed(5.0) as clock:
        slow(2)
        compiled = COMPILING.seconds - before
        time.sleep(0.2)
    figures = clock.figures({"new_messages": 1000})
    assert compiled > 0
    assert figures["compile_s"] == pytest.approx(5.0 + compiled, abs=0.002)
    assert 0.2 <= figures["seconds"] <= time.monotonic() - began - compiled + 0.002
    assert figures["messages_per_s"] == pytest.approx(1000 / figures["seconds"], rel=0.01)
