"""Input that means harm, for every decoder: poison values, broken records, noise. All seeded."""

from __future__ import annotations

import base64
import gzip
import json
import random
import struct
from pathlib import Path
from typing import Any

import databento_dbn
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.operators.formats.itch.kernels.layout import LENGTHS
from marketflow.operators.venues import VENUES
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.tables import TABLES
from tests.support.decoded import examples

#: Numbers, names and shapes that no venue documents.
POISON: list[Any] = [
    *(None, True, False, -1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40),
    *(1e300, 0.1, "", " ", "x", "0", "0.0", "-1", "-0", "1e9", "1e99999", "9" * 30, "9" * 300),
    *("0x1", "NaN", "Infinity", "é", "\x00", "a\x00b", "\u2400", "\ud800", "💥" * 30, "A" * 256),
    *("__HIVE_DEFAULT_PARTITION__", "../../etc", "%2F", "/" * 90, "line:a", "*", "#1"),
    *("A" * 20_000, "9223372036", "9223372036.9", "9223372036854775807", "9999999999999999999"),
    *([], {}, [[]], [[1]], [["1", "2", "3", "4"]], [["-1", "1"]], [["0", "1"]], {"a": 1}),
    *("2261-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
    "2262-04-11T23:47:16.854775807Z",
]
NOW_S = 1_700_000_000
NOW_NS = NOW_S * 10**9
DAY = "2024-05-08"
CSV_TABLES = ("trades", "book_events", "quotes", "funding", "statistics", "instruments")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value, itself included."""
    inner: list[tuple[Any, ...]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            inner += places(value[key], (*path, key))
    return [path, *inner]


def poisoned(value: Any, path: tuple[Any, ...], poison: Any) -> Any:
    """The value with something else at one place."""
    if not path:
        return poison
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = poisoned(value[path[0]], path[1:], poison)
    return copy


def corpus(exchange: str) -> list[Any]:
    """Every message in the docstrings of a venue's handlers, inherited ones too."""
    functions = {
        name: function
        for base in type(VENUES[exchange]()).__mro__
        for name, function in vars(base).items()
        if base.__module__.startswith("marketflow.operators.venues") and callable(function)
    }
    return [json.loads(text) for f in functions.values() for text in examples(f)]


def messages(rng: random.Random, exchange: str, count: int) -> list[bytes]:
    """Messages of a venue, most of them poisoned in one or two places, some cut or mere noise."""
    known, found = corpus(exchange), []
    for _ in range(count):
        value = rng.choice(known)
        for _ in range(rng.choice((0, 1, 1, 2))):
            value = poisoned(value, rng.choice(places(value)), rng.choice(POISON))
        text = json.dumps(value).encode()
        match rng.randrange(12):
            case 0:
                text = text[: rng.randrange(len(text) + 1)]
            case 1:
                text = rng.randbytes(rng.randrange(60))
            case 2:
                text = b"[" * rng.choice((3, 5000, 1_000_000))
        found.append(text.replace(b"\n", b" "))
    return found


def capture(rng: random.Random, exchange: str, count: int) -> bytes:
    """A capture of such messages, whose own lines are poisoned too."""
    lines = [json.dumps({"t": "header", "exchange": exchange}).encode()]
    for number, text in enumerate(messages(rng, exchange, count)):
        line: dict[str, Any] = {"t": "recv", "ts": f"{NOW_S + number}.5", "conn": "a"}
        line["b64"] = base64.b64encode(text).decode()
        if rng.randrange(3) == 0:
            key = rng.choice(("t", "ts", "conn", "b64", "data", "url"))
            line[key] = rng.choice([*POISON, "http", "connect", "disconnect", "send", "header"])
        lines.append(json.dumps(line).encode())
        if rng.randrange(20) == 0:
            lines.append(rng.randbytes(50).replace(b"\n", b""))
    lines.append(b'{"t":"recv","ts":' + b"[" * 1_000_000)
    lines.append(b'{"t":"recv","ts":"1e999999999","conn":"a","data":"{}"}')
    return b"\n".join(lines)


def stamped(rng: random.Random, count: int) -> bytes:
    """Lines of ``<ns> <json>`` of Binance."""
    stamps = [NOW_NS, NOW_NS, NOW_NS, 0, 1, -1, 2**63 - 1, 2**63, 10**30, "x"]
    texts = messages(rng, "BINANCE", count)
    lines = [b"%s %s" % (str(rng.choice(stamps)).encode(), text) for text in texts]
    return b"\n".join([b'%d {"e":"kline"}' % NOW_NS, *lines])


def itch(rng: random.Random, count: int) -> bytes:
    """Messages of the right length and random content, among them some of a wrong one."""
    parts = []
    for _ in range(count):
        letter, size = rng.choice(list(LENGTHS.items()))
        size = rng.choice((size, size, size, size, rng.randrange(80)))
        body = bytearray(rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size)))
        body[:1] = letter.encode()[: len(body)]
        if size > 18 and rng.randrange(2):
            body[1:3] = struct.pack(">H", rng.randrange(3))
            body[5:11] = (34_200 * 10**9).to_bytes(6, "big")
            for at in range(11, size - 7):
                if rng.randrange(6) == 0:
                    body[at : at + 8] = rng.choice((b"AAPL    ", b"*       ", b"line:a  "))
        parts.append(struct.pack(">H", len(body)) + bytes(body))
    return b"".join(parts) + rng.randbytes(rng.randrange(40))


