"""Running a flow: one process here, or several side by side, each with its own shards.

Processes share nothing: each reads a file whole, decodes it (the cheap part) and keeps the shards
that are its own; a partition of a topic is read by one of them. Each has its own recovery store and
its own files in the lake. A process that dies makes the others stop gracefully; the run fails and
says how to go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from marketflow.flows import settings as settings_module
from marketflow.flows.catalogue import FlowSpec, find
from marketflow.flows.console import Progress
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import checkpoints, run_identity
from marketflow.flows.runtime import recovery as recovery_folder
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.job import Job
from marketflow.flows.runtime.kernels import parts_of, prepare
from marketflow.flows.runtime.partitions import Feed, list_feeds, parse
from marketflow.flows.runtime.processes import crew_of
from marketflow.flows.runtime.rescale import rescale, shut_out
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.settings import Settings
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.files.config import ParquetConfig


def run(
    flow: str,
    sources: Sequence[str],
    sinks: Sequence[str],
    *,
    processes: int = 1,
    recovery: Path | str | None = None,
    settings: Settings | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run ``flow`` to the end of its sources; returns the summary of ``run --json``.

    ``flow``: a name of the catalogue, or ``package.module:NAME`` of a FlowSpec.
    Raises UsageError (wrong use) or RunFailed, with the fix in the text.
    """
    found = find(flow)
    settings = settings or settings_module.load(found)
    try:
        specs = [parse(text) for text in sources]
        for spec in specs:
            found.check(spec)
        stores = [parse_sink(text) for text in sinks]
        for spec in specs:
            _check_apart(spec, stores)
    except (SourceError, SinkError) as error:
        raise UsageError(str(error)) from None
    if not specs or not sinks:
        raise UsageError("a run needs at least one --source and one --sink")
    check_sinks(sinks, processes)
    if settings.checkpoint_every and recovery is None:
        raise UsageError("--checkpoint-every needs --recovery DIR: checkpoints are kept there")
    folder = None if recovery is None else Path(recovery)
    console = console or Console(stderr=True, quiet=True)
    names = list(dict.fromkeys(spec.name.partition(":")[0] for spec in specs))
    stop = threading.Event()
    with on_signals(stop.set):
        feeds = _feeds(folder, found, specs, sinks, settings, processes)
        job = Job(
            flow,
            tuple(sources),
            tuple(sinks),
            settings.model_dump(mode="json"),
            tuple(feeds),
            processes=processes,
            recovery=None if recovery is None else str(recovery),
        )
        compiled_s = prepare(parts_of(found, specs, sinks), ", ".join(names), console, stop)
        crew = crew_of(job, specs, stop)
        with timed(compiled_s) as clock, Progress(found.name, crew.progress, console):
            summary = crew.run()
    return {"flow": found.name, **summary, "stopped": crew.stopped, **clock.figures(summary)}


class timed:  # noqa: N801 - a context manager
    """How long a run took, the compiler left out (it took ``compiled_s`` before)."""

    def __init__(self, compiled_s: float = 0.0) -> None:
        self._compiled_s = compiled_s
        self._seconds = 0.0

    def __enter__(self) -> timed:
        self._began_s, self._before_s = time.monotonic(), COMPILING.seconds
        return self

    def __exit__(self, *_: object) -> None:
        meanwhile_s = COMPILING.seconds - self._before_s
        self._compiled_s += meanwhile_s
        self._seconds = time.monotonic() - self._began_s - meanwhile_s

    def figures(self, summary: dict[str, Any]) -> dict[str, Any]:
        """``seconds``, ``compile_s``, and the rate of the messages of this start."""
        rate = summary["new_messages"] / self._seconds if self._seconds > 0 else 0
        return {
            "seconds": round(self._seconds, 3),
            "compile_s": round(self._compiled_s, 3),
            "messages_per_s": round(rate),
        }


def check_sinks(sinks: Sequence[str], processes: int) -> None:
    """UsageError if a sink is named twice, is a folder that a run may not write to, or cannot be
    shared by so many processes."""
    stores = [parse_sink(text) for text in sinks]
    if processes > 1 and not all(store.is_shared for store in stores):
        raise UsageError("several processes cannot share standard output: use jsonl:PATH")
    places = [store.place for store in stores]
    for index, store in enumerate(stores):
        if places[index] in places[:index]:
            raise UsageError(f"sink {store.shown} is named twice: leave one of them out")
        try:
            store.check()
        except SinkError as error:
            raise UsageError(str(error)) from None


def _feeds(
    folder: Path | None,
    flow: FlowSpec,
    specs: Sequence[SourceConfig],
    sinks: Sequence[str],
    settings: Settings,
    processes: int,
) -> list[Feed]:
    """The feeds of the run, whose recovery folder is made or checked. What is wrong with a first
    start is found before the folder is made, so that the mended one may have it."""
    if folder is None:
        return list_feeds(specs, [], settings.shards, threading.Event())
    sources = [spec.text for spec in specs]
    identity = run_identity.of_run(flow.name, sources, sinks, settings)
    known: list[Feed] = []
    if recovery_folder.goes_on(folder, identity, specs):
        known = recovery_folder.known_feeds(folder)
    feeds = list_feeds(specs, known, settings.shards, threading.Event())
    recovery_folder.prepare(folder, identity, processes, specs)
    rescale(flow, folder, sinks, settings.shards, processes)
    recovery_folder.keep_feeds(folder, feeds)
    if settings.checkpoint_every:
        note = {"sources": sources, "feeds": feeds, "settings": settings.deciding_rows()}
        with recovery_folder.failing(folder):
            checkpoints.note(folder, note)
    if processes > 1:
        shut_out(flow, folder, sinks, processes)
    return feeds


def _check_apart(source: SourceConfig, sinks: Sequence[SinkConfig]) -> None:
    """A lake that is read and written at once would hold its rows twice."""
    lake = source.lake if isinstance(source, ParquetConfig) else None
    if lake is not None and any(sink.place == f"parquet:{lake.resolve()}" for sink in sinks):
        raise SinkError(
            f"{lake} is source and sink at once, and would hold its rows twice: name "
            "another folder for --sink parquet:DIR"
        )
