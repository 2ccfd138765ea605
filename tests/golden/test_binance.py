"""Binance decoding on real sessions and captures, value by value."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.events import NO_SEQUENCE, EventKind, IdKind
from operators.feeds import Decoded, JsonFeed
from operators.venues.binance import Binance, BinanceFeed
from schemas.codes import AggressorSide, RowFlag, Side
from tests.captures import TestFrame, batches, capture_frames
from tests.reference import binance as twin

SESSIONS = {
    "spot": (
        "spot_btcusdt_20240808+20240809",
        "spot_btcusdt_20240808.gz",
        "spot_btcusdt_20240809.gz",
    ),
    "usdm": ("usdm_btcusdt_20240808", "usdm_btcusdt_20240808.gz"),
}


def session(data: Path, market: str) -> tuple[dict[str, Any], list[TestFrame]]:
    folder = data / "binance-ws-hftbacktest"
    key, *names = SESSIONS[market]
    expected = json.loads((folder / "expected.json").read_text())[key]
    return expected, twin.session(*(folder / name for name in names))


def told(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Rows as the twin says them."""
    found: list[tuple[Any, ...]] = []
    for row in decoded.events.rows:
        price = Decimal(int(row["price"])).scaleb(-int(row["price_scale"]))
        size = Decimal(int(row["size"])).scaleb(-int(row["size_scale"]))
        at, sequence = int(row["ts_event"]), int(row["sequence"])
        match EventKind(row["kind"]):
            case EventKind.BEGIN:
                ids = [int(row[n].view("i8")) for n in ("order_lo", "order_hi")]
                found.append(
                    ("begin", at, sequence, *(None if i == NO_SEQUENCE else i for i in ids))
                )
            case EventKind.LEVEL:
                found.append(("level", "b" if row["side"] == Side.BID else "a", price, size))
            case EventKind.TRADE:
                assert (row["trade_lo"], row["trade_kind"]) == (sequence, IdKind.UINT)
                side = AggressorSide(row["side"]).name.lower()
                found.append(("trade", at, sequence, price, size, side))
            case EventKind.VENUE_BID | EventKind.VENUE_ASK:
                found.append(("quote", at, sequence, price, size))
    return found


@pytest.mark.parametrize("market", SESSIONS)
def test_session_equals_json_and_decimal(data: Path, market: str) -> None:
    expected, rows = session(data, market)
    assert len(rows) == expected["lines"]
    feed, exact = BinanceFeed(market), JsonFeed(Binance(market))
    kinds: Counter[int] = Counter()
    messages = done = snapshots = 0
    for batch in batches(rows, 8_192):
        decoded = feed.apply(batch)
        assert decoded.dead is None
        # The byte scan gives the rows of the exact decoder, bit for bit.
        assert decoded.events.rows.tobytes() == exact.apply(batch).events.rows.tobytes()
        found = decoded.events.rows
        kinds.update(found["kind"].tolist())
        messages += decoded.events.messages
        assert found["ts_recv"].tolist() == [rows[done + f].ts_recv for f in found["frame"]]
        begins = found[found["kind"] == EventKind.BEGIN]
        snapshots += np.count_nonzero(begins["flags"] & RowFlag.SNAPSHOT)
        if done % (4 * 8_192) == 0:  # values of every fourth batch: the twin is slow
            part = rows[done : done + batch.num_rows]
            assert told(decoded) == [row for frame in part for row in twin.decode(frame)]
        done += batch.num_rows
    assert messages == expected["lines"]
    assert snapshots == 1
    assert kinds[EventKind.BEGIN] == kinds[EventKind.END] == expected["depth"] + 1
    assert kinds[EventKind.TRADE] == expected["trades"]
    assert feed.registry.instruments().symbols == ("BTCUSDT",)


def test_second_file_alone_has_no_snapshot(data: Path) -> None:
    rows = twin.session(data / "binance-ws-hftbacktest" / "spot_btcusdt_20240809.gz")[:3_000]
    (batch,) = batches(rows, len(rows))
    decoded = JsonFeed(Binance()).apply(batch)
    assert decoded.dead is None
    assert not decoded.events.rows["flags"].any() or set(decoded.events.rows["flags"]) <= {0, 1}


def test_capture(data: Path) -> None:
    """Four symbols with REST books, bookTicker, aggTrade, kline and exchangeInfo."""
    folder = data / "cryptofeed-captures"
    expected = json.loads((folder / "expected_callback_counts.json").read_text())["BINANCE"]
    rows = capture_frames(folder / "BINANCE.jsonl.zst")
    (batch,) = batches(rows, len(rows))
    decoded = BinanceFeed().apply(batch)
    assert decoded.dead is None
    assert decoded.events.rows.tobytes() == JsonFeed(Binance()).apply(batch).events.rows.tobytes()
    found = decoded.events.rows
    kinds = Counter(found["kind"].tolist())
    assert kinds[EventKind.TRADE] == expected["trades"]
    assert kinds[EventKind.VENUE_BID] == kinds[EventKind.VENUE_ASK] == expected["ticker"]
    begins = found[found["kind"] == EventKind.BEGIN]
    snapshot = (begins["flags"] & RowFlag.SNAPSHOT) != 0
    assert Counter(snapshot.tolist()) == {True: 4, False: 177}
    symbols = decoded.events.instruments.symbols
    assert set(symbols) == {"NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"}
    listed = decoded.events.tables["instruments"]
    assert listed.num_rows == 4
    by_symbol = {
        symbols[r["instrument"]]: r
        for r in listed.drop_columns(["ts_event", "ts_recv"]).to_pylist()
    }
    lrc = by_symbol["LRCBTC"]
    assert (lrc["base_currency"], lrc["quote_currency"], lrc["status"]) == ("LRC", "BTC", "open")
    assert (lrc["price_increment"], lrc["size_increment"]) == (Decimal("0.00000001"), Decimal(1))
