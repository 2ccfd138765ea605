"""The processes of a run: this very one, or several children that are watched from here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from marketflow.flows.catalogue import find
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.runtime.job import Job
from marketflow.flows.runtime.signals import on_signals
from marketflow.flows.runtime.stats import RunStats, merge_progress, merge_summaries
from marketflow.flows.runtime.worker import run_process
from marketflow.schemas.recovery import START_AGAIN
from marketflow.sources.config import SourceConfig

_STOP_GRACE_S: Final = 60


def crew_of(job: Job, sources: Sequence[SourceConfig], stop: threading.Event) -> Here | Crew:
    """The processes of the job, not started yet. ``sources``: the configs of its URLs."""
    return Here(job, sources, stop) if job.processes == 1 else Crew(job, stop)


class Here:
    """A run in this very process."""

    def __init__(
        self, job: Job, sources: Sequence[SourceConfig], stop: threading.Event | None = None
    ) -> None:
        self._job = job
        self._sources = sources
        self._stop = stop or threading.Event()
        self._stats = RunStats(find(job.flow))

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def progress(self) -> dict[str, Any]:
        return self._stats.progress()

    def run(self) -> dict[str, Any]:
        with on_signals(self._stop.set):
            run_process(self._job, self._sources, self._stop, self._stats)
        return self._stats.summary()

    @property
    def reached(self) -> dict[int, int]:
        """By feed, how far it was read."""
        return self._stats.reached()


@dataclass(slots=True)
class _Worker:
    """A child process and what it said last."""

    child: subprocess.Popen[str]
    progress: dict[str, Any]
    summary: dict[str, Any] | None = None
    reached: dict[int, int] = field(default_factory=dict)
    error: str | None = None
    usage: bool = False


class Crew:
    """A run in several processes, watched from here."""

    def __init__(self, job: Job, stop: threading.Event) -> None:
        self._stop = stop
        self._jobs = [replace(job, process=index) for index in range(job.processes)]
        self._workers: list[_Worker] = []
        self._nothing_yet = RunStats(find(job.flow)).progress()
        self.stopped = False

    def progress(self) -> dict[str, Any]:
        newest = [w.progress for w in self._workers]
        return merge_progress(newest or [self._nothing_yet])

    def run(self) -> dict[str, Any]:
        with on_signals(self._interrupt):
            readers = [self._start(job) for job in self._jobs]
            if self._stop.is_set():
                self._interrupt()
            self._watch()
            for reader in readers:
                reader.join()
        return self._result()

    @property
    def reached(self) -> dict[int, int]:
        """By feed, how far it was read. A file is read by every process."""
        found: dict[int, int] = {}
        for worker in self._workers:
            for feed, position in worker.reached.items():
                found[feed] = max(position, found.get(feed, 0))
        return found

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
        worker = _Worker(child, self._nothing_yet)
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
        reached = event.get("reached", {})
        worker.reached |= {int(feed): position for feed, position in reached.items()}
        worker.error = event.get("error", worker.error)
        worker.usage = event.get("usage", worker.usage)
