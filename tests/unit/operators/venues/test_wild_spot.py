"""Whatever a venue may send, its decoder answers with rows or dead letters, never an exception."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.venues.bitfinex import Bitfinex
from marketflow.operators.venues.bitstamp import Bitstamp
from marketflow.operators.venues.gateio import Gateio
from marketflow.operators.venues.huobi import Huobi
from marketflow.operators.venues.independent_reserve import IndependentReserve
from marketflow.operators.venues.kucoin import Kucoin
from tests.support.captures import TestFrame, frames
from tests.support.decoded import examples, feed, http
from tests.support.wild import WILD, places, replaced

HTTP_URLS = {
    "BITSTAMP": ["https://h/api/v2/order_book/ethusd", "https://h/api/v2/trading-pairs-info/"],
    "KUCOIN": ["https://h/api/v3/market/orderbook/level2?symbol=A-B", "https://h/api/v1/symbols"],
    "GATEIO": ["https://h/spot/order_book?currency_pair=A_B", "https://h/spot/currency_pairs"],
    "HUOBI": ["https://h/v1/common/symbols"],
    "BITFINEX": [],
    "INDEPENDENT_RESERVE": [
        "https://h/Public/GetAllOrders?primaryCurrencyCode=eth&secondaryCurrencyCode=aud"
    ],
}
HANDLERS: dict[str, Any] = {
    "BITSTAMP": Bitstamp,
    "KUCOIN": Kucoin,
    "GATEIO": Gateio,
    "HUOBI": Huobi,
    "BITFINEX": Bitfinex,
    "INDEPENDENT_RESERVE": IndependentReserve,
}
MORE = {
    "BITFINEX": [
        '{"event":"subscribed","channel":"book","chanId":433290,"symbol":"tX","prec":"R0"}',
        '{"event":"subscribed","channel":"trades","chanId":89,"symbol":"tX"}',
        '{"event":"subscribed","channel":"ticker","chanId":232949,"symbol":"tX"}',
        "[232958,[[0.037107,1,11111],[0.0371,1,300]],18]",
        "[232958,[0.0371,1,300],19]",
        "[433290,[[34753002978,7294.7,1.54340371]],19]",
        "[433290,[34753002978,0,1],20]",
    ]
}


def corpus(exchange: str) -> list[str]:
    """Every message in the docstrings of the venue's handlers."""
    found = [
        example
        for name, function in vars(HANDLERS[exchange]).items()
        if name != "__init__" and callable(function)
        for example in examples(function)
    ]
    return found + MORE.get(exchange, [])


@st.composite
def wild(draw: st.DrawFn, exchange: str) -> list[str | TestFrame]:
    """A few messages of the venue with something wrong in each."""
    found: list[str | TestFrame] = []
    for text in draw(st.lists(st.sampled_from(corpus(exchange)), min_size=1, max_size=6)):
        value = json.loads(text)
        if draw(st.booleans()):
            place = draw(st.sampled_from(places(value)))
            value = replaced(value, place, draw(st.sampled_from(WILD)))
        message = json.dumps(value)
        if draw(st.integers(0, 9)) == 0:
            message = message[: draw(st.integers(0, len(message)))]
        urls = HTTP_URLS[exchange]
        packed: str | TestFrame = message
        if exchange == "HUOBI" and draw(st.booleans()):
            packed = TestFrame(gzip.compress(message.encode()))
        elif urls and draw(st.booleans()):
            packed = http(draw(st.sampled_from(urls)), message)
        found.append(packed)
    return found


@pytest.mark.parametrize("exchange", sorted(HANDLERS))
@given(st.data())
def test_no_message_breaks_the_decoder(exchange: str, data: st.DataObject) -> None:
    items = data.draw(wild(exchange))
    decoded = feed(exchange).apply(frames(items))
    assert decoded.events.messages == len(items)


@pytest.mark.parametrize("exchange", sorted(HANDLERS))
@given(st.binary(max_size=40))
def test_no_bytes_break_the_decoder(exchange: str, payload: bytes) -> None:
    feed(exchange).apply(frames([TestFrame(payload), TestFrame(b"\x1f\x8b" + payload)]))