def lobster(rng: random.Random, count: int) -> tuple[bytes, bytes]:
    """Message rows and book rows."""
    odd = ["", "x", "-1", "0", "1", "9" * 18, "9" * 19, "9" * 40, "34200.1", "-9999999999", "\xff"]

    def row(good: list[str]) -> str:
        values = [v if rng.randrange(4) else rng.choice(odd) for v in good]
        return ",".join(values[: rng.choice((len(good), len(good), len(good) + 1, 2))])

    types = [str(k) for k in range(9)]
    rows = [
        row(["34200.5", rng.choice(types), "17", "100", "5853300", rng.choice(("1", "-1"))])
        for _ in range(count)
    ]
    books = [row(["5859400", "200", "5853300", "18", "5859800", "200", "5853000", "150"])
             for _ in range(count)]  # fmt: skip
    return "\n".join(rows).encode("latin-1"), "\n".join(books).encode("latin-1")


def dbn_header(version: int = 3, ts_out: bool = False, symbols: tuple[str, ...] = ()) -> bytes:
    """DBN metadata of a file that maps no names."""
    metadata = databento_dbn.Metadata(
        dataset="GLBX.MDP3", start=NOW_NS,
        stype_out=databento_dbn.SType.INSTRUMENT_ID,  # type: ignore[arg-type]
        stype_in=databento_dbn.SType.RAW_SYMBOL,  # type: ignore[arg-type]
        schema=None, symbols=list(symbols), partial=[],
        not_found=[], mappings=[], ts_out=ts_out, version=version,
    )  # fmt: skip
    return bytes(metadata.encode())


