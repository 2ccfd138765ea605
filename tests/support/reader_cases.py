"""Inputs of every scheme for the contract of readers; those of topics are in tests/services."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.flows.runtime.partitions import parse
from marketflow.schemas.messages.frames import FRAMES as FRAME_COLUMNS
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sources.config import SourceConfig
from marketflow.sources.registry import parse_source
from tests.support import reader_contract as contract
from tests.support.batches import Feed
from tests.support.reader_contract import Case
from tests.support.reading import write

_START_NS: Final = 1_700_000_000_000_000_000


def itch_bytes(seed: int, count: int) -> bytes:
    chance = random.Random(seed)
    messages = (b"S" + chance.randbytes(chance.randrange(50)) for _ in range(count))
    return b"".join(len(m).to_bytes(2, "big") + m for m in messages)


def line_bytes(seed: int, count: int) -> bytes:
    chance = random.Random(seed)
    ends = (b"\n", b"\r\n", b"\n\n")
    return b"".join(
        b"%d {%s}" % (chance.randrange(10**18), b"x" * chance.randrange(60)) + chance.choice(ends)
        for _ in range(count)
    )


def dbn_bytes(seed: int, count: int) -> bytes:
    chance = random.Random(seed)
    records = []
    for _ in range(count):
        words = chance.choice((4, 12, 14, 20))
        records.append(bytes([words]) + chance.randbytes(4 * words - 1))
    return b"DBN\x03" + (20).to_bytes(4, "little") + b"m" * 20 + b"".join(records)


def capture_bytes(seed: int, count: int) -> bytes:
    """Lines out of order, some without a time, some that are none."""
    chance = random.Random(seed)
    lines = []
    for i in range(count):
        line = {
            "t": "recv",
            "conn": f"c{i % 3}",
            "ts": chance.randrange(50),
            "data": "x" * (i % 40),
        }
        lines.append("no line" if i % 17 == 5 else json.dumps(line))
    return "\n".join(lines).encode()


def csv_bytes(seed: int, count: int) -> bytes:
    rows = [f"{_START_NS + seed * count + i},A,{i}.5,{i + 1}" for i in range(count)]
    return "\n".join(["ts_event,symbol,price,size", *rows, ""]).encode()


def message_bytes(seed: int, count: int) -> bytes:
    """LOBSTER messages: no new order, which a book would have to show."""
    return b"".join(b"%d.%d,4,%d,1,2238100,1\n" % (34_200 + i, seed, i) for i in range(count))


def book_bytes(seed: int, count: int) -> bytes:
    return b"".join(b"22382%02d,%d,2238100,21\n" % (i % 100, seed + 1) for i in range(count))


def frames(count: int, seed: int = 1) -> pa.RecordBatch:
    """Frames as a recorder received them."""
    chance = random.Random(seed)
    kinds = [chance.choice([FrameKind.DATA] * 9 + [FrameKind.HTTP]) for _ in range(count)]
    return pa.RecordBatch.from_pydict(
        {
            "offset": np.arange(count),
            "ts_recv": _START_NS + np.arange(count) * 1_000_003,
            "kind": np.array(kinds, np.int8),
            "connection": pa.array(
                [f"c{i % 2}ü" for i in range(count)], pa.string()
            ).dictionary_encode(),
            "note": pa.array([None if k == FrameKind.DATA else "€" for k in kinds], pa.string()),
            "payload": pa.array(
                [chance.randbytes(chance.randrange(1, 90)) for _ in kinds], pa.large_binary()
            ),
        },
        schema=FRAME_COLUMNS,
    )


Bytes = Callable[[int, int], bytes]


def _files(url: str, make: Bytes) -> Callable[[Path, int], SourceConfig]:
    """A plain file, a gzip and a zstd archive; where there are no messages a plain empty file."""

    def config(folder: Path, messages: int) -> SourceConfig:
        if not messages:
            path = write(folder / "empty", b"")
            return parse_source(url.replace("PATHS", str(path)), check=False)
        names = ("a", "b.gz", "c.zst")
        paths = [write(folder / name, make(i, messages)) for i, name in enumerate(names)]
        return parse_source(url.replace("PATHS", ",".join(map(str, paths))))

    return config


def _lobster(folder: Path, messages: int) -> SourceConfig:
    rows = [(message_bytes(i, messages), book_bytes(i, messages)) for i in range(2)]
    paths = [write(folder / f"m{i}", row[0]) for i, row in enumerate(rows)]
    books = [write(folder / f"b{i}.gz", row[1]) for i, row in enumerate(rows)]
    named = f"lobster:{','.join(map(str, paths))}?book={','.join(map(str, books))}"
    return parse_source(f"{named}&symbol=A&date=2012-06-21", check=bool(messages))


def _trades(rows: int) -> pa.Table:
    return pa.table(
        {
            "ts_event": pa.array(range(_START_NS, _START_NS + rows), pa.int64()),
            "symbol": pa.array(["A"] * rows, pa.string()),
            "price": pa.array([f"{i}.5" for i in range(rows)], pa.string()),
            "size": pa.array(range(1, rows + 1), pa.int64()),
        }
    )


def _parquet(folder: Path, messages: int) -> SourceConfig:
    for name in ("a", "b"):
        pq.write_table(_trades(messages), folder / name, row_group_size=30)
    return parse_source(f"parquet:{folder}/[ab]?table=trades&venue=X")


def _recorded(folder: Path, messages: int) -> SourceConfig:
    for i, name in enumerate(("a", "b")):
        columns = pa.Table.from_batches([frames(messages, i)])
        pq.write_table(columns, folder / name, row_group_size=30)
    return parse_source(f"parquet:{folder}/[ab]?table=frames&venue=binance")


def _lake(folder: Path, messages: int) -> SourceConfig:
    writer = ParquetWriter(folder / "lake")
    writer.write(Feed(np.random.default_rng(1)).item(0, {"trades": messages}))
    writer.close()
    return parse(f"parquet:{folder}/lake?table=trades")


def _simulator(query: str) -> Callable[[Path, int], SourceConfig]:
    return lambda folder, messages: parse_source(f"sim:?events={messages}&symbols=3{query}")


CASES: Final = {
    "itch": Case("itch", contract.ITCH, _files("itch:PATHS?date=2019-12-30", itch_bytes)),
    "lobster": Case(
        "lobster",
        contract.FRAMES,
        _files("lobster:PATHS?symbol=A&date=2012-06-21", message_bytes),
    ),
    "lobster with books": Case("lobster", contract.FRAMES, _lobster),
    "dbn": Case("dbn", contract.DBN, _files("dbn:PATHS", dbn_bytes)),
    "dbn as CSV": Case("dbn", contract.FRAMES, _files("dbn:PATHS", csv_bytes)),
    "binance": Case("binance", contract.FRAMES, _files("binance:PATHS?market=spot", line_bytes)),
    "capture": Case("capture", contract.FRAMES, _files("capture:PATHS", capture_bytes)),
    "csv": Case("csv", contract.FRAMES, _files("csv:PATHS?table=trades&venue=X", csv_bytes)),
    "parquet": Case("parquet", contract.ROWS, _parquet),
    "recorded frames": Case("parquet", contract.FRAMES, _recorded),
    "lake": Case("parquet", contract.ROWS, _lake),
    "simulated ITCH": Case("sim", contract.SIMULATED_ITCH, _simulator("&seed=3"), is_file=False),
    "simulated Binance": Case(
        "sim", contract.BY_ROWS, _simulator("&seed=3&format=binance"), is_file=False
    ),
}
#: A lake without rows of a table is refused before a run.
NEVER_EMPTY: Final = {"lake"}
#: Schemes whose cases need a server: tests/services/test_kafka_contract.py.
WITH_SERVER: Final = {"kafka"}
