"""Binance sessions through decoder and books: snapshots spliced, best prices as the venue told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.messages.frames import FrameKind
from tests.reference import binance as twin
from tests.support.binance_sessions import SESSIONS, session
from tests.support.captures import TestFrame, batches, capture_frames


class Run:
    """All tables of one feed whose instruments share a shard."""

    def __init__(self, market: str, rows: list[TestFrame]) -> None:
        feed = BinanceFeed(market)
        self.books = BookShard(0, BookConfig())
        self.stats: Counter[str] = Counter()
        tables: dict[str, list[pa.RecordBatch]] = {}
        end = rows[-1]._replace(kind=FrameKind.END, payload=b"")
        for batch in batches([*rows, end], 8_192):
            done = self.books.apply(feed.apply(batch).events)
            self.stats.update(done.stats)
            for name, table in done.tables.items():
                tables.setdefault(name, []).append(table)
        self.tables = {name: pa.Table.from_batches(parts) for name, parts in tables.items()}

    def count(self, table: str, *columns: str) -> Counter[Any]:
        found = self.tables[table].select(list(columns)).to_pydict()
        return Counter(zip(*found.values(), strict=True))


@pytest.mark.parametrize("market", SESSIONS)
def test_session(data: Path, market: str) -> None:
    expected, rows = session(data, market)
    run = Run(market, rows)
    kinds = run.count("quality_events", "kind")
    # The first delta of the futures is 59 ms older than the snapshot says it is itself.
    assert kinds.pop(("late",), 0) == (1 if market == "usdm" else 0)
    assert set(kinds) <= {("clock_skew",), ("bbo_mismatch",)}, "no gap, no outage, never crossed"
    assert run.tables["trades"].num_rows == expected["trades"]
    assert {state for (state,) in run.count("quotes", "book_state")} == {"valid"}
    assert run.books.memory()["levels"] == sum(expected["final_levels"])
    last = run.tables["depth"].slice(run.tables["depth"].num_rows - 1)
    for side, (price, size) in zip(("bid", "ask"), expected["final_bbo"], strict=True):
        assert str(last.column(f"{side}_prices")[0][0].as_py().normalize()) == price.rstrip("0")
        assert str(last.column(f"{side}_sizes")[0][0].as_py().normalize()) == size.rstrip("0")
    if market == "spot":
        # In the USD-M recording quotes come behind the book they belong to: see the decoder's test.
        assert run.stats["bbo_checked"] == expected["applied"]
        assert run.stats["bbo_mismatched"] == expected["known_mismatch"]


def test_without_a_snapshot_the_book_is_never_shown_as_valid(data: Path) -> None:
    rows = twin.session(data / "binance-ws-hftbacktest" / "spot_btcusdt_20240809.gz")[:20_000]
    run = Run("spot", rows)
    own = {state for (origin, state), _ in run.count("quotes", "origin", "book_state").items()
           if origin == "book"}  # fmt: skip
    assert own == {"stale"}
    assert run.count("quality_events", "kind")[("no_snapshot",)] == 1
    assert run.tables["trades"].num_rows > 1_000


def test_capture_of_four_symbols(data: Path) -> None:
    rows = capture_frames(data / "cryptofeed-captures" / "BINANCE.jsonl.zst")
    run = Run("spot", rows)
    assert run.stats["bbo_mismatched"] == 0
    assert run.stats["bbo_checked"] == 159
    assert "quality_events" not in run.tables
    assert run.tables["instruments"].num_rows == 4
