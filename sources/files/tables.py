"""``csv:`` and ``parquet:`` files of one of our own tables (schemas.tables).

CSV: a HEADER frame with the line of column names, then a frame per line; fields may be quoted but
hold no line end. Parquet: a frame per run of rows, its payload an Arrow IPC stream of the known
columns; ``offset`` counts rows. Values that the URL gives for all rows (``venue=``, ``symbol=``)
travel in the note of every frame that starts a file, as a JSON object.

Missing columns that may be null, or that follow from others, are filled by the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.fields import Field, Kind
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import table as table_of
from marketflow.schemas.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, NS_PER_US
from marketflow.sources.errors import SourceError
from marketflow.sources.files import bytes as files
from marketflow.sources.files.blocks import Blocks
from marketflow.sources.files.parquet_files import RowFilesReader
from marketflow.sources.files.text_lines import HeadedLineReader
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

#: Columns that must be there, besides those a URL parameter gives.
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "trades": ("ts_event", "venue", "symbol", "price", "size"),
    "book_events": ("ts_event", "venue", "symbol", "action", "side", "price", "size"),
    "quotes": ("ts_event", "venue", "symbol", "bid_price", "bid_size", "ask_price", "ask_size"),
    "market_status": ("ts_event", "venue", "symbol", "status"),
    "imbalances": ("ts_event", "venue", "symbol"),
    "statistics": ("ts_event", "venue", "symbol", "kind"),
    "funding": ("ts_event", "venue", "symbol"),
    "instruments": ("ts_event", "venue", "symbol"),
}
_CONSTANTS: Final = ("venue", "symbol")
_UNITS: Final = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}
#: Whole times below are of 1970 and none of a market's.
_FIRST_NS: Final = 365 * NS_PER_DAY
_HEAD_BYTES: Final = 1 << 16
_NUMBER: Final = re.compile(r"\d{1,19}(?:\.\d*)?", re.ASCII)


def renames(text: str) -> dict[str, str]:
    """``ours:theirs,...`` as theirs -> ours; ValueError saying what it must be."""
    found = {}
    for item in filter(None, text.split(",")):
        ours, colon, theirs = item.partition(":")
        if not (colon and ours and theirs):
            raise ValueError("pairs OURS:THEIRS, such as ts_event:time,size:quantity")
        found[theirs] = ours
    return found


def check(scheme: str, path: Path, table: str, given: Mapping[str, str]) -> None:
    """SourceError if the file is not of the table, naming the column. ``given``: what the URL says
    of all rows."""
    if path.stat().st_size == 0:
        return
    if scheme == "csv":
        line = files.head(path, _HEAD_BYTES).split(b"\n", 1)[0].rstrip(b"\r")
        try:
            names = column_names(line)
        except UnicodeDecodeError:
            raise SourceError(f"{path} is no CSV: its first line is not UTF-8") from None
    else:
        schema = _schema(path)
        names = tuple(schema.names)
    theirs = {ours: name for name, ours in renames(given.get("columns", "")).items()}
    absent = [name for name in theirs.values() if name not in names]
    if absent:
        raise SourceError(
            f"{path} has no column {', '.join(absent)}, which columns= names (it has "
            f"{', '.join(names)})"
        )
    places = {theirs.get(n, n): n for n in _known(table)}
    if scheme == "parquet":
        for field in table_of(table).fields:
            name = theirs.get(field.name, field.name)
            if name in names and field.name in _known(table):
                _check_type(path, field, schema.field(name).type)
    else:
        _check_times(path, [places.get(name, name) for name in names], given)
    names = tuple(places.get(name, name) for name in names)
    missing = [name for name in REQUIRED[table] if name not in names and name not in given]
    if missing:
        hint = "".join(
            f" or add {name}=VALUE to the URL" for name in missing[:1] if name in _CONSTANTS
        )
        raise SourceError(
            f"{path} has no column {', '.join(missing)}, which the table {table} needs "
            f"(it has {', '.join(names)}); say which one it is with columns={missing[0]}:THEIRS, "
            f"rename or add it{hint}"
        )


def _check_times(path: Path, names: Sequence[str], given: Mapping[str, str]) -> None:
    """Whole numbers that would all be times of 1970 are of another unit."""
    wanted = [n for n, name in enumerate(names) if name in ("ts_event", "ts_recv")]
    numbers = [
        cells[n].strip().strip('"')
        for line in files.head(path, _HEAD_BYTES).split(b"\n")[1:-1]
        for cells in [line.decode("utf-8", "replace").split(",")]
        for n in wanted
        if len(cells) == len(names)
    ]
    whole = [int(text.partition(".")[0]) for text in numbers if _NUMBER.fullmatch(text)]
    whole = [value for value in whole if value > 0]
    unit = _UNITS[given.get("time_unit", "ns")]
    if not whole or any(value * unit >= _FIRST_NS for value in whole):
        return
    right = next(
        (name for name, factor in reversed(_UNITS.items()) if whole[0] * factor >= _FIRST_NS), None
    )
    if right is None:  # no unit makes a time of a market of it
        return
    raise SourceError(
        f"{path}: its time {whole[0]} would be in 1970 as {given.get('time_unit', 'ns')}: "
        f"add time_unit={right}"
    )


def column_names(line: bytes) -> tuple[str, ...]:
    """Column names of a CSV's first line, without quotes and a byte order mark."""
    return tuple(name.strip().strip('"') for name in line.decode("utf-8-sig").split(","))


