"""Shapes of Binance's messages, as typed decoders. Names are Binance's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from marketflow.operators.normalise.feed import Frame
from marketflow.operators.venues.base.listing import Facts
from marketflow.schemas.codes import MarketStatus

#: Markets whose instruments are contracts.
_CONTRACTS: Final = frozenset({"usdm", "coinm"})


class Head(msgspec.Struct):
    """Fields that tell one message from another."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    e: str = ""
    s: str = ""
    u: int | None = None
    lastUpdateId: int | None = None  # noqa: N815
    openInterest: str | None = None  # noqa: N815
    result: msgspec.Raw = msgspec.Raw(b"")
    code: int | None = None
    msg: str | None = None

    @property
    def acknowledges(self) -> bool:
        """An answer to a subscription."""
        return bool(bytes(self.result))


class Depth(msgspec.Struct):
    E: int
    s: str
    U: int
    u: int
    b: msgspec.Raw
    a: msgspec.Raw
    pu: int | None = None


class Book(msgspec.Struct):
    lastUpdateId: int  # noqa: N815
    bids: msgspec.Raw
    asks: msgspec.Raw
    E: int = 0
    symbol: str = ""


class Trade(msgspec.Struct):
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    X: str = "MARKET"


class AggTrade(msgspec.Struct):
    s: str
    a: int
    p: str
    q: str
    T: int
    m: bool


class BookTicker(msgspec.Struct):
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int = 0


class MarkPrice(msgspec.Struct):
    E: int
    s: str
    p: str
    i: str = ""
    r: str = ""
    T: int = 0


class Forced(msgspec.Struct):
    s: str
    S: str
    q: str
    p: str
    ap: str
    X: str
    z: str
    T: int


class ForceOrder(msgspec.Struct):
    o: Forced


class OpenInterest(msgspec.Struct):
    symbol: str
    openInterest: str  # noqa: N815
    time: int = 0


class Filter(msgspec.Struct):
    filterType: str  # noqa: N815
    tickSize: str = ""  # noqa: N815
    stepSize: str = ""  # noqa: N815


class Listed(msgspec.Struct):
    symbol: str
    baseAsset: str = ""  # noqa: N815
    quoteAsset: str = ""  # noqa: N815
    marginAsset: str = ""  # noqa: N815
    status: str = ""
    contractStatus: str = ""  # noqa: N815
    contractSize: int | None = None  # noqa: N815
    filters: list[Filter] = []


class ExchangeInfo(msgspec.Struct):
    symbols: list[Listed]


head: Final = msgspec.json.Decoder(Head)
many: Final = msgspec.json.Decoder(list[msgspec.Raw])
depth: Final = msgspec.json.Decoder(Depth)
book: Final = msgspec.json.Decoder(Book)
trade: Final = msgspec.json.Decoder(Trade)
agg_trade: Final = msgspec.json.Decoder(AggTrade)
book_ticker: Final = msgspec.json.Decoder(BookTicker)
mark_price: Final = msgspec.json.Decoder(MarkPrice)
force_order: Final = msgspec.json.Decoder(ForceOrder)
open_interest: Final = msgspec.json.Decoder(OpenInterest)
exchange_info: Final = msgspec.json.Decoder(ExchangeInfo)

_STATUS: Final = {
    "TRADING": MarketStatus.OPEN,
    "PRE_TRADING": MarketStatus.PRE_OPEN,
    "PENDING_TRADING": MarketStatus.PRE_OPEN,
    "AUCTION_MATCH": MarketStatus.AUCTION,
    "HALT": MarketStatus.HALTED,
    "BREAK": MarketStatus.HALTED,
    "POST_TRADING": MarketStatus.POST_CLOSE,
    "END_OF_DAY": MarketStatus.CLOSED,
    "CLOSE": MarketStatus.CLOSED,
    "PRE_SETTLE": MarketStatus.CLOSED,
    "SETTLING": MarketStatus.CLOSED,
    "PRE_DELIVERING": MarketStatus.CLOSED,
    "DELIVERING": MarketStatus.CLOSED,
    "DELIVERED": MarketStatus.DELISTED,
}


def listing(market: str, frame: Frame) -> Iterator[tuple[str, Facts]]:
    """Facts of each symbol in exchangeInfo. COIN-M contracts are inverse and of ``contractSize``
    quote units; USD-M contracts are one unit of the base."""
    for listed in exchange_info.decode(frame.payload).symbols:
        filters = {f.filterType: f for f in listed.filters}
        price, size = filters.get("PRICE_FILTER"), filters.get("LOT_SIZE")
        multiplier = str(listed.contractSize or 1) if market in _CONTRACTS else None
        yield (
            listed.symbol,
            Facts(
                ts_event=frame.ts_recv,
                price_increment=price.tickSize if price else None,
                size_increment=size.stepSize if size else None,
                contract_multiplier=multiplier,
                is_inverse=market == "coinm" if market in _CONTRACTS else None,
                base_currency=listed.baseAsset,
                quote_currency=listed.quoteAsset,
                settlement_currency=listed.marginAsset,
                status=_STATUS.get(listed.status or listed.contractStatus, MarketStatus.UNKNOWN),
            ),
        )
