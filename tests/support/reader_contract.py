"""What every reader keeps (sources.reader), as checks that run on the input of any scheme."""

from __future__ import annotations

import datetime
import pickle
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.kafka import ARROW_START
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, MeasuredReader, Reader
from tests.support.patience import PATIENCE_S
from tests.support.reading import Row, joined, rows_of

CUTS = (
    Limits(max_rows=1, max_bytes=64, max_message_bytes=4096),
    Limits(max_rows=7, max_bytes=300, max_message_bytes=4096),
    Limits(max_rows=50, max_bytes=4096, max_message_bytes=4096),
)
#: Position and limits -> a reader of the input.
Opener = Callable[[Any, Limits], Reader]
_PLAIN = (bool, int, float, str, bytes, datetime.date, type(None), np.ndarray)


@dataclass(frozen=True)
class Shape:
    """How the frames of a feed depend on where it is cut.

    ``normal``: the frames as they are whatever the cut.
    ``messages``: how many messages a frame holds.
    ``bytes_bounded``: whether ``max_bytes`` bounds a batch; rows of tables and topics have others.
    """

    normal: Callable[[list[Row]], list[Any]] = list
    messages: Callable[[Row], int] = lambda row: 1
    bytes_bounded: bool = True


def _table_rows(rows: list[Row]) -> list[Any]:
    """Streams of rows as single rows; their offsets count rows."""
    found: list[Any] = []
    for row in rows:
        if row.payload.startswith(ARROW_START):
            table = pa.ipc.open_stream(row.payload).read_all()
            columns = [
                column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                for column in table.columns
            ]
            values = zip(*(column.to_pylist() for column in columns), strict=True)
            found += [(row.offset + i, row.note, *known) for i, known in enumerate(values)]
        else:
            found.append(row)
    return found


def _table_size(row: Row) -> int:
    if not row.payload.startswith(ARROW_START):
        return 1
    return int(pa.ipc.open_stream(row.payload).read_all().num_rows)


def _prefixed(row: Row) -> int:
    """Messages after a length of 2 bytes each."""
    at = number = 0
    while row.kind is FrameKind.DATA and at < len(row.payload):
        at += 2 + int.from_bytes(row.payload[at : at + 2], "big")
        number += 1
    return number


def _records(row: Row) -> int:
    """DBN records: the first byte of each is its length in words."""
    at = number = 0
    while row.kind is FrameKind.DATA and at < len(row.payload):
        at += 4 * row.payload[at]
        number += 1
    return number


FRAMES = Shape()
ROWS = Shape(_table_rows, _table_size, bytes_bounded=False)
ITCH = Shape(joined, _prefixed)
SIMULATED_ITCH = Shape(joined, _prefixed, bytes_bounded=False)
DBN = Shape(joined, _records)
BY_ROWS = Shape(bytes_bounded=False)


def drain(reader: Reader, batches: int | None = None) -> list[list[Row]]:
    """Frames of the next batches; to the end where no number is given."""
    found: list[list[Row]] = []
    deadline = time.monotonic() + PATIENCE_S
    while batches is None or len(found) < batches:
        batch = reader.read()
        if batch is None:
            break
        if batch.num_rows:
            found.append(rows_of(batch))
        assert time.monotonic() < deadline, "the feed does not end"
    return found


def flat(batches: list[list[Row]]) -> list[Row]:
    return [row for batch in batches for row in batch]


def check_cuts(opener: Opener, shape: Shape) -> None:
    """The frames are the same at any limits, and every batch keeps to its limits."""
    reader = opener(None, DEFAULT_LIMITS)
    whole = flat(drain(reader))
    assert reader.read() is None, "nothing follows the end"
    reader.close()
    reader.close()
    assert [row.kind for row in whole].count(FrameKind.END) == 1
    assert whole[-1].kind is FrameKind.END
    assert len(shape.normal(whole)) > 1
    for limits in CUTS:
        reader = opener(None, limits)
        batches = drain(reader)
        reader.close()
        assert shape.normal(flat(batches)) == shape.normal(whole), limits
        for batch in batches:
            assert sum(map(shape.messages, batch)) <= limits.max_rows
            if shape.bytes_bounded and len(batch) > 1:
                assert sum(len(row.payload) for row in batch) <= 2 * limits.max_bytes
    _check_progress(opener)


