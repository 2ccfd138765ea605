"""Compaction and retention: many small files of a partition into few large sorted ones.

Safe beside running writers: only files that no rollback can undo are touched, which a writer
tells with ``safe_below`` (sinks.lake.run), and merged files, which belong to nobody.
Safe against crashes, and never twice or not at all for a reader that lists with
:func:`sinks.lake.layout.list_files`:

1. the merged file is written complete under a hidden name;
2. the journal says "this replaces those" - from here on it will happen;
3. the merged file gets its name, the parts are removed, the journal forgets.

The next compaction finishes what it finds in the journal and removes hidden files without one.
A foreign reader (a plain glob) can see rows twice between the rename and the removals of step 3:
a few milliseconds per partition.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.moments import day_of
from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import Names, row_width, shape, to_bare
from marketflow.sinks.durable import sweep, sync_folder
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.feeds import carry_out_feeds
from marketflow.sinks.lake.file import FileOptions, read_file, sorted_rows, write_unnamed
from marketflow.sinks.lake.layout import (
    Partition,
    check_lake,
    list_files,
    list_partitions,
    own_folder,
    parse_writer_file,
    read_journal,
    write_journal,
)
from marketflow.sinks.lake.run import safe_below

_MERGED: Final = re.compile(r"merged-(\d{8})\.parquet")
#: A compaction that failed has changed nothing that a query answers.
RUN_AGAIN: Final = "run it again: the lake is whole"
#: Merged files are read more often than written.
FILE: Final = FileOptions(compression_level=3)


@dataclass(frozen=True, slots=True)
class CompactOptions:
    """Small files are merged up to ``target_rows`` in one file or ``target_bytes`` of memory (the
    sort takes twice that for a moment); files above half of it are left alone."""

    target_rows: int = 4 << 20
    target_bytes: int = 512 << 20


def compact(root: Path, options: CompactOptions | None = None) -> dict[str, int]:
    """Merge small files of every partition; what a query answers stays the same.

    Returns ``files_before``, ``files_after``, ``bytes_before``, ``bytes_after`` of the whole lake,
    and what was merged: ``files_merged`` into larger ones, with ``rows_merged``. Raises SinkError
    (no lake, another compaction runs) or LakeFailed.
    """
    options = options or CompactOptions()
    with alone(root):
        files_before, bytes_before = _census(root)
        safe = _Safe(root)
        files = rows = 0
        for table in TABLES:
            for partition in list_partitions(root, table):
                for group in _groups(root, partition, safe, options):
                    rows += _merge(root, partition, group)
                    files += len(group)
        files_after, bytes_after = _census(root)
    return {
        "files_before": files_before,
        "files_after": files_after,
        "files_merged": files,
        "rows_merged": rows,
        "bytes_before": bytes_before,
        "bytes_after": bytes_after,
    }


def drop_before(root: Path, table: str, day: date) -> int:
    """Remove a table's files of dates before ``day``; returns how many. Files that a running
    writer could still undo stay for the next time. Raises as :func:`compact`."""
    if table not in TABLES:
        raise SinkError(f"no table {table!r}; known: {', '.join(TABLES)}")
    dropped = 0
    with alone(root):
        safe = _Safe(root)
        for partition in list_partitions(root, table):
            if partition.day >= day_of(day):
                break
            files = [path for path in _files(root, partition) if safe.may_touch(path)]
            if files:
                _replace(root, None, None, files)
            dropped += len(files)
            _remove_empty(root, partition)
    return dropped


def count_before(root: Path, table: str, day: date) -> int:
    """How many files :func:`drop_before` would remove if no writer were running. SinkError."""
    if day_of(day) <= 0:
        return 0
    return len(list_files(root, table, last=day - timedelta(1)))


@contextmanager
def alone(root: Path, check: Callable[[Path], None] = check_lake) -> Iterator[None]:
    """One compaction, back-fill or migration at a time, after what the last one left is put
    right."""
    check(root)
    try:
        with (own_folder(root) / "compact.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SinkError(
                    f"another compaction, back-fill or migration of {root} is running: wait for it"
                ) from None
            sweep(own_folder(root))
            _recover(root)
            yield
    except OSError as error:
        raise disk_failed("cannot change", error.filename or root, error, RUN_AGAIN) from error


def _recover(root: Path) -> None:
    """Finish replacements that the journal holds; remove merged files it never came to know."""
    journal = read_journal(root)
    if journal["pending"] or "feeds" in journal:
        carry_out(root, journal["pending"], journal.get("feeds"))
    for table in TABLES:
        for path in (root / table).rglob(".merged-*.tmp"):
            path.unlink()


class _Safe:
    """Which files no rollback can undo."""

    def __init__(self, root: Path) -> None:
        self._below = safe_below(root)

    def may_touch(self, path: Path) -> bool:
        if _MERGED.fullmatch(path.name):
            return True
        name = parse_writer_file(path.name)
        return name is not None and name.number < self._below.get((name.writer, name.run), 0)


def _files(root: Path, partition: Partition) -> list[Path]:
    folder = root / partition.folder
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))


def _groups(
    root: Path, partition: Partition, safe: _Safe, options: CompactOptions
) -> list[list[Path]]:
    """Groups of at least two small files each to be merged into one."""
    target_rows = min(options.target_rows, options.target_bytes // row_width(partition.table))
    small: list[tuple[Path, int, int]] = []
    for path in _files(root, partition):
        if safe.may_touch(path):
            rows, size = _extent(path)
            if 2 * rows < target_rows and 2 * size < options.target_bytes:
                small.append((path, rows, size))
    groups: list[list[Path]] = []
    rows_left = bytes_left = 0
    for path, rows, size in small:
        if not groups or rows > rows_left or size > bytes_left:
            groups.append([])
            rows_left, bytes_left = target_rows, options.target_bytes
        groups[-1].append(path)
        rows_left -= rows
        bytes_left -= size
    return [group for group in groups if len(group) > 1]


def _extent(path: Path) -> tuple[int, int]:
    """(rows, bytes when decoded) of a file."""
    try:
        with pq.ParquetFile(path) as file:
            found = file.metadata
            size = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
            return found.num_rows, size
    except (OSError, pa.ArrowException) as error:
        failure = error if isinstance(error, OSError) else OSError(str(error))
        raise disk_failed("cannot read", path, failure, RUN_AGAIN) from error


def _merge(root: Path, partition: Partition, parts: list[Path]) -> int:
    """Replace the parts by one sorted file; returns its rows."""
    form, names = shape(partition.table), Names()
    tables = [read_file(path, partition.table) for path in parts]
    rows = sorted_rows(form, [to_bare(form, t, names) for t in tables], names)
    assert rows.num_rows == sum(t.num_rows for t in tables)
    folder = root / partition.folder
    name = f"merged-{read_journal(root)['sequence'] + 1:08d}.parquet"
    temporary = folder / f".{name}.tmp"
    try:
        write_unnamed(temporary, form, rows, FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_failed("cannot write", temporary, error, RUN_AGAIN) from error
    sync_folder(folder)
    _replace(root, folder / name, temporary, parts)
    return int(rows.num_rows)


def _replace(root: Path, merged: Path | None, temporary: Path | None, parts: list[Path]) -> None:
    """Commit a replacement and carry it out. ``merged`` None: the parts just go."""
    change = {
        "merged": None if merged is None else str(merged.relative_to(root)),
        "temporary": None if temporary is None else str(temporary.relative_to(root)),
        "replaces": [str(path.relative_to(root)) for path in parts],
    }
    write_journal(root, read_journal(root)["sequence"] + 1, [change])
    carry_out(root, [change])


def carry_out(
    root: Path, changes: list[dict[str, Any]], feeds: dict[str, Any] | None = None
) -> None:
    """Do what the journal says, from wherever a crash left it; then the journal forgets."""
    if feeds is not None:
        carry_out_feeds(root, feeds)
    folders = set()
    for change in changes:
        if change["merged"] is not None:
            temporary, merged = root / change["temporary"], root / change["merged"]
            if change.get("at_once"):
                # Linked, not renamed: readers have been told of the hidden name.
                if not merged.exists():
                    merged.hardlink_to(temporary)
            elif temporary.exists():
                temporary.replace(merged)
            folders.add(merged.parent)
    _sync(folders)
    for change in changes:
        if change["merged"] is not None:
            merged = root / change["merged"]
            assert merged.is_file(), f"{merged} is gone: its parts must stay"
        for name in change["replaces"]:
            (root / name).unlink(missing_ok=True)
            folders.add((root / name).parent)
    _sync(folders)
    write_journal(root, read_journal(root)["sequence"] + 1, [])
    for change in changes:
        if change["temporary"] is not None:
            (root / change["temporary"]).unlink(missing_ok=True)


def _sync(folders: set[Path]) -> None:
    for folder in folders:
        if folder.is_dir():
            sync_folder(folder)


def _remove_empty(root: Path, partition: Partition) -> None:
    """Remove the partition's folders where nothing is left in them."""
    folder = root / partition.folder
    while folder != root / partition.table:
        try:
            folder.rmdir()
        except OSError:
            return  # a writer was faster, or files had to stay
        folder = folder.parent


def _census(root: Path) -> tuple[int, int]:
    """(files, bytes) of the whole lake."""
    files = [path for table in TABLES for path in list_files(root, table)]
    return len(files), sum(path.stat().st_size for path in files)