def dbn(rng: random.Random, count: int) -> bytes:
    """Records of every type, many of them too short for it, of random content."""
    sizes = {160: 56, 0: 48, 1: 80, 10: 368, 18: 40, 19: 520, 20: 112, 22: 176, 24: 80, 32: 56}
    words = [0, 1, 2**31, NOW_NS, 2**63 - 1, 2**64 - 1, 2**63, 10**9, 2**32 - 1]
    parts = [dbn_header(rng.choice((1, 2, 3)), rng.random() < 0.3)]
    for _ in range(count):
        rtype = rng.choice([*sizes, 23, 177, 195, rng.randrange(256)])
        size = rng.choice((sizes.get(rtype, 64), sizes.get(rtype, 64), 16, 20, 24, 40, 88, 1016))
        body = b"".join(struct.pack("<Q", rng.choice(words)) for _ in range(size // 8))
        if rng.randrange(3) == 0:
            body = rng.randbytes(size)
        body = (body + bytes(8))[8 : size - 8]
        if rng.randrange(2):
            body = struct.pack("<Q", NOW_NS) + body[8:]
            at = rng.randrange(8, max(len(body), 9))
            body = body[:at] + rng.choice((b"AB", b"TA", b"MB", b"RN")) + body[at + 2 :]
        head = struct.pack("<BBHI", size // 4, rtype, rng.choice((1, 2, 999)), rng.randrange(4))
        parts.append((head + body + bytes(size))[:size])
    return b"".join(parts) + rng.choice((b"", b"\x01\x00", rng.randbytes(9)))


def _good(table: Table, name: str) -> str:
    field = table.field(name)
    match field.kind:
        case Kind.TIME:
            return str(NOW_NS)
        case Kind.CODE:
            assert field.codes is not None
            return field.codes(1 if len(field.codes) > 1 else 0).name.lower()
        case Kind.BOOL:
            return "true"
        case Kind.NAME | Kind.TEXT:
            return name[:2].upper()
    return "1"


def csv(rng: random.Random, table: str, count: int) -> bytes:
    """Rows of one of our tables."""
    known = TABLES[table]
    names = [name for name in known.names if name not in ("shard", "row_sequence")]
    lines = [",".join(names)]
    for _ in range(count):
        values = [_good(known, name) for name in names]
        for _ in range(rng.choice((0, 1, 1, 3))):
            values[rng.randrange(len(values))] = str(rng.choice(POISON)).replace("\n", "")
        lines.append(",".join(values))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def parquet(path: Path, rng: random.Random, count: int) -> None:
    """Trades whose columns have types and values that ours do not hold."""
    wide = pa.decimal128(38, 12)
    big = [rng.choice((1, 0, -1, 10**16, 10**25)) for _ in range(count)]
    times = {
        pa.timestamp("ms"): [1, NOW_S * 1000, 2**62, -(2**62), 9_214_646_400_000],
        pa.timestamp("ns"): [1, NOW_NS, 2**63 - 1, -(2**63), 9_214_646_400 * 10**9],
        pa.uint64(): [1, NOW_NS, 2**64 - 1, 2**63],
    }
    kind = rng.choice(list(times))
    columns = {
        "ts_event": pa.array([rng.choice(times[kind]) for _ in range(count)], kind),
        "venue": pa.array([rng.choice(("X", "GLBX", "", "A" * 300, None)) for _ in range(count)]),
        "symbol": pa.array([rng.choice(("A", "B", "\x01", "A" * 20_000)) for _ in range(count)]),
        "price": pa.array(big, pa.int64() if max(big) < 2**63 else wide),
        "size": pa.array([rng.choice((2**64 - 1, 2**63, 1, 0)) for _ in range(count)], pa.uint64()),
        "sequence": pa.array([rng.choice((2**64 - 1, 1, None)) for _ in range(count)], pa.uint64()),
        "trade_id": pa.array([rng.choice(("", "x" * 99, "1", None)) for _ in range(count)]),
    }
    pq.write_table(pa.table(columns), path)


def write_all(folder: Path, seed: int, count: int) -> list[str]:
    """A file of each kind in a folder; the sources that read them."""
    rng = random.Random(seed)
    sources = []

    def put(name: str, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        return path

    for exchange in sorted(VENUES):
        path = put(f"{exchange}.jsonl.gz", capture(rng, exchange, count))
        sources.append(f"capture:{path}")
    sources.append(f"binance:{put('lines', stamped(rng, count))}?market=spot")
    sources.append(f"itch:{put('itch', _first_good(itch(rng, count)))}?date={DAY}")
    rows, books = lobster(rng, count)
    # Good ones before them: files that do not belong together are refused before a run.
    rows = b"34200.5,1,17,100,5853300,1\n" * count + rows
    books = b"5859400,200,5853300,18\n" * count + books
    message_path, book_path = put("message", rows), put("book", books)
    sources.append(f"lobster:{message_path}?book={book_path}&symbol=A&date={DAY}")
    sources.append(f"lobster:{message_path}?symbol=A&date={DAY}&id=bare")
    sources.append(f"dbn:{put('dbn', dbn(rng, count))}")
    sources += [f"csv:{put(f'{t}.csv', csv(rng, t, count))}?table={t}" for t in CSV_TABLES]
    parquet(folder / "trades.parquet", rng, count)
    sources.append(f"parquet:{folder}/trades.parquet?table=trades")
    return sources


def _first_good(data: bytes) -> bytes:
    """A session whose first message is one: a file of noise alone is refused before it runs."""
    start = b"S" + bytes(4) + (10**9).to_bytes(6, "big") + b"O"
    return struct.pack(">H", len(start)) + start + data
