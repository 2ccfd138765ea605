"""The recovery folder: one bytewax store per process, and a note of which run it belongs to.

``DIR/run.json`` names the format, the flow and everything that must stay as it was for the
positions and states inside to mean the same. It is checked before anything is touched.

A *layout* is a number of processes with a store each; a run that goes on with another number gets
another one (flows.rescale). The note says which layout counts: others are leftovers.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from bytewax.recovery import RecoveryConfig, init_db_dir

from flows.errors import UsageError
from flows.partitions import Feed
from sinks.lake import sync_folder

FORMAT: Final = 1
_NOTE: Final = "run.json"
#: Pickled state by (step id, key).
States = dict[tuple[str, str], bytes]
#: As the engine finds it, where there is one worker: everything before it is durable.
_RESUME_EPOCH: Final = """
    SELECT coalesce(max(max(e.resume_epoch, coalesce(f.worker_frontier, 0))), 0)
    FROM exs e LEFT JOIN fronts f USING (ex_num) WHERE ex_num = (SELECT max(ex_num) FROM exs)
"""


def prepare(folder: Path, identity: dict[str, Any], processes: int) -> None:
    """Make the folder for this run, or check that it is this run's.

    Raises UsageError with the remedy when the folder is of another run, another format, or not a
    recovery folder at all.
    """
    note = folder / _NOTE
    wanted = {"format": FORMAT, **identity}
    if note.is_file():
        _check(folder, wanted)
        return
    _clear_unfinished(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty and holds no {_NOTE}: it is no recovery folder; name an "
            "empty or new one with --recovery"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for process in range(processes):
        _make_store(_store(folder, process, 0))
    _write(folder, {**wanted, "processes": processes, "id": uuid.uuid4().hex})


def _make_store(store: Path) -> None:
    store.mkdir(exist_ok=True)
    init_db_dir(store, 1)


def _write(folder: Path, note: dict[str, Any]) -> None:
    temporary = folder / f".{_NOTE}"
    with temporary.open("w") as file:
        file.write(json.dumps(note, indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / _NOTE)
    sync_folder(folder)


def _read(folder: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((folder / _NOTE).read_text())
    return note


def processes_of(folder: Path) -> int:
    """How many processes the run had last."""
    return int(_read(folder)["processes"])


def known_feeds(folder: Path) -> list[Feed]:
    """The feeds that this run had so far; none before its first start."""
    return [Feed(*feed) for feed in _read(folder).get("feeds", [])]


def keep_feeds(folder: Path, feeds: Sequence[Feed]) -> None:
    """Note the feeds that the run has from now on."""
    note = _read(folder)
    listed = [list(feed) for feed in feeds]
    if note.get("feeds") != listed:
        _write(folder, {**note, "feeds": listed})


def _clear_unfinished(folder: Path) -> None:
    """Killed while it was made: the note comes last, so no run has used these stores."""
    ours = [folder / f".{_NOTE}", *folder.glob("process-*")]
    if folder.is_dir() and all(path in ours for path in folder.iterdir()):
        for path in ours:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def identity(folder: Path) -> str:
    """Identity of this recovery folder: sinks use it to know their own snapshots' files."""
    return str(_read(folder)["id"])


def writer_id(folder: Path | None, process: int) -> str:
    """Whose files and rows a process's sinks write: of this layout alone."""
    layout = 0 if folder is None else _read(folder).get("layout", 0)
    return f"l{layout}w{process}" if layout else f"w{process}"


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / _NOTE).read_text())
        found_format = found["format"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder / _NOTE} cannot be read: the folder is damaged or not ours; start with an "
            "empty --recovery folder and an empty lake"
        ) from None
    if found_format != FORMAT:
        raise UsageError(
            f"{folder} was written in recovery format {found_format}, this release reads "
            f"{FORMAT}: finish the run with the release that wrote it, or start anew with an "
            "empty --recovery folder and an empty lake"
        )
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UsageError(
                f"{folder} belongs to a run with {name} = {found.get(name)!r}, this one has "
                f"{value!r}: resume with the same {name}, or name another --recovery folder"
            )


def _store(folder: Path, process: int, layout: int) -> Path:
    return folder / (f"layout-{layout}-process-{process}" if layout else f"process-{process}")


def store_file(folder: Path, process: int) -> Path:
    """The engine's database of one process."""
    return _store(folder, process, _read(folder).get("layout", 0)) / "part-0.sqlite3"


def config(folder: Path, process: int) -> RecoveryConfig:
    """bytewax's handle on the store of one process, for a start.

    What an execution that was killed had written of an epoch that it did not finish is removed:
    the engine does that epoch again, cut elsewhere, and overwrites only what it touches this time.
    The rest would be taken for states of that epoch at the start after this one.
    """
    store = _store(folder, process, _read(folder).get("layout", 0))
    with _opened(store) as database:
        database.execute(f"DELETE FROM snaps WHERE snap_epoch >= ({_RESUME_EPOCH})")
        database.commit()
    return RecoveryConfig(store)


def states(folder: Path, process: int) -> States:
    """What the process goes on from: pickled state by (step, key)."""
    with _opened(_store(folder, process, _read(folder).get("layout", 0))) as database:
        rows = database.execute(
            "SELECT step_id, state_key, ser_change, max(snap_epoch) FROM snaps "
            f"WHERE snap_epoch < ({_RESUME_EPOCH}) GROUP BY step_id, state_key"
        )
        return {(step, key): state for step, key, state, _ in rows if state is not None}


def lay_out(folder: Path, stores: Sequence[States]) -> None:
    """Go on with these states, a store for each process; at once and for good, or not at all."""
    note = _read(folder)
    layout = note.get("layout", 0) + 1
    for process, found in enumerate(stores):
        store = _store(folder, process, layout)
        shutil.rmtree(store, ignore_errors=True)  # of an attempt that was killed
        _make_store(store)
        with _opened(store) as database:
            # As if one execution had done epoch 1; epoch 0 is the engine's own.
            database.execute(
                "INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (0, 1, 2)"
            )
            database.executemany(
                "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) "
                "VALUES (?, ?, 1, ?)",
                [(*key, state) for key, state in found.items()],
            )
            database.commit()
    _write(folder, {**note, "layout": layout, "processes": len(stores)})


def tidy(folder: Path) -> None:
    """Remove the stores of layouts that no longer count."""
    note = _read(folder)
    kept = {_store(folder, p, note.get("layout", 0)) for p in range(note["processes"])}
    for pattern in ("process-*", "layout-*-process-*"):
        for store in folder.glob(pattern):
            if store not in kept:
                shutil.rmtree(store)


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store / "part-0.sqlite3")) as database:
        yield database
