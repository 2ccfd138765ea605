"""Binance decoding on real sessions and captures, value by value."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketflow.operators.events import NO_SEQUENCE, EventKind, IdKind
from marketflow.operators.normalise.feed import Decoded, JsonFeed
from marketflow.operators.venues.binance.feed import Binance, BinanceFeed
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.units import text_of
from tests.reference import binance as twin
from tests.support.binance_sessions import SESSIONS, session
from tests.support.captures import batches, capture_frames


def told(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Rows as the twin says them."""
    found: list[tuple[Any, ...]] = []
    names = ["kind", "ts_event", "sequence", "side", "price", "price_scale", "size", "size_scale"]
    words = ["order_lo", "order_hi", "trade_lo", "trade_kind"]
    rows = decoded.events.rows
    for row, ids in zip(rows[names].tolist(), rows[words].tolist(), strict=True):
        kind, at, sequence, side, mantissa, scale, quantity, digits = row
        price, size = Decimal(mantissa).scaleb(-scale), Decimal(quantity).scaleb(-digits)
        match kind:
            case EventKind.BEGIN:
                first, previous = (int(np.uint64(v).view("i8")) for v in ids[:2])
                known = (None if v == NO_SEQUENCE else v for v in (first, previous))
                found.append(("begin", at, sequence, *known))
            case EventKind.LEVEL:
                found.append(("level", "b" if side == Side.BID else "a", price, size))
            case EventKind.TRADE:
                assert ids[2:] == (sequence, IdKind.UINT)
                aggressor = AggressorSide(side).name.lower()
                found.append(("trade", at, sequence, price, size, aggressor))
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
        if done % (6 * 8_192) == 0:  # values of every sixth batch: the twin is slow
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


@pytest.mark.parametrize("market", SESSIONS)
def test_books_from_the_rows_meet_the_venues_own_quotes(data: Path, market: str) -> None:
    """Snapshot and differences as Binance documents them; every BBO against bookTicker."""
    expected, rows = session(data, market)
    feed = BinanceFeed(market)
    names = ["kind", "side", "flags", "price", "size", "sequence", "order_lo", "order_hi"]
    groups: list[list[tuple[int, ...]]] = []  # BEGIN, then its levels
    quotes: list[tuple[int, ...]] = []
    for batch in batches(rows, 8_192):
        for row in feed.apply(batch).events.rows[names].tolist():
            match row[0]:
                case EventKind.BEGIN:
                    groups.append([row])
                case EventKind.LEVEL:
                    groups[-1].append(row)
                case EventKind.VENUE_BID:
                    quotes.append(row[3:6])
                case EventKind.VENUE_ASK:
                    quotes[-1] = (quotes[-1][2], *quotes[-1][:2], *row[3:5])
    (start,) = [i for i, group in enumerate(groups) if group[0][2] & RowFlag.SNAPSHOT]
    snapshot_id = groups[start][0][5]
    assert snapshot_id == expected["lastUpdateId"]
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}

    def take(levels: list[tuple[int, ...]]) -> None:
        for level in levels:
            side = bids if level[1] == Side.BID else asks
            if level[4]:
                side[level[3]] = level[4]
            else:
                side.pop(level[3], None)

    take(groups[start][1:])
    by_id = sorted(quotes)
    ids = [quote[0] for quote in by_id]
    applied = equal = chained = 0
    last = snapshot_id
    for group in groups[:start] + groups[start + 1 :]:
        update = group[0][5]
        if update < snapshot_id or (market == "spot" and update == snapshot_id):
            continue
        first, previous = (int(np.uint64(v).view("i8")) for v in group[0][6:8])
        chained += first == last + 1 if market == "spot" else previous == last
        take(group[1:])
        applied, last = applied + 1, update
        at = bisect_right(ids, update) - 1
        bid, ask = max(bids), min(asks)
        equal += at >= 0 and by_id[at][1:] == (bid, bids[bid], ask, asks[ask])
    assert applied == expected["applied"]
    assert chained == applied - 1  # the first overlaps the snapshot, no gap after it
    assert equal == expected["bbo_checked_equal"]
    assert [len(bids), len(asks)] == expected["final_levels"]
    scales = {"spot": (8, 8), "usdm": (2, 3)}[market]
    texts = [
        [text_of(p, scales[0]), text_of(s[p], scales[1])] for p, s in ((bid, bids), (ask, asks))
    ]
    assert texts == expected["final_bbo"]
