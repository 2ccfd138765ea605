"""Shapes of Bitget's messages and listings; see :mod:`operators.venues.bitget.decoder`.

The generations of its API name the same things differently: a struct has the names of all.
"""

from __future__ import annotations

from typing import Final

import msgspec

Integer = int | str


class Arg(msgspec.Struct):
    """v1 and v2 name a channel and instId, v3 a topic and symbol."""

    instType: str  # noqa: N815 - the venue's own names
    channel: str = ""
    instId: str = ""  # noqa: N815
    topic: str = ""
    symbol: str = ""


class Message(msgspec.Struct):
    arg: Arg | None = None
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    event: str = ""
    msg: str = ""
    ts: Integer = 0


class Book(msgspec.Struct):
    """v3 names its sides ``a`` and ``b``."""

    ts: Integer
    asks: msgspec.Raw = msgspec.Raw()
    bids: msgspec.Raw = msgspec.Raw()
    a: msgspec.Raw = msgspec.Raw()
    b: msgspec.Raw = msgspec.Raw()
    checksum: int | None = None
    seq: Integer | None = None
    pseq: Integer | None = None


class Trade(msgspec.Struct):
    """An object since v2; v3 has one letter for a name."""

    ts: Integer = ""
    price: str = ""
    size: str = ""
    side: str = ""
    tradeId: str = ""  # noqa: N815
    T: Integer = ""
    p: str = ""
    v: str = ""
    S: str = ""
    i: str = ""


class Ticker(msgspec.Struct):
    """Fields named alike by v1, v2 and v3. A contract's has its funding in it."""

    bestBid: str = ""  # noqa: N815
    bestAsk: str = ""  # noqa: N815
    bidPr: str = ""  # noqa: N815
    bidSz: str = ""  # noqa: N815
    askPr: str = ""  # noqa: N815
    askSz: str = ""  # noqa: N815
    bid1Price: str = ""  # noqa: N815
    bid1Size: str = ""  # noqa: N815
    ask1Price: str = ""  # noqa: N815
    ask1Size: str = ""  # noqa: N815
    ts: Integer = 0
    systemTime: Integer = 0  # noqa: N815
    capitalRate: str = ""  # noqa: N815
    fundingRate: str = ""  # noqa: N815
    nextSettleTime: Integer = 0  # noqa: N815
    nextFundingTime: Integer = 0  # noqa: N815
    markPrice: str = ""  # noqa: N815
    indexPrice: str = ""  # noqa: N815
    holding: str = ""
    holdingAmount: str = ""  # noqa: N815
    openInterest: str = ""  # noqa: N815


class Liquidation(msgspec.Struct):
    symbol: str
    side: str
    price: str
    amount: str
    ts: Integer


class Product(msgspec.Struct):
    """Of a listing of any generation."""

    symbol: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    symbolName: str = ""  # noqa: N815
    status: str = ""
    symbolStatus: str = ""  # noqa: N815
    category: str = ""
    priceScale: int = -1  # noqa: N815
    quantityScale: int = -1  # noqa: N815
    pricePrecision: int = -1  # noqa: N815
    quantityPrecision: int = -1  # noqa: N815
    pricePlace: int = -1  # noqa: N815
    volumePlace: int = -1  # noqa: N815
    priceEndStep: str = "1"  # noqa: N815
    priceMultiplier: str = ""  # noqa: N815
    quantityMultiplier: str = ""  # noqa: N815


class Answer(msgspec.Struct):
    data: msgspec.Raw


message: Final = msgspec.json.Decoder(Message)
books: Final = msgspec.json.Decoder(list[Book])
trades: Final = msgspec.json.Decoder(list[tuple[str, str, str, str] | Trade])
tickers: Final = msgspec.json.Decoder(list[Ticker])
liquidations: Final = msgspec.json.Decoder(list[Liquidation])
answer: Final = msgspec.json.Decoder(Answer)
products: Final = msgspec.json.Decoder(list[Product], strict=False)
