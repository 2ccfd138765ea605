"""Binance spot, USD-M and COIN-M futures, and Binance.US, which speaks as spot does: WebSocket
streams, combined or bare, and REST answers.

Source: Binance Open Platform, "WebSocket Streams" of the Spot, USDⓈ-M and COIN-M APIs, checked
against recordings of 2019, 2021, 2024. This is the exact decoder of every message; the byte scan
in :mod:`operators.venues.binance.kernels.scan` takes over the most common shapes and must give the
same rows.

Times are milliseconds, or microseconds where the stream was asked for them (16 digits). ts_event:
a trade's ``T``; everything else ``E``. Spot's bookTicker and REST book have neither and say 0, "not
known", and the books show the later of arrival and their latest event time: arrival itself is
another clock (1.2 s behind in one recording), which would make every other message late.
Sequences: ``u`` of books and quotes, the trade id of trades.

Decisions:

- ``trade`` beats ``aggTrade``: once a symbol has sent a ``trade``, its aggTrades are left out, or
  every print would be there twice.
- A futures ``trade`` whose ``X`` is not MARKET (insurance fund, ADL) is no print: it becomes a
  ``statistics`` row. Binance leaves these out of its own aggregate trades.
- A REST book names no symbol: it is taken from the URL, else the stream, else the only symbol
  that has sent depth so far.
- Partial depth (``@depth5``, ``@depth10``, ``@depth20``) is a full book each time. The streams
  that a connection asked for, or the symbol's first message, decide how its book is kept; a symbol
  with both kinds is kept from the differences, and the partial books are left out.
- An empty side of a bookTicker has size 0.
- ``m`` (the buyer is the maker) true: the seller was the aggressor.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import BookType, Continuity, EventKind, SnapshotRule
from marketflow.operators.kernels.numbers import OK
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import TimestampError
from marketflow.operators.numbers import exact
from marketflow.operators.venues.base.listing import ListedVenue
from marketflow.operators.venues.binance import messages
from marketflow.operators.venues.binance.kernels.scan import (
    DIFF_DEPTH,
    MAX_MS,
    MAX_US,
    MIN_US,
    PARTIAL_RULES,
    PARTIAL_SHOWN,
    RAW_TRADES,
)
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NS_PER_MS, NS_PER_US

VENUES: Final = {
    "spot": "BINANCE",
    "us": "BINANCE_US",
    "usdm": "BINANCE_USDM",
    "coinm": "BINANCE_COINM",
}
#: Markets of the spot protocol.
SPOT: Final = frozenset({"spot", "us"})

_IGNORED: Final = frozenset(
    {"kline", "continuous_kline", "indexPrice_kline", "markPrice_kline", "24hrTicker"}
    | {"24hrMiniTicker", "1hTicker", "4hTicker", "1dTicker", "avgPrice", "compositeIndex"}
    | {"assetIndex", "contractInfo", "indexPriceUpdate", "serverShutdown"}
)
_IGNORED_URL: Final = re.compile(r"/(ping|time|[a-zA-Z]*[kK]lines|ticker/?\w*|trades|aggTrades)\b")
_URL_SYMBOL: Final = re.compile(r"[?&]symbol=([^&#]+)")
_DEPTH_STREAM: Final = re.compile(r"([a-z0-9_]+)@depth(5|10|20)?(?=[@/\"&]|$)")
_PARTIAL: Final = re.compile(r"depth(5|10|20)(@|$)")


def time_ns(value: int) -> int:
    """A Binance time to ns; TimestampError if it is neither ms nor µs of 1970..2262."""
    if 0 < value <= MAX_MS:
        return value * NS_PER_MS
    if MIN_US <= value <= MAX_US:
        return value * NS_PER_US
    raise TimestampError(f"time {value} is neither milliseconds nor microseconds")


def _is_zero(text: str) -> bool:
    return not text.strip("0.") and exact(text)[::2] == (0, OK)


class Binance(ListedVenue):
    """One market of Binance."""

    STATE = (*ListedVenue.STATE, "facts", "partial_symbols")

    def __init__(self, market: str = "spot") -> None:
        super().__init__()
        if market not in VENUES:
            raise ValueError(f"market {market!r} is not one of {', '.join(VENUES)}")
        self.market = market
        self.VENUE = VENUES[market]
        chain = Continuity.FIRST_FOLLOWS if market in SPOT else Continuity.PREVIOUS_EQUALS
        self.RULES = BookRules(BookType.L2, chain, SnapshotRule.SPLICE, first_overlap=1)
        #: By instrument: bits of what it has sent.
        self.facts: NDArray[np.uint8] = np.zeros(64, np.uint8)
        self.partial_symbols: set[str] = set()
        self._handlers = {
            "depthUpdate": self._depth,
            "trade": self._trade,
            "aggTrade": self._agg_trade,
            "bookTicker": self._book_ticker,
            "markPriceUpdate": self._mark_price,
            "forceOrder": self._force_order,
        }

    def rules(self, venue: str, symbol: str) -> BookRules:
        """Every message is a full book where only partial depth was asked for."""
        if symbol in self.partial_symbols:
            return BookRules(BookType.L2, Continuity.NONE, SnapshotRule.EVERY)
        return self.RULES

    def instrument(self, out: EventBuilder, symbol: str, venue: str | None = None) -> int:
        """Index of the instrument; its first use makes room for its facts."""
        index = super().instrument(out, symbol, venue)
        if index >= len(self.facts):
            facts = np.zeros(2 * index, np.uint8)
            facts[: len(self.facts)] = self.facts
            self.facts = facts
        if symbol in self.partial_symbols:
            self.facts[index] |= PARTIAL_RULES
        return index

    def message(self, frame: Frame, out: EventBuilder) -> None:
        """See the handlers for the shapes."""
        match frame.kind:
            case FrameKind.DATA:
                self._data(frame, out)
            case FrameKind.HTTP:
                self._http(frame, out)
            case FrameKind.CONNECT | FrameKind.SENT:
                self._streams(frame.note + frame.payload.decode(), out)

    def _streams(self, text: str, out: EventBuilder) -> None:
        """Note the streams that a connection asks for, by URL or SUBSCRIBE message."""
        found = _DEPTH_STREAM.findall(text)
        partial = {name.upper() for name, levels in found if levels}
        full = {name.upper() for name, levels in found if not levels}
        self.partial_symbols |= {s for s in partial - full if out.known(s) is None}

    def _data(self, frame: Frame, out: EventBuilder) -> None:
        """``{"stream":"btcusdt@trade","data":{...}}``, or ``{...}`` alone, or an array of them."""
        if frame.payload.lstrip()[:1] == b"[":
            self._many("", frame.payload, frame, out)
            return
        head = messages.head.decode(frame.payload)
        body = bytes(head.data).lstrip()
        if not body:
            self._body("", frame.payload, head, frame, out)
        elif body[:1] == b"[":
            self._many(head.stream, body, frame, out)
        else:
            self._body(head.stream, body, messages.head.decode(body), frame, out)

    def _many(self, stream: str, payload: bytes, frame: Frame, out: EventBuilder) -> None:
        """``!markPrice@arr`` and its like: one array, many instruments."""
        for raw in messages.many.decode(payload):
            body = bytes(raw)
            self._body(stream, body, messages.head.decode(body), frame, out)

    def _body(
        self, stream: str, body: bytes, head: messages.Head, frame: Frame, out: EventBuilder
    ) -> None:
        name, _, channel = stream.partition("@")
        handler = self._handlers.get(head.e)
        if handler is not None:
            if head.e == "depthUpdate" and _PARTIAL.match(channel):
                self._partial_update(body, out)
            else:
                handler(body, frame, out)
        elif head.e in _IGNORED:
            return
        elif head.e:
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"event {head.e!r}")
        elif head.u is not None and head.s:
            self._book_ticker(body, frame, out)
        elif head.lastUpdateId is not None:
            self._book(body, name.upper(), bool(_PARTIAL.match(channel)), frame, out)
        elif head.openInterest is not None:
            self._open_interest(body, frame, out)
        elif not head.acknowledges:
            text = f"error answer {head.code} {head.msg}" if head.msg else "no event type"
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, text)

    def _http(self, frame: Frame, out: EventBuilder) -> None:
        """``…/exchangeInfo``, ``…/depth?symbol=NKNUSDT&limit=1000``, ``…/openInterest?symbol=``."""
        path = frame.note.partition("?")[0]
        if path.endswith("/exchangeInfo"):
            for symbol, facts in messages.listing(self.market, frame):
                index = out.known(symbol)
                self.list_instrument(symbol, facts)
                if index is not None:
                    self.instrument(out, symbol)
        elif not _IGNORED_URL.search(path):
            head = messages.head.decode(frame.payload)
            match = _URL_SYMBOL.search(frame.note)
            symbol = match[1].upper() if match else ""
            if head.lastUpdateId is not None:
                self._book(frame.payload, symbol, False, frame, out)
            else:
                self._body("", frame.payload, head, frame, out)

    def _levels(self, bids: msgspec.Raw, asks: msgspec.Raw, out: EventBuilder) -> None:
        out.levels(Side.BID, bids)
        out.levels(Side.ASK, asks)
        out.end()

    def _depth(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """Differences; futures add T and pu, COIN-M ps.

        {"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239189,"u":50093239202,
         "b":[["61737.63000000","0.00000000"]],"a":[["61837.64000000","1.54698000"]]}
        """
        depth = messages.depth.decode(body)
        instrument = self.instrument(out, depth.s)
        facts = int(self.facts[instrument])
        if facts & PARTIAL_RULES:
            return
        if facts & PARTIAL_SHOWN:
            # The book holds the partial levels only: differences do not continue it.
            out.feed_row(EventKind.DISCONNECT, instrument)
        self.facts[instrument] = (facts | DIFF_DEPTH) & ~PARTIAL_SHOWN
        out.begin(instrument, time_ns(depth.E), first=depth.U, last=depth.u, previous=depth.pu)
        self._levels(depth.b, depth.a, out)

    def _partial_update(self, body: bytes, out: EventBuilder) -> None:
        """Partial depth of futures looks like differences; only the stream's name tells."""
        depth = messages.depth.decode(body)
        instrument = self._partial(depth.s, out)
        if instrument is not None:
            out.begin(instrument, time_ns(depth.E), last=depth.u, snapshot=True)
            self._levels(depth.b, depth.a, out)

    def _partial(self, symbol: str, out: EventBuilder) -> int | None:
        """Index of a symbol with partial depth; None if its book is kept from differences."""
        if out.known(symbol) is None:
            self.partial_symbols.add(symbol)
        instrument = self.instrument(out, symbol)
        if self.facts[instrument] & DIFF_DEPTH:
            return None
        if not self.facts[instrument] & PARTIAL_RULES:
            self.facts[instrument] |= PARTIAL_SHOWN
        return instrument

    def _book(
        self, body: bytes, symbol: str, partial: bool, frame: Frame, out: EventBuilder
    ) -> None:
        """A whole book: a REST answer, or spot's partial depth.

        {"lastUpdateId":5123107852948,"E":1723161256501,"T":1723161256493,"bids":[...],"asks":[]}
        """
        book = messages.book.decode(body)
        symbol = symbol or book.symbol
        index: int | None
        if not symbol:
            senders = np.flatnonzero(self.facts & DIFF_DEPTH).tolist()
            if len(senders) != 1:
                detail = "a depth snapshot that names no symbol, "
                detail += "and several symbols have sent depth" if senders else "before any depth"
                out.dead(DeadLetterReason.UNKNOWN_INSTRUMENT, detail)
                return
            index = senders[0]
        else:
            index = self._partial(symbol, out) if partial else self.instrument(out, symbol)
        if index is None:
            return
        ts_event = time_ns(book.E) if book.E else 0
        out.begin(index, ts_event, last=book.lastUpdateId, snapshot=True)
        self._levels(book.bids, book.asks, out)

    def _trade(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000",
        "q":"0.02000000","T":1723161255342,"m":true,"M":true}
        """
        trade = messages.trade.decode(body)
        instrument = self.instrument(out, trade.s)
        self.facts[instrument] |= RAW_TRADES
        ts_event = time_ns(trade.T)
        if trade.X != "MARKET":
            text = f"{trade.X} id {trade.t} size {trade.q}"
            out.row(
                "statistics",
                instrument,
                ts_event,
                kind="trade_off_market",
                value=trade.p,
                text=text,
            )
            return
        side = AggressorSide.SELL if trade.m else AggressorSide.BUY
        out.trade(instrument, ts_event, trade.p, trade.q, side, trade.t, sequence=trade.t)

    def _agg_trade(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000",
        "q":"58.00000000","f":19862790,"l":19862790,"T":1633998523963,"m":false,"M":true}
        """
        trade = messages.agg_trade.decode(body)
        instrument = self.instrument(out, trade.s)
        ts_event = time_ns(trade.T)
        if not self.facts[instrument] & RAW_TRADES:
            side = AggressorSide.SELL if trade.m else AggressorSide.BUY
            out.trade(instrument, ts_event, trade.p, trade.q, side, trade.a, sequence=trade.a)

    def _book_ticker(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000",
        "a":"61837.64000000","A":"1.54698000"}; futures add e, T and E, COIN-M ps.
        """
        quote = messages.book_ticker.decode(body)
        instrument = self.instrument(out, quote.s)
        bid = None if _is_zero(quote.B) else (quote.b, quote.B)
        ask = None if _is_zero(quote.A) else (quote.a, quote.A)
        ts_event = time_ns(quote.E) if quote.E else 0
        out.venue_quote(instrument, ts_event, bid, ask, sequence=quote.u)

    def _mark_price(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """{"e":"markPriceUpdate","E":1597536008000,"s":"BTCUSDT","p":"11857.56000000",
        "i":"11851.86949091","r":"0.00015640","T":1597564800000}; r "" and T 0: not a perpetual.
        """
        mark = messages.mark_price.decode(body)
        out.row(
            "funding",
            self.instrument(out, mark.s),
            time_ns(mark.E),
            rate=mark.r or None,
            ts_next=time_ns(mark.T) if mark.T else None,
            mark_price=mark.p,
            index_price=mark.i or None,
        )

    def _force_order(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """A liquidation: ``value`` is the filled quantity, the rest is in ``text``.

        {"e":"forceOrder","E":1584059031426,"o":{"s":"BTCUSDT","S":"BUY","o":"LIMIT","f":"IOC",
         "q":"0.014","p":"4793.91","ap":"4706.04","X":"FILLED","l":"0.014","z":"0.014",
         "T":1584059031421}}
        """
        order = messages.force_order.decode(body).o
        out.row(
            "statistics",
            self.instrument(out, order.s),
            time_ns(order.T),
            kind=f"liquidation_{order.S.lower()}",
            value=order.z,
            text=f"quantity {order.q} price {order.p} average {order.ap} {order.X}",
        )

    def _open_interest(self, body: bytes, frame: Frame, out: EventBuilder) -> None:
        """{"openInterest":"26286.181","symbol":"BTCUSDT","time":1589437530011}"""
        interest = messages.open_interest.decode(body)
        values: dict[str, Any] = {"kind": "open_interest", "value": interest.openInterest}
        ts_event = time_ns(interest.time) if interest.time else frame.ts_recv
        out.row("statistics", self.instrument(out, interest.symbol), ts_event, **values)


def us() -> Binance:
    """Binance.US."""
    return Binance("us")


def usdm() -> Binance:
    """USD-M futures."""
    return Binance("usdm")


def coinm() -> Binance:
    """COIN-M futures."""
    return Binance("coinm")
