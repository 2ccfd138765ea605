"""The same recorded sessions through the book engine: checksums, final books, gaps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, batches
from tests.support.decoded import feed
from tests.support.sessions import callbacks, recorded

TABLES = frozenset({"trades", "depth", "quality_events"})


class Kept:
    """Everything that comes out of one shard that keeps all books of a recording."""

    def __init__(self, exchange: str, rows: list[TestFrame], size: int = 500) -> None:
        decoder = feed(exchange)
        shard = BookShard(0, BookConfig(tables=TABLES, check_bbo=False))
        self.stats: Counter[str] = Counter()
        parts: dict[str, list[pa.RecordBatch]] = {}
        for batch in batches(rows, size):
            out = shard.apply(decoder.apply(batch).events)
            self.stats.update(out.stats)
            self.stale = out.stats["stale_books"]
            for name, table in out.tables.items():
                parts.setdefault(name, []).append(table)
        # Dictionaries grow from batch to batch.
        self.tables = {name: pa.Table.from_batches(found) for name, found in parts.items()}

    def quality(self) -> Counter[tuple[str, str]]:
        """(kind, symbol) of what was wrong; event times of channels that race are not."""
        if "quality_events" not in self.tables:
            return Counter()
        rows = self.tables["quality_events"].select(["kind", "symbol"]).to_pylist()
        return Counter((row["kind"], row["symbol"]) for row in rows if row["kind"] != "late")

    def final(self, venue: str, symbol: str, levels: int) -> dict[str, list[list[str]]]:
        """Best levels of the last depth row, numbers without trailing zeros."""
        columns = ["venue", "symbol", "bid_prices", "bid_sizes", "ask_prices", "ask_sizes"]
        rows = self.tables["depth"].select(columns).to_pylist()
        last = [row for row in rows if (row["venue"], row["symbol"]) == (venue, symbol)][-1]
        return {
            f"{side}s": [
                [f"{price.normalize():f}", f"{size.normalize():f}"]
                for price, size in zip(
                    last[f"{side}_prices"][:levels], last[f"{side}_sizes"][:levels], strict=True
                )
            ]
            for side in ("ask", "bid")
        }


def trimmed(levels: list[list[str]]) -> list[list[str]]:
    return [[n.rstrip("0").rstrip(".") if "." in n else n for n in level] for level in levels]


@pytest.mark.parametrize(
    ("exchange", "checksums"), [("KRAKEN", 2075), ("OKX", 98), ("BITGET", 319)]
)
def test_every_checksum_verifies_and_books_end_as_recorded(
    data: Path, exchange: str, checksums: int
) -> None:
    expected = json.loads((data / "checksum-captures" / "expected.json").read_text())[exchange]
    kept = Kept(exchange, recorded(data, exchange))
    assert kept.stats["checksums_verified"] == checksums == sum(expected["checksums_ok"].values())
    assert kept.stats["checksums_failed"] == expected["checksums_bad"] == 0
    assert kept.quality() == {} and kept.stale == 0
    for symbol, top in expected["final_top3"].items():
        venue = "BITGET_MIX" if symbol == "DASHUSDT" else exchange
        final = kept.final(venue, symbol, 3)
        assert final == {side: trimmed(levels) for side, levels in top.items()}, symbol


@pytest.mark.parametrize("exchange", ["COINBASE", "BYBIT"])
def test_recorded_chains_have_no_gap(data: Path, exchange: str) -> None:
    kept = Kept(exchange, recorded(data, exchange))
    assert kept.quality() == {} and kept.stale == 0
    assert kept.tables["trades"].num_rows == callbacks(data, exchange)["trades"]


def test_one_lost_message_makes_both_coinbase_books_stale(data: Path) -> None:
    rows = [row for row in recorded(data, "COINBASE") if row.kind == FrameKind.DATA]
    del rows[100]
    kept = Kept("COINBASE", rows)
    books = ("BTC-USD", "ETH-USD")
    assert kept.quality() == {(kind, book): 1 for kind in ("gap", "stale") for book in books}
    assert kept.stale == 2


def test_one_lost_message_makes_one_bybit_book_stale(data: Path) -> None:
    rows = recorded(data, "BYBIT")
    index, _ = [
        (index, row)
        for index, row in enumerate(rows)
        if b"orderbook.200.SOLUSDT" in row.payload and row.kind == FrameKind.DATA
    ][10]
    del rows[index]
    kept = Kept("BYBIT", rows)
    assert kept.quality() == {("gap", "SOLUSDT"): 1, ("stale", "SOLUSDT"): 1}
