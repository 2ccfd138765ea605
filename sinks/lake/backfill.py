"""Back-fill of a lake: the rows of an interval in place of those that are there, all at once.

A replay writes its rows aside, into a lake of its own inside this one (:func:`aside`). When it is
complete, :func:`replace` puts them in: a row that has the identity of a new one (table, venue or
feed, shard, row_sequence), at most a day away from the new ones, goes; files that hold such rows
are written again without them. One write of the journal makes all of it happen, for every reader
that lists with :func:`sinks.lake.layout.list_files`; before it the lake is the old one, whatever
crashes.

Of a back-fill, which puts rows of an interval into a feed that is there, no run of that feed may
write meanwhile or be undone any more: its files could come back. One that was stopped gracefully
goes on afterwards with its --recovery. :func:`replace_feeds` puts a whole feed in place of what
other runs had loaded: these are superseded. Runs of other feeds go on meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marketflow.schemas.shards import feeds_of
from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import Names, shape, to_bare
from marketflow.sinks.durable import sync_folder
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.compact import FILE, RUN_AGAIN, alone, carry_out
from marketflow.sinks.lake.feeds import (
    added,
    changing,
    entries,
    feed_tally,
    owners,
    read_feeds,
    tally_of_file,
    writer_folders,
)
from marketflow.sinks.lake.file import read_file, sorted_rows, write_unnamed
from marketflow.sinks.lake.layout import (
    Partition,
    check_lake,
    list_partitions,
    own_folder,
    read_journal,
    write_journal,
)
from marketflow.sinks.lake.run import WriterFolder
from marketflow.sinks.lineage import Claim
from marketflow.sinks.overlap import Arrived, other_rows

_MAX_DAYS_OFF: Final = 1


def aside(root: Path, key: str) -> Path:
    """Where the rows of a back-fill are written until it is complete: a lake."""
    return own_folder(root) / f"backfill-{key}"


@dataclass(slots=True)
class _New:
    """The new rows of a table: by shard first and last row_sequence; days; feeds."""

    shards: dict[int, tuple[int, int]] = field(default_factory=dict)
    days: set[int] = field(default_factory=set)
    feeds: set[str] = field(default_factory=set)
    files: list[tuple[Partition, Path]] = field(default_factory=list)


def replace(root: Path, key: str, arrived: Arrived | None = None) -> dict[str, int]:
    """Put the rows of an interval that were written aside in place of the old ones;
    ``rows_replaced`` and ``rows_written``. Done before (nothing is aside any more): no change.

    Raises LakeFailed, and SinkError where the feed is being written, was loaded by several runs, or
    (with ``arrived``) had another number of rows in the interval. Whatever happens, the lake is the
    old one or the new one.
    """
    staged = aside(root, key)
    report = {"rows_replaced": 0, "rows_written": 0}
    if staged.is_dir():
        with alone(root), quiet(root, _numbers(staged)):
            changes = _Changes(root, staged, arrived)
            with _failing(root):
                changes.make()
                write_journal(root, changes.sequence, changes.pending)
            carry_out(root, changes.pending)
            report = {"rows_replaced": changes.replaced, "rows_written": changes.written}
            _done(root, key)
    shutil.rmtree(staged.with_name(f".backfill-{key}"), ignore_errors=True)
    return report


def replace_feeds(
    root: Path,
    key: str,
    claim: Claim,
    reached: Mapping[int, int],
    settle: Callable[[str], None],
) -> dict[str, int]:
    """Put the feeds of a complete run, whose rows were written aside, in place of all that other
    runs had loaded of them; they are the run's from then on. Reports and fails as :func:`replace`;
    SinkError also where one of the other runs is alive. ``reached``: by feed, where it ended.
    ``settle``: brings what a writer of a run that was cut off has logged into files."""
    staged = aside(root, key)
    report = {"rows_replaced": 0, "rows_written": 0}
    if staged.is_dir():
        with alone(root):
            with changing(root) as known:
                others, numbers = owners(root, known, claim)
                for folder in [f for run in others for f in writer_folders(root, run)]:
                    settle(folder.name)
                changes = _Changes(root, staged, None, numbers)
                delta = {"superseded": sorted(others), "numbers": sorted(numbers)}
                delta |= added(claim, reached)
                with _failing(root):
                    changes.make()
                    write_journal(root, changes.sequence, changes.pending, delta)
            carry_out(root, changes.pending, delta)
            report = {"rows_replaced": changes.replaced, "rows_written": changes.written}
            _done(root, key)
    shutil.rmtree(staged.with_name(f".backfill-{key}"), ignore_errors=True)
    return report


@contextmanager
def _failing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_failed("cannot back-fill", root, error, RUN_AGAIN) from error


def _done(root: Path, key: str) -> None:
    """In one step: half of what is aside would be taken for the whole of it at the next try."""
    staged = aside(root, key)
    staged.rename(staged.with_name(f".{staged.name}"))
    sync_folder(own_folder(root))


def _numbers(staged: Path) -> frozenset[int]:
    """The feeds whose rows are aside."""
    return frozenset(feed_tally(staged))


@contextmanager
def quiet(root: Path, numbers: Collection[int]) -> Iterator[None]:
    """No writer of these feeds has the lake, and none begins meanwhile. SinkError if one has it, or
    if a run of them may still be undone."""
    check_lake(root)
    known = read_feeds(root)
    theirs = {entry.run for entry in entries(known) if entry.number in numbers}
    others = {f for run in known["runs"] if run not in theirs for f in writer_folders(root, run)}
    with ExitStack() as held:
        for path in sorted(own_folder(root).iterdir()):
            if path in others or not (path / "lock").is_file():
                continue
            folder = WriterFolder.acquire(root, path.name)
            held.callback(folder.release)
            for run in folder.runs():
                if run.recovery is not None and not run.progress.finished:
                    raise SinkError(
                        f"{root}: a run that writes as {path.name} was cut off: start it again "
                        "with its --recovery and let it end or stop it gracefully, then back-fill"
                    )
        yield


class _Changes:
    """What has to change, prepared under hidden names. ``pending`` is the journal's form.
    ``whole``: feeds of which every row goes; None: what has the identity of a new row goes."""

    def __init__(
        self,
        root: Path,
        staged: Path,
        arrived: Arrived | None,
        whole: Collection[int] | None = None,
    ) -> None:
        self._root = root
        self._whole = whole
        self._arrived = arrived
        self._staged = staged
        self._new = {name: new for name in TABLES if (new := _survey(staged, name)).files}
        self._venues = {p.venue for new in self._new.values() for p, _ in new.files}
        self.sequence = read_journal(root)["sequence"]
        self.pending: list[dict[str, Any]] = []
        self.replaced = self.written = 0

    def make(self) -> None:
        """Write every file that is to appear."""
        folders = set()
        if self._whole is not None:
            self._remove_whole(self._whole)
        for name, new in self._new.items():
            if self._whole is None:
                self._remove_old(name, new)
            for partition, path in new.files:
                target = self._next_file(partition)
                target.with_name(f".{target.name}.tmp").hardlink_to(path)
                self._change(target, [])
                folders.add(target.parent)
                self.written += pq.read_metadata(path).num_rows
        for folder in folders:
            sync_folder(folder)
            sync_folder(folder.parent)

    def _next_file(self, partition: Partition) -> Path:
        self.sequence += 1
        folder = self._root / partition.folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"merged-{self.sequence:08d}.parquet"

    def _change(self, merged: Path | None, replaces: list[Path]) -> None:
        hidden = None if merged is None else merged.with_name(f".{merged.name}.tmp")
        self.pending.append(
            {
                "merged": merged and str(merged.relative_to(self._root)),
                "temporary": hidden and str(hidden.relative_to(self._root)),
                "replaces": [str(path.relative_to(self._root)) for path in replaces],
                "at_once": True,
            }
        )

    def _remove_whole(self, numbers: Collection[int]) -> None:
        """Remove every row of these feeds."""
        for name in TABLES:
            for partition in list_partitions(self._root, name):
                for path in sorted((self._root / partition.folder).glob("[!.]*.parquet")):
                    if not tally_of_file(path, name).keys().isdisjoint(numbers):
                        shards = pq.ParquetFile(path).read(columns=["shard"])["shard"].to_numpy()
                        goes = np.isin(feeds_of(shards), list(numbers))
                        self.replaced += self._without_rows(partition, path, goes)

    def _remove_old(self, name: str, new: _New) -> None:
        gone = 0
        days = range(min(new.days) - _MAX_DAYS_OFF, max(new.days) + _MAX_DAYS_OFF + 1)
        for partition in list_partitions(self._root, name):
            if partition.day in days and partition.venue in self._venues:
                for path in sorted((self._root / partition.folder).glob("[!.]*.parquet")):
                    gone += self._without(partition, path, new)
        known = sum(last - first + 1 for first, last in new.shards.values())
        if gone > known:
            raise SinkError(
                f"{self._root} holds {gone} rows of {name} for {known} identities: several runs "
                "over the same feed wrote into it, and whose rows are to go cannot be told; "
                "replay into another lake"
            )
        self.replaced += gone

    def _without(self, partition: Partition, path: Path, new: _New) -> int:
        """Prepare the file without the rows that go; how many these are."""
        if not _may_hold(path, new):
            return 0
        rows = pq.ParquetFile(path).read(columns=_identity_columns(partition.table))
        goes = _is_new(rows, new)
        if self._is_other(rows, goes, new):
            raise other_rows(self._root, partition.table)
        return self._without_rows(partition, path, goes)

    def _without_rows(self, partition: Partition, path: Path, goes: Any) -> int:
        """Prepare the file without these rows; how many they are."""
        gone = int(np.count_nonzero(goes))
        if gone == len(goes):
            self._change(None, [path])
        elif gone:
            form, names = shape(partition.table), Names()
            kept = read_file(path, partition.table).filter(pa.array(~goes))
            rows = sorted_rows(form, [to_bare(form, kept, names)], names)
            target = self._next_file(partition)
            write_unnamed(target.with_name(f".{target.name}.tmp"), form, rows, FILE)
            self._change(target, [path])
        return gone

    def _is_other(self, rows: pa.Table, goes: Any, new: _New) -> bool:
        """Rows go that arrived outside of the interval, or stay that arrived inside."""
        columns = rows.column_names
        if self._arrived is None or "ts_recv" not in columns or "feed" in columns:
            return False
        stamps = rows["ts_recv"].cast(pa.int64())
        known = stamps.is_valid().to_numpy()
        at = stamps.fill_null(0).to_numpy()
        ours = known & np.isin(rows["shard"].to_numpy(), list(new.shards))
        first, end = self._arrived.bounds_ns()
        widest_first, widest_end = self._arrived.bounds_ns(widest=True)
        strays = goes & ((at < widest_first) | (at >= widest_end))
        stays = ~goes & (at >= first) & (at < end)
        return bool((ours & (strays | stays)).any())


def _identity_columns(table: str) -> list[str]:
    names = TABLES[table].names
    return [name for name in ("shard", "row_sequence", "feed", "ts_recv") if name in names]


def _survey(staged: Path, name: str) -> _New:
    new = _New()
    for partition in list_partitions(staged, name):
        for path in sorted((staged / partition.folder).glob("[!.]*.parquet")):
            rows = pq.ParquetFile(path).read(columns=_identity_columns(name))
            new.files.append((partition, path))
            new.days.add(partition.day)
            if "feed" in rows.column_names:
                new.feeds.update(pc.unique(rows["feed"]).to_pylist())
            shards, sequences = _identities(rows)
            for shard in np.unique(shards).tolist():
                own = sequences[shards == shard]
                first, last = int(own.min()), int(own.max())
                before = new.shards.get(shard, (first, last))
                new.shards[shard] = (min(first, before[0]), max(last, before[1]))
    return new


def _identities(rows: pa.Table) -> tuple[Any, Any]:
    return rows["shard"].to_numpy(), rows["row_sequence"].to_numpy()


def _is_new(rows: pa.Table, new: _New) -> Any:
    """Which of the rows have the identity of a new one."""
    shards, sequences = _identities(rows)
    found = np.zeros(len(shards), np.bool_)
    for shard, (first, last) in new.shards.items():
        found |= (shards == shard) & (sequences >= first) & (sequences <= last)
    if "feed" in rows.column_names:
        found &= pc.is_in(rows["feed"], pa.array(sorted(new.feeds))).to_numpy()
    return found


def _may_hold(path: Path, new: _New) -> bool:
    """By the file's statistics; True where it has none."""
    found = pq.read_metadata(path)
    for group in range(found.num_row_groups):
        columns = found.row_group(group)
        bounds = {}
        for index in range(columns.num_columns):
            column = columns.column(index)
            if column.path_in_schema in ("shard", "row_sequence"):
                known = column.statistics
                if known is None or not known.has_min_max:
                    return True
                bounds[column.path_in_schema] = (known.min, known.max)
        (shard_from, shard_to), (_, row_to) = bounds["shard"], bounds["row_sequence"]
        for shard, (first, _) in new.shards.items():
            # Behind the interval too: what is there may be of the interval, by arrival.
            if shard_from <= shard <= shard_to and first <= row_to:
                return True
    return False