def _check_progress(opener: Opener) -> None:
    """Where a reader is measured, its progress grows up to all of it."""
    reader = opener(None, CUTS[1])
    if isinstance(reader, MeasuredReader):
        seen = [reader.progress()]
        while reader.read() is not None:
            seen.append(reader.progress())
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1]
    reader.close()


def check_stops(opener: Opener, shape: Shape, limits: Limits, every: int = 1) -> None:
    """Stopped after any batch, a new reader gives exactly the rest; also at other limits."""
    reader = opener(None, limits)
    batches = drain(reader)
    reader.close()
    whole = shape.normal(flat(batches))
    for stop in range(0, len(batches) + 1, every):
        reader = opener(None, limits)
        before = flat(drain(reader, stop))
        position = reader.position()
        assert_plain(position)
        reader.close()
        reader.close()
        for others in (limits, DEFAULT_LIMITS):
            resumed = opener(pickle.loads(pickle.dumps(position)), others)
            rest = flat(drain(resumed))
            resumed.close()
            assert shape.normal(before + rest) == whole, f"stopped after {stop} batches"
    # Not after so many batches: a server's messages may be cut into more of them another time.
    reader = opener(None, limits)
    drain(reader)
    position = reader.position()
    reader.close()
    assert drain(opener(position, limits)) == [], "a finished feed stays finished"


def assert_plain(value: Any) -> None:
    """A snapshot is plain data: moving a module must not break it."""
    if isinstance(value, tuple | list):
        for item in value:
            assert_plain(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            assert_plain(key)
            assert_plain(item)
    else:
        assert isinstance(value, _PLAIN), type(value)
        assert type(value).__module__ in ("builtins", "datetime", "numpy"), type(value)


def check_empty(opener: Opener) -> None:
    """No input is the END frame and nothing else."""
    for limits in (DEFAULT_LIMITS, *CUTS):
        reader = opener(None, limits)
        (row,) = flat(drain(reader))
        assert row.kind is FrameKind.END
        assert reader.read() is None
        reader.close()


def check_missing(opener: Opener, path: Path) -> None:
    """A file that is gone is named, at the latest when it is read: at the start and on resume."""
    reader = opener(None, CUTS[1])
    drain(reader, 1)
    position = reader.position()
    reader.close()
    path.unlink()
    for start in (None, position):
        with pytest.raises(SourceError, match=path.name):
            drain(opener(start, CUTS[1]))


def check_garbage(opener: Opener, path: Path, seeds: int = 25) -> None:
    """Damage becomes dead letters or a SourceError; nothing else is raised, and the feed ends."""
    good = path.read_bytes()
    for seed in range(seeds):
        path.write_bytes(_damaged(good, random.Random(seed)))
        try:
            rows = flat(drain(opener(None, CUTS[1])))
        except SourceError:
            continue
        assert rows[-1].kind is FrameKind.END, f"seed {seed}"
        for row in rows:
            assert row.kind not in (FrameKind.BROKEN, FrameKind.TRUNCATED) or row.note
    path.write_bytes(good)


def _damaged(good: bytes, chance: random.Random) -> bytes:
    """Noise, a part, or the input with some bytes changed, lost or twice."""
    match chance.randrange(4):
        case 0:
            return chance.randbytes(chance.randrange(1, 2000))
        case 1:
            return good[: chance.randrange(len(good))]
        case 2:
            found = bytearray(good)
            for _ in range(chance.randrange(1, 9)):
                found[chance.randrange(len(found))] = chance.randrange(256)
            return bytes(found)
        case _:
            at, size = chance.randrange(len(good)), chance.randrange(1, 50)
            return good[:at] + good[at + size :] if chance.random() < 0.5 else good[:at] + good


_NUMBERS = count()


@dataclass(frozen=True)
class Case:
    """The input of a scheme.

    ``config``: writes it (an empty one where ``messages`` is 0) and gives its checked source.
    ``is_file``: ``config.files`` can be damaged and removed.
    """

    scheme: str
    shape: Shape
    config: Callable[[Path, int], SourceConfig]
    is_file: bool = True

    def fresh(self, folder: Path, messages: int) -> SourceConfig:
        """The source, its input in a folder of its own."""
        below = folder / f"input{next(_NUMBERS)}"
        below.mkdir()
        return self.config(below, messages)
