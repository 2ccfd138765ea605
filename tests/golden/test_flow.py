"""The whole flow on every recorded file: source -> flow -> lake -> SQL agrees with the oracles."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.flows.runtime.run import run
from tests.support.lakes import assert_gapless, table_rows

NINE_VENUES = (
    "BINANCE", "BITFINEX", "BITSTAMP", "BYBIT", "COINBASE", "GATEIO", "HUOBI",
    "INDEPENDENT_RESERVE", "KUCOIN",
)  # fmt: skip


def _flow(source: str, lake: Path) -> dict[str, Any]:
    summary = run("market_data", [source], [f"parquet:{lake}"])
    for name, rows in summary["tables"].items():
        table = table_rows(lake, name)
        assert table is not None
        assert table.num_rows == rows, name
        assert_gapless(table, name)
    return summary


def _rows(lake: Path, query: str) -> list[tuple[Any, ...]]:
    return open_lake(lake).sql(query).fetchall()


def test_itch_aapl(data: Path, tmp_path: Path) -> None:
    folder = data / "nasdaq-itch50"
    wanted = json.loads((folder / "expected.json").read_text())
    wanted = wanted["AAPL_20191230_0935_first20000.itch50.zst"]
    book = wanted["book_after_all"]
    source = f"itch:{folder}/AAPL_20191230_0935_first20000.itch50.zst?date=2019-12-30"
    summary = _flow(source, tmp_path)
    assert summary["messages"] == wanted["messages"]
    assert summary["quality_events"] == {"unknown_order": sum(book["unknown_ref"].values())}
    assert summary["orders"] == book["resting_orders"]
    assert summary["dead_letters"] == {}
    last = _rows(tmp_path, "SELECT * EXCLUDE (date) FROM depth ORDER BY row_sequence DESC LIMIT 1")
    names = [c[0] for c in open_lake(tmp_path).sql("DESCRIBE depth").fetchall()]
    depth = dict(zip(names, last[0], strict=False))
    for side in ("bid", "ask"):
        levels = zip(depth[f"{side}_prices"][:5], depth[f"{side}_sizes"][:5], strict=True)
        assert [[int(p * 10000), int(s)] for p, s in levels] == book[f"top5_{side}s"]
    crossed = "SELECT count(*) FROM quotes WHERE bid_price >= ask_price"
    assert _rows(tmp_path, crossed) == [(0,)]
    # P messages, and executions of known orders, are the trades.
    (shares,) = _rows(tmp_path, "SELECT sum(size) FROM trades")[0]
    assert shares == book["executed_shares_E_C_known"] + book["trade_P_shares"]


@pytest.mark.parametrize(
    ("files", "market", "key", "mismatches"),
    [
        (("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz"), "spot",
         "spot_btcusdt_20240808+20240809", 2),
        (("usdm_btcusdt_20240808.gz",), "usdm", "usdm_btcusdt_20240808", 0),
    ],
)  # fmt: skip
def test_binance_sessions(
    data: Path, tmp_path: Path, files: tuple[str, ...], market: str, key: str, mismatches: int
) -> None:
    folder = data / "binance-ws-hftbacktest"
    wanted = json.loads((folder / "expected.json").read_text())[key]
    paths = ",".join(str(folder / name) for name in files)
    summary = _flow(f"binance:{paths}?market={market}", tmp_path)
    assert summary["messages"] == wanted["lines"]
    assert summary["tables"]["trades"] == wanted["trades"]
    assert summary["dead_letters"] == {}
    assert summary["stale_books"] == 0
    assert summary["levels"] == sum(wanted["final_levels"])
    kinds = summary["quality_events"]
    assert not kinds.keys() & {"gap", "crossed", "duplicate", "out_of_order", "bad_checksum"}
    # Spot: two books differ from the ticker of the same id range, in size only; the venue's own
    # race, known and given with the recording.
    assert kinds.get("bbo_mismatch", 0) == mismatches
    best = _rows(
        tmp_path,
        "SELECT bid_price, bid_size, ask_price, ask_size FROM quotes WHERE origin = 'book' "
        "ORDER BY row_sequence DESC LIMIT 1",
    )[0]
    expected = [Decimal(x) for level in wanted["final_bbo"] for x in level]
    assert list(best) == expected


def test_binance_without_a_snapshot_is_stale_not_wrong(data: Path, tmp_path: Path) -> None:
    file = data / "binance-ws-hftbacktest" / "spot_btcusdt_20240809.gz"
    summary = _flow(f"binance:{file}?market=spot", tmp_path)
    assert summary["stale_books"] == 1
    assert summary["quality_events"]["no_snapshot"] == 1
    shown = "SELECT count(*) FROM quotes WHERE origin = 'book' AND bid_price IS NOT NULL"
    assert _rows(tmp_path, shown) == [(0,)]
    assert summary["tables"]["trades"] > 10_000


@pytest.mark.parametrize(("venue", "count"), [("KRAKEN", 2075), ("OKX", 98), ("BITGET", 319)])
def test_checksums(data: Path, tmp_path: Path, venue: str, count: int) -> None:
    source = f"capture:{data}/checksum-captures/{venue}.open.jsonl.zst"
    summary = _flow(source, tmp_path)
    assert (summary["checksums_verified"], summary["checksums_failed"]) == (count, 0)
    assert summary["dead_letters"] == {}
    wanted = json.loads((data / "checksum-captures" / "expected.json").read_text())[venue]
    for symbol, sides in wanted["final_top3"].items():
        depth = _rows(
            tmp_path,
            "SELECT bid_prices[1:3], bid_sizes[1:3], ask_prices[1:3], ask_sizes[1:3] FROM depth "
            f"WHERE symbol = '{symbol}' ORDER BY row_sequence DESC LIMIT 1",
        )[0]
        for side, prices, sizes in (("bids", *depth[:2]), ("asks", *depth[2:])):
            assert [[Decimal(p), Decimal(s)] for p, s in sides[side]] == [
                [p, s] for p, s in zip(prices, sizes, strict=True)
            ], (venue, symbol, side)


@pytest.mark.parametrize("venue", NINE_VENUES)
def test_nine_venues(data: Path, tmp_path: Path, venue: str) -> None:
    source = f"capture:{data}/cryptofeed-captures/{venue}.jsonl.zst"
    summary = _flow(source, tmp_path)
    assert summary["stale_books"] == 0
    assert not summary["quality_events"].keys() & {"gap", "crossed", "bad_checksum", "no_snapshot"}
    allowed = {"out_of_range"} if venue == "HUOBI" else set()
    assert summary["dead_letters"].keys() <= allowed
    crossed = _rows(
        tmp_path,
        "SELECT count(*) FROM quotes WHERE origin = 'book' AND book_state = 'valid' "
        "AND bid_price >= ask_price",
    )
    assert crossed == [(0,)]


def test_mbo_rebuilds_mbp10(data: Path, tmp_path: Path) -> None:
    """Every one of the 1,040 MBP-10 rows is a row of the depth that the MBO feed makes."""
    folder = data / "databento-mbo-mbp"
    lakes = {}
    for kind in ("mbo", "mbp10"):
        lakes[kind] = tmp_path / kind
        _flow(f"dbn:{folder}/ARL_XNAS_20250717_{kind}_first.csv.zst", lakes[kind])
    columns = "bid_prices, bid_sizes, bid_counts, ask_prices, ask_sizes, ask_counts"
    query = f"SELECT sequence, {columns} FROM depth ORDER BY row_sequence"
    # By sequence, the last row of each: MBP shows every record, an MBO feed's depth whole groups.
    books = {name: {row[0]: row[1:] for row in _rows(lake, query)} for name, lake in lakes.items()}
    ends = books["mbp10"].keys() & books["mbo"].keys()
    assert len(ends) > 800
    for sequence in ends:
        assert books["mbp10"][sequence] == books["mbo"][sequence], sequence
    assert len(books["mbp10"]) - len(ends) <= 10


def test_mbo_final_book(data: Path, tmp_path: Path) -> None:
    folder = data / "databento-mbo-mbp"
    wanted = json.loads((folder / "expected.json").read_text())
    wanted = wanted["orderbooks_ESM4_mbo_20240508T000000_2s.dbn.zst"]
    summary = _flow(f"dbn:{folder}/orderbooks_ESM4_mbo_20240508T000000_2s.dbn.zst", tmp_path)
    assert summary["messages"] == wanted["records"]
    final = wanted["final"]
    assert summary["orders"] == final["orders"]
    assert summary["levels"] == final["bid_levels"] + final["ask_levels"]
    best = _rows(
        tmp_path,
        "SELECT bid_prices[1], bid_sizes[1], ask_prices[1], ask_sizes[1] FROM depth "
        "ORDER BY row_sequence DESC LIMIT 1",
    )[0]
    assert list(map(float, best)) == [
        *map(float, final["best_bid"]),
        *map(float, final["best_ask"]),
    ]


def test_lobster_depth_is_the_book_file(data: Path, tmp_path: Path) -> None:
    folder = data / "lobster"
    stem = f"{folder}/AMZN_2012-06-21_34200000_57600000"
    source = (
        f"lobster:{stem}_message_1.csv.zst?book={stem}_orderbook_1.csv.zst"
        "&symbol=AMZN&date=2012-06-21"
    )
    summary = _flow(source, tmp_path)
    assert summary["messages"] == 57_515
    assert summary["dead_letters"] == {}
    assert summary["stale_books"] == 0
    assert _rows(tmp_path, "SELECT count(*) FROM depth")[0][0] > 40_000
