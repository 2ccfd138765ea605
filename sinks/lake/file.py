"""One Parquet file: rows in the table's order, encoded for size and for pruning, all or nothing.

Sorted by symbol and time, a query for an instrument or a span reads only the row groups whose
statistics allow it. Encodings by kind of column, chosen by measurement (see ``_encodings``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from marketflow.schemas.fields import Kind, Table
from marketflow.sinks.columns import (
    Bare,
    Names,
    Shape,
    concat,
    filled,
    row_width,
    shape,
    take,
    to_file,
)
from marketflow.sinks.durable import Survives, replacing, sync_file, sync_folder
from marketflow.sinks.errors import disk_failed
from marketflow.sinks.lake.order import ordered
from marketflow.sinks.tally import of_rows, to_json

WRITER_VERSION: Final = "1"
#: In the footer: what the file holds of each feed.
TALLY: Final = "marketflow.feeds"
_UINT16_VALUES: Final = 1 << 16
#: Kinds whose statistics serve nobody's filter and cost up to a third of the writing.
_NO_STATISTICS: Final = frozenset(
    {Kind.DECIMAL, Kind.SUM, Kind.CODE, Kind.BYTES, Kind.DECIMALS, Kind.COUNTS, Kind.TEXT, Kind.ID}
)
_DELTA: Final = frozenset({Kind.INT64, Kind.TIME})
_DICTIONARY: Final = frozenset(
    {Kind.DECIMAL, Kind.NAME, Kind.CODE, Kind.SHARD, Kind.INT32, Kind.UINT8, Kind.TEXT}
)
_LISTS: Final = frozenset({Kind.DECIMALS, Kind.COUNTS})


@dataclass(frozen=True, slots=True)
class FileOptions:
    """``compression_level`` is zstd's. Row groups are the grain of pruning: what a query decodes
    for an instrument, or for one book at a time. 32,768 rows take half the time that 131,072 take
    for a symbol's quotes, at the same size and the same cost of writing; wide rows make smaller
    groups, of ``row_group_bytes`` in memory (8,192 rows of depth: one percent more bytes)."""

    row_group_rows: int = 1 << 15
    row_group_bytes: int = 6 << 20
    compression_level: int = 1


@cache
def _encodings(table: str) -> dict[str, Any]:
    """Arguments of the Parquet writer that depend on the table.

    Integers and times rise slowly: DELTA_BINARY_PACKED is 8 times faster than trying a
    dictionary first and a third smaller than plain with zstd. Prices, sizes, names and words
    repeat: dictionary. Sums and ids hardly repeat: plain. Lists of levels repeat as a whole from
    row to row: plain, and zstd sees it (half the size and less time than by dictionary).
    """
    fields = shape(table).fields
    paths = {f.name: f"{f.name}.list.element" if f.kind in _LISTS else f.name for f in fields}
    return {
        "use_dictionary": [paths[f.name] for f in fields if f.kind in _DICTIONARY],
        "column_encoding": {f.name: "DELTA_BINARY_PACKED" for f in fields if f.kind in _DELTA},
        "write_statistics": [paths[f.name] for f in fields if f.kind not in _NO_STATISTICS],
    }


def _about(table: Table) -> dict[str, str]:
    return {
        "marketflow.table": table.name,
        "marketflow.version": str(table.version),
        "marketflow.writer": WRITER_VERSION,
    }


def _tally(form: Shape, rows: pa.RecordBatch) -> str:
    times = rows.column(form.time).cast(pa.int64())
    known = times.is_valid().to_numpy(zero_copy_only=False)
    shards = rows.column(form.shard).to_numpy()
    return json.dumps(to_json(of_rows(form.table, shards, filled(times), known)))


def sorted_rows(form: Shape, chunks: list[Bare], names: Names) -> pa.RecordBatch:
    """File form of the rows of all chunks in the order of ``form.keys``, major key first.

    Rows of an instrument arrive in order of time, nearly always: sorting by the names alone, which
    lead the order of nearly all tables, does it, and the other keys are only checked.
    """
    major = form.keys[0]
    named = form.fields[major].kind is Kind.NAME
    if named and not any(chunk[major].null_count for chunk in chunks):
        bare = ordered(form, chunks, names)
    else:
        bare = concat(chunks)
    batch = to_file(form, bare, names)
    keys = _keys(form, batch)
    if _is_sorted(keys):
        return batch
    order = np.lexsort(keys[::-1])
    return pa.RecordBatch.from_arrays(take(batch.columns, order), schema=form.file_schema)


def _keys(form: Shape, batch: pa.RecordBatch) -> list[NDArray[Any]]:
    """Integers that sort like the key columns (dictionaries of the file form are sorted)."""
    columns = [batch.column(i) for i in form.keys]
    return [filled(c.indices if pa.types.is_dictionary(c.type) else c) for c in columns]


def _is_sorted(keys: list[NDArray[Any]]) -> bool:
    """Whether the rows stand in lexicographic order of the keys."""
    if len(keys[0]) < 2:
        return True
    tied: NDArray[np.bool_] | None = None
    for key in keys:
        before, after = key[:-1], key[1:]
        falls = before > after
        if bool(falls.any() if tied is None else (falls & tied).any()):
            return False
        same = before == after
        tied = same if tied is None else tied & same
        if not tied.any():
            return True
    return True


def write_file(path: Path, form: Shape, rows: pa.RecordBatch, options: FileOptions) -> None:
    """Write rows of the file form to ``path``: complete and on disk, or not there.

    The folder's own entry is made durable by the caller, once for many files. Raises LakeFailed.
    """
    try:
        try:
            _write_whole(path, form, rows, options)
        except FileNotFoundError:  # retention has just removed the empty folder
            _write_whole(path, form, rows, options)
    except OSError as error:
        raise disk_failed("cannot write", path, error) from error


def _write_whole(path: Path, form: Shape, rows: pa.RecordBatch, options: FileOptions) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, Survives.POWER_WITH_FOLDER) as file:
        _write(Path(file.name), form, rows, options)


def write_unnamed(path: Path, form: Shape, rows: pa.RecordBatch, options: FileOptions) -> None:
    """Write a Parquet file that gets its name later; its bytes are durable."""
    _write(path, form, rows, options)
    sync_file(path)


def _write(path: Path, form: Shape, rows: pa.RecordBatch, options: FileOptions) -> None:
    with pq.ParquetWriter(
        path,
        form.file_schema,
        compression="zstd",
        compression_level=options.compression_level,
        # Without Arrow's own schema every reader sees strings, not one reader's dictionaries.
        store_schema=False,
        **_encodings(form.table.name),
    ) as writer:
        writer.write_batch(rows, row_group_size=_group_rows(form.table.name, options))
        writer.add_key_value_metadata(_about(form.table) | {TALLY: _tally(form, rows)})


def _group_rows(table: str, options: FileOptions) -> int:
    """Rows of a group: a power of two, or the fewer that the options say."""
    fitting = options.row_group_bytes // row_width(table)
    return min(options.row_group_rows, 1 << max(fitting.bit_length() - 1, 0))


def read_file(path: Path, table: str) -> pa.Table:
    """Rows of a file, ready for ``to_bare``; columns that an older version lacked are null.

    Raises LakeFailed when the file cannot be read.
    """
    form = shape(table)
    words = [f.name for f in form.fields if f.kind in (Kind.NAME, Kind.CODE)]
    try:
        with pq.ParquetFile(path, read_dictionary=words) as file:
            found = file.read()
    except (OSError, pa.ArrowException) as error:
        failure = error if isinstance(error, OSError) else OSError(str(error))
        raise disk_failed("cannot read", path, failure) from error
    columns = []
    for wanted in form.file_schema:
        if wanted.name not in found.column_names:
            column = pa.chunked_array([pa.nulls(found.num_rows, wanted.type)])
        else:
            column = found.column(wanted.name)
            if wanted.name not in words:
                column = column.cast(wanted.type)
        columns.append(column)
    return pa.table(columns, names=form.file_schema.names)


def sync_folders(folders: set[Path], root: Path) -> None:
    """Make the names inside these folders durable, and the folders themselves up to ``root``."""
    wanted = set(folders)
    for folder in folders:
        wanted.update(p for p in folder.parents if p == root or p.is_relative_to(root))
    for folder in sorted(wanted):
        try:
            sync_folder(folder)
        except OSError as error:
            raise disk_failed("cannot sync", folder, error) from error
