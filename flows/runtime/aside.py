"""Large states written aside, so that an epoch costs what changed in it.

The engine's store takes the whole state of every core that had a value in an epoch. A core whose
state is small is left to it. The state of a larger one goes into files below the store::

    process-0/aside/books-3-00000002.state     a whole state, then what changed, a record each

and the engine keeps (generation, length): that file, up to there. What lies behind was written by
an epoch that never ended; it is cut off when the core goes on. Once the changes are as much as
the whole state was, the next generation begins with a whole one. The file before it stays until
three more snapshots were taken: by then the engine would no longer go back to it.
"""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.schemas.recovery import OTHER_RELEASE, START_AGAIN, START_ANEW
from marketflow.sinks.durable import sync_folder

FOLDER: Final = "aside"
#: First value of what the engine keeps instead of a state that is in a file: (tag, version, step,
#: index, generation, length); and of a state that was in one: (tag, version, records).
_IN_FILE: Final = "marketflow state aside"
_RECORDS: Final = "marketflow state records"
_VERSION: Final = 1
_RECORD: Final = struct.Struct("<QI")
#: States up to this many bytes are left to the engine.
SMALL: Final = 1 << 18
_KEPT_SNAPSHOTS: Final = 3


class Incremental(Protocol):
    """A core whose snapshots can leave out what has not changed (see operators.engine)."""

    def apply(self, batch: Any) -> Any: ...

    def snapshot(self, *, changes: bool = False) -> Any: ...

    def restore(self, state: Any, *changes: Any) -> None: ...


class AsideCore:
    """A core, its state in files once it is large. ``folder``: the process's own."""

    def __init__(self, core: Incremental, folder: Path, step: str, index: int) -> None:
        self._core = core
        self._folder = folder
        self._step, self._index = step, index
        self._file: BinaryIO | None = None
        self._generation = 0
        self._whole = self._length = 0
        self._since = 0  # snapshots since this generation began

    def apply(self, batch: Any) -> Any:
        """What the core makes of the batch."""
        return self._core.apply(batch)

    def snapshot(self) -> Any:
        """The core's state if it is small, else where it is. Raises RunFailed if it cannot be
        written."""
        if self._file is not None and self._length <= 2 * max(self._whole, SMALL):
            self._append(self._core.snapshot(changes=True))
        else:
            state = self._core.snapshot()
            if self._file is None and size_of(state) <= SMALL:
                return state
            self._begin(state)
        self._since += 1
        if self._since > _KEPT_SNAPSHOTS:
            self._remove(lambda generation: generation < self._generation)
        place = (self._step, self._index, self._generation, self._length)
        return (_IN_FILE, _VERSION, *place)

    def restore(self, state: Any, *changes: Any) -> None:
        """Take back what :meth:`snapshot` gave, or what :func:`inlined` made of it."""
        tag = state[0] if isinstance(state, tuple) and state else None
        if tag == _RECORDS:
            _check_version(state[1])
            self._core.restore(*parts(state[2]))
        elif tag == _IN_FILE:
            self._core.restore(*parts(_read(self._folder, state)))
            self._go_on(state[4], state[5])
        else:
            self._core.restore(state, *changes)

    def _path(self, generation: int) -> Path:
        return _path(self._folder, self._step, self._index, generation)

    def _go_on(self, generation: int, length: int) -> None:
        """Append behind what was restored, and to nothing else."""
        self._generation, self._length = generation, length
        self._file = self._path(generation).open("r+b")
        self._file.truncate(length)
        self._whole = _RECORD.size + _RECORD.unpack(self._file.read(_RECORD.size))[0]
        self._file.seek(length)
        self._since = 0
        self._remove(lambda found: found != generation)

    def _begin(self, state: Any) -> None:
        """A new generation with this whole state."""
        if self._file is not None:
            self._file.close()
        self._generation += 1
        self._since = 0
        path = self._path(self._generation)
        try:
            self._folder.mkdir(exist_ok=True)
            self._file = path.open("wb")
            self._length = 0
            self._append(state)
            sync_folder(self._folder)
        except OSError as error:
            raise _failed(path, error) from error
        self._whole = self._length

    def _append(self, state: Any) -> None:
        assert self._file is not None
        data = pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._file.write(_RECORD.pack(len(data), zlib.crc32(data)))
            self._file.write(data)
            self._file.flush()
            os.fdatasync(self._file.fileno())
        except OSError as error:
            raise _failed(self._path(self._generation), error) from error
        self._length += _RECORD.size + len(data)

    def _remove(self, which: Callable[[int], bool]) -> None:
        """Remove files of this core by their generation."""
        for path in self._folder.glob(f"{self._step}-{self._index}-*.state"):
            if which(int(path.stem.rpartition("-")[2])):
                path.unlink(missing_ok=True)


def _path(folder: Path, step: str, index: int, generation: int) -> Path:
    return folder / f"{step}-{index}-{generation:08d}.state"


def _failed(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"cannot write {path}: {error.strerror or error}; make room or mend the disk, then "
        f"{START_AGAIN}"
    )


def size_of(value: Any) -> int:
    """Bytes of a state, roughly: of its arrays and texts."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, dict):
        return sum(size_of(k) + size_of(v) for k, v in value.items())
    if isinstance(value, tuple | list | set | frozenset):
        return sum(map(size_of, value))
    return 8


def _check_version(version: int) -> None:
    if version != _VERSION:
        raise UsageError(
            f"recovery state written aside has format {version}, this release reads {_VERSION}: "
            f"{OTHER_RELEASE}"
        )


def _read(folder: Path, place: tuple[Any, ...]) -> bytes:
    """The records that a snapshot names."""
    _, version, step, index, generation, length = place
    _check_version(version)
    path = _path(folder, step, index, generation)
    try:
        with path.open("rb") as file:
            data = file.read(length)
    except FileNotFoundError:
        data = b""
    if len(data) < length:
        raise UsageError(
            f"{path} is not there or shorter than the recovery store says: files of a recovery "
            f"folder belong together; put the whole folder back from one backup, or {START_ANEW}"
        )
    return data


def parts(data: bytes) -> Iterator[Any]:
    """The states in these records. UsageError if they are damaged."""
    at = 0
    while at < len(data):
        size, check = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        record = data[at : at + size]
        if zlib.crc32(record) != check:
            raise UsageError(
                "a recovery state written aside is damaged: put the whole recovery folder back "
                f"from one backup, or {START_ANEW}"
            )
        yield pickle.loads(record)
        at += size


def inlined(folder: Path, kept: bytes) -> bytes:
    """What the engine keeps of a core (pickled), with its state inside wherever it was.

    For states that leave their store: a rescale, a checkpoint. FileNotFoundError if the run that
    goes on meanwhile has removed the file.
    """
    if _IN_FILE.encode() not in kept[:256]:
        return kept
    index, place = pickle.loads(kept)
    if not _path(folder, *place[2:5]).exists():
        raise FileNotFoundError(_path(folder, *place[2:5]))
    return pickle.dumps((index, (_RECORDS, _VERSION, _read(folder, place))))


def state_parts(kept: Any) -> tuple[Any, ...]:
    """A whole state and its changes from what a core's step gave or :func:`inlined` made of it."""
    if isinstance(kept, tuple) and kept and kept[0] == _RECORDS:
        _check_version(kept[1])
        return tuple(parts(kept[2]))
    return (kept,)
