"""Whatever these venues may send, their decoders answer with rows or dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.venues.bitget.decoder import Bitget
from marketflow.operators.venues.bybit import Bybit
from marketflow.operators.venues.coinbase.advanced import Coinbase
from marketflow.operators.venues.coinbase.exchange import CoinbaseExchange
from marketflow.operators.venues.kraken.v1 import Kraken
from marketflow.operators.venues.okx.v5 import Okx
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames
from tests.support.decoded import examples, feed, http
from tests.support.wild import WILD, places, replaced

HANDLERS: dict[str, type] = {
    "BITGET": Bitget,
    "BYBIT": Bybit,
    "COINBASE": Coinbase,
    "COINBASE_EXCHANGE": CoinbaseExchange,
    "KRAKEN": Kraken,
    "OKX": Okx,
}
URLS = {
    "BITGET": ["/api/spot/v1/public/products", "/api/mix/v1/market/contracts"],
    "BYBIT": ["/v5/market/instruments-info?category=linear"],
    "COINBASE": ["/api/v3/brokerage/market/products"],
    "COINBASE_EXCHANGE": ["/products"],
    "KRAKEN": ["/0/public/AssetPairs"],
    "OKX": ["/api/v5/public/instruments?instType=SPOT"],
}
LINEAR = TestFrame("", FrameKind.CONNECT, note="wss://stream.bybit.com/v5/public/linear")
#: Channel names carry numbers too.
NAMES = ["book--1", "book-" + "9" * 5000, "book-99999999999", "book-0", "orderbook..", "tickers."]


def corpus(exchange: str) -> list[str]:
    """Every message in the docstrings of the venue's handlers, inherited ones too."""
    functions = {
        name: function
        for base in HANDLERS[exchange].__mro__
        for name, function in vars(base).items()
        if base.__module__.startswith("marketflow.operators.venues") and callable(function)
    }
    return [example for function in functions.values() for example in examples(function)]


@st.composite
def wild(draw: st.DrawFn, exchange: str) -> list[TestFrame]:
    """A few messages of the venue with something wrong in most."""
    found = []
    for text in draw(st.lists(st.sampled_from(corpus(exchange)), min_size=1, max_size=6)):
        value: Any = json.loads(text)
        if draw(st.integers(0, 3)):
            place = draw(st.sampled_from(places(value)))
            value = replaced(value, place, draw(st.sampled_from(WILD + NAMES)))
        message = json.dumps(value)
        if draw(st.integers(0, 9)) == 0:
            message = message[: draw(st.integers(0, len(message)))]
        kind = draw(
            st.sampled_from([FrameKind.DATA, FrameKind.DATA, FrameKind.HTTP, FrameKind.SENT])
        )
        if kind == FrameKind.HTTP:
            found.append(http(draw(st.sampled_from(URLS[exchange])), message))
        else:
            found.append(TestFrame(message, kind))
    return found


@pytest.mark.parametrize("exchange", sorted(HANDLERS))
@given(st.data())
def test_no_message_breaks_the_decoder(exchange: str, data: st.DataObject) -> None:
    items = data.draw(wild(exchange))
    decoded = feed(exchange).apply(frames([LINEAR, *items]))
    assert decoded.events.messages == sum(item.kind != FrameKind.SENT for item in items)


@pytest.mark.parametrize("exchange", sorted(HANDLERS))
@given(st.binary(max_size=40))
def test_no_bytes_break_the_decoder(exchange: str, payload: bytes) -> None:
    feed(exchange).apply(frames([TestFrame(payload), TestFrame(b"[" + payload)]))
