"""The kernels of a run, compiled before it starts, in all cores at once.

That is a minute of one core where nothing is cached. A *part* is what one process compiles: it
calls the kernels with a handful of rows. Where an entry kernel of a part has no cached code the
part is not ready; what else compiles later is counted by :mod:`flows.runtime.compiling`.

``python -m marketflow.flows.runtime.kernels PART...`` compiles parts, and prints the name of each
kernel it has done.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.live import Live
from rich.text import Text

from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.signals import die_with_parent
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig

log = logging.getLogger("marketflow.kernels")

_REFRESH_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """``seconds``: on one core of 2026; ``entries``: ``module:function`` of kernels that are
    compiled last; ``warm`` calls them."""

    seconds: int
    entries: tuple[str, ...]
    warm: Callable[[], None]

    def is_ready(self) -> bool:
        """Whether the entry kernels have cached code for whatever types."""
        return all(_is_cached(entry) for entry in self.entries)


def _is_cached(entry: str) -> bool:
    module, _, name = entry.partition(":")
    kernel = getattr(import_module(module), name)
    return bool(kernel.signatures or kernel._cache._cache_file._load_index())


def _books() -> None:
    from marketflow.operators.books.core import BookConfig, BookShard
    from marketflow.operators.events import EVENT, NO_INSTRUMENTS, EventBatch

    shard = BookShard(0, BookConfig())
    shard.apply(EventBatch(np.zeros(0, EVENT), NO_INSTRUMENTS))
    shard.restore(shard.snapshot())


def _rows() -> None:
    """Rows of every table that a kernel writes, into bars and a lake."""
    from marketflow.operators.bars.core import BarsConfig, BarsShard
    from marketflow.operators.events import INSTRUMENT, Instruments, Rows
    from marketflow.operators.rows import rows_to_batch
    from marketflow.schemas.derived.kernel_rows import row_dtype
    from marketflow.schemas.tables import TABLES

    instruments = Instruments.of(np.zeros(1, INSTRUMENT), ["VENUE"], ["SYMBOL"])
    made = {}
    for name in ("trades", "quotes", "depth", "book_events", "quality_events"):
        rows = np.zeros(2, row_dtype(TABLES[name]))
        rows["ts_event"] = 1
        made[name] = rows_to_batch(TABLES[name], rows, instruments, 0, 0)
    bars = BarsShard(0, BarsConfig(("1s",))).apply(Rows(0, made, ended=True))
    with tempfile.TemporaryDirectory(prefix="marketflow-kernels-") as folder:
        writer = parse_sink(f"parquet:{Path(folder) / 'lake'}").open()
        writer.write(Rows(0, {**made, **bars.tables}))
        writer.close()


def _decoded(source: str, frames: pa.RecordBatch) -> None:
    from marketflow.flows.market_data import decoders as feeds
    from marketflow.operators.normalise.core import Normaliser, ShardPlan
    from marketflow.sources.registry import parse_source

    decoder = feeds.decoder(parse_source(source), 1)
    Normaliser("warm", decoder, ShardPlan(0, 1)).apply(frames)


def _frames(payload: bytes) -> pa.RecordBatch:
    from marketflow.schemas.messages import frame_batches as framing

    bounds = np.array([0, len(payload)], np.int64)
    stamps = np.ones(1, np.int64)
    return framing.batch(
        np.zeros(1, np.int64), framing.payloads(pa.py_buffer(payload), bounds), ts_recv=stamps
    )


def _itch() -> None:
    """The system event that begins a day."""
    body = b"S" + bytes(10) + b"O"
    _decoded("sim:", _frames(len(body).to_bytes(2, "big") + body))


def _binance() -> None:
    trade = (
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1.0",'
        b'"q":"1.0","T":1,"m":true,"M":true}}'
    )
    _decoded("sim:?format=binance", _frames(trade))


def _simulated(form: str) -> Callable[[], None]:
    def warm() -> None:
        from marketflow.sources.registry import open_reader, parse_source

        reader = open_reader(parse_source(f"sim:?events=2000&symbols=3&format={form}"))
        while reader.read() is not None:
            pass

    return warm


def _timescale() -> None:
    from marketflow.schemas.tables import TABLES
    from marketflow.sinks.timescale.encode import compile_kernels

    for table in TABLES.values():
        compile_kernels(table)


def _lines() -> None:
    from marketflow.flows.recording import line_pump as lines

    lines.warm()


_SPLIT: Final = "marketflow.operators.kernels.split:split_rows"
PARTS: Final = {
    "books": Part(
        42,
        (
            "marketflow.operators.books.kernels.engine:run",
            "marketflow.operators.books.kernels.pack:pack",
        ),
        _books,
    ),
    "rows": Part(
        11,
        (
            "marketflow.operators.kernels.widen:fill",
            "marketflow.operators.bars.kernels.bars:emit_until",
            "marketflow.sinks.lake.order:_scatter_runs",
        ),
        _rows,
    ),
    "itch": Part(4, ("marketflow.operators.formats.itch.kernels.itch:decode", _SPLIT), _itch),
    "binance": Part(
        9, ("marketflow.operators.venues.binance.kernels.scan:decode_frames", _SPLIT), _binance
    ),
    "simulator": Part(
        6, ("marketflow.sources.simulator.kernels.itch:run_flow",), _simulated("itch")
    ),
    "simulator_binance": Part(
        6, ("marketflow.sources.simulator.kernels.binance:run_flow",), _simulated("binance")
    ),
    "timescale": Part(8, ("marketflow.sinks.timescale.kernels.fields:numeric_arrays",), _timescale),
    "lines": Part(15, ("marketflow.operators.arbitration.kernels.arbiter:arbitrate",), _lines),
}


def parts_of(specs: Iterable[SourceConfig], sinks: Iterable[str]) -> list[str]:
    """Parts that a run over these sources into these sinks needs."""
    from marketflow.flows.market_data import decoders as feeds
    from marketflow.sources.files.config import BinanceConfig, ItchConfig
    from marketflow.sources.simulator.config import SimulatorConfig

    wanted = ["books", "rows"]
    for spec in specs:
        match spec:
            case SimulatorConfig():
                of_itch = spec.format == "itch"
                wanted += ["simulator", "itch"] if of_itch else ["simulator_binance", "binance"]
            case ItchConfig():
                wanted.append("itch")
            case BinanceConfig():
                wanted.append("binance")
            case _ if (venue := feeds.raw_venue(spec)) == feeds.ITCH:
                wanted.append("itch")
            case _ if venue.startswith("BINANCE"):
                wanted.append("binance")
    for text in sinks:
        wanted += parse_sink(text).kernels
    return list(dict.fromkeys(wanted))


def prepare(
    wanted: Sequence[str],
    what: str,
    console: Console | None = None,
    stop: threading.Event | None = None,
) -> float:
    """Have the parts compiled that are not cached, and say so; returns how long it took.

    ``what``: whose kernels they are, for people. Given up when ``stop`` is set. What cannot
    be compiled ahead is compiled by the run.
    """
    missing = [name for name in wanted if not PARTS[name].is_ready()]
    if not missing:
        return 0.0
    started = time.monotonic()
    crews = _crews(missing, max(1, len(os.sched_getaffinity(0))))
    about_s = max(sum(PARTS[name].seconds for name in crew) for crew in crews)
    log.warning("compiling kernels for %s, once, about %d s", what, about_s)
    _Compilers(crews).watch(console, stop or threading.Event())
    seconds = time.monotonic() - started
    log.warning("kernels are ready (%.0f s)", seconds)
    return seconds


def _crews(missing: Sequence[str], cores: int) -> list[list[str]]:
    """The parts of each process, so that they take about as long: largest first, to whoever has
    least."""
    crews: list[list[str]] = [[] for _ in range(min(cores, len(missing)))]
    for name in sorted(missing, key=lambda name: -PARTS[name].seconds):
        least = min(crews, key=lambda crew: sum(PARTS[part].seconds for part in crew))
        least.append(name)
    return crews


class _Compilers:
    """Processes that compile, and how many kernels they have done."""

    def __init__(self, crews: Sequence[Sequence[str]]) -> None:
        self._done = 0
        self._last = ""
        # The first run of a release also compiles byte code: keep that too.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._children = [
            subprocess.Popen(
                [sys.executable, "-m", "marketflow.flows.runtime.kernels", *crew],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=env, start_new_session=True,
            )
            for crew in crews
        ]  # fmt: skip
        self._errors = [""] * len(self._children)

    def watch(self, console: Console | None, stop: threading.Event) -> None:
        """Until all are done; a progress line where ``console`` is a terminal."""
        threads = []
        for index in range(len(self._children)):
            for read in (self._count, self._collect):
                thread = threading.Thread(target=read, args=(index,), daemon=True)
                thread.start()
                threads.append(thread)
        try:
            self._show(console, stop)
        except BaseException:
            for child in self._children:
                child.kill()
            raise
        for thread in threads:
            thread.join()
        for child, errors in zip(self._children, self._errors, strict=True):
            if child.wait() and not stop.is_set():
                log.warning("not all could be compiled ahead: %s", errors.strip()[-300:])

    def _show(self, console: Console | None, stop: threading.Event) -> None:
        started = time.monotonic()
        shown = console if console is not None and console.is_terminal else Console(quiet=True)
        with Live(console=shown, transient=True, refresh_per_second=4) as live:
            while any(child.poll() is None for child in self._children):
                seconds = time.monotonic() - started
                text = f"compiling kernels: {seconds:.0f} s, {self._done} done {self._last}"
                live.update(Text(text, no_wrap=True, overflow="ellipsis"))
                if stop.wait(_REFRESH_S):
                    for child in self._children:
                        child.kill()
                    return

    def _count(self, index: int) -> None:
        stream = self._children[index].stdout
        assert stream is not None
        for line in stream:
            self._done += 1
            self._last = line.strip()

    def _collect(self, index: int) -> None:
        stream = self._children[index].stderr
        assert stream is not None
        self._errors[index] = stream.read()


def main() -> int:
    """Child process: compile the parts of the command line; end when the parent does."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    COMPILING.expected = True
    COMPILING.on_done = lambda name: print(name, flush=True)
    for name in sys.argv[1:]:
        PARTS[name].warm()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
