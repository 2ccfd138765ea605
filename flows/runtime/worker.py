"""One process of a run: builds the flow over its shards and drives it to the end.

Run alone (``python -m marketflow.flows.runtime.worker``) it is a child of flows.runtime.run: it
reads a job as JSON from stdin and writes one JSON line per event to stdout: progress, then summary
or error.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from marketflow.flows.catalogue import FlowSpec, Make, Start, find
from marketflow.flows.console import show_warnings, stderr_console
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.runtime import engine, recovery
from marketflow.flows.runtime.aside import AsideCore
from marketflow.flows.runtime.checkpoints import Checkpointer
from marketflow.flows.runtime.engine_stderr import engine_noise, replay
from marketflow.flows.runtime.job import Job
from marketflow.flows.runtime.memory import keep_memory
from marketflow.flows.runtime.partitions import parse
from marketflow.flows.runtime.signals import die_with_parent
from marketflow.flows.runtime.stats import RunStats
from marketflow.flows.settings import Settings, settings_of
from marketflow.operators.mid_history import Warmup
from marketflow.schemas.recovery import StateError
from marketflow.schemas.shards import ShardPlan
from marketflow.schemas.units import interval_ns
from marketflow.sinks.engine import WriterSink
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import writer_of
from marketflow.sinks.registry import parse_sink
from marketflow.sources.config import SourceConfig
from marketflow.sources.engine import FeedSource, ReplaySource
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.reader import DEFAULT_LIMITS, Limits
from marketflow.sources.registry import SCHEMES

_PROGRESS_S: Final = 0.5
#: What a batch costs by shard and table is to be shared by many rows; an idle feed gives small
#: batches all the same. Feeds decoded by one compiled call take four times as much in the time.
_BATCH_BYTES: Final = 4 << 20
_PACKED_BYTES: Final = 16 << 20


def _start(job: Job, flow: FlowSpec, settings: Settings, specs: list[SourceConfig]) -> Start:
    """What the flow makes the cores of this process from."""
    shards = settings.shards
    warmup = job.replay.plan.warmup(flow, shards) if job.replay else Warmup()
    folder = Path(job.recovery) if job.recovery else None
    kept = None if folder is None else recovery.aside_folder(folder, job.process)

    def cores(step: str, make: Make) -> Make:
        assert step in flow.steps, f"{flow.name} has no core step {step}"
        by_feed = step in flow.by_feed
        warmed = warmup.warmed(step, make, lambda i: i if by_feed else i // shards)
        # Large states are kept in files of their own where there is a recovery folder.
        return warmed if kept is None else lambda i: AsideCore(warmed(i), kept, step, i)

    def plan(feed: int) -> ShardPlan:
        return job.feeds[feed].plan(feed, shards, job.process, job.processes)

    return Start(settings, specs, plan, cores)


def _source(
    job: Job, specs: list[SourceConfig], stop: threading.Event, limits: Limits, stats: RunStats
) -> FeedSource | ReplaySource:
    if job.replay is not None:
        spans = [(span, topic_of(specs[span.feed])) for span in job.replay.plan.spans]
        replaying = ReplaySource(spans, job.replay.speed, stop, limits)
        stats.more_progress, stats.reached = replaying.progress, replaying.reached
        return replaying
    read = [feed.is_read_by(i, job.process, job.processes) for i, feed in enumerate(job.feeds)]
    mine = [spec if ours else None for spec, ours in zip(specs, read, strict=True)]
    source = FeedSource(mine, stop, limits=limits)
    stats.more_progress, stats.reached = source.progress, source.reached
    return source


def _checkpoints(
    job: Job, flow: FlowSpec, settings: Settings, stats: RunStats
) -> AbstractContextManager[object]:
    """Takes checkpoints meanwhile, if that was asked for."""
    if job.recovery is None or not settings.checkpoint_every or job.replay is not None:
        return nullcontext()
    return Checkpointer(
        flow,
        recovery.store_file(Path(job.recovery), job.process),
        Path(job.recovery),
        job.process,
        interval_ns(settings.checkpoint_every),
        settings.checkpoints_kept,
        lambda: stats.last_event_ns,
    )


def run_process(
    job: Job, sources: Sequence[SourceConfig], stop: threading.Event, stats: RunStats
) -> None:
    """Run until the sources end or ``stop`` is set; ``stats`` counts along.

    ``sources``: the configs of the job's URLs, parsed once per process.
    Raises UsageError or RunFailed with the fix in the text.
    """
    flow = find(job.flow)
    settings = settings_of(flow)(**job.settings)
    if job.replay is not None:
        plan = job.replay.plan.part(job.process, job.processes)
        job = replace(job, replay=replace(job.replay, plan=plan))
    specs = [feed.spec(sources) for feed in job.feeds]
    folder = Path(job.recovery) if job.recovery else None
    identity = job.run if folder else None
    writer = recovery.writer_id(folder, job.process) if folder else writer_of(job.run, job.process)
    midway = job.replay is not None and job.replay.plan.midway
    writers = [parse_sink(text).open(writer, identity, midway, job.aside) for text in job.sinks]
    tables = settings.tables if job.replay is None else job.replay.tables
    sink = WriterSink([stats, *writers], tables=frozenset(tables))
    packed = all(SCHEMES[source.scheme].packed for source in sources)
    limits = replace(
        DEFAULT_LIMITS,
        max_rows=settings.batch_rows,
        max_bytes=_PACKED_BYTES if packed else _BATCH_BYTES,
    )
    source = _source(job, specs, stop, limits, stats)
    dataflow = flow.build(source, sink, flow.config(_start(job, flow, settings, specs)))
    engine.check_steps(flow, dataflow)
    store = recovery.store_to_start(folder, job.process) if folder else None
    failure: Exception | None = None
    with engine_noise() as noise, _checkpoints(job, flow, settings, stats):
        try:
            engine.drive(dataflow, store, settings.epoch_ms)
        except Exception as error:
            failure = error
    if failure is None:
        sink.finish()
        replay(noise)
        if source.restart is not None:
            raise RunFailed(source.restart)
        return
    sink.abandon()
    explained = explain(failure)
    if folder is not None and explained is failure:
        said = b"".join(noise).decode(errors="replace")
        explained = recovery.failure(folder, f"{failure} {said}") or failure
    if not isinstance(explained, UsageError | RunFailed | OSError):
        replay(noise)
    raise explained from (None if explained is not failure else failure.__cause__)


def explain(error: BaseException) -> BaseException:
    """The user's error inside the engine's: bytewax wraps what a step raised."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UsageError | RunFailed | OSError):
            return cause
        if isinstance(cause, SourceError | SinkError | StateError):
            return UsageError(str(cause))
        cause = cause.__cause__ or cause.__context__
    return error


def _say(lock: threading.Lock, **event: Any) -> None:
    with lock:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Child process: job on stdin, which stays open as long as the parent lives, events on stdout;
    SIGTERM and SIGINT stop gracefully."""
    stop, done, lock = threading.Event(), threading.Event(), threading.Lock()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    show_warnings(stderr_console())
    keep_memory()
    job = Job.from_json(sys.stdin.readline())
    threading.Thread(target=die_with_parent, name="parent", daemon=True).start()
    stats = RunStats(find(job.flow))

    def report() -> None:
        while not done.wait(_PROGRESS_S):
            _say(lock, progress=stats.progress())

    threading.Thread(target=report, name="report", daemon=True).start()
    try:
        sources = [parse(text, check=False) for text in job.sources]
        run_process(job, sources, stop, stats)
    except (UsageError, RunFailed, SourceError, OSError) as error:
        _say(lock, error=str(error), usage=isinstance(error, UsageError | SourceError))
        return 1
    finally:
        done.set()
    _say(lock, summary=stats.summary(), reached=stats.reached(), stopped=stop.is_set())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