def _known(name: str) -> frozenset[str]:
    """Columns a reader passes on: identity is given anew."""
    return frozenset(table_of(name).names) - {"shard", "row_sequence"}


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} is no readable Parquet file: {error}") from error


def _check_type(path: Path, field: Field, found: pa.DataType) -> None:
    if pa.types.is_dictionary(found):
        found = found.value_type
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    fits = text or pa.types.is_null(found)
    match field.kind:
        case Kind.DECIMAL | Kind.SUM:
            fits = fits or pa.types.is_decimal(found) or pa.types.is_integer(found)
        case Kind.TIME:
            fits = fits or pa.types.is_timestamp(found) or pa.types.is_integer(found)
        case Kind.ID | Kind.INT64 | Kind.INT32 | Kind.SHARD | Kind.UINT8:
            fits = fits or pa.types.is_integer(found)
        case Kind.BOOL:
            fits = fits or pa.types.is_boolean(found)
    if not fits:
        why = (
            "a float has lost the exact value; write it as decimal, integer or text"
            if pa.types.is_floating(found)
            else f"wanted {field.kind.value} or text"
        )
        raise SourceError(f"{path}: column {field.name} is {found}: {why}")


class CsvReader(HeadedLineReader):
    """A frame per line; the note of the HEADER holds the constants."""

    def __init__(
        self,
        paths: Sequence[Path],
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        given: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(paths, position, limits)
        self._note = msgspec.json.encode(dict(given or {})).decode()

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        batch = super()._take(blocks)
        if batch is None or batch.column("kind")[0].as_py() != FrameKind.HEADER:
            return batch
        offset, line = batch.column("offset")[0].as_py(), batch.column("payload")[0].as_py()
        return framing.single(FrameKind.HEADER, offset, line, self._note)


class ParquetReader(RowFilesReader):
    """A frame per run of at most ``max_rows`` rows. Going on skips whole row groups and decodes the
    one it stopped in from its start."""

    def __init__(
        self,
        paths: Sequence[Path],
        table: str,
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        given: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(paths, position, limits)
        others = renames((given or {}).get("columns", ""))
        self._known = _known(table) - set(others.values()) | set(others)
        self._note = msgspec.json.encode(dict(given or {})).decode()

    def _open(self, path: Path) -> pq.ParquetFile | None:
        return pq.ParquetFile(path) if path.stat().st_size else None

    def _rows(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        names = [name for name in file.schema_arrow.names if name in self._known]
        skip = self._row
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if skip >= size:
                skip -= size
                continue
            for batch in file.iter_batches(
                self._limits.max_rows, row_groups=[group], columns=names
            ):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                yield batch.slice(skip)
                skip = 0

    def _frames(self, offset: int, rows: pa.RecordBatch) -> pa.RecordBatch:
        return framing.stream(offset, rows, self._note)
