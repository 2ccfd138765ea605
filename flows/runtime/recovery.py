"""The recovery folder: one bytewax store per process, and a note of which run it belongs to.

``DIR/run.json`` names the format, the flow and everything that must stay as it was for the
positions and states inside to mean the same (flows.runtime.run_identity). It is checked before
anything is touched. The states are pickles, which are code to whoever loads them: the folder is its
owner's alone (0700), and one of strangers is not to be trusted.

A *layout* is a number of processes with a store each; a run that goes on with another number gets
another one (flows.runtime.rescale). The note says which layout counts: others are leftovers.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.runtime import aside, engine, run_identity
from marketflow.flows.runtime.claims import from_plain, to_plain
from marketflow.flows.runtime.engine_stderr import engine_noise
from marketflow.flows.runtime.partitions import Feed, Listed
from marketflow.schemas.recovery import START_AGAIN, START_ANEW
from marketflow.sinks import durable
from marketflow.sinks.durable import sweep
from marketflow.sinks.lineage import new_run, writer_of
from marketflow.sources.config import SourceConfig

_NOTE: Final = "run.json"
#: Pickled state by (step id, key).
States = dict[tuple[str, str], bytes]
#: As the engine finds it, where there is one worker: everything before it is durable.
_RESUME_EPOCH: Final = """
    SELECT coalesce(max(max(e.resume_epoch, coalesce(f.worker_frontier, 0))), 0)
    FROM exs e LEFT JOIN fronts f USING (ex_num) WHERE ex_num = (SELECT max(ex_num) FROM exs)
"""
#: What the engine says when its store fails.
_ENGINE_FAILURE: Final = re.compile(r'SqliteFailure\(Error \{ code: (\w+).*?Some\("([^"]*)"\)')
_DAMAGED: Final = ("DatabaseCorrupt", "NotADatabase", "malformed", "not a database")


def goes_on(
    folder: Path,
    identity: dict[str, Any],
    specs: Sequence[SourceConfig] = (),
    anew: str = START_ANEW,
) -> bool:
    """Whether this run has begun in the folder before; touches nothing.

    Raises UsageError with the remedy when the folder is of another run, another format, or not a
    recovery folder at all. ``anew``: how another run is begun.
    """
    note = folder / _NOTE
    if note.is_file():
        found = _check(folder, identity, anew)
        run_identity.check_files(found, specs)
        return True
    if folder.is_dir() and any(path not in _unfinished(folder) for path in folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty and holds no {_NOTE}: it is no recovery folder; to go on with "
            "a run name the one that it began with, to begin a run name an empty or new one"
        )
    return False


def prepare(
    folder: Path,
    identity: dict[str, Any],
    processes: int,
    specs: Sequence[SourceConfig] = (),
    anew: str = START_ANEW,
    run: str | None = None,
) -> None:
    """Make the folder for this run, or check that it is this run's; notes the files of its sources
    as they are now. ``run``: the identity of a new one (None: any). Raises as :func:`goes_on`, and
    RunFailed where the disk refuses."""
    files = run_identity.marks_of(specs)
    if goes_on(folder, identity, specs, anew):
        sweep(folder, _NOTE)
        _keep(folder, "files", files)
        return
    with failing(folder):
        _clear_unfinished(folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for process in range(processes):
            _make_store(_store(folder, process, 0))
        identity = {"format": run_identity.FORMAT, **identity, "files": files}
        _write(folder, {**identity, "processes": processes, "id": run or new_run()})


@contextmanager
def failing(folder: Path) -> Iterator[None]:
    """RunFailed with cause and remedy where the disk of a recovery folder refuses."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise _failed(folder, why or str(error)) from error


def failure(folder: Path, said: str) -> RunFailed | None:
    """What the engine's panic means where it comes from its store; None: it does not."""
    found = _ENGINE_FAILURE.search(said)
    return _failed(folder, f"{found[2]} ({found[1]})") if found else None


def _failed(folder: Path, why: str) -> RunFailed:
    if any(word in why for word in _DAMAGED):
        return RunFailed(f"the recovery folder {folder} is damaged: {why}; {START_ANEW}")
    return RunFailed(
        f"the recovery folder {folder} cannot be written: {why}; mend that (free space, "
        f"permissions, mount) and {START_AGAIN}"
    )


