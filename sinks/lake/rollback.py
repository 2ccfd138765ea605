"""Putting a run back to the state of a snapshot.

Of the run's rows exactly those below the snapshot's marks stay, wherever they are by now: in
files sealed before it (never looked at), in files sealed since, in the aside log. Files sealed
since that hold only such rows are kept as they are; of the others the rows go back to pending and
the file goes. What is on disk at any moment is enough to do it all again, so a crash in here, or
any number of them, changes nothing.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import Bare, concat, filled, shape, to_bare, to_file
from marketflow.sinks.durable import sweep
from marketflow.sinks.errors import disk_failed
from marketflow.sinks.lake.aside_log import AsideLog, Position, Record
from marketflow.sinks.lake.file import read_file, sync_folders
from marketflow.sinks.lake.layout import Partition, files_of_run, own_folder
from marketflow.sinks.lake.pending import PendingRows, keep
from marketflow.sinks.lake.run import WriterFolder
from marketflow.sinks.marks import Marks

#: By table and shard: row_sequence of rows that are there.
Taken = dict[tuple[str, int], list[NDArray[np.int64]]]


class Target(NamedTuple):
    """What to go back to. ``first_file``: files numbered below are out of question; ``position``
    None: whatever the log still has; ``marks`` None: every row stays."""

    first_file: int
    position: Position | None
    marks: Marks | None
    use_log: bool = True


def roll_back(
    root: Path, writer: str, run: int, log: AsideLog, target: Target, pending: PendingRows
) -> int:
    """Put the run's disk back to ``target`` and its pending rows into ``pending``.

    Returns the next file number. Raises LakeFailed or SinkError.
    """
    taken: Taken = {}
    doomed: list[tuple[Partition, Path]] = []
    next_file = target.first_file
    for number, partition, path in files_of_run(root, writer, run):
        if number < target.first_file:
            continue
        shards, sequences = _identity_columns(path)
        wanted = _below(target.marks, partition.table, shards, sequences)
        if wanted.all():
            _take(taken, partition.table, shards, sequences, wanted)
            next_file = number + 1
        else:
            doomed.append((partition, path))
    if target.use_log:
        for partition, rows in _logged(log, target.position, pending).items():
            _add(pending, partition, rows, target.marks, taken)
    for partition, path in doomed:
        rows = to_bare(shape(partition.table), read_file(path, partition.table), pending.names)
        _add(pending, partition, rows, target.marks, taken)
    if log.exists or pending.partitions:
        log.begin(pending_records(pending))
    for pending_partition in pending.partitions.values():
        pending_partition.mark_logged()
    _remove([path for _, path in doomed], root)
    return next_file


def pending_records(pending: PendingRows) -> list[Record]:
    """All pending rows as records of a new generation of the log."""
    return [
        Record(p, to_file(shape(p.table), concat(rows.chunks), pending.names))
        for p, rows in pending.partitions.items()
    ]


def _logged(
    log: AsideLog, position: Position | None, pending: PendingRows
) -> dict[Partition, Bare]:
    found: dict[Partition, list[Bare]] = {}
    for partition, rows in log.read(position):
        if rows is None:
            found.pop(partition, None)
        else:
            bare = to_bare(shape(partition.table), rows, pending.names)
            found.setdefault(partition, []).append(bare)
    return {partition: concat(parts) for partition, parts in found.items()}


def _add(
    pending: PendingRows,
    partition: Partition,
    rows: Bare,
    marks: Marks | None,
    taken: Taken,
) -> None:
    """Make rows pending: those below the marks that are not taken yet; they are taken now."""
    form = shape(partition.table)
    shards, sequences = filled(rows[form.shard]), filled(rows[form.row_sequence])
    below = _below(marks, partition.table, shards, sequences)
    wanted = _take(taken, partition.table, shards, sequences, below)
    if wanted.any():
        pending.add(partition, keep(rows, wanted))


def _take(
    taken: Taken,
    table: str,
    shards: NDArray[np.int64],
    sequences: NDArray[np.int64],
    wanted: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which of the wanted rows were not taken yet; they are now."""
    fresh = np.zeros(len(shards), np.bool_)
    for shard in np.unique(shards[wanted]).tolist():
        own = np.flatnonzero(wanted & (shards == shard))
        before = taken.setdefault((table, shard), [])
        for others in before:
            own = own[np.isin(sequences[own], others, invert=True)]
        before.append(sequences[own])
        fresh[own] = True
    return fresh


def _below(
    marks: Marks | None,
    table: str,
    shards: NDArray[np.int64],
    sequences: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which rows were written before the snapshot with these marks."""
    if marks is None:
        return np.ones(len(shards), np.bool_)
    own = marks.get(table, {})
    found, place = np.unique(shards, return_inverse=True)
    limits = np.array([own.get(shard, 0) for shard in found.tolist()], np.int64)
    below: NDArray[np.bool_] = sequences < limits[place]
    return below


def _identity_columns(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    try:
        with pq.ParquetFile(path) as file:
            found = file.read(columns=["shard", "row_sequence"])
    except (OSError, pa.ArrowException) as error:
        failure = error if isinstance(error, OSError) else OSError(str(error))
        raise disk_failed("cannot read", path, failure) from error
    return found.column("shard").to_numpy(), found.column("row_sequence").to_numpy()


def _remove(paths: list[Path], root: Path) -> None:
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            raise disk_failed("cannot remove", path, error) from error
    sync_folders({path.parent for path in paths}, root)


def wipe_run(root: Path, writer: str, run: int) -> None:
    """Remove every file of a run of which nothing was ever committed."""
    _remove([path for _, _, path in files_of_run(root, writer, run)], root)


def remove_unfinished(root: Path, writer: str) -> None:
    """Remove what crashes left half-written: of this writer, whose folder is ours, and of every
    other whose folder nobody has."""
    own = own_folder(root)
    sweep(own)
    for path in own.glob(".backfill-*"):  # done with (sinks.lake.backfill)
        shutil.rmtree(path, ignore_errors=True)
    files: dict[str, list[Path]] = {}
    for table in TABLES:
        for path in (root / table).rglob(".*-*.tmp"):
            files.setdefault(path.name[1:].partition("-")[0], []).append(path)
    for folder in [path for path in own.iterdir() if path.is_dir()]:
        ours = nullcontext(True) if folder.name == writer else WriterFolder.unused(folder)
        with ours as dead:
            if dead:
                for path in files.get(folder.name, []):
                    path.unlink(missing_ok=True)
                _remove_unfinished_in(folder)


def _remove_unfinished_in(folder: Path) -> None:
    """The same of a writer's own folder."""
    for path in folder.glob(".run-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("run-*/.*.tmp"):
        path.unlink(missing_ok=True)
