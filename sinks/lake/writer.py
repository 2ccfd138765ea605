"""The lake sink: rows in, exactly-once Parquet out.

Rows collect in memory by partition and are *sealed* into a sorted file when a partition is large
enough, old enough, or memory is short. A snapshot appends what is still pending to an aside log
and names a place in it; restoring one undoes whatever happened later (sinks.lake.rollback).
High-rate partitions are sealed at snapshots rather than logged, so that few rows are written twice.

- Unit of parallelism: a process of a run (sinks.lineage.writer_of); writers share but the lake.
- The snapshot holds: run, place in the log, next file number, next row_sequence per table and
  shard. Any snapshot that the flow can still resume from can be restored: the last two.
- Guarantee: after a crash at any moment and ``restore`` the lake ends as if nothing had happened.
  Without a recovery identity nothing is logged and a crash loses what is pending.
- A slow disk blocks ``write``: memory stays below ``max_pending_bytes`` and one batch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW
from marketflow.sinks.columns import concat, shape, to_file
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.aside_log import AsideLog, Position, Record
from marketflow.sinks.lake.config import SealOptions
from marketflow.sinks.lake.file import FileOptions, sorted_rows, sync_folders, write_file
from marketflow.sinks.lake.layout import Partition, prepare_lake, writer_file_name
from marketflow.sinks.lake.pending import STAGE_ROWS, Pending, PendingRows
from marketflow.sinks.lake.rollback import (
    Target,
    pending_records,
    remove_unfinished,
    roll_back,
    wipe_run,
)
from marketflow.sinks.lake.run import Progress, Run, WriterFolder
from marketflow.sinks.marks import Gapless, Marks, copied, highest, of_shards
from marketflow.sinks.writer import RowsLike

SNAPSHOT_VERSION: Final = 1
#: Number of the run in a state that no run of this writer has come to yet.
_NO_RUN: Final = 0


class ParquetOptions(SealOptions):
    """When rows become a file, with what no URL sets.

    ``snapshot_divisor``: a snapshot seals a partition from that part of the sizes on.
    ``max_partitions``: the largest are sealed while there are more.
    ``log_slack_bytes``: the log is rewritten when it holds more of dead rows.
    ``stage_rows``: batches of a table are gathered to that before they are split by partition.
    """

    snapshot_divisor: int = 4
    max_partitions: int = 512
    log_slack_bytes: int = 64 << 20
    stage_rows: int = STAGE_ROWS
    file: FileOptions = FileOptions()


class ParquetWriter:
    """Writer of one lake. ``recovery`` identifies the recovery folder that snapshots go to;
    ``midway``: see sinks.config.Opening.

    Raises SinkError (what was asked cannot be done; the text says what can) and LakeFailed (the
    disk refused; every later call raises it again).
    """

    def __init__(
        self,
        root: Path,
        writer: str = "w0",
        recovery: str | None = None,
        options: ParquetOptions | None = None,
        midway: bool = False,
    ) -> None:
        assert writer.isalnum(), writer
        self.root = root
        self.writer = writer
        self._recovery = recovery
        self._options = options or ParquetOptions()
        self._folder: WriterFolder | None = None
        self._run: Run | None = None
        self._log: AsideLog | None = None
        self._pending = PendingRows(self._options.stage_rows)
        self._taken = Gapless(midway)
        self._next_file = 0
        self._forget: list[Partition] = []
        self._touched: set[Path] = set()
        self._snapshots: list[int] = []
        self._failure: OSError | None = None

    # -- life ---------------------------------------------------------------------------------

    def fence(self) -> None:
        """Lock the writer's folder."""
        if self._folder is None:
            prepare_lake(self.root)
            self._folder = WriterFolder.acquire(self.root, self.writer)

    def restore(self, state: Any) -> None:
        """Go back to the state of a snapshot."""
        if not isinstance(state, tuple) or state[0] != SNAPSHOT_VERSION:
            raise SinkError(
                f"recovery state of the lake sink is not of format {SNAPSHOT_VERSION}: "
                f"{OTHER_RELEASE}"
            )
        if state[1] == _NO_RUN:
            self._open()
            self._taken.restore(state[-1])
            return
        self.fence()
        assert self._folder is not None
        try:
            self._go_back(self._folder, *state[1:])
        except BaseException:
            self.abandon()
            raise

    def _go_back(
        self,
        folder: WriterFolder,
        number: int,
        generation: int,
        length: int,
        next_file: int,
        marks: Marks,
    ) -> None:
        run = self._run = folder.run(number)
        remove_unfinished(self.root, self.writer)
        progress = run.progress
        target = Target(next_file, Position(generation, length), marks)
        if progress.closed == marks:
            # The run ended in this very state: all of it is in files, the log means nothing.
            target = Target(max(next_file, progress.next_file), None, marks, use_log=False)
        if target.first_file < progress.safe_below:
            raise SinkError(
                f"the recovery folder is older than what {run.folder} has committed: use the "
                f"recovery folder of that run, or {START_ANEW}"
            )
        self._log = AsideLog(run.folder, progress.cleared)
        self._next_file = roll_back(
            self.root, self.writer, number, self._log, target, self._pending
        )
        self._taken.restore(marks)
        self._snapshots = [target.first_file]
        progress.finished = False
        run.save(durable=True)

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """A run of the new writer's own, which goes on numbering where the others were."""
        marks = of_shards(highest(state[-1] for state in states), keeps)
        return (SNAPSHOT_VERSION, _NO_RUN, 0, 0, 0, marks)

    def _open(self) -> AsideLog:
        """A fresh start, unless there was a restore; the log of the run."""
        if self._log is None:
            self.fence()
            assert self._folder is not None
            remove_unfinished(self.root, self.writer)
            for run in self._folder.runs():
                self._settle(run)
            self._run = self._folder.new_run(self._recovery)
            self._log = AsideLog(self._run.folder, 0)
        return self._log

    def settle(self) -> None:
        """Every run of this writer is over: what was logged becomes files. Lets go."""
        self.fence()
        assert self._folder is not None
        try:
            remove_unfinished(self.root, self.writer)
            for run in self._folder.runs():
                self._settle(run)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self.abandon()

    def _settle(self, run: Run) -> None:
        """An earlier run is over. Undo it if it was ours and crashed before its first snapshot
        was durable (we start fresh: our recovery folder knows of none); else keep its rows."""
        progress = run.progress
        if progress.finished or run.recovery is None:
            return
        if run.recovery == self._recovery and progress.safe_below == 0:
            wipe_run(self.root, self.writer, run.number)
            shutil.rmtree(run.folder)
            return
        log = AsideLog(run.folder, progress.cleared)
        if not log.exists:
            return
        salvaged = PendingRows()
        target = Target(progress.safe_below, None, None)
        number = roll_back(self.root, self.writer, run.number, log, target, salvaged)
        for partition in list(salvaged.partitions):
            rows = salvaged.remove(partition)
            self._write(partition, rows, salvaged, run.number, number)
            number += 1
        self._sync()
        run.progress.cleared = log.generation
        run.save(durable=True)
        log.clear()

    def close(self) -> None:
        """Seal everything and let go. The run can be resumed later, from its last snapshot."""
        log = self._begin_call()
        try:
            self._pending.flush()
            for partition in list(self._pending.partitions):
                self._seal(partition)
            self._sync()
            run = self._run
            assert run is not None
            finished = run.recovery is None
            run.progress = Progress(
                self._next_file if finished else run.progress.safe_below,
                finished,
                copied(self._taken.marks),
                self._next_file,
                log.generation,
            )
            run.save(durable=True)
            log.clear()
        except OSError as error:
            raise self._failed(error) from error
        self.abandon()

    def finish(self) -> None:
        """The last snapshot is durable in the recovery folder: compaction may touch everything."""
        run = self._run
        if run is None:
            return  # the flow was stopped before its sinks were opened: nothing was written
        try:
            folder = WriterFolder.acquire(self.root, self.writer)
        except SinkError:
            return  # somebody writes already: that run's own snapshots will tell
        try:
            current = folder.run(run.number)
            if current.progress.closed == self._taken.marks:
                current.progress.finished = True
                current.progress.safe_below = current.progress.next_file
                current.save(durable=True)
        finally:
            folder.release()

    def abandon(self) -> None:
        """Release the lock and the log without finishing anything."""
        if self._log is not None:
            self._log.release()
        if self._folder is not None:
            self._folder.release()

    # -- rows ---------------------------------------------------------------------------------

    def write(self, rows: RowsLike) -> None:
        """Take the rows of one shard; may seal files."""
        self._begin_call()
        grown = False
        for table, batch in rows.tables.items():
            if batch.num_rows:
                self._taken.advance(table, rows.shard, batch)
                grown |= self._pending.stage(table, batch)
        if grown:
            try:
                self._relieve()
            except OSError as error:
                raise self._failed(error) from error

    def idle(self) -> None:
        """Called now and then while nothing arrives: rows do not stay invisible for long."""
        self._begin_call()
        try:
            if self._aged():
                self._pending.flush()
                self._relieve()
        except OSError as error:
            raise self._failed(error) from error

    def _aged(self) -> list[Partition]:
        oldest = time.monotonic() - self._options.seal_after_s
        return [p for p, rows in self._pending.partitions.items() if rows.since <= oldest]

    def _relieve(self, divisor: int = 1) -> None:
        """Seal what is large or old, and the largest while there is too much in all."""
        options, pending = self._options, self._pending
        large = [
            p
            for p, rows in pending.partitions.items()
            if rows.rows * divisor >= options.seal_rows
            or rows.bytes * divisor >= options.seal_bytes
        ]
        for partition in dict.fromkeys(large + self._aged()):
            self._seal(partition)
        while (
            pending.bytes > options.max_pending_bytes
            or len(pending.partitions) > options.max_partitions
        ):
            self._seal(pending.largest())

    def _seal(self, partition: Partition) -> None:
        rows = self._pending.remove(partition)
        assert self._run is not None
        self._write(partition, rows, self._pending, self._run.number, self._next_file)
        self._next_file += 1
        if rows.logged:
            self._forget.append(partition)

    def _write(
        self, partition: Partition, rows: Pending, source: PendingRows, run: int, number: int
    ) -> None:
        form = shape(partition.table)
        folder = self.root / partition.folder
        path = folder / writer_file_name(self.writer, run, number)
        batch = sorted_rows(form, rows.chunks, source.names)
        write_file(path, form, batch, self._options.file)
        self._touched.add(folder)

    def _sync(self) -> None:
        sync_folders(self._touched, self.root)
        self._touched.clear()

    # -- snapshots ----------------------------------------------------------------------------

    def snapshot(self) -> Any:
        """(version, run, log generation, log length, next file, marks). None without a recovery
        identity: nothing will ever be restored."""
        log = self._begin_call()
        run = self._run
        assert run is not None
        if run.recovery is None:
            return None
        try:
            self._pending.flush()
            self._relieve(self._options.snapshot_divisor)
            self._sync()
            self._log_pending(log)
            self._publish(run)
        except OSError as error:
            raise self._failed(error) from error
        generation, length = log.position
        marks = copied(self._taken.marks)
        return (SNAPSHOT_VERSION, run.number, generation, length, self._next_file, marks)

    def _log_pending(self, log: AsideLog) -> None:
        pending = self._pending
        dead = log.length - 2 * pending.bytes
        if not log.is_open or dead > self._options.log_slack_bytes:
            if pending.partitions or log.is_open:
                log.begin(pending_records(pending))
        else:
            records = [Record(partition, None) for partition in self._forget]
            for partition, rows in pending.partitions.items():
                new = rows.unlogged()
                if new:
                    form = shape(partition.table)
                    records.append(Record(partition, to_file(form, concat(new), pending.names)))
            if records:
                log.append(records)
        self._forget.clear()
        for rows in pending.partitions.values():
            rows.mark_logged()

    def _publish(self, run: Run) -> None:
        """Tell compaction what cannot be undone any more. When a snapshot is taken, the engine
        has made the one before it durable; one more is kept back for good measure."""
        if len(self._snapshots) >= 2:
            safe = self._snapshots[-2]
            if safe > run.progress.safe_below:
                run.progress.safe_below = safe
                run.save(durable=False)
        self._snapshots = [*self._snapshots[-1:], self._next_file]

    # -- failure ------------------------------------------------------------------------------

    def _begin_call(self) -> AsideLog:
        if self._failure is not None:
            raise self._failure
        return self._open()

    def _failed(self, error: OSError) -> OSError:
        """Remember the failure: what is in memory may no longer fit what is on disk."""
        self._failure = disk_failed("cannot write", error.filename or self.root, error)
        self.abandon()
        return self._failure
