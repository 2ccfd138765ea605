"""The books' own ``depth`` against what LOBSTER and Databento recorded of the same books."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.formats.dbn.decoder import DbnDecoder
from marketflow.schemas.codes import Side
from tests.reference import lobster as twin
from tests.reference.books import NaiveBook, groups
from tests.support.dbn_files import csv_rows, told_levels
from tests.support.decoding import decode, frames_of
from tests.support.lobster_files import STEM, lines, make


def scaled(column: pa.Array, digits: int) -> list[list[int]]:
    """A column of lists of decimals as whole multiples of 10**-digits."""
    words = np.frombuffer(column.values.buffers()[1], np.int64)[2 * column.values.offset :]
    assert (words[1::2] == 0).all()
    values = (words[::2] // 10 ** (12 - digits)).tolist()
    bounds = column.offsets.to_pylist()
    return [values[start:stop] for start, stop in itertools.pairwise(bounds)]


@pytest.mark.parametrize("level", [1, 5])
def test_lobster_depth_is_the_book_file_row_by_row(data: Path, level: int) -> None:
    """The books' own ``depth``: a row per change, so the latest one is the book of every row."""
    folder = data / "lobster"
    message, book_file = (
        folder / f"{STEM}_{kind}_{level}.csv.zst" for kind in ("message", "orderbook")
    )
    url = f"lobster:{message}?book={book_file}&symbol=AMZN&date=2012-06-21"
    books = lines(book_file)
    shard, decoder = BookShard(0, BookConfig()), make()
    shown: dict[int, tuple[list[int], ...]] = {}
    for frames in frames_of(url):
        tables = shard.apply(decoder.apply(frames).events).tables
        assert "quality_events" not in tables
        if (depth := tables.get("depth")) is None:
            continue
        assert set(depth.column("book_state").to_pylist()) <= {"valid", "one_sided"}
        columns = [scaled(depth.column(f"{side}_prices"), 4) for side in ("bid", "ask")]
        columns += [scaled(depth.column(f"{side}_sizes"), 0) for side in ("bid", "ask")]
        shown |= zip(depth.column("sequence").to_pylist(), zip(*columns, strict=True), strict=True)
    latest: tuple[list[int], ...] = ()
    for sequence, book in enumerate(books, 1):
        latest = shown.get(sequence, latest)
        told = twin.book_of(book)
        assert latest == (*map(list, told), *(list(side.values()) for side in told)), sequence


def depths(url: str) -> list[dict[str, Any]]:
    """The books' own ``depth`` rows."""
    shard, decoder = BookShard(0, BookConfig()), DbnDecoder()
    rows: list[dict[str, Any]] = []
    for frames in frames_of(url):
        tables = shard.apply(decoder.apply(frames).events).tables
        assert "quality_events" not in tables
        if (depth := tables.get("depth")) is not None:
            rows += depth.drop_columns(["ts_event"]).to_pylist()
    return rows


def shown_levels(row: dict[str, Any]) -> tuple[list[tuple[int, int, int]], ...]:
    """Bids and asks of a depth row, prices in 1e-9."""
    return tuple(
        [
            (int(price.scaleb(9)), int(size), count)
            for price, size, count in zip(
                row[f"{side}_prices"], row[f"{side}_sizes"], row[f"{side}_counts"], strict=True
            )
        ]
        for side in ("bid", "ask")
    )


def test_depth_of_mbp10_is_its_rows(data: Path) -> None:
    """A depth row for the first book, which is empty, and per change of the ten levels."""
    name = "ARL_XNAS_20250717_mbp10_first.csv.zst"
    told = [told_levels(row) for row in csv_rows(data, name)]
    changes = told[:1] + [now for before, now in itertools.pairwise(told) if now != before]
    assert [shown_levels(row) for row in depths(f"dbn:{data}/databento-mbo-mbp/{name}")] == changes


def test_depth_of_mbo_is_the_book_at_the_end_of_every_group(data: Path) -> None:
    path = data / "databento-mbo-mbp" / "ARL_XNAS_20250717_mbo_first.csv.zst"
    book = NaiveBook()
    expected = [([], [])]
    for group in groups(decode(DbnDecoder, frames_of(f"dbn:{path}")).rows[:-1]):
        for row in group:
            book.apply(row)
        levels = (book.side(Side.BID, 10), book.side(Side.ASK, 10))
        if levels != expected[-1]:
            expected.append(levels)
    shown = [shown_levels(row) for row in depths(f"dbn:{path}")]
    assert shown == expected[1:]
    told = csv_rows(data, "ARL_XNAS_20250717_mbp10_first.csv.zst")
    assert shown[-1] == told_levels(told[-1])
