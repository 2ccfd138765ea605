"""A run over a file that was stopped half-way, in this process, and the same run undisturbed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.runtime import processes
from marketflow.flows.runtime import run as run_module
from marketflow.flows.settings import load
from marketflow.sources.registry import open_reader, parse_source
from tests.support.lakes import assert_same_lakes

_EVENTS = 6000


@dataclass
class Halfway:
    """A command line: what its next start has, as a user would write it."""

    folder: Path
    source: str
    sinks: list[str]
    recovery: Path
    processes: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def feed(self) -> Path:
        return self.folder / "feed.itch"

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    def start(self) -> dict[str, Any]:
        return run_module.run(
            "market_data",
            [self.source],
            self.sinks,
            processes=self.processes,
            recovery=self.recovery,
            settings=load(**{"batch_rows": 200, "epoch_ms": 10, **self.settings}),
        )

    def anew(self) -> Path:
        """What "start anew with an empty recovery folder and empty sinks" says; the lake."""
        lake = self.folder / "another-lake"
        replace(self, sinks=[f"parquet:{lake}"], recovery=self.folder / "another").start()
        return lake

    def is_right(self, lake: Path | None = None) -> None:
        """The lake is that of an undisturbed run with the same settings."""
        calm = self.folder / "calm"
        shutil.rmtree(calm, ignore_errors=True)
        run_module.run(
            "market_data", [self.source], [f"parquet:{calm}"], settings=load(**self.settings)
        )
        assert assert_same_lakes(calm, lake or self.lake)["trades"] > 100


def write_feed(path: Path, seed: int = 3) -> None:
    """An ITCH file of a few symbols."""
    reader = open_reader(parse_source(f"sim:?events={_EVENTS}&symbols=4&seed={seed}"))
    with path.open("wb") as file:
        while (batch := reader.read()) is not None:
            for payload in batch.column("payload").to_pylist():
                file.write(payload)
    reader.close()


class _Stopping(processes.Here):
    """Stops, as by a signal, once there are rows."""

    def __init__(self, job: Any, sources: Any, stop: threading.Event | None = None) -> None:
        super().__init__(job, sources, stop)
        count: Callable[[Any], None] = self._stats.write

        def write(rows: Any) -> None:
            count(rows)
            if self._stats.sums["messages"] > _EVENTS // 3:
                self._stop.set()

        self._stats.write = write  # type: ignore[method-assign]


def stopped_halfway(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more_sinks: Sequence[str] = ()
) -> Halfway:
    """The run after its first start."""
    run = Halfway(
        folder,
        f"itch:{folder / 'feed.itch'}?date=2026-03-02",
        [f"parquet:{folder / 'lake'}", *more_sinks],
        folder / "state",
    )
    write_feed(run.feed)
    stop_halfway(run.start, monkeypatch)
    return run


def stop_halfway(start: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run that is stopped once it has read a third of the messages."""
    with monkeypatch.context() as patch:
        patch.setattr(processes, "Here", _Stopping)
        summary = start()
    assert summary["stopped"]
    assert 0 < summary["messages"] < _EVENTS
