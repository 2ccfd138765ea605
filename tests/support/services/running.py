"""A run over real servers, and the servers, as tests start, maltreat and watch them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from marketflow.flows.catalogue import DEFAULT_FLOW
from marketflow.infra.services.timescale import Timescale
from tests.support.logs import keep_log
from tests.support.services.local import back_up
from tests.support.services.topics import Cluster

TIMEOUT_S = 600


@dataclass
class Servers:
    """The broker and the database, as they are maltreated here."""

    kafka: Cluster
    timescale: Timescale

    def broker(self) -> list[psutil.Process]:
        pid = self.kafka.service.pid
        return [] if pid is None else [psutil.Process(pid)]

    def database(self) -> list[psutil.Process]:
        """The postmaster and its children."""
        pid = self.timescale.pid
        if pid is None:
            return []
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def up(self) -> None:
        """Bring back what is down."""
        for service in (self.kafka.service, self.timescale):
            back_up(service)


def signal_all(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@dataclass
class Flow:
    """A run of ``marketflow run`` that may be killed and started again."""

    sources: list[str]
    sinks: list[str]
    recovery: Path
    processes: int
    environment: dict[str, str]
    child: subprocess.Popen[str] | None = None
    started_s: float = 0.0
    flow: str = DEFAULT_FLOW

    def start(self) -> None:
        line = [sys.executable, "-m", "marketflow", "run", self.flow, "--json"]
        for source in self.sources:
            line += ["--source", source]
        for sink in self.sinks:
            line += ["--sink", sink]
        line += ["--recovery", str(self.recovery), "--processes", str(self.processes)]
        log = keep_log(self.recovery.with_name(f"{self.recovery.name}.log"))
        with log.open("w") as errors:
            self.child = subprocess.Popen(
                line, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, **self.environment}, start_new_session=True,
            )  # fmt: skip
        self.started_s = time.monotonic()

    def family(self) -> list[psutil.Process]:
        """The run's processes, its parent first."""
        assert self.child is not None
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.child.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def gone(self) -> None:
        """Forget a run that was killed."""
        assert self.child is not None
        self.child.communicate(timeout=TIMEOUT_S)
        self.child = None

    def result(self) -> dict[str, Any]:
        """The summary of a run that ended by itself; AssertionError with what it said if not."""
        assert self.child is not None
        out, _ = self.child.communicate(timeout=TIMEOUT_S)
        assert self.child.returncode == 0, f"exit code {self.child.returncode}: {self.said()}"
        self.child = None
        summary: dict[str, Any] = json.loads(out)
        return summary

    def refused(self) -> tuple[int, str]:
        """Exit code and last words of a run that must fail by itself."""
        assert self.child is not None
        self.child.communicate(timeout=TIMEOUT_S)
        code, self.child = self.child.returncode, None
        return code, self.said()

    def wait_for(self, text: str) -> None:
        """Until the run tells people this."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.said():
            assert self.running(), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """What the run told people."""
        return self.recovery.with_name(f"{self.recovery.name}.log").read_text()
