"""Each kind of input that once ended a flow for good is a dead letter, and costs little memory."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import databento_dbn
import pytest

from marketflow.operators.dead_letters import OFFSET_BYTES, RAW_BYTES, DeadLetters
from marketflow.operators.formats.dbn.decoder import DbnDecoder
from marketflow.operators.formats.tables.decoder import TableDecoder
from marketflow.operators.normalise.core import Normaliser, ShardPlan
from marketflow.operators.normalise.feed import JsonFeed
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.operators.venues.kraken.v1 import Kraken
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.names import MAX_NAME_BYTES, name_fault
from marketflow.schemas.units import END_OF_TIME_NS
from marketflow.sources.files.capture import CaptureReader
from marketflow.sources.files.text_lines import LineReader
from marketflow.sources.reader import Limits
from tests.support.adversary import NOW_NS, dbn_header
from tests.support.captures import TestFrame, frames
from tests.support.decoding import Found, decode, frames_of
from tests.support.reading import read_all, write
from tests.support.root import ROOT

TICKER = (
    '{{"stream":"x@trade","data":{{"e":"trade","E":1723161255343,"s":"{symbol}","t":{number},'
    '"p":"{price}","q":"{size}","T":1723161255342,"m":true,"M":true}}}}'
)


def trade(symbol: str = "BTCUSDT", price: str = "1.5", size: str = "2", number: int = 7) -> str:
    return TICKER.format(symbol=symbol, price=price, size=size, number=number)


def reasons(found: Found) -> list[str]:
    return [letter["reason"] for letter in found.dead]


def table(folder: Path, rows: str, name: str = "trades") -> Found:
    header = "ts_event,venue,symbol,price,size\n"
    path = write(folder / f"{name}.csv", (header + rows).encode())
    return decode(partial(TableDecoder, name), frames_of(f"csv:{path}?table={name}"))


@pytest.mark.parametrize(
    ("what", "name", "says"),
    [
        ("symbol", "", "empty"),
        ("symbol", " ", "empty"),
        ("symbol", "A" * (MAX_NAME_BYTES + 1), "256 bytes"),
        ("symbol", "é" * 128, "256 bytes"),
        ("symbol", "A\x00", "control"),
        ("symbol", "\ud800", "UTF-8"),
        ("venue", "__HIVE_DEFAULT_PARTITION__", "reserved"),
        ("venue", "é" * 42, "258 bytes"),
        ("symbol", "A" * MAX_NAME_BYTES, None),
        ("symbol", "币安人生USDT", None),
        ("venue", "BINANCE", None),
    ],
)
def test_names_that_every_store_holds(what: str, name: str, says: str | None) -> None:
    fault = name_fault(what, name)
    assert (fault is None) == (says is None), fault
    assert says is None or says in str(fault)


def test_a_message_with_a_bad_name_is_a_dead_letter() -> None:
    names = ["A" * 20_000, "__HIVE_DEFAULT_PARTITION__", " ", "BTCUSDT"]
    batch = frames([TestFrame(trade(name, number=i)) for i, name in enumerate(names)])
    found = decode(BinanceFeed, [batch], restarts=True)
    assert reasons(found) == ["unknown_instrument"] * 3
    assert found.instruments == (("BINANCE", "BTCUSDT"),)
    assert [letter["raw"] for letter in found.dead] == [
        trade(name, number=i).encode() for i, name in enumerate(names[:3])
    ]


def test_rows_with_a_bad_name_are_dead_letters_alone(tmp_path: Path) -> None:
    long, folder = "S" * 20_000, "é" * 100
    found = table(
        tmp_path, f"1,X,A,1,1\n2,X,{long},1,1\n3,{folder},A,1,1\n4,X,{long},1,1\n5,X,A,1,1\n"
    )
    assert reasons(found) == ["unknown_instrument"] * 3
    assert found.instruments == (("X", "A"),)
    assert found.rows["ts_event"][:-1].tolist() == [1, 5]


def record(rtype: int, size: int, *words: int, publisher: int = 1) -> bytes:
    """A DBN record of some size, whatever its type wants."""
    head = struct.pack("<BBHI", size // 4, rtype, publisher, 7)
    return (head + b"".join(struct.pack("<q", word) for word in words) + bytes(size))[:size]


def dbn(*records: bytes, header: bytes = b"") -> Found:
    header_frame = TestFrame(header or dbn_header(), FrameKind.HEADER)
    batch = frames([header_frame, TestFrame(b"".join(records), offset=1000)])
    return decode(DbnDecoder, [batch], restarts=True)


def order(price: int, *, action: bytes = b"A", publisher: int = 1, ts: int = NOW_NS) -> bytes:
    body = struct.pack("<IBB", 10, 128, 0) + action + b"B"
    (word,) = struct.unpack("<q", body)
    return record(160, 56, ts, 1, price, word, ts, 0, publisher=publisher)


@pytest.mark.parametrize("rtype", [18, 19, 20, 22, 24])
@pytest.mark.parametrize("size", [16, 20, 32])
def test_a_dbn_record_shorter_than_its_type(rtype: int, size: int) -> None:
    """The library panics at such a record; those around it are taken."""
    short = record(rtype, size)
    found = dbn(order(10**9), short, order(2 * 10**9))
    assert [letter["raw"] for letter in found.dead] == [short]
    assert [letter["offset"] for letter in found.dead] == [1000 + 56]
    assert found.rows["price"].tolist() == [10**9, 2 * 10**9]


@pytest.mark.parametrize(("rtype", "size"), [(22, 176), (19, 520), (24, 80), (18, 44)])
def test_a_dbn_record_without_the_time_that_its_file_promises(rtype: int, size: int) -> None:
    """The library would take it for the largest it can be, and panic for the eight bytes more."""
    wrong = record(rtype, size, NOW_NS)
    found = dbn(order(10**9), wrong, order(2 * 10**9), header=dbn_header(3, True))
    assert [letter["raw"] for letter in found.dead] == [wrong]
    assert found.rows["price"].tolist() == [10**9, 2 * 10**9]


@pytest.mark.parametrize("ts", [2**63 - 1, END_OF_TIME_NS])
def test_dbn_times_beyond_the_stores(ts: int) -> None:
    found = dbn(order(10**9, ts=ts), order(10**9, ts=END_OF_TIME_NS - 1))
    assert reasons(found) == ["bad_timestamp"]
    assert found.rows["ts_event"].tolist() == [END_OF_TIME_NS - 1]


@pytest.mark.parametrize(("publisher", "dead"), [(1, 1), (2, 3), (999, 1)])
def test_prices_below_zero_are_those_of_futures(publisher: int, dead: int) -> None:
    """Publisher 1 is GLBX.MDP3, 2 XNAS.ITCH; of one that nobody knows all is possible. What means
    "no price" inside is no price of anybody."""
    prices = [10**9, 0, -(10**9), -(2**63)]
    found = dbn(*(order(price, action=b"T", publisher=publisher) for price in prices))
    assert reasons(found) == ["bad_price"] * dead
    assert found.rows["price"].tolist() == prices[: 4 - dead]


def test_trades_of_nothing_or_for_nothing(tmp_path: Path) -> None:
    texts = [
        trade(price=p, size=s) for p, s in (("1", "0.00"), ("0", "1"), ("-1", "1"), ("1", "1"))
    ]
    # Blanks: not for the fast scan.
    for found in (
        decode(BinanceFeed, [frames([trade(), *texts])]),
        decode(BinanceFeed, [frames([trade(), *(t.replace(",", ", ") for t in texts)])]),
    ):
        assert reasons(found) == ["bad_size", "bad_price", "bad_price"]
        assert found.rows["size"].tolist() == [2, 1]
    found = table(
        tmp_path, "1,X,A,1,0\n2,X,A,0,1\n3,X,A,-1,1\n4,GLBX,A,-1,1\n5,GLBX,A,0,0\n6,X,A,1,1\n"
    )
    assert reasons(found) == ["bad_size", "bad_price", "bad_price", "bad_size"]
    assert found.rows["ts_event"][:-1].tolist() == [4, 6]


def test_frames_that_arrived_at_no_time() -> None:
    times = [NOW_NS, 2**63 - 1, -1, END_OF_TIME_NS, NOW_NS]
    batch = frames([TestFrame(trade(number=i), ts_recv=ts) for i, ts in enumerate(times)])
    parts, feed = Normaliser("feed", BinanceFeed(), ShardPlan(0)).apply(batch)
    assert [int(ts) for _, events in parts for ts in events.rows["ts_recv"]] == [NOW_NS] * 2
    letters = feed.tables["dead_letters"].to_pylist()
    assert [letter["raw"] for letter in letters] == [trade(number=i).encode() for i in (1, 2, 3)]
    assert all("arrival time" in letter["detail"] for letter in letters)


class Throwing(Kraken):
    """A venue whose decoder has faults of its own, and those of a library."""

    def message(self, frame: Any, out: Any) -> None:
        if frame.payload == b"panic":
            decoder = databento_dbn.DBNDecoder(has_metadata=False)
            decoder.write(record(18, 16))
            decoder.decode()
        if frame.payload == b"half":
            out.begin(out.instrument("A"), NOW_NS)  # and leaves the group open
        else:
            raise KeyboardInterrupt if frame.payload == b"stop" else IndexError("no such thing")


def test_whatever_a_decoder_throws_is_a_dead_letter() -> None:
    make: Any = lambda: JsonFeed(Throwing())  # noqa: E731
    found = decode(make, [frames(["index", "half", "panic", "index"])])
    assert [letter["raw"] for letter in found.dead] == [b"index", b"half", b"panic", b"index"]
    assert "PanicException" in found.dead[2]["detail"]
    assert not len(found.rows)
    with pytest.raises(KeyboardInterrupt):
        decode(make, [frames(["stop"])])


def test_capture_lines_of_no_time_and_nested_without_end(tmp_path: Path) -> None:
    stamps = [
        "9223372036.9",
        "9223372036",
        '"9214646400"',
        "1e999999999",
        "-1",
        "1e30",
        "[" * 10**6,
    ]
    good = '{"t":"recv","ts":1.5,"conn":"a","data":"x"}'
    lines = [good, *(f'{{"t":"recv","ts":{ts},"conn":"a","data":"x"}}' for ts in stamps), good]
    rows = read_all(CaptureReader([write(tmp_path / "capture", "\n".join(lines).encode())]))
    kinds = [row.kind for row in rows]
    assert kinds == [FrameKind.DATA, *[FrameKind.BROKEN] * 7, FrameKind.DATA, FrameKind.END]
    assert [row.payload for row in rows[1:8]] == [line.encode() for line in lines[1:8]]


def test_a_letter_keeps_the_beginning_and_says_what_the_whole_was() -> None:
    raw = bytes(range(256)) * 1000
    dead_letters = DeadLetters()
    dead_letters.add(1000, 5, DeadLetterReason.MALFORMED, "x" * 100_000, raw)
    for offset in (5, 6):
        for _ in range(100):
            dead_letters.add(1000, offset, DeadLetterReason.MALFORMED, "again \ud800", raw)
    letters = dead_letters.batch()
    assert letters is not None
    (first, *more) = letters.to_pylist()
    assert first["raw"] == raw[:RAW_BYTES]
    assert f"[256000 bytes, SHA-256 {sha256(raw).hexdigest()}" in first["detail"]
    assert len(first["detail"]) < 1300
    assert letters.column("raw").nbytes <= 2 * (OFFSET_BYTES + 2000)
    assert all(letter["raw"] in (b"", raw[:RAW_BYTES]) for letter in more)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_beyond_the_limit_is_one_dead_letter(tmp_path: Path, suffix: str) -> None:
    long = b"y" * 70_000
    data = b"first\n" + long + b"\r\nlast\n" + long[:900]
    path = write(tmp_path / f"lines{suffix}", data)
    limits = Limits(max_rows=3, max_bytes=64, max_message_bytes=512)
    rows = read_all(LineReader([path], None, limits))
    kinds = [FrameKind.DATA, FrameKind.BROKEN, FrameKind.DATA, FrameKind.BROKEN, FrameKind.END]
    assert [row.kind for row in rows] == kinds
    assert [row.payload for row in rows[:-1]] == [b"first", long[:RAW_BYTES], b"last", long[:900]]
    whole = sha256(long + b"\r").hexdigest()
    assert f"a line of more than 512 bytes [70001 bytes, SHA-256 {whole}" in rows[1].note
    assert [row.offset for row in rows[:3]] == [0, 6, 6 + 70_002]


def test_a_line_of_hundreds_of_megabytes_takes_little_memory(tmp_path: Path) -> None:
    """Read in a process of its own, so that the peak is this line's."""
    path = tmp_path / "huge.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(300):
            file.write(b"z" * (1 << 20))
        file.write(b"\nshort\n")
    script = (
        "import resource, sys, pathlib, json\n"
        "from marketflow.sources.files.stamped_json import BinanceReader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "reader = BinanceReader([pathlib.Path(sys.argv[1])])\n"
        "sizes = []\n"
        "while (batch := reader.read()) is not None:\n"
        "    sizes += [len(p) for p in batch.column('payload').to_pylist()]\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps([sizes, (peak - before) >> 10]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=250,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes, grown_mb = json.loads(done.stdout)
    assert sizes == [RAW_BYTES, len("short"), 0]
    assert grown_mb < 256
