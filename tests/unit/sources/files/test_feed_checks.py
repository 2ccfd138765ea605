"""Sources whose files say that they are another feed: refused before a run, with the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.runtime.run import run
from marketflow.sources.errors import SourceError
from marketflow.sources.files.markets import market_of
from marketflow.sources.registry import parse_source
from tests.support.captures import read_lines
from tests.support.command import marketflow

SPOT_DEPTH = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 2, "u": 3, "b": [], "a": []}
USDM_DEPTH = SPOT_DEPTH | {"T": 1, "pu": 1}
COINM_DEPTH = USDM_DEPTH | {"s": "BTCUSD_PERP", "ps": "BTCUSD"}


def capture(path: Path, exchange: str | None, *messages: object) -> Path:
    lines: list[object] = [] if exchange is None else [{"t": "header", "exchange": exchange}]
    lines += [{"t": "recv", "ts": "1.5", "conn": "a", "data": json.dumps(m)} for m in messages]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def refusal(*sources: str) -> str:
    with pytest.raises(UsageError) as error:
        run("market_data", sources, ["null:"])
    return str(error.value)


def test_a_capture_of_an_unsupported_venue_exits_2(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.jsonl", "BITSTAMPS", {})
    lake = tmp_path / "lake"
    done = marketflow(
        "run", "market_data", "--source", f"capture:{path}", "--sink", f"parquet:{lake}"
    )
    assert (done.returncode, done.stdout) == (2, "")
    for word in ("BITSTAMPS", "known: BINANCE", "HUOBI", "nearest: BITSTAMP"):
        assert word in done.stderr
    assert not lake.exists()


@pytest.mark.parametrize(
    ("exchange", "nearest"), [("KRAKEN_FUTURES", "KRAKEN"), ("OKEX", "OKX"), ("bybit", "BYBIT")]
)
def test_the_nearest_venue_is_named(tmp_path: Path, exchange: str, nearest: str) -> None:
    path = capture(tmp_path / "c.jsonl", exchange, {})
    assert refusal(f"capture:{path}").endswith(f"nearest: {nearest}")


def test_a_capture_without_a_header_is_refused(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.jsonl", None, {})
    assert '"t":"header"' in refusal(f"capture:{path}")


def test_files_of_two_venues_are_no_feed(tmp_path: Path) -> None:
    okx = capture(tmp_path / "a.jsonl", "OKX", {})
    kraken = capture(tmp_path / "b.jsonl", "KRAKEN", {})
    rest = capture(tmp_path / "c.jsonl", None, {})
    said = refusal(f"capture:{okx},{rest},{kraken}")
    assert "--source of its own" in said and str(kraken) in said


def test_binance_us_is_decoded_as_spot(tmp_path: Path) -> None:
    trade = {"e": "trade", "E": 5, "T": 5, "s": "BTCUSD", "t": 7, "p": "1.5", "q": "2", "m": True}
    snapshot = SPOT_DEPTH | {"s": "BTCUSD"}
    path = capture(tmp_path / "c.jsonl", "BINANCE_US", snapshot, trade | {"M": True})
    lake = tmp_path / "lake"
    summary = run("market_data", [f"capture:{path}"], [f"parquet:{lake}"])
    assert summary["dead_letters"] == {} and summary["tables"]["trades"] == 1
    assert [p.name for p in (lake / "trades").glob("date=*/venue=*")] == ["venue=BINANCE_US"]
    lines = tmp_path / "lines"
    lines.write_text(f"1500000000 {json.dumps(trade)}\n")
    summary = run("market_data", [f"binance:{lines}?market=us"], ["null:"])
    assert summary["tables"]["trades"] == 1


@pytest.mark.parametrize(
    ("message", "market"),
    [
        (SPOT_DEPTH, "spot"),
        (USDM_DEPTH, "usdm"),
        (COINM_DEPTH, "coinm"),
        ({"stream": "btcusdt@depth", "data": USDM_DEPTH}, "usdm"),
        ({"e": "depthUpdate", "s": "BTCUSDT_240927", "pu": 1}, "usdm"),
        ({"e": "markPriceUpdate", "s": "BTCUSD_240927"}, "coinm"),
        ({"e": "trade", "s": "BTCUSDT", "M": True}, "spot"),
        ({"e": "trade", "s": "BTCUSDT", "X": "MARKET"}, "usdm"),
        ({"lastUpdateId": 1, "bids": [], "asks": []}, None),
        ([1], None),
    ],
)
def test_the_market_of_a_message(message: object, market: str | None) -> None:
    assert market_of(json.dumps(message).encode()) == market


@pytest.mark.parametrize(
    ("message", "right"), [(SPOT_DEPTH, "spot"), (USDM_DEPTH, "usdm"), (COINM_DEPTH, "coinm")]
)
def test_a_binance_file_of_another_market_is_refused(
    tmp_path: Path, message: object, right: str
) -> None:
    path = tmp_path / "lines"
    path.write_text(f"17 {json.dumps(message)}\n" * 3)
    for asked in {"spot", "usdm", "coinm"} - {right}:
        with pytest.raises(SourceError, match=f"read it with market={right}"):
            parse_source(f"binance:{path}?market={asked}")
    assert parse_source(f"binance:{path}?market={right}").paths == (path,)
    # Damage among the messages is data.
    path.write_text(f"17 {json.dumps(SPOT_DEPTH)}\n17 {json.dumps(USDM_DEPTH)}\n")
    for asked in ("spot", "us", "usdm"):
        parse_source(f"binance:{path}?market={asked}")


def test_a_capture_whose_header_names_another_market_is_refused(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.jsonl", "BINANCE", USDM_DEPTH)
    assert "write BINANCE_USDM there" in refusal(f"capture:{path}")
    capture(path, "BINANCE_USDM", USDM_DEPTH)
    run("market_data", [f"capture:{path}"], ["null:"])


def test_recorded_binance_files_are_told_apart(data: Path) -> None:
    folder = data / "binance-ws-hftbacktest"
    for market, name in (
        ("spot", "spot_btcusdt_20240808.gz"),
        ("spot", "spot_btcusdt_20240809.gz"),
        ("usdm", "usdm_btcusdt_20240808.gz"),
    ):
        for asked in ("spot", "usdm", "coinm"):
            url = f"binance:{folder / name}?market={asked}"
            if asked == market:
                parse_source(url)
            else:
                with pytest.raises(SourceError, match=f"read it with market={market}"):
                    parse_source(url)


def test_lobster_files_of_different_levels_are_refused(data: Path, tmp_path: Path) -> None:
    """By their rows, whatever they are called."""
    stem = "AMZN_2012-06-21_34200000_57600000"
    files = {
        (kind, level): data / "lobster" / f"{stem}_{kind}_{level}.csv.zst"
        for kind in ("message", "orderbook")
        for level in (1, 5)
    }

    def url(message: Path, book: Path) -> str:
        return f"lobster:{message}?book={book}&symbol=AMZN&date=2012-06-21"

    for level, other in ((1, 5), (5, 1)):
        message, book = files["message", level], files["orderbook", level]
        parse_source(url(message, book))
        with pytest.raises(SourceError, match=f"levels: {other}.*such as {book}$"):
            parse_source(url(message, files["orderbook", other]))
        renamed = tmp_path / f"m{level}.csv"
        renamed.write_bytes(b"\n".join(read_lines(message)[:3000]))
        with pytest.raises(SourceError, match=r"of the same day and level$"):
            parse_source(url(renamed, files["orderbook", other]))
        parse_source(url(renamed, book))


def test_damage_in_lobster_files_is_data(tmp_path: Path) -> None:
    message, book = tmp_path / "m.csv", tmp_path / "b.csv"
    message.write_text("34200.1,1,1,10,100,1\nrubbish\n34200.2,1,2,10,101,-1\n")
    book.write_text("9999999999,0,100,10\n,,\n101,10,100,10\n")
    parse_source(f"lobster:{message}?book={book}&symbol=A&date=2012-06-21")
