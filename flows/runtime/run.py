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
from typing import Any, NamedTuple

from rich.console import Console

from marketflow.flows import settings as settings_module
from marketflow.flows.catalogue import FlowSpec, find
from marketflow.flows.console import Progress
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import checkpoints, run_identity
from marketflow.flows.runtime import recovery as recovery_folder
from marketflow.flows.runtime.claims import claim_of, claimed
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.job import Job
from marketflow.flows.runtime.kernels import parts_of, prepare
from marketflow.flows.runtime.partitions import Listed, list_feeds, parse
from marketflow.flows.runtime.processes import crew_of
from marketflow.flows.runtime.replacement import check_replaces, put_in_place
from marketflow.flows.runtime.rescale import rescale, shut_out
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.settings import Settings
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import new_run
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
    replace: bool = False,
    settings: Settings | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run ``flow`` to the end of its sources; returns the summary of ``run --json``.

    ``flow``: a name of the catalogue, or ``package.module:NAME`` of a FlowSpec.
    ``replace``: when all is read, the feeds come in place of what other runs had loaded of them.
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
    if replace:
        check_replaces(sinks, None if recovery is None else Path(recovery))
    order = _Order(
        found, specs, tuple(sources), tuple(sinks), processes,
        None if recovery is None else Path(recovery), replace, settings,
        console or Console(stderr=True, quiet=True), threading.Event(),
    )  # fmt: skip
    with on_signals(order.stop.set):
        return _claimed_run(flow, order, stores)


class _Order(NamedTuple):
    """A run as it was asked for, checked."""

    flow: FlowSpec
    specs: list[SourceConfig]
    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    processes: int
    folder: Path | None
    replace: bool
    settings: Settings
    console: Console
    stop: threading.Event

    def identity(self) -> dict[str, Any]:
        """Values that a recovery folder compares."""
        texts = [spec.text for spec in self.specs]
        return run_identity.of_run(
            self.flow.name, texts, self.sinks, self.settings, replace=self.replace
        )


def _claimed_run(flow: str, order: _Order, stores: Sequence[SinkConfig]) -> dict[str, Any]:
    """Claim the feeds, read them, and say that they are complete."""
    folder, found = order.folder, order.flow
    run, known = new_run(), list[Listed]()
    if folder is not None and recovery_folder.goes_on(folder, order.identity(), order.specs):
        run, known = recovery_folder.identity(folder), recovery_folder.known_feeds(folder)
    listed = list_feeds(found, order.specs, known, order.settings.shards, order.stop)
    claim = claim_of(run, found, order.settings, [claim for _, claim in listed])
    with claimed(claim, stores, replaces=order.replace, stop=order.stop) as held:
        if folder is not None:
            _prepare_folder(folder, order, run, listed)
        job = Job(
            flow,
            order.sources,
            order.sinks,
            order.settings.model_dump(mode="json"),
            tuple(feed for feed, _ in listed),
            run,
            processes=order.processes,
            recovery=None if folder is None else str(folder),
            aside=run if order.replace else None,
        )
        if not order.replace:
            summary, reached = _read(job, order)
            if not summary["stopped"]:
                held.complete(reached)
            return summary
        assert folder is not None
        return put_in_place(
            folder,
            stores,
            run,
            (),
            lambda: _read(job, order),
            lambda store, reached: store.replace_feeds(run, claim, reached),
        )


def _read(job: Job, order: _Order) -> tuple[dict[str, Any], dict[int, int]]:
    """The summary of a run, and by feed how far it was read."""
    names = list(dict.fromkeys(spec.name.partition(":")[0] for spec in order.specs))
    parts = parts_of(order.flow, order.specs, order.sinks)
    compiled_s = prepare(parts, ", ".join(names), order.console, order.stop)
    crew = crew_of(job, order.specs, order.stop)
    with (
        timed(compiled_s) as clock,
        Progress(order.flow.name, crew.progress, order.console),
    ):
        summary = crew.run()
    figures = clock.figures(summary)
    reached = {job.feeds[index].number: position for index, position in crew.reached.items()}
    return {"flow": order.flow.name, **summary, "stopped": crew.stopped, **figures}, reached


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


def _prepare_folder(folder: Path, order: _Order, run: str, listed: Sequence[Listed]) -> None:
    """Make or check the recovery folder of the run. What is wrong with a first start was found
    before, so that the mended one may have the folder."""
    flow, settings, processes = order.flow, order.settings, order.processes
    recovery_folder.prepare(folder, order.identity(), processes, order.specs, run=run)
    aside = run if order.replace else None
    rescale(flow, folder, order.sinks, settings.shards, processes, aside)
    recovery_folder.keep_feeds(folder, listed)
    if settings.checkpoint_every:
        note = {
            "sources": [spec.text for spec in order.specs],
            "feeds": [feed for feed, _ in listed],
            "settings": settings.deciding_rows(),
        }
        with recovery_folder.failing(folder):
            checkpoints.note(folder, note)
    if processes > 1:
        shut_out(flow, folder, order.sinks, processes, aside)


def _check_apart(source: SourceConfig, sinks: Sequence[SinkConfig]) -> None:
    """A lake that is read and written at once would hold its rows twice."""
    lake = source.lake if isinstance(source, ParquetConfig) else None
    if lake is not None and any(sink.place == f"parquet:{lake.resolve()}" for sink in sinks):
        raise SinkError(
            f"{lake} is source and sink at once, and would hold its rows twice: name "
            "another folder for --sink parquet:DIR"
        )
