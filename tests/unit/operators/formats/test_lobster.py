"""LOBSTER rows written by hand: halts, damage, message files without a book, cuts."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import pytest

from marketflow.operators.events import BookType, EventKind, SnapshotRule
from marketflow.operators.formats.lobster.decoder import LobsterDecoder
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.lobster import LobsterReader
from marketflow.sources.reader import Limits
from tests.reference import lobster as twin
from tests.support.decoding import cut, decode, frames_of, read_frames, same
from tests.support.reading import read_all, read_in_pieces, write

DAY = date(2012, 6, 21)
MIDNIGHT = 1340251200_000_000_000


def with_book() -> LobsterDecoder:
    return LobsterDecoder("AMZN", DAY)


def without_book() -> LobsterDecoder:
    return LobsterDecoder("AMZN", DAY, book=False)


def url(folder: Path, messages: list[str], books: list[str] | None = None) -> str:
    path = write(folder / "message.csv", "\n".join(messages).encode())
    query = "symbol=AMZN&date=2012-06-21"
    if books is not None:
        query += f"&book={write(folder / 'book.csv', chr(10).join(books).encode())}"
    return f"lobster:{path}?{query}"


def test_a_message_file_alone_is_an_l3_feed(tmp_path: Path) -> None:
    messages = [
        "34200.000000001,1,11,100,2238100,1",
        "34200.5,2,11,40,2238100,1",
        "34201,4,11,10,2238100,1",
        "34201,5,0,7,2238200,-1",
        "34202,6,-1,900,2238000,-1",
        "34203,3,11,50,2238100,1",
    ]
    found = decode(without_book, frames_of(url(tmp_path, messages)))
    rows = found.rows[:-1]
    names = ("kind", "side", "order_lo", "price", "size", "sequence")
    assert [tuple(row[list(names)].tolist()) for row in rows] == [
        (EventKind.ADD, Side.BID, 11, 2238100, 100, 1),
        (EventKind.REDUCE, Side.BID, 11, 2238100, 40, 2),
        (EventKind.EXECUTE, Side.BID, 11, 2238100, 10, 3),
        (EventKind.TRADE, AggressorSide.BUY, 0, 2238200, 7, 4),
        (EventKind.TRADE, AggressorSide.NONE, 0, 2238000, 900, 5),
        (EventKind.DELETE, Side.BID, 11, 2238100, 50, 6),
    ]
    assert (rows["flags"] == RowFlag.LAST).all()
    assert rows[0]["ts_event"] == MIDNIGHT + 34_200_000_000_001
    instrument = without_book().apply(frames_of(url(tmp_path, messages))[0]).events.instruments
    assert instrument.rows[0]["book_type"] == BookType.L3
    assert instrument.rows[0]["snapshot_rule"] == SnapshotRule.PARTIAL


def test_halts_are_market_status(tmp_path: Path) -> None:
    messages = [f"3420{i}.0,7,0,0,{price},-1" for i, price in enumerate((-1, 0, 1, 2))]
    found = decode(with_book, frames_of(url(tmp_path, messages, ["10,1,9,1"] * 4)))
    assert [row["status"] for row in found.tables["market_status"]] == ["halted", "quoting", "open"]
    assert [letter["reason"] for letter in found.dead] == ["unknown_message"]
    # The first row's book is told all the same; nothing changes it afterwards.
    assert len(found.rows) == 3


@pytest.mark.parametrize(
    ("message", "book", "reason"),
    [
        ("x,1,1,1,100,1", "110,1,90,1", "bad_timestamp"),
        ("86400,1,1,1,100,1", "110,1,90,1", "bad_timestamp"),
        ("34200,1,1,1,100", "110,1,90,1", "malformed"),
        ("34200,1,1,1,100,1,", "110,1,90,1", "malformed"),
        ("34200,1,1,one,100,1", "110,1,90,1", "malformed"),
        ("34200,8,1,1,100,1", "110,1,90,1", "unknown_message"),
        ("34200,1,1,0,100,1", "110,1,90,1", "bad_size"),
        ("34200,1,1,1,-100,1", "110,1,90,1", "bad_price"),
        ("34200,1,1,1,100,0", "110,1,90,1", "bad_side"),
        ("34200,1,-1,1,100,1", "110,1,90,1", "bad_id"),
        ("34200,1,1,1,100,1", "110,1,90", "malformed"),
        ("34200,1,1,1,100,1", "110,1,90,-1", "malformed"),
        ("34200,1,1,1,100,1", "110,1,90,1,120,1,80,1", "malformed"),
        ("34200,1,1,1,99999999999999999999,1", "110,1,90,1", "malformed"),
    ],
)
def test_a_bad_row_is_a_dead_letter_and_the_next_repairs_the_book(
    tmp_path: Path, message: str, book: str, reason: str
) -> None:
    messages = ["34199.0,1,5,1,90,1", message, "34201.0,1,6,2,100,1"]
    books = ["110,1,90,1", book, "110,1,100,9"]
    found = decode(with_book, frames_of(url(tmp_path, messages, books)))
    assert [letter["reason"] for letter in found.dead] == [reason]
    assert found.dead[0]["raw"] == f"{message}\n{book}".encode()
    assert found.dead[0]["ts_recv"] == MIDNIGHT + 34_199 * 10**9
    last = found.rows[found.rows["sequence"] == 3]
    assert [tuple(row[["side", "price", "size", "flags"]].tolist()) for row in last] == [
        (Side.BID, 100, 2, 0),
        (Side.BID, 100, 9, RowFlag.SNAPSHOT),
        (Side.BID, 90, 0, RowFlag.SNAPSHOT | RowFlag.LAST),
    ]


def random_day(seed: int, rows: int, levels: int) -> tuple[list[str], list[str]]:
    """A day of random steps whose book file shows ``levels`` of a deeper book."""
    rng = random.Random(seed)
    book: twin.Book = ({}, {})
    messages, books = [], []
    for i in range(rows):
        side = rng.randrange(2)
        price = (100 - rng.randrange(12)) if side == 0 else (101 + rng.randrange(12))
        held = book[side].get(price, 0)
        kind = rng.choice("123457") if held else rng.choice("1157")
        size = held if kind == "3" else rng.randint(1, max(held, 1))
        price_text = rng.choice((-1, 0, 1)) if kind == "7" else price
        message = (
            f"{34200 + i}.{rng.randrange(10**9):09},{kind},{i},{size},{price_text},{(1, -1)[side]}"
        )
        if kind != "7":
            twin.step(book, message)
        if rng.random() < 0.2:  # something the message file leaves out
            book[1 - side][rng.randint(1, 40) + (0 if side else 100)] = rng.randint(1, 9)
        sides = sorted(book[1].items()), sorted(book[0].items(), reverse=True)
        cells = []
        for level in range(levels):
            for which, empty in ((sides[0], twin.EMPTY), (sides[1], -twin.EMPTY)):
                cells += which[level] if level < len(which) else (empty, 0)
        messages.append(message)
        books.append(",".join(map(str, cells)))
    return messages, books


@pytest.mark.parametrize("levels", [1, 3, 200])
def test_the_known_book_is_always_the_row(tmp_path: Path, levels: int) -> None:
    messages, books = random_day(levels, 300, levels)
    url(tmp_path, messages, books)
    # Read without a look at them: the day has orders that its book file is too narrow to show.
    batches = read_frames(LobsterReader([tmp_path / "message.csv"], [tmp_path / "book.csv"]))
    found = decode(with_book, batches)
    assert found.dead == []
    known: twin.Book = ({}, {})
    rows = found.rows[found.rows["kind"] == EventKind.LEVEL]
    for i, book in enumerate(books):
        for row in rows[rows["sequence"] == i + 1]:
            side = known[int(row["side"]) - 1]
            if row["size"]:
                side[int(row["price"])] = int(row["size"])
            else:
                del side[int(row["price"])]
        assert known == twin.book_of(book)
    assert same(decode(with_book, cut(batches, 7), restarts=True), found)


def test_restoring_another_feeds_state_is_refused() -> None:
    with pytest.raises(ValueError, match="start anew with an empty --recovery folder"):
        with_book().restore(without_book().snapshot())


def test_pairs_that_do_not_end_together(tmp_path: Path) -> None:
    messages, books = random_day(1, 50, 2)
    long = write(tmp_path / "long.gz", "\n".join(messages).encode())
    short = write(tmp_path / "short", "\n".join(messages[:30]).encode())
    book = write(tmp_path / "book.zst", "\r\n".join(books).encode())
    short_book = write(tmp_path / "short_book", "\n".join(books[:40]).encode())
    paths, book_paths = [long, short, long], [book, book, short_book]
    rows = read_all(LobsterReader(paths, book_paths))
    kinds = [row.kind for row in rows]
    assert kinds.count(FrameKind.DATA) == 50 + 30 + 40
    odd = [row for row in rows if row.kind is FrameKind.TRUNCATED]
    assert [row.payload for row in odd] == [books[30].encode(), messages[40].encode()]
    assert odd[0].note == "short ended: rows of book.zst from this one on have no partner"
    small = Limits(max_rows=4, max_bytes=100, max_message_bytes=2000)
    assert read_in_pieces(lambda p: LobsterReader(paths, book_paths, p, small)) == rows
