"""LOBSTER's AMZN day: the step oracle on every row, and the book that follows the book file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marketflow.operators.events import EventKind
from marketflow.schemas.codes import RowFlag, Side
from tests.reference import lobster as twin
from tests.reference.books import NaiveBook, groups
from tests.support.decoding import cut, decode, frames_of, same
from tests.support.lobster_files import STEM, lines, make

ROWS = {1: 57_515, 5: 155_935}
#: Of 2012-06-21 in New York: UTC - 4 h.
MIDNIGHT = 1340251200_000_000_000


@pytest.fixture(scope="module", params=[1, 5])
def day(request: pytest.FixtureRequest, data: Path) -> tuple[int, str, list[str], list[str]]:
    """Levels, URL, message rows, book rows."""
    level = request.param
    message, book = (
        data / "lobster" / f"{STEM}_{kind}_{level}.csv.zst" for kind in ("message", "orderbook")
    )
    url = f"lobster:{message}?book={book}&symbol=AMZN&date=2012-06-21"
    return level, url, lines(message), lines(book)


def test_every_row_is_its_step_and_what_enters_or_leaves_below(
    day: tuple[int, str, list[str], list[str]],
) -> None:
    level, url, messages, books = day
    found = decode(make, frames_of(url))
    assert found.messages == len(messages) == ROWS[level]
    assert found.dead == []
    assert found.instruments == (("XNAS", "AMZN"),)
    assert found.rows[-1]["kind"] == EventKind.FEED_END
    events = found.rows[:-1]
    by_message = np.searchsorted(events["sequence"], np.arange(1, len(messages) + 2))
    columns = {
        name: events[name].tolist()
        for name in ("ts_event", "kind", "side", "price", "size", "flags")
    }
    known: twin.Book = ({}, {})
    stepped = 0
    for i, (message, book) in enumerate(zip(messages, books, strict=True)):
        time, kind, _, size, price, direction = message.split(",")
        expected: list[tuple[int, int, int, int, int]] = []
        if kind in ("4", "5"):
            aggressor = 2 if direction == "1" else 1
            expected.append((EventKind.TRADE, aggressor, int(price), int(size), 0))
        told = twin.book_of(book)
        change = twin.step(known, message)
        beyond = twin.reseed(known, told)
        if change is not None:
            side, at, left = change
            expected.append((EventKind.LEVEL, side + 1, at, left, 0))
        for side, at, left in beyond:
            expected.append((EventKind.LEVEL, side + 1, at, left, RowFlag.SNAPSHOT))
            if i:
                # The oracle: nothing but the level that enters or leaves at the bottom.
                worst = min if side == 0 else max
                assert at == worst(known[side].keys() | told[side].keys())
        if expected:
            expected[-1] = (*expected[-1][:4], expected[-1][4] | RowFlag.LAST)
        start, stop = int(by_message[i]), int(by_message[i + 1])
        rows = [
            tuple(columns[name][at] for name in ("kind", "side", "price", "size", "flags"))
            for at in range(start, stop)
        ]
        assert rows == expected, (i, message)
        if rows:
            assert columns["ts_event"][start] == MIDNIGHT + twin.time_ns(time)
        stepped += kind not in ("1", "2", "3", "4") or change is not None
        known = told
    assert stepped == len(messages)


def test_the_book_is_the_book_file_row_by_row(
    day: tuple[int, str, list[str], list[str]],
) -> None:
    level, url, _, books = day
    rows = decode(make, frames_of(url)).rows
    assert rows[-1]["kind"] == EventKind.FEED_END
    book = NaiveBook()
    seen = 0
    for group in groups(rows[:-1]):
        assert len(set(group["sequence"].tolist())) == 1
        for row in group:
            book.apply(row)
        sequence = int(group[-1]["sequence"])
        if sequence > 20_000:
            break
        for quiet in range(seen + 1, sequence):
            # A message without rows leaves the book, and its row, as it was.
            assert books[quiet - 1] == books[seen - 1]
        seen = sequence
        told = twin.book_of(books[sequence - 1])
        for side, levels in ((Side.BID, told[0]), (Side.ASK, told[1])):
            assert [(p, s) for p, s, _ in book.side(side)] == list(levels.items())
            assert len(levels) <= level
    assert seen > 19_990


def test_cuts_and_restarts_change_nothing(day: tuple[int, str, list[str], list[str]]) -> None:
    _, url, _, _ = day
    batches = frames_of(url)[:4]
    whole = decode(make, batches)
    assert same(decode(make, cut(batches, 997), restarts=True), whole)
