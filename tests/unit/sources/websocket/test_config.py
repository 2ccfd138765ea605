"""``ws:`` URLs and what the venues make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marketflow.sources.errors import SourceError
from marketflow.sources.registry import parse_source
from marketflow.sources.websocket.config import LiveConfig, parse_live


def one(text: str) -> LiveConfig:
    return parse_live([text])[0]


def sent(text: str) -> list[Any]:
    return [json.loads(message) for message in one(text).venue.subscribe()]


def test_binance() -> None:
    spec = one("ws:binance?symbols=btcusdt,ETHUSDT&channels=book,aggTrade")
    streams = ["btcusdt@depth@100ms", "ethusdt@depth@100ms", "btcusdt@aggTrade", "ethusdt@aggTrade"]
    assert [json.loads(m) for m in spec.venue.subscribe()] == [
        {"method": "SUBSCRIBE", "params": streams, "id": 1}
    ]
    assert spec.address == "wss://stream.binance.com:9443/stream"
    assert spec.venue.snapshot("BTCUSDT") == "/api/v3/depth?symbol=BTCUSDT&limit=1000"
    assert spec.venue.resubscribe("BTCUSDT") == []
    assert one("ws:binance?symbols=BTCUSDT&channels=trades").venue.snapshot("BTCUSDT") == ""
    update = (
        b'{"stream":"x","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":7,"u":9,"b":[],"a":[]}}'
    )
    assert spec.venue.first_id(update) == ("BTCUSDT", 7)
    assert spec.venue.first_id(b'{"e":"depthUpdate" not json') is None
    assert spec.venue.snapshot_id(b'{"lastUpdateId":12,"bids":[],"asks":[]}') == 12
    assert spec.venue.snapshot_id(b'{"code":-1003,"msg":"Too many"}') is None


def test_binance_futures_come_from_two_addresses() -> None:
    books = one("ws:binance_usdm?symbols=BTCUSDT")
    assert books.address == "wss://fstream.binance.com/public/stream"
    assert books.venue.snapshot("BTCUSDT") == "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
    rates = one("ws:binance_usdm?symbols=BTCUSDT&channels=markPrice@1s,aggTrade")
    assert rates.address == "wss://fstream.binance.com/market/stream"
    with pytest.raises(SourceError, match="two addresses of Binance: record them as two sources"):
        one("ws:binance_usdm?symbols=BTCUSDT&channels=book,markPrice@1s")
    assert one("ws:binance_coinm?symbols=BTCUSD_PERP").venue.VENUE == "BINANCE_COINM"


def test_coinbase_hears_heartbeats_too() -> None:
    assert sent("ws:coinbase?symbols=BTC-USD&channels=book") == [
        {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "level2"},
        {"type": "subscribe", "product_ids": ["BTC-USD"], "channel": "heartbeats"},
    ]
    venue = one("ws:coinbase?symbols=BTC-USD").venue
    book = (
        b'{"channel":"l2_data","sequence_num":1,"events":[{"type":"snapshot","product_id":"BTC-USD",'
        b'"updates":[]}]}'
    )
    assert venue.full_book(book) == "BTC-USD"
    assert venue.full_book(book.replace(b"snapshot", b"update")) == ""


def test_kraken_in_both_versions() -> None:
    assert sent("ws:kraken?symbols=BTC/USD&channels=book&depth=25") == [
        {"method": "subscribe", "params": {"channel": "book", "symbol": ["BTC/USD"], "depth": 25}}
    ]
    assert sent("ws:kraken_v1?symbols=XBT/USD&channels=book,trades") == [
        {"event": "subscribe", "pair": ["XBT/USD"], "subscription": {"name": "book", "depth": 100}},
        {"event": "subscribe", "pair": ["XBT/USD"], "subscription": {"name": "trade"}},
    ]
    two, one_ = one("ws:kraken?symbols=BTC/USD").venue, one("ws:kraken_v1?symbols=XBT/USD").venue
    assert two.full_book(b'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD"}]}')
    assert not two.full_book(b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD"}]}')
    assert one_.full_book(b'[0,{"as":[["5541.3","2.5","1.1"]],"bs":[]},"book-100","XBT/USD"]')
    assert not one_.full_book(b'[0,{"a":[["5541.3","2.5","1.1"]]},"book-100","XBT/USD"]')
    assert [json.loads(m)["event"] for m in one_.resubscribe("XBT/USD")] == [
        "unsubscribe", "subscribe",
    ]  # fmt: skip
    assert two.refusal(b'{"error":"Currency pair not supported","method":"subscribe"}')


def test_okx_and_bybit() -> None:
    assert sent("ws:okx?symbols=BTC-USDT&channels=book") == [
        {"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]}
    ]
    listed = one("ws:okx?symbols=BTC-USDT,BTC-USDT-SWAP,BTC-USD-261225,BTC-USD-261225-9000-C")
    assert [path.rpartition("=")[2] for path in listed.venue.listings()] == [
        "FUTURES", "SPOT", "SWAP",
    ]  # fmt: skip
    many = ",".join(f"A{n}USDT" for n in range(12))
    parts = sent(f"ws:bybit?symbols={many}&channels=book&depth=50")
    assert [len(part["args"]) for part in parts] == [10, 2], "ten topics in a message"
    assert parts[0]["args"][0] == "orderbook.50.A0USDT"
    assert one("ws:bybit_linear?symbols=BTCUSDT").address.endswith("/v5/public/linear")
    book = b'{"topic":"orderbook.200.BTCUSDT","type":"snapshot","ts":1,"data":{"s":"BTCUSDT"}}'
    venue = one("ws:bybit?symbols=BTCUSDT").venue
    assert venue.full_book(book) == "BTCUSDT"
    assert venue.full_book(book.replace(b"orderbook.200", b"orderbook.1")) == "", "its own quote"


def test_lines_of_one_feed_have_names() -> None:
    specs = parse_live(["ws:okx?symbols=A-B", "ws:bybit?symbols=AB", "ws:okx?symbols=A-B"])
    assert [spec.connection for spec in specs] == ["okx.0", "bybit.0", "okx.1"]
    named = parse_live(["ws:okx?symbols=A-B&line=tokyo", "ws:okx?symbols=A-B&line=london"])
    assert [spec.connection for spec in named] == ["okx.tokyo", "okx.london"]
    with pytest.raises(SourceError, match=r"two sources are called okx\.a: .*line=NAME"):
        parse_live(["ws:okx?symbols=A-B&line=a", "ws:okx?symbols=C-D&line=a"])


def test_other_addresses_keep_the_venues_path() -> None:
    spec = one("ws:bybit?symbols=AB&url=ws://127.0.0.1:9000&rest=http://127.0.0.1:9001")
    assert (spec.address, spec.rest) == (
        "ws://127.0.0.1:9000/v5/public/spot",
        "http://127.0.0.1:9001",
    )
    assert one("ws:bybit?symbols=AB&url=wss://x:1/y/spot").address == "wss://x:1/y/spot"


def test_another_address_is_the_only_one() -> None:
    """REST goes there too, and whoever logs in does not find the login in any record."""
    spec = one("ws:binance?symbols=AB&url=ws://me:secret@10.0.0.9:9000/stream")
    assert spec.address == "ws://me:secret@10.0.0.9:9000/stream"
    assert spec.rest == "http://me:secret@10.0.0.9:9000"
    assert spec.shown == "ws://***@10.0.0.9:9000/stream"
    assert "secret" not in spec.text
    assert one("ws:binance?symbols=AB&url=wss://x:1").rest == "https://x:1"
    assert one("ws:binance?symbols=AB").rest == "https://api.binance.com"
    with pytest.raises(SourceError) as caught:
        one("ws:binance?symbols=AB&url=http://me:secret@x:1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "channel"),
    [
        ("ws:binance?symbols=AB", b'{"stream":"ab@depth@100ms","data":{}}', "depth@100ms"),
        ("ws:binance?symbols=AB", b'{"result":null,"id":1}', ""),
        ("ws:coinbase?symbols=A-B", b'{"channel":"l2_data","events":[]}', "level2"),
        ("ws:coinbase?symbols=A-B", b'{"channel":"heartbeats","events":[]}', ""),
        ("ws:kraken?symbols=A/B", b'{"channel":"trade","type":"update","data":[]}', "trade"),
        ("ws:kraken?symbols=A/B", b'{"method":"subscribe","result":{"channel":"trade"}}', ""),
        ("ws:kraken_v1?symbols=A/B", b'[336,{"a":[]},"book-100","A/B"]', "book"),
        ("ws:kraken_v1?symbols=A/B", b'{"event":"heartbeat"}', ""),
        ("ws:okx?symbols=A-B", b'{"arg":{"channel":"books","instId":"A-B"},"data":[]}', "books"),
        ("ws:okx?symbols=A-B", b'{"event":"subscribe","arg":{"channel":"books"}}', ""),
        ("ws:bybit?symbols=AB", b'{"topic":"orderbook.200.AB","data":{}}', "orderbook"),
        ("ws:bybit?symbols=AB", b'{"topic":"orderbook.1.AB","data":{}}', "orderbook.1"),
        ("ws:bybit?symbols=AB", b'{"topic":"publicTrade.AB","data":[]}', "publicTrade"),
    ],
)
def test_which_channel_a_message_is_of(text: str, message: bytes, channel: str) -> None:
    assert one(text).venue.channel_of(message) == channel


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ws:binnance?symbols=A", "did you mean ws:binance"),
        ("ws:nyse?symbols=A", "known: binance, "),
        ("ws:okx", "needs symbols: add symbols=BTC-USDT"),
        ("ws:okx?symbols=BTC-USDT,", "'' is no symbol; write it as in BTC-USDT"),
        ("ws:okx?symbol=BTC-USDT", "did you mean symbols"),
        ("ws:okx?symbols=A&symbols=B", "given twice"),
        ("ws:okx?symbols=A&depth=5", "left out: the venue decides it"),
        ("ws:kraken?symbols=A/B&depth=7", "must be one of 10, 25, 100, 500, 1000"),
        ("ws:okx?symbols=A&channels=bo ok", "is no channel"),
        ("ws:okx?symbols=A&url=http://x:1", "is no address ws://HOST:PORT"),
        ("ws:okx?symbols=A&line=a.b", "use letters, digits, - and _"),
        ("itch:x", "a recorder reads live feeds only"),
    ],
)
def test_mistakes_name_their_fix(text: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        one(text)


def test_too_many_topics_for_one_connection() -> None:
    symbols = ",".join(f"S{n}" for n in range(600))
    with pytest.raises(SourceError, match="1200 topics, one connection takes 1024: split"):
        one(f"ws:binance?symbols={symbols}&channels=book,trades")


def test_a_run_refuses_what_was_not_recorded() -> None:
    with pytest.raises(SourceError, match=r"record it first \(marketflow record --source 'ws:okx"):
        parse_source("ws:okx?symbols=BTC-USDT")
    with pytest.raises(SourceError, match=r"--source kafka://HOST:PORT/raw\.bybit\)"):
        parse_source("ws:bybit_linear?symbols=BTCUSDT")
