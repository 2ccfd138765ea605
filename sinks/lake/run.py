"""Who writes into a lake, and how far that can still be undone.

``DIR/_marketflow/<writer>/`` belongs to one writer process at a time (an advisory lock, released
by any death). A *run* is a fresh start with all its resumptions; its number is in its files'
names, so undoing a run never touches another's files::

    lock                   flock; holds the process id, which is for people only
    run-000001/run.json    recovery: identity of the recovery folder it resumes from (or null)
    run-000001/committed.json   see :class:`Progress`
    run-000001/log-*.rows  the aside log (sinks.lake.aside_log)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marketflow.schemas.recovery import START_ANEW
from marketflow.sinks.durable import lock, sync_folder
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.feeds import superseded_runs
from marketflow.sinks.lake.layout import own_folder, read_json, write_json
from marketflow.sinks.marks import Marks, from_json

_LOCK: Final = "lock"
_PAUSE_S: Final = 0.01
_RUN: Final = "run.json"
_COMMITTED: Final = "committed.json"
_NO_LIMIT: Final = 2**63 - 1


@dataclass(slots=True)
class Progress:
    """What others (compaction, a later start) may rely on.

    ``safe_below``: files of the run numbered below this are never undone. ``finished``: the run
    ended and its last snapshot is durable elsewhere. ``closed``: marks of the state in which
    everything was sealed (None: not since), with the ``next_file`` and ``cleared`` log
    generation of that moment.
    """

    safe_below: int = 0
    finished: bool = False
    closed: Marks | None = None
    next_file: int = 0
    cleared: int = 0


def safe_below(root: Path) -> dict[tuple[str, int], int]:
    """By writer and run of a lake: files numbered below this are never undone."""
    found = {}
    ended = superseded_runs(root)
    for writer in sorted(own_folder(root).iterdir()):
        if writer.is_dir():
            for number in _run_numbers(writer):
                run = Run(_run_folder(writer, number), number)
                # Without a recovery folder there is nothing to go back to.
                goes_back = run.recovery is not None and run.recovery not in ended
                safe = run.progress.safe_below if goes_back else _NO_LIMIT
                found[(writer.name, number)] = safe
    return found


def _run_numbers(writer: Path) -> list[int]:
    names = [p.name.removeprefix("run-") for p in writer.glob("run-*")]
    return sorted(int(name) for name in names if name.isdigit())


def _run_folder(writer: Path, number: int) -> Path:
    return writer / f"run-{number:06d}"


def read_progress(folder: Path) -> Progress:
    """Progress of a run; the cautious one where nothing readable was written yet."""
    value = read_json(folder / _COMMITTED)
    if value is None:
        return Progress()
    return Progress(
        value["safe_below"],
        value["finished"],
        None if value["closed"] is None else from_json(value["closed"]),
        value["next_file"],
        value["cleared"],
    )


@dataclass(slots=True)
class WriterFolder:
    """The folder of one writer, locked by this process until :meth:`release`."""

    path: Path
    _lock: Any = field(default=None, repr=False)

    @classmethod
    def acquire(cls, root: Path, writer: str) -> WriterFolder:
        """Lock the writer's folder. Raises SinkError when another process has it."""
        path = own_folder(root) / writer
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Held open for as long as the writer lives: the lock goes with the descriptor.
            held = (path / _LOCK).open("a+")
            while not lock(held, fcntl.LOCK_EX):
                if not lock(held, fcntl.LOCK_SH):
                    held.seek(0)
                    owner = held.read().strip() or "?"
                    held.close()
                    raise SinkError(
                        f"{root} is being written by process {owner} (as {writer}): wait for it "
                        "or stop it (a new run may write to another lake)"
                    )
                # Only somebody who looks for leftovers, and not for long.
                fcntl.flock(held, fcntl.LOCK_UN)
                time.sleep(_PAUSE_S)
            held.truncate(0)
            held.write(f"{os.getpid()}\n")
            held.flush()
        except OSError as error:
            raise disk_failed("cannot lock", path, error) from error
        return cls(path, held)

    @staticmethod
    @contextmanager
    def unused(path: Path) -> Iterator[bool]:
        """Whether nobody writes into this writer's folder; then nobody begins to meanwhile."""
        try:
            held = (path / _LOCK).open("rb")
        except OSError:
            yield False
            return
        with held:
            yield lock(held, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        return [Run(_run_folder(self.path, n), n) for n in _run_numbers(self.path)]

    def new_run(self, recovery: str | None) -> Run:
        """Start a run of a new number, tied to a recovery folder or to none."""
        number = max(_run_numbers(self.path), default=0) + 1
        folder = _run_folder(self.path, number)
        temporary = folder.with_name(f".{folder.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            write_json(temporary / _RUN, {"recovery": recovery}, durable=True)
            temporary.rename(folder)
            sync_folder(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise disk_failed("cannot make", folder, error) from error
        return Run(folder, number)

    def run(self, number: int) -> Run:
        """The run of this number. Raises SinkError when the lake does not have it."""
        folder = _run_folder(self.path, number)
        if not (folder / _RUN).is_file():
            raise SinkError(
                f"{self.path} has no {folder.name}, which the recovery folder goes on from: the "
                f"lake was moved or emptied; put it back, or {START_ANEW}"
            )
        return Run(folder, number)


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number
        self.recovery = (read_json(folder / _RUN) or {}).get("recovery")
        self.progress = read_progress(folder)

    def save(self, *, durable: bool) -> None:
        """Write the progress. Raises LakeFailed."""
        progress = self.progress
        value = {
            "safe_below": progress.safe_below,
            "finished": progress.finished,
            "closed": progress.closed,
            "next_file": progress.next_file,
            "cleared": progress.cleared,
        }
        try:
            write_json(self.folder / _COMMITTED, value, durable=durable)
        except OSError as error:
            raise disk_failed("cannot write", self.folder / _COMMITTED, error) from error