def _make_store(store: Path) -> None:
    store.mkdir(exist_ok=True)
    try:
        with engine_noise():
            engine.make_store(store)
    except BaseException as error:  # a panic is no Exception
        found = failure(store.parent, str(error))
        if found is None:
            raise
        raise found from None


def _write(folder: Path, note: dict[str, Any]) -> None:
    with failing(folder):
        durable.replace(folder / _NOTE, json.dumps(note, indent=1).encode())


def _keep(folder: Path, name: str, value: Any) -> None:
    """Note a value that may change between starts."""
    note = _read(folder)
    plain = json.loads(json.dumps(value))
    if note.get(name) != plain:
        _write(folder, {**note, name: plain})


def _read(folder: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((folder / _NOTE).read_text())
    return note


def processes_of(folder: Path) -> int:
    """How many processes the run had last."""
    return int(_read(folder)["processes"])


def known_feeds(folder: Path) -> list[Listed]:
    """The feeds that this run had so far, and their claims; none before its first start."""
    note = _read(folder)
    feeds = [Feed(*feed) for feed in note.get("feeds", [])]
    return [Listed(*pair) for pair in zip(feeds, from_plain(note.get("claims", [])), strict=True)]


def keep_feeds(folder: Path, feeds: Sequence[Listed]) -> None:
    """Note the feeds that the run has from now on."""
    _keep(folder, "feeds", [feed for feed, _ in feeds])
    _keep(folder, "claims", to_plain([claim for _, claim in feeds]))


def _unfinished(folder: Path) -> list[Path]:
    """What is there while a folder is made: the note comes last."""
    return [*folder.glob(f".{_NOTE}.*.tmp"), *folder.glob("process-*")]


def _clear_unfinished(folder: Path) -> None:
    """Killed while it was made: no run has used these stores."""
    sweep(folder, _NOTE)
    for store in folder.glob("process-*"):
        shutil.rmtree(store)


def identity(folder: Path) -> str:
    """Identity of this recovery folder: sinks use it to know their own snapshots' files."""
    return str(_read(folder)["id"])


def writer_id(folder: Path, process: int) -> str:
    """Whose files and rows a process's sinks write: of this run and layout alone."""
    return writer_of(identity(folder), process, _read(folder).get("layout", 0))


def _check(folder: Path, wanted: dict[str, Any], anew: str) -> dict[str, Any]:
    """The folder's note, which is of the run that is wanted."""
    try:
        found: dict[str, Any] = _read(folder)
        run_identity.check(folder, found, wanted, anew)
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder / _NOTE} cannot be read: the folder is damaged or not ours; {anew}"
        ) from None
    return found


def _store(folder: Path, process: int, layout: int) -> Path:
    return folder / (f"layout-{layout}-process-{process}" if layout else f"process-{process}")


def store_file(folder: Path, process: int) -> Path:
    """The engine's database of one process."""
    return _store(folder, process, _read(folder).get("layout", 0)) / "part-0.sqlite3"


def store_to_start(folder: Path, process: int) -> Path:
    """The engine's store of one process, made ready for a start.

    What an execution that was killed had written of an epoch that it did not finish is removed:
    the engine does that epoch again, cut elsewhere, and overwrites only what it touches this time.
    The rest would be taken for states of that epoch at the start after this one.
    """
    store = _store(folder, process, _read(folder).get("layout", 0))
    with _opened(store) as database:
        database.execute(f"DELETE FROM snaps WHERE snap_epoch >= ({_RESUME_EPOCH})")
        database.commit()
    return store


def aside_folder(folder: Path, process: int) -> Path:
    """Where large states of one process are (flows.runtime.aside)."""
    return _store(folder, process, _read(folder).get("layout", 0)) / aside.FOLDER


def states(folder: Path, process: int) -> States:
    """What the process goes on from: pickled state by (step, key), nothing of it elsewhere."""
    store = _store(folder, process, _read(folder).get("layout", 0))
    with _opened(store) as database:
        rows = database.execute(
            "SELECT step_id, state_key, ser_change, max(snap_epoch) FROM snaps "
            f"WHERE snap_epoch < ({_RESUME_EPOCH}) GROUP BY step_id, state_key"
        )
        return {
            (step, key): aside.inlined(store / aside.FOLDER, state)
            for step, key, state, _ in rows
            if state is not None
        }


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
    with failing(store.parent), closing(sqlite3.connect(store / "part-0.sqlite3")) as database:
        yield database
