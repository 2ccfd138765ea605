"""Running a flow: one process here, or several side by side, each with its own shards.

Processes share nothing: each reads a file whole, decodes it (the cheap part) and keeps the shards
that are its own; a partition of a topic is read by one of them. Each has its own recovery store and
its own files in the lake. A process that dies makes the others stop gracefully; the run fails and
says how to go on.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from marketflow.flows import settings as settings_module
from marketflow.flows.console import Progress
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.market_data import decoders
from marketflow.flows.runtime import checkpoints, run_identity
from marketflow.flows.runtime import recovery as recovery_folder
from marketflow.flows.runtime.compiling import COMPILING
from marketflow.flows.runtime.kernels import parts_of, prepare
from marketflow.flows.runtime.partitions import Feed, list_feeds
from marketflow.flows.runtime.rescale import rescale, shut_out
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.runtime.stats import RunStats, merge_progress, merge_summaries
from marketflow.flows.runtime.worker import Job, run_process
from marketflow.flows.settings import Settings
from marketflow.schemas.recovery import START_AGAIN
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.files.config import ParquetConfig

FLOWS = ("market_data",)
_STOP_GRACE_S = 60


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

    Raises UsageError (wrong use) or RunFailed, with the fix in the text.
    """
    if flow not in FLOWS:
        raise UsageError(f"no flow {flow!r}; known: {', '.join(FLOWS)}")
    settings = settings or settings_module.load()
    try:
        specs = [decoders.parse(text) for text in sources]
        for spec in specs:
            decoders.check(spec)
        stores = [parse_sink(text) for text in sinks]
        for spec in specs:
            _check_apart(spec, stores)
    except (SourceError, SinkError) as error:
        raise UsageError(str(error)) from None
    if processes > 1 and not all(store.is_shared for store in stores):
        raise UsageError("several processes cannot share standard output: use jsonl:PATH")
    if not specs or not sinks:
        raise UsageError("a run needs at least one --source and one --sink")
    check_sinks(sinks)
    if settings.checkpoint_every and recovery is None:
        raise UsageError("--checkpoint-every needs --recovery DIR: checkpoints are kept there")
    folder = None if recovery is None else Path(recovery)
    console = console or Console(stderr=True, quiet=True)
    names = list(dict.fromkeys(spec.name.partition(":")[0] for spec in specs))
    stop = threading.Event()
    with on_signals(stop.set):
        feeds = _feeds(folder, flow, specs, sinks, settings, processes)
        job = Job(
            tuple(sources),
            tuple(sinks),
            settings.model_dump(mode="json"),
            tuple(feeds),
            processes=processes,
            recovery=None if recovery is None else str(recovery),
        )
        compiled_s = prepare(parts_of(specs, sinks), ", ".join(names), console, stop)
        crew = Here(job, stop) if processes == 1 else _Crew(job, stop)
        with timed(compiled_s) as clock, Progress(flow, crew.progress, console):
            summary = crew.run()
    return {"flow": flow, **summary, "stopped": crew.stopped, **clock.figures(summary)}


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


def check_sinks(sinks: Sequence[str]) -> None:
    """UsageError if a sink is named twice, or is a folder that a run may not write to."""
    stores = [parse_sink(text) for text in sinks]
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
    flow: str,
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
    identity = run_identity.of_run(flow, sources, sinks, settings)
    known: list[Feed] = []
    if recovery_folder.goes_on(folder, identity, specs):
        known = recovery_folder.known_feeds(folder)
    feeds = list_feeds(specs, known, settings.shards, threading.Event())
    recovery_folder.prepare(folder, identity, processes, specs)
    rescale(folder, sinks, settings.shards, processes)
    recovery_folder.keep_feeds(folder, feeds)
    if settings.checkpoint_every:
        note = {"sources": sources, "feeds": feeds, "settings": settings.deciding_rows()}
        with recovery_folder.failing(folder):
            checkpoints.note(folder, note)
    if processes > 1:
        shut_out(folder, sinks, processes)
    return feeds


