"""Checkpoints: states of a run written aside, so that a replay can begin in mid-history.

A checkpoint is one epoch of one process: where each of its feeds was, and the state of every core
then. Feeds share nothing, so one checkpoint serves the replay of any of its feeds. Written by
``run --checkpoint-every``, below the recovery folder::

    checkpoints/run.json                   the run: sources, feeds, settings (see :func:`note`)
    checkpoints/<ms>-p<process>.checkpoint a line of JSON (header), then the states, as pickled

It is read out of the engine's store (SQLite, in WAL mode) in one transaction, at the epoch that a
restart would go on from. That is done by a process of its own: two SQLite libraries in one process
undo each other's locks on a file.
"""

from __future__ import annotations

import json
import logging
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import aside
from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks.durable import replacing, sweep

FORMAT: Final = 2
FOLDER: Final = "checkpoints"
_NOTE: Final = "run.json"
_SUFFIX: Final = ".checkpoint"
_POLL_S: Final = 0.1
_FIRST_S: Final = 0.5
_LONGEST_S: Final = 300
_ATTEMPTS: Final = 5

log = logging.getLogger("marketflow.checkpoints")

#: The engine's own rule for where it goes on: below the newest execution's frontier.
_EPOCH: Final = (
    "SELECT COALESCE((SELECT MIN(worker_frontier) FROM fronts WHERE ex_num = e.ex_num), "
    "e.resume_epoch) FROM exs e ORDER BY e.ex_num DESC LIMIT 1"
)
_STATES: Final = (
    "SELECT step_id, state_key, ser_change FROM snaps AS s WHERE snap_epoch = ("
    "SELECT MAX(snap_epoch) FROM snaps WHERE step_id = s.step_id AND state_key = s.state_key "
    "AND snap_epoch < ?) AND ser_change IS NOT NULL ORDER BY step_id, state_key"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file, and by index of its feeds (topic id, next offset)."""

    path: Path
    feeds: dict[int, tuple[str, int]]


# -- writing --------------------------------------------------------------------------------------


def note(folder: Path, run: dict[str, Any]) -> None:
    """Say which run the checkpoints of a recovery folder are of: ``sources`` (URLs without
    secrets), ``feeds`` and ``settings``; feeds may have been added since the last start."""
    place = folder / FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    sweep(place)
    _write(place / _NOTE, [json.dumps({"format": FORMAT, **run}, indent=1).encode()])


class Checkpointer:
    """Thread of a run's process: takes a checkpoint at first, whenever ``every_ns`` of the feeds'
    time or of the clock has passed, and at the end. One that fails is told, and ends nothing."""

    def __init__(
        self,
        flow: FlowSpec,
        store: Path,
        folder: Path,
        process: int,
        every_ns: int,
        kept: int,
        feed_time_ns: Callable[[], int],
    ) -> None:
        # The steps go along, so that the child need not import the flow.
        self._command = [
            sys.executable, "-m", "marketflow.flows.runtime.checkpoints", str(store),
            str(folder / FOLDER), str(process), str(kept), flow.step_id(flow.input),
            *map(flow.step_id, flow.steps),
        ]  # fmt: skip
        self._every_ns = every_ns
        self._feed_time_ns = feed_time_ns
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)

    def __enter__(self) -> Checkpointer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        # Where a run was stopped is a good place to begin.
        self._take()

    def _work(self) -> None:
        last: tuple[int, int] | None = None
        while not self._done.wait(_POLL_S if last else _FIRST_S):
            now = (self._feed_time_ns(), time.monotonic_ns())
            if last is None:
                # The very first one waits for the first epoch.
                last = now if self._take() else None
            elif any(n - t >= self._every_ns for n, t in zip(now, last, strict=True)):
                self._take()
                last = now

    def _take(self) -> bool:
        """Whether there is one more now."""
        try:
            done = subprocess.run(
                self._command, capture_output=True, text=True, timeout=_LONGEST_S, check=False
            )
            failure = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
            taken = bool(done.stdout.strip())
        except (OSError, subprocess.TimeoutExpired) as error:
            failure, taken = str(error), False
        if failure:
            log.warning("no checkpoint was taken: %s", failure)
        return taken


def take(
    store: Path, folder: Path, process: int, kept: int, feed_step: str, core_steps: Sequence[str]
) -> Path | None:
    """Write the state that a restart from ``store`` would find; None if there is none of a topic's
    feed yet. Of the process's checkpoints the newest ``kept`` stay. The steps are named as in the
    store. Raises OSError, sqlite3.Error.
    """
    for attempt in range(_ATTEMPTS):
        try:
            epoch, rows = _newest_states(store)
            break
        except FileNotFoundError:
            # The run has gone on and removed a state that was written aside: look again.
            if attempt == _ATTEMPTS - 1:
                raise
    feeds: dict[int, tuple[str, int]] = {}
    states: list[tuple[str, str, bytes]] = []
    for step_id, key, state in rows:
        if step_id in core_steps:
            states.append((step_id.rpartition(".")[2], key, state))
        elif step_id == feed_step:
            place = _place(pickle.loads(state))
            if place is not None:
                feeds[int(key)] = place
    if not feeds:
        return None
    header = {
        "format": FORMAT,
        "process": process,
        "epoch": epoch,
        "feeds": feeds,
        "states": [(step, key, len(state)) for step, key, state in states],
    }
    name = f"{time.time_ns() // NS_PER_MS:013d}-p{process}{_SUFFIX}"
    path = folder / name
    _write(path, [json.dumps(header).encode(), b"\n", *(s for _, _, s in states)])
    for old in sorted(folder.glob(f"*-p{process}{_SUFFIX}"))[:-kept]:
        old.unlink(missing_ok=True)
    return path


def _newest_states(store: Path) -> tuple[int, list[tuple[str, str, bytes]]]:
    """The epoch that a restart would go on from, and (step, key, pickled state) there."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=60)) as connection:
        connection.execute("BEGIN")
        (epoch,) = connection.execute(_EPOCH).fetchone()
        rows = connection.execute(_STATES, (epoch,)).fetchall()
    folder = store.parent / aside.FOLDER
    return epoch, [(step, key, aside.inlined(folder, state)) for step, key, state in rows]


def _place(snapshot: Any) -> tuple[str, int] | None:
    """(topic id, next offset) of a topic's feed that is not over yet."""
    _, _, position = snapshot
    if not isinstance(position, tuple) or len(position) != 4:
        return None
    topic_id, following, _, over = position
    return None if over or following < 0 else (topic_id, following)


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Complete and on disk, or not there."""
    with replacing(path) as file:
        file.writelines(parts)


# -- reading --------------------------------------------------------------------------------------


def read_note(folder: Path) -> dict[str, Any]:
    """What is known of the run of a recovery folder (or of its checkpoints): ``sources``, ``feeds``
    and ``settings``. UsageError if it is neither."""
    from marketflow.flows.runtime import run_identity  # who takes a checkpoint has no use for it

    for path, known in ((folder / FOLDER / _NOTE, FORMAT), (folder / _NOTE, run_identity.FORMAT)):
        try:
            found = json.loads(path.read_text())
            if found["format"] != known:
                raise UsageError(
                    f"{path} is of format {found['format']}, this release reads {known}: replay "
                    "with the release that wrote it"
                )
            return {name: found[name] for name in ("sources", "feeds", "settings")}
        except UsageError:
            raise
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                f"{path} cannot be read: name the --recovery folder of the run to replay"
            ) from None
    raise UsageError(
        f"{folder} is no recovery folder of a run (no {_NOTE} there): name the one that the run "
        "was started with, or leave --checkpoints out"
    )


def find(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a recovery folder. UsageError if one is of a format that is not ours."""
    inside = folder / FOLDER
    found = []
    for path in sorted((inside if inside.is_dir() else folder).glob(f"*{_SUFFIX}")):
        feeds = {int(f): (place[0], place[1]) for f, place in _header(path)["feeds"].items()}
        found.append(Checkpoint(path, feeds))
    return found


def newest(
    checkpoints: Iterable[Checkpoint], feed: int, topic_id: str, offset: int
) -> tuple[Path, int] | None:
    """The checkpoint that is nearest before ``offset`` of a feed, and the offset it is at."""
    known = [(c.feeds[feed], c.path) for c in checkpoints if feed in c.feeds]
    fitting = [
        (at, path)
        for (topic, at), path in known
        if at <= offset and (not topic or not topic_id or topic == topic_id)
    ]
    if not fitting:
        return None
    at, path = max(fitting)
    return path, at


def load(
    path: Path, flow: FlowSpec, feed: int, shards: int
) -> dict[str, dict[int, tuple[Any, ...]]]:
    """By step and index, the snapshots of a feed's cores, each with the changes after it."""
    wanted: dict[str, dict[int, tuple[Any, ...]]] = {}
    with path.open("rb") as file:
        header = json.loads(file.readline())
        for step, key, length in header["states"]:
            state = file.read(length)
            index = int(key)
            if feed == (index if step in flow.by_feed else index // shards):
                # The engine keeps what a core's step gave: (index, snapshot).
                kept = pickle.loads(state)[1]
                wanted.setdefault(step, {})[index] = aside.state_parts(kept)
    return wanted


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.readline())
        found = header["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"checkpoint {path} cannot be read ({error}): remove it") from None
    if found != FORMAT:
        raise UsageError(
            f"checkpoint {path} is of format {found}, this release reads {FORMAT}: remove it, or "
            "replay with the release that wrote it"
        )
    return header


if __name__ == "__main__":
    store, folder, process, kept, feed_step, *core_steps = sys.argv[1:]
    taken = take(Path(store), Path(folder), int(process), int(kept), feed_step, core_steps)
    sys.stdout.write(f"{taken or ''}\n")
