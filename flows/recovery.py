"""The recovery folder: one bytewax store per process, and a note of which run it belongs to.

``DIR/run.json`` names the format, the flow and everything that must stay as it was for the
positions and states inside to mean the same. It is checked before anything is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bytewax.recovery import RecoveryConfig, init_db_dir

from flows.errors import UsageError
from flows.partitions import Feed

FORMAT: Final = 1
_NOTE: Final = "run.json"


def prepare(folder: Path, identity: dict[str, Any], processes: int) -> None:
    """Make the folder for this run, or check that it is this run's.

    Raises UsageError with the remedy when the folder is of another run, another format, another
    number of processes, or not a recovery folder at all.
    """
    note = folder / _NOTE
    wanted = {"format": FORMAT, "processes": processes, **identity}
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
        store = _store(folder, process)
        store.mkdir(exist_ok=True)
        init_db_dir(store, 1)
    _write(folder, {**wanted, "id": uuid.uuid4().hex})


def _write(folder: Path, note: dict[str, Any]) -> None:
    temporary = folder / f".{_NOTE}"
    with temporary.open("w") as file:
        file.write(json.dumps(note, indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / _NOTE)


def known_feeds(folder: Path) -> list[Feed]:
    """The feeds that this run had so far; none before its first start."""
    note = json.loads((folder / _NOTE).read_text())
    return [Feed(*feed) for feed in note.get("feeds", [])]


def keep_feeds(folder: Path, feeds: Sequence[Feed]) -> None:
    """Note the feeds that the run has from now on."""
    note = json.loads((folder / _NOTE).read_text())
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
    return str(json.loads((folder / _NOTE).read_text())["id"])


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


def _store(folder: Path, process: int) -> Path:
    return folder / f"process-{process}"


def store_file(folder: Path, process: int) -> Path:
    """The engine's database of one process."""
    return _store(folder, process) / "part-0.sqlite3"


def config(folder: Path, process: int) -> RecoveryConfig:
    """bytewax's handle on the store of one process."""
    return RecoveryConfig(_store(folder, process))