def _check_apart(source: SourceConfig, sinks: Sequence[SinkConfig]) -> None:
    """A lake that is read and written at once would hold its rows twice."""
    lake = source.lake if isinstance(source, ParquetConfig) else None
    if lake is not None and any(sink.place == f"parquet:{lake.resolve()}" for sink in sinks):
        raise SinkError(
            f"{lake} is source and sink at once, and would hold its rows twice: name "
            "another folder for --sink parquet:DIR"
        )


class Here:
    """A run in this very process."""

    def __init__(self, job: Job, stop: threading.Event | None = None) -> None:
        self._job = job
        self._stop = stop or threading.Event()
        self._stats = RunStats()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def progress(self) -> dict[str, Any]:
        return self._stats.progress()

    def run(self) -> dict[str, Any]:
        with on_signals(self._stop.set):
            run_process(self._job, self._stop, self._stats)
        return self._stats.summary()


@dataclass(slots=True)
class _Worker:
    """A child process and what it said last."""

    child: subprocess.Popen[str]
    progress: dict[str, Any]
    summary: dict[str, Any] | None = None
    error: str | None = None
    usage: bool = False


class _Crew:
    """A run in several processes, watched from here."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        self._stop = stop
        self._jobs = [replace(job, process=index) for index in range(job.processes)]
        self._workers: list[_Worker] = []
        self.stopped = False

    def progress(self) -> dict[str, Any]:
        newest = [w.progress for w in self._workers]
        return merge_progress(newest) if newest else RunStats().progress()

    def run(self) -> dict[str, Any]:
        with on_signals(self._interrupt):
            readers = [self._start(job) for job in self._jobs]
            if self._stop.is_set():
                self._interrupt()
            self._watch()
            for reader in readers:
                reader.join()
        return self._result()

    def _interrupt(self) -> None:
        self.stopped = True
        self._stop_all()

    def _start(self, job: Job) -> threading.Thread:
        child = subprocess.Popen(
            [sys.executable, "-m", "marketflow.flows.runtime.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C reaches us alone; we pass it on as a graceful stop
        )
        worker = _Worker(child, RunStats().progress())
        self._workers.append(worker)
        assert child.stdin is not None
        # Not closed: it ends with us, and then the child ends too.
        child.stdin.write(job.to_json() + "\n")
        child.stdin.flush()
        reader = threading.Thread(target=_listen, args=(worker,), daemon=True)
        reader.start()
        return reader

    def _stop_all(self) -> None:
        for worker in self._workers:
            if worker.child.poll() is None:
                worker.child.send_signal(signal.SIGTERM)

    def _watch(self) -> None:
        """Wait for all; when one fails, the others stop (and are killed if they will not)."""
        deadline: float | None = None
        while True:
            codes = [worker.child.poll() for worker in self._workers]
            if all(code is not None for code in codes):
                return
            if deadline is None and any(code not in (None, 0) for code in codes):
                self._stop_all()
                deadline = time.monotonic() + _STOP_GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                for worker in self._workers:
                    worker.child.kill()
            time.sleep(0.02)

    def _result(self) -> dict[str, Any]:
        for index, worker in enumerate(self._workers):
            if worker.error is not None:
                raise (UsageError if worker.usage else RunFailed)(worker.error)
            if worker.summary is None:
                code = worker.child.returncode
                how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
                raise RunFailed(
                    f"worker process {index} of {len(self._workers)} {how}; {START_AGAIN}"
                )
        return merge_summaries([w.summary for w in self._workers if w.summary is not None])


def _listen(worker: _Worker) -> None:
    assert worker.child.stdout is not None
    for line in worker.child.stdout:
        event = json.loads(line)
        worker.progress = event.get("progress", worker.progress)
        worker.summary = event.get("summary", worker.summary)
        worker.error = event.get("error", worker.error)
        worker.usage = event.get("usage", worker.usage)
