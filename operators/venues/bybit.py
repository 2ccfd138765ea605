"""Bybit, WebSocket API v5: ``wss://stream.bybit.com/v5/public/{spot,linear,inverse}``.

Source: Bybit API v5 (orderbook, trade, ticker, kline, all liquidation; REST instruments-info),
checked against recordings of December 2024 and August 2026. The API generations before v5
(``orderBookL2_25``, ``instrument_info`` ..., switched off in 2023) are not read.

The same symbol is traded in several markets, and only the address of the connection tells which:
spot is BYBIT, the others BYBIT_LINEAR, BYBIT_INVERSE. Without an address (a recording of bare
messages) it is BYBIT.

Continuity: ``u`` grows by one per message of a topic. ``u`` = 1 says that the service restarted and
the message is a whole book, whatever its type. One depth keeps an instrument's book (see
:mod:`operators.venues.base.one_book`); depth 1 is the venue's own quote.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import Continuity, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.operators.venues.base.listing import Facts
from marketflow.operators.venues.base.one_book import OneBookVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

SPOT: Final = "BYBIT"
VENUES: Final = {"spot": SPOT, "linear": "BYBIT_LINEAR", "inverse": "BYBIT_INVERSE"}

_AGGRESSORS: Final = {"Buy": AggressorSide.BUY, "Sell": AggressorSide.SELL}
_STATUS: Final = {
    "Trading": MarketStatus.OPEN,
    "PreLaunch": MarketStatus.PRE_OPEN,
    "Delivering": MarketStatus.CLOSED,
    "Closed": MarketStatus.DELISTED,
}
_SILENT_TOPICS: Final = frozenset(
    {"kline", "priceLimit", "insurance", "adlAlert", "kline_lt", "tickers_lt"}
)
_RESTART: Final = 1
#: Ticker fields kept per symbol: a delta carries only those that changed.
_QUOTE: Final[tuple[str, ...]] = ("bid1Price", "bid1Size", "ask1Price", "ask1Size")
_FUNDING: Final[tuple[str, ...]] = ("fundingRate", "nextFundingTime", "markPrice", "indexPrice")

Level = tuple[str, str]


class Message(msgspec.Struct):
    """A push has a topic, an answer an ``op``."""

    topic: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    ts: int = 0
    cts: int = 0
    op: str = ""
    success: bool = True
    ret_msg: str = ""


class Book(msgspec.Struct):
    s: str
    b: msgspec.Raw
    a: msgspec.Raw
    u: int


class Trade(msgspec.Struct):
    T: int
    s: str
    S: str
    v: str
    p: str
    i: str
    seq: int | None = None


class Liquidation(msgspec.Struct):
    T: int
    s: str
    S: str
    v: str
    p: str


class OldLiquidation(msgspec.Struct):
    """One of the topic ``liquidation``, until 2025."""

    updatedTime: int  # noqa: N815 - the venue's own names
    symbol: str
    side: str
    size: str
    price: str


class Filter(msgspec.Struct):
    tickSize: str = ""  # noqa: N815
    qtyStep: str = ""  # noqa: N815
    basePrecision: str = ""  # noqa: N815


class Instrument(msgspec.Struct):
    symbol: str
    status: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    settleCoin: str = ""  # noqa: N815
    priceFilter: Filter = msgspec.field(default_factory=Filter)  # noqa: N815
    lotSizeFilter: Filter = msgspec.field(default_factory=Filter)  # noqa: N815


class Result(msgspec.Struct, rename={"instruments": "list"}):
    category: str
    instruments: list[Instrument]


class Answer(msgspec.Struct):
    result: Result
    time: int = 0


_message: Final = msgspec.json.Decoder(Message)
_book: Final = msgspec.json.Decoder(Book)
_top: Final = msgspec.json.Decoder(list[Level])
_trades: Final = msgspec.json.Decoder(list[Trade])
_liquidations: Final = msgspec.json.Decoder(list[Liquidation])
_old_liquidation: Final = msgspec.json.Decoder(OldLiquidation)
_ticker: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)
_answer: Final = msgspec.json.Decoder(Answer)


def _best(levels: list[Level], last: Level | None) -> Level | None:
    """Best level of a side after a depth-1 message: the one that is not gone."""
    for price, size in levels:
        if not size.strip("0."):
            if last is not None and last[0] == price:
                last = None
        else:
            last = price, size
    return last


class Bybit(OneBookVenue):
    """Symbols as sent: ``BTCUSDT``."""

    VENUE = SPOT
    RULES = BookRules(
        continuity=Continuity.STEP_ONE,
        snapshot_rule=SnapshotRule.IN_STREAM,
        # Tickers and books race: in the recording by one message.
        bbo_tolerance=4,
    )
    STATE = (*OneBookVenue.STATE, "venues", "tops", "tickers")

    def __init__(self) -> None:
        super().__init__()
        #: Connection -> venue.
        self.venues: dict[str, str] = {}
        #: (venue, symbol) -> best bid and ask of its depth-1 topic.
        self.tops: dict[tuple[str, str], tuple[Level | None, Level | None]] = {}
        #: (venue, symbol) -> the kept fields of its ticker.
        self.tickers: dict[tuple[str, str], dict[str, str]] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        match frame.kind:
            case FrameKind.DATA:
                self._data(frame, out)
            case FrameKind.HTTP:
                self._http(frame)
            case FrameKind.DISCONNECT:
                self.release_books(frame)
            case FrameKind.CONNECT:
                self.release_books(frame)
                market = frame.note.partition("?")[0].rstrip("/").rpartition("/")[2]
                self.venues[frame.connection] = VENUES.get(market, SPOT)

    def _data(self, frame: Frame, out: EventBuilder) -> None:
        message = _message.decode(frame.payload)
        if not message.topic:
            if not message.success or not message.op:
                detail = f"answer {message.op!r} {message.ret_msg}"
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail.rstrip())
            return
        venue = self.venues.get(frame.connection, SPOT)
        kind, _, rest = message.topic.partition(".")
        match kind:
            case "orderbook":
                self._orderbook(venue, rest.partition(".")[0], message, frame, out)
            case "publicTrade":
                self._trade(venue, message, out)
            case "tickers":
                self._ticker(venue, rest, message, out)
            case "allLiquidation":
                self._liquidations(venue, _liquidations.decode(message.data), out)
            case "liquidation":
                old = _old_liquidation.decode(message.data)
                one = Liquidation(old.updatedTime, old.symbol, old.side, old.size, old.price)
                self._liquidations(venue, [one], out)
            case _ if kind not in _SILENT_TOPICS:
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"topic {message.topic!r}")

    def _http(self, frame: Frame) -> None:
        """``/v5/market/instruments-info?category=linear``:

        {"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[{"symbol":"0GUSDT",
         "contractType":"LinearPerpetual","status":"Trading","baseCoin":"0G","quoteCoin":"USDT",
         "settleCoin":"USDT","priceFilter":{"minPrice":"0.0001","tickSize":"0.0001"},
         "lotSizeFilter":{"qtyStep":"0.1"}}]},"time":1786310817733}
        """
        if "/market/instruments-info" not in frame.note:
            return
        answer = _answer.decode(frame.payload)
        category = answer.result.category
        venue = VENUES.get(category)
        for item in answer.result.instruments if venue else ():
            lot = item.lotSizeFilter
            facts = Facts(
                ms_ns(answer.time) or frame.ts_recv,
                price_increment=item.priceFilter.tickSize,
                size_increment=lot.qtyStep or lot.basePrecision,
                is_inverse=None if venue == SPOT else category == "inverse",
                base_currency=item.baseCoin,
                quote_currency=item.quoteCoin,
                settlement_currency=item.settleCoin,
                status=_STATUS.get(item.status, MarketStatus.UNKNOWN),
            )
            self.list_instrument(item.symbol, facts, venue)

    def _orderbook(
        self, venue: str, depth: str, message: Message, frame: Frame, out: EventBuilder
    ) -> None:
        """``cts`` is the matching engine's time, ``ts`` the sender's (alone before 2024).

        {"topic":"orderbook.200.BTCUSDT","type":"delta","ts":1786310818130,"data":{"s":"BTCUSDT",
         "b":[["65095.30","0.005"]],"a":[["65116.60","0"]],"u":15076953,"seq":753843913870},
         "cts":1786310818129}
        """
        book = _book.decode(message.data)
        snapshot = message.type == "snapshot" or book.u == _RESTART
        ts_event = ms_ns(message.cts or message.ts)
        key = venue, book.s
        instrument = self.instrument(out, book.s, venue)
        if depth == "1":
            bid, ask = (None, None) if snapshot else self.tops.get(key, (None, None))
            bid = _best(_top.decode(book.b), bid)
            ask = _best(_top.decode(book.a), ask)
            self.tops[key] = bid, ask
            out.venue_quote(instrument, ts_event, bid, ask, sequence=book.u)
        elif self.keeps_book(venue, book.s, depth, frame):
            out.begin(instrument, ts_event, last=book.u, snapshot=snapshot)
            out.levels(Side.BID, book.b)
            out.levels(Side.ASK, book.a)
            out.end()

    def _trade(self, venue: str, message: Message, out: EventBuilder) -> None:
        """``S`` is the aggressor's side; ``i`` a UUID (contracts) or a number (spot).

        {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1786310819681,"data":[{
         "T":1786310819680,"s":"BTCUSDT","S":"Sell","v":"0.004","p":"65114.20","L":"MinusTick",
         "i":"a9188a0a-82bc-50de-be60-03eedbe3cdd7","BT":false,"RPI":false,"seq":753843919382}]}
        """
        for trade in _trades.decode(message.data):
            aggressor = _AGGRESSORS.get(trade.S)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"trade {trade.i} of side {trade.S!r}")
                continue
            out.trade(
                self.instrument(out, trade.s, venue),
                ms_ns(trade.T),
                trade.p,
                trade.v,
                aggressor,
                trade.i,
                sequence=trade.seq,
            )

    def _ticker(self, venue: str, symbol: str, message: Message, out: EventBuilder) -> None:
        """A snapshot, then deltas with the fields that changed; of spot always a snapshot, and
        without best prices.

        {"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT",
         "lastPrice":"65114.30","markPrice":"65117.44","indexPrice":"65137.76",
         "openInterest":"59891.732","nextFundingTime":"1786320000000","fundingRate":"0.0001",
         "bid1Price":"65114.20","bid1Size":"5.954","ask1Price":"65114.30","ask1Size":"10.470"},
         "cs":753843907770,"ts":1786310817883}
        {"topic":"tickers.DOGEUSDT","type":"delta","data":{"symbol":"DOGEUSDT",
         "ask1Price":"0.07054","ask1Size":"15919"},"cs":340051122706,"ts":1786310819234}
        """
        data = _ticker.decode(message.data)
        changed = {name: _text.decode(data[name]) for name in _QUOTE + _FUNDING if name in data}
        key = venue, symbol
        if message.type == "snapshot":
            self.tickers[key] = changed
        now = self.tickers.setdefault(key, {})
        now.update(changed)
        ts_event = ms_ns(message.ts)
        instrument = self.instrument(out, symbol, venue)
        if venue == SPOT:
            return
        if not changed.keys().isdisjoint(_QUOTE):
            bid = now.get("bid1Price", ""), now.get("bid1Size", "")
            ask = now.get("ask1Price", ""), now.get("ask1Size", "")
            out.venue_quote(
                instrument, ts_event, bid if all(bid) else None, ask if all(ask) else None
            )
        if not changed.keys().isdisjoint(_FUNDING):
            out.row(
                "funding",
                instrument,
                ts_event,
                rate=now.get("fundingRate") or None,
                ts_next=ms_ns(now.get("nextFundingTime") or 0),
                mark_price=now.get("markPrice") or None,
                index_price=now.get("indexPrice") or None,
            )
        if "openInterest" in data:
            self.statistics(
                out, instrument, ts_event, open_interest=_text.decode(data["openInterest"])
            )

    def _liquidations(self, venue: str, rows: list[Liquidation], out: EventBuilder) -> None:
        """Rows of statistics named by the side of the order: ``S`` is that of the position, which
        the order closes. ``value`` is the size, the price is in ``text``.

        {"topic":"allLiquidation.PIPPINUSDT","type":"snapshot","ts":1740480207578,"data":[{
         "T":1740480207110,"s":"PIPPINUSDT","S":"Sell","v":"2846","p":"0.02456"}]}
        """
        for row in rows:
            position = _AGGRESSORS.get(row.S)
            if position is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"liquidation of side {row.S!r}")
                continue
            out.row(
                "statistics",
                self.instrument(out, row.s, venue),
                ms_ns(row.T),
                kind="liquidation_sell" if position is AggressorSide.BUY else "liquidation_buy",
                value=row.v,
                text=f"price {row.p}",
            )
