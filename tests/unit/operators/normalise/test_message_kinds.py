"""Messages that make no row are counted by kind, in every feed, and shown."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from marketflow.flows.catalogue import DEFAULT_FLOW, find
from marketflow.flows.commands.report import print_summary
from marketflow.flows.runtime.run import run
from marketflow.flows.runtime.stats import RunStats
from marketflow.operators.events import Rows
from marketflow.operators.normalise.core import ROWLESS
from marketflow.operators.normalise.message_kinds import kind_of
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.decoded import feed


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"event": "subscribe", "arg": {"channel": "books"}}, "subscribe"),
        ({"action": "update", "arg": {"channel": "candle1m", "instId": "A"}}, "candle1m"),
        ({"action": "update", "arg": {"topic": "kline", "symbol": "A"}}, "kline"),
        ({"stream": "a@kline_1m", "data": {"e": "kline", "s": "A"}}, "kline"),
        ({"topic": "kline.1.BTCUSDT", "type": "snapshot"}, "kline"),
        ({"topic": "tickers.BTCUSDT", "type": "delta"}, "tickers"),
        ({"type": "message", "topic": "/market/candles:BTC-USDT_1min"}, "/market/candles"),
        ({"ch": "market.btcusdt.kline.1min", "tick": {}}, "kline"),
        ({"channel": "spot.candlesticks", "event": "update"}, "spot.candlesticks"),
        ({"Event": "Heartbeat", "Time": 1}, "Heartbeat"),
        ({"result": None, "id": 1}, "result"),
        ([5, "hb"], "hb"),
        ([5, [1], "ohlc-5", "XBT/USD"], "ohlc"),
        ([], "array"),
        (7, "value"),
    ],
)
def test_kinds(message: object, kind: str) -> None:
    text = json.dumps(message).encode()
    assert kind_of(FrameKind.DATA, "", text) == kind
    assert kind_of(FrameKind.DATA, "", gzip.compress(text)) == kind


def test_kinds_of_what_is_no_json() -> None:
    assert kind_of(FrameKind.DATA, "", b"pong") == "pong"
    assert kind_of(FrameKind.DATA, "", b"\x1f\x8bnot gzip") == "other"
    assert kind_of(FrameKind.DATA, "", b"") == "other"
    url = "https://api.x.com/v5/market/time?now=1"
    assert kind_of(FrameKind.HTTP, url, b"{}") == "rest /v5/market/time"


def test_a_venue_counts_what_makes_neither_row_nor_letter() -> None:
    subscribed = '{"event":"subscribe","arg":{"instType":"SPOT","channel":"books","instId":"A"}}'
    trade = (
        '{"action":"update","arg":{"instType":"SPOT","channel":"trade","instId":"A"},"data":['
        '{"ts":"1701910980366","price":"4","size":"1","side":"buy","tradeId":"7"}]}'
    )
    events = (
        feed("BITGET")
        .apply(
            frames([subscribed, trade, "pong", subscribed, "{", TestFrame("", FrameKind.CONNECT)])
        )
        .events
    )
    assert (events.messages, dict(events.rowless)) == (5, {"subscribe": 2, "pong": 1})


def test_binance_counts_what_its_kernel_leaves_out() -> None:
    """Aggregate trades of a symbol that sends trades; also where batches are cut."""
    trade = (
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":%d,'
        '"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
    )
    aggregate = (
        '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1723161255343,"s":"BTCUSDT",'
        '"a":%d,"p":"61837.63000000","q":"0.02000000","f":1,"l":1,"T":1723161255342,"m":true,'
        '"M":true}}'
    )
    kline = '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{}}}'
    items = [trade % 1, trade % 2, aggregate % 1, kline, aggregate % 2, trade % 3, aggregate % 3]
    for size in (1, 3, len(items)):
        decoder, found = BinanceFeed(), {}
        for at in range(0, len(items), size):
            events = decoder.apply(frames(items[at : at + size])).events
            for kind, count in events.rowless.items():
                found[kind] = found.get(kind, 0) + count
        assert found == {"aggTrade": 3, "kline": 1}, size


def test_the_summary_tells_and_people_see_it(tmp_path: Path) -> None:
    lines = ['{"t":"header","exchange":"BITGET"}']
    for channel in ("candle1m", "candle1m", "books"):
        event = {"event": "subscribe"} if channel == "books" else {"action": "update"}
        arg = {"instType": "SPOT", "channel": channel, "instId": "A"}
        data = json.dumps(event | {"arg": arg, "data": []})
        lines.append(json.dumps({"t": "recv", "ts": "1.5", "conn": "a", "data": data}))
    (tmp_path / "c.jsonl").write_text("\n".join(lines) + "\n")
    summary = run("market_data", [f"capture:{tmp_path / 'c.jsonl'}"], ["null:"])
    assert summary["rowless_messages"] == {"candle1m": 2, "subscribe": 1}
    assert not [name for name in summary if name.startswith(ROWLESS)]
    console = Console(file=io.StringIO(), width=200)
    print_summary(summary, console)
    assert "messages that make no row: candle1m 2, subscribe 1" in console.file.getvalue()


def test_kinds_are_bounded_and_survive_a_restart() -> None:
    stats = RunStats(find(DEFAULT_FLOW))
    for number in range(150):
        stats.write(Rows(-1, {}, {f"{ROWLESS}kind{number}": 1}))
    again = RunStats(find(DEFAULT_FLOW))
    again.restore(stats.snapshot())
    again.write(Rows(-1, {}, {f"{ROWLESS}kind0": 1, f"{ROWLESS}kind149": 1}))
    found = again.summary()["rowless_messages"]
    assert (found["kind0"], found["kind99"], found["other"], len(found)) == (2, 1, 51, 101)
