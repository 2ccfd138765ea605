"""Die at every moment of a rescale, one after the other, then get through.

    python -m tests.recovery.rescale_deaths FOLDER SHARDS PROCESSES SINK [SINK ...]

Each attempt is a process of its own that kills itself (-9) after one more of the steps that change
something: a sink put back, closed or finished, a store made or removed, the note written. Prints
how many attempts died. What they leave is for the caller to judge.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.runtime import recovery
from marketflow.flows.runtime.rescale import rescale
from marketflow.sinks.kafka.writer import KafkaWriter
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.timescale.writer import TimescaleWriter

_WRITERS = (ParquetWriter, TimescaleWriter, KafkaWriter)
_OF_WRITERS = ("fence", "restore", "snapshot", "close", "finish", "moved")
_OF_THE_FOLDER = ("_make_store", "_write")


def _die_after(steps: int) -> None:
    """Let the process die with the end of its step number ``steps``, counted from 0."""
    left = steps

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            result = step(*arguments, **named)
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return stepped

    for owner, names in (
        *((writer, _OF_WRITERS) for writer in _WRITERS),
        (recovery, _OF_THE_FOLDER),
        (shutil, ("rmtree",)),
    ):
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, dying(getattr(owner, name)))


def _attempt(steps: int, folder: Path, shards: int, processes: int, sinks: list[str]) -> int:
    """Signal that the attempt died of, 0 if it got through; its own errors are ours."""
    child = os.fork()
    if child == 0:
        try:
            _die_after(steps)
            rescale(find(DEFAULT_FLOW), folder, sinks, shards, processes)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise SystemExit(f"attempt {steps} failed by itself")
    return -code


def main() -> None:
    """Command line of the script."""
    folder, shards, processes, *sinks = sys.argv[1:]
    deaths = 0
    while _attempt(deaths, Path(folder), int(shards), int(processes), sinks):
        deaths += 1
    print(deaths)


if __name__ == "__main__":
    main()
