"""The kernels of a run, compiled before it starts, in all cores at once.

That is most of a minute of one core where nothing is cached. A *part* (flows.catalogue) is what one
process compiles. A flow names its own; those of sources and sinks are here. Where an entry kernel
of a part has no cached code the part is not ready; what else compiles later is counted by
:mod:`flows.runtime.compiling`.

``python -m marketflow.flows.runtime.kernels MODULE:FUNCTION...`` compiles parts by calling what
warms them, and prints the name of each kernel it has done.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from marketflow.flows.catalogue import FlowSpec, Part, every, load
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.signals import die_with_parent
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig

log = logging.getLogger("marketflow.kernels")

_REFRESH_S: Final = 0.2


def is_ready(part: Part) -> bool:
    """Whether the entry kernels of a part have cached code for whatever types."""
    return all(_is_cached(entry) for entry in part.entries)


def _is_cached(entry: str) -> bool:
    kernel = load(entry)
    return bool(kernel.signatures or kernel._cache._cache_file._load_index())


def warm_simulator() -> None:
    _simulate("itch")


def warm_simulator_binance() -> None:
    _simulate("binance")


def _simulate(form: str) -> None:
    from marketflow.sources.registry import open_reader, parse_source

    reader = open_reader(parse_source(f"sim:?events=2000&symbols=3&format={form}"))
    while reader.read() is not None:
        pass


def warm_timescale() -> None:
    """Encoders of every table."""
    from marketflow.schemas.tables import TABLES
    from marketflow.sinks.timescale.encode import compile_kernels

    for table in TABLES.values():
        compile_kernels(table)


_HERE: Final = "marketflow.flows.runtime.kernels"
#: By the format of a simulated feed.
SIMULATORS: Final = {
    "itch": Part(
        "simulator",
        8,
        ("marketflow.sources.simulator.kernels.itch:run_flow",),
        f"{_HERE}:warm_simulator",
    ),
    "binance": Part(
        "simulator_binance",
        8,
        ("marketflow.sources.simulator.kernels.binance:run_flow",),
        f"{_HERE}:warm_simulator_binance",
    ),
}
#: By the name that a sink's config has for them.
OF_SINKS: Final = {
    "timescale": Part(
        "timescale",
        8,
        ("marketflow.sinks.timescale.kernels.fields:numeric_arrays",),
        f"{_HERE}:warm_timescale",
    ),
}


def parts_of(flow: FlowSpec, specs: Sequence[SourceConfig], sinks: Sequence[str]) -> list[Part]:
    """Parts that a run of the flow over these sources into these sinks needs."""
    from marketflow.sources.simulator.config import SimulatorConfig

    wanted = [*flow.kernels(specs)]
    wanted += [SIMULATORS[spec.format] for spec in specs if isinstance(spec, SimulatorConfig)]
    wanted += [OF_SINKS[name] for text in sinks for name in parse_sink(text).kernels]
    return list(dict.fromkeys(wanted))


def all_parts() -> list[Part]:
    """Parts of every flow of this package, source and sink."""
    wanted = [part for flow in every() for part in flow.kernels(None)]
    return [*wanted, *SIMULATORS.values(), *OF_SINKS.values()]


def prepare(
    wanted: Sequence[Part],
    what: str,
    console: Console | None = None,
    stop: threading.Event | None = None,
) -> float:
    """Have the parts compiled that are not cached, and say so; returns how long it took.

    ``what``: whose kernels they are, for people. Given up when ``stop`` is set. What cannot
    be compiled ahead is compiled by the run.
    """
    missing = [part for part in wanted if not is_ready(part)]
    if not missing:
        return 0.0
    started = time.monotonic()
    crews = _crews(missing, max(1, len(os.sched_getaffinity(0))))
    about_s = max(sum(part.seconds for part in crew) for crew in crews)
    log.warning("compiling kernels for %s, once, about %d s", what, about_s)
    _Compilers(crews).watch(console, stop or threading.Event())
    seconds = time.monotonic() - started
    log.warning("kernels are ready (%.0f s)", seconds)
    return seconds


def _crews(missing: Sequence[Part], cores: int) -> list[list[Part]]:
    """The parts of each process, so that they take about as long: largest first, to whoever has
    least."""
    crews: list[list[Part]] = [[] for _ in range(min(cores, len(missing)))]
    for part in sorted(missing, key=lambda part: -part.seconds):
        min(crews, key=lambda crew: sum(part.seconds for part in crew)).append(part)
    return crews


class _Compilers:
    """Processes that compile, and how many kernels they have done."""

    def __init__(self, crews: Sequence[Sequence[Part]]) -> None:
        self._done = 0
        self._last = ""
        # The first run of a release also compiles byte code: keep that too.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._children = [
            subprocess.Popen(
                [sys.executable, "-m", _HERE, *(part.warm for part in crew)],
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
    for warm in sys.argv[1:]:
        load(warm)()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
