"""The whole flow: ITCH file to a Parquet lake, by tables, by processes and by length; start-up."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from marketflow.flows import settings
from marketflow.flows.runtime.run import run
from marketflow.sources.simulator.reader import write_itch
from tests.benchmarks import feeds, per_event
from tests.benchmarks.harness import Result, benchmark, rate
from tests.support.root import ROOT

_MAIN: Final = "trades,quotes,bars"
_MIB: Final = 1 << 20
#: Beyond the number of cores by this factor, a ratio of two runs is noise.
_IMPOSSIBLE: Final = 1.1


@contextmanager
def _day(messages: int) -> Iterator[tuple[str, Path]]:
    """(URL of a simulated day's file of 100 symbols, a folder for lakes)."""
    with tempfile.TemporaryDirectory(prefix="marketflow-bench-") as folder:
        path = Path(folder) / "day.itch"
        write_itch(path, messages)
        path.read_bytes()  # from the page cache: the disk is not what is measured
        yield f"itch:{path}?date={feeds.DAY}", Path(folder)


def _run(source: str, folder: Path, tables: str, processes: int = 1) -> dict[str, Any]:
    lake = folder / "lake"
    chosen = settings.load(tables=tables)
    try:
        return run(
            "market_data", [source], [f"parquet:{lake}"], processes=processes, settings=chosen
        )
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def _peer(count: int) -> float:
    data = b"".join(
        batch.column("payload")[0].as_py() for batch in feeds.frames_of(f"sim:?events={count}")
    )
    return per_event.measure(data, count)


@benchmark("whole flow")
def whole_flow(quick: bool) -> Iterator[Result]:
    """Warm kernels, one process and its writer thread on one core."""
    count = 100_000 if quick else 4_000_000
    slow = {"bytewax, an object per message": _peer(20_000 if quick else 100_000)}
    with _day(count) as (source, folder):
        for tables, target in ((_MAIN, 2e6), (f"{_MAIN},book_events", 1.2e6)):
            made: dict[str, int] = {}

            def once(tables: str = tables, made: dict[str, int] = made) -> int:
                summary = _run(source, folder, tables)
                made.update(summary["tables"])
                return int(summary["messages"])

            value = rate(once, runs=1 if quick else 3)
            rows = ", ".join(f"{rows:,} {name}" for name, rows in sorted(made.items()))
            conditions = (
                f"ITCH file of {count:,} simulated messages of 100 symbols (in the page cache) -> "
                f"Parquet lake ({rows}), kernels warm, flow and writer thread pinned to 1 core"
            )
            yield Result(
                f"ITCH file to lake: {tables}", value, "messages/s", target, conditions, peers=slow
            )


@benchmark("two processes", pinned=False)
def two_processes(quick: bool) -> Iterator[Result]:
    """Two processes, each with its own shards, against one pinned to one core.

    The time to start up is taken out: it is that of a run without most of the day. Best of three,
    in turns. A difference of times means nothing on a busy machine: a ratio that two cores cannot
    give is an error, not a figure.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    long, short = (2_000_000, 200_000) if quick else (6_000_000, 1_000_000)
    rates: dict[int, float] = {}
    with _day(long) as (whole, folder):
        part = folder / "part.itch"
        write_itch(part, short)
        brief = f"itch:{part}?date={feeds.DAY}"
        _timed(brief, folder, 1, cores)  # compiles what is not yet
        seconds: dict[tuple[str, int], list[float]] = {
            (source, processes): [] for source in (brief, whole) for processes in (1, 2)
        }
        for _ in range(1 if quick else 3):
            for (source, processes), taken in seconds.items():
                taken.append(_timed(source, folder, processes, cores[:processes]))
        for processes in (1, 2):
            extra = min(seconds[whole, processes]) - min(seconds[brief, processes])
            rates[processes] = (long - short) / extra
        _timed(whole, folder, 2, cores, keep=True)
        busier = _busier(folder / "lake")
    ratio = rates[2] / rates[1]
    if not 0 < ratio < _IMPOSSIBLE * len(cores):
        raise RuntimeError(
            f"{ratio:.1f} times the rate on {len(cores)} cores: the machine was busy with other "
            "things; measure again when it is quiet"
        )
    conditions = (
        f"tables {_MAIN}; {long:,} less {short:,} simulated messages of 100 symbols, so that the "
        f"start of processes does not count; 1 process on 1 core {rates[1] / 1e6:.2f} M/s, 2 on "
        f"{len(cores)} cores {rates[2] / 1e6:.2f} M/s; one of them has {busier:.0%} of the rows"
    )
    yield Result("second process on a second core", ratio, "×", 1.8, conditions)


def _busier(lake: Path) -> float:
    """The share of the quotes that one of two processes wrote: symbols are dealt out by hash."""
    rows: Counter[str] = Counter()
    for path in lake.glob("quotes/**/*.parquet"):
        writer = path.name.partition("-")[0]
        rows[writer] += pq.ParquetFile(path).metadata.num_rows
    return max(rows.values()) / rows.total()


def _timed(
    source: str, folder: Path, processes: int, cores: list[int], keep: bool = False
) -> float:
    """Seconds of a run of fresh processes on these cores."""
    started = time.perf_counter()
    _command(
        ["--source", source, "--sink", f"parquet:{folder / 'lake'}", "--tables", _MAIN,
         "--processes", str(processes)], cores=cores,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if not keep:
        shutil.rmtree(folder / "lake")
    return seconds


def _command(
    arguments: list[str],
    *,
    cores: list[int] | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """``marketflow run market_data`` in a fresh process; its summary."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)  # children inherit it
    try:
        done = subprocess.run(
            [sys.executable, "-m", "marketflow", "run", "market_data", *arguments, "--json"],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    if done.returncode:
        raise RuntimeError(f"marketflow run failed: {done.stderr[-800:]}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _peak_rss() -> int:
    """Most memory of this process since :func:`_forget_peak`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@benchmark("growth")
def growth(quick: bool) -> Iterator[Result]:
    """Rate and peak memory as the feed gets longer; all in one process, shortest first."""
    lengths = (100_000, 1_000_000) if quick else (1_000_000, 10_000_000, 100_000_000)
    rates, peaks = [], []
    with tempfile.TemporaryDirectory(prefix="marketflow-bench-") as folder:
        _run("sim:?events=100000", Path(folder), _MAIN)  # kernels
        for length in lengths:
            _forget_peak()
            summary = _run(f"sim:?events={length}", Path(folder), _MAIN)
            rates.append(summary["messages"] / summary["seconds"])
            peaks.append(_peak_rss())
    steps = ", ".join(
        f"{n / 1e6:g} M: {value / 1e6:.2f} M/s, {peak / _MIB:.0f} MiB"
        for n, value, peak in zip(lengths, rates, peaks, strict=True)
    )
    conditions = (
        f"simulated feed made on the way (sim:, 100 symbols) -> lake, tables {_MAIN}, pinned to "
        f"1 core; {steps}"
    )
    span = f"{lengths[-1] // 1_000_000} M against {lengths[0] / 1e6:g} M messages"
    yield Result(f"rate of {span}", rates[-1] / rates[0], "×", 0.9, conditions)
    yield Result(
        f"peak memory of {span}", peaks[-1] / peaks[0], "×", 1.5, conditions, better="lower"
    )


@benchmark("start-up")
def start_up(quick: bool) -> Iterator[Result]:
    """A small run from the shell: with an empty kernel cache, and again."""
    feed = "sim:?events=2000&symbols=20"
    with tempfile.TemporaryDirectory(prefix="marketflow-bench-") as folder:
        seconds = []
        # Bytecode as a first run writes it, whatever this shell or image says of it.
        python = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        cache = {} if quick else {"NUMBA_CACHE_DIR": f"{folder}/kernels"}
        for number in range(2 if quick else 4):
            started = time.perf_counter()
            _command(
                ["--source", feed, "--sink", f"parquet:{folder}/{number}"],
                environment=python | cache,
            )
            seconds.append(time.perf_counter() - started)
    conditions = f"marketflow run {feed}, all tables, Parquet lake, pinned to 1 core"
    if not quick:  # compiling takes what it takes
        yield Result(
            "first run, nothing compiled", seconds[0], "s", 60, conditions, better="lower"
        )  # fmt: skip
    later = statistics.median(seconds[1:])
    yield Result("later run", later, "s", 3, conditions, better="lower")
