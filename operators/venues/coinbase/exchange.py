"""Coinbase Exchange (formerly GDAX, Coinbase Pro): ``wss://ws-feed.exchange.coinbase.com``.

Source: Coinbase Exchange WebSocket channels (level2, level2_batch, matches, ticker, status,
heartbeat) and REST "Get all known trading pairs".

Continuity: level2 messages carry no number; the venue promises to deliver every one of them, and
a lost one cannot be seen. ``sequence`` of matches and tickers counts the whole order flow of a
product, most of which these channels do not carry.

Aggressor: ``side`` of a match is the maker's, so the aggressor is the other side.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_SIDES: Final = {"buy": Side.BID, "sell": Side.ASK}
_AGGRESSORS: Final = {"buy": AggressorSide.SELL, "sell": AggressorSide.BUY}
_STATUS: Final = {
    "online": MarketStatus.OPEN,
    "offline": MarketStatus.CLOSED,
    "internal": MarketStatus.CLOSED,
    "delisted": MarketStatus.DELISTED,
}
_SILENT: Final = frozenset({"subscriptions", "heartbeat"})
#: The level3 ("full") channel, of which only the matches are read.
_SILENT_FULL: Final = frozenset({"received", "open", "done", "change", "activate"})


class Tag(msgspec.Struct):
    type: str
    message: str = ""


class Snapshot(msgspec.Struct):
    product_id: str
    bids: msgspec.Raw
    asks: msgspec.Raw
    time: str | None = None


class Update(msgspec.Struct):
    product_id: str
    changes: list[tuple[str, str, str]]
    time: str | None = None


class Match(msgspec.Struct):
    product_id: str
    trade_id: int
    side: str
    size: str
    price: str
    time: str
    sequence: int


class Ticker(msgspec.Struct):
    product_id: str
    sequence: int
    time: str = ""  # the first ticker after subscribing had none before 2019
    best_bid: str = ""
    best_bid_size: str = ""
    best_ask: str = ""
    best_ask_size: str = ""


class Product(msgspec.Struct):
    id: str
    status: str = ""
    status_message: str | None = None
    base_currency: str | None = None
    quote_currency: str | None = None
    base_increment: str | None = None
    quote_increment: str | None = None


class Status(msgspec.Struct):
    products: list[Product]


_tag: Final = msgspec.json.Decoder(Tag)
_snapshot: Final = msgspec.json.Decoder(Snapshot)
_update: Final = msgspec.json.Decoder(Update)
_match: Final = msgspec.json.Decoder(Match)
_ticker: Final = msgspec.json.Decoder(Ticker)
_status: Final = msgspec.json.Decoder(Status)
_products: Final = msgspec.json.Decoder(list[Product])


class CoinbaseExchange(ListedVenue):
    """Symbols as sent: ``BTC-USD``."""

    VENUE = "COINBASE_EXCHANGE"
    RULES = BookRules(snapshot_rule=SnapshotRule.IN_STREAM, bbo_tolerance=8)
    STATE = (*ListedVenue.STATE, "newest_time", "newest_trade", "statuses")

    def __init__(self) -> None:
        super().__init__()
        #: Product -> time of its last update, for messages that have none.
        self.newest_time: dict[str, int] = {}
        #: Product -> highest trade id seen.
        self.newest_trade: dict[str, int] = {}
        #: Product that the feed carries -> its last status told.
        self.statuses: dict[str, str] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind != FrameKind.DATA:
            return
        tag = _tag.decode(frame.payload)
        match tag.type:
            case "l2update":
                self._l2update(frame, out)
            case "match" | "last_match":
                self._match(tag.type, frame, out)
            case "ticker":
                self._ticker(frame, out)
            case "snapshot":
                self._snapshot(frame, out)
            case "status":
                self._status(frame, out)
            case kind if kind not in _SILENT and kind not in _SILENT_FULL:
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"type {kind!r} {tag.message}".rstrip())

    def _carried(self, product: str, out: EventBuilder) -> int:
        self.statuses.setdefault(product, "")
        return self.instrument(out, product)

    def _time(self, product: str, text: str | None) -> int:
        """The message's time; else (none, or year 1) the product's last one, else 0."""
        ts_event = rfc3339_ns(text) if text else 0
        if ts_event:
            self.newest_time[product] = ts_event
        return ts_event or self.newest_time.get(product, 0)

    def _http(self, frame: Frame) -> None:
        """``/products``:

        [{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","quote_increment":"0.01",
          "base_increment":"0.00000001","status":"online","status_message":""}]
        """
        if not frame.note.partition("?")[0].endswith("/products"):
            return
        for product in _products.decode(frame.payload):
            facts = Facts(
                frame.ts_recv,
                price_increment=product.quote_increment,
                size_increment=product.base_increment,
                base_currency=product.base_currency,
                quote_currency=product.quote_currency,
                status=_STATUS.get(product.status, MarketStatus.UNKNOWN),
            )
            self.list_instrument(product.id, facts)

    def _snapshot(self, frame: Frame, out: EventBuilder) -> None:
        """Has no time (since 2022 it does).

        {"product_id":"BAT-USDC","type":"snapshot","bids":[["0.247175","5299"]],
         "asks":[["0.257175","12"]]}
        """
        snapshot = _snapshot.decode(frame.payload)
        product = snapshot.product_id
        ts_event = self._time(product, snapshot.time)
        out.begin(self._carried(product, out), ts_event, snapshot=True)
        out.levels(Side.BID, bytes(snapshot.bids))
        out.levels(Side.ASK, bytes(snapshot.asks))
        out.end()

    def _l2update(self, frame: Frame, out: EventBuilder) -> None:
        """Changes are [side, price, new size].

        {"type":"l2update","product_id":"BTC-EUR","time":"2019-08-01T00:00:03.818Z",
         "changes":[["sell","9202.54000000","0.432"]]}
        """
        update = _update.decode(frame.payload)
        product = update.product_id
        out.begin(self._carried(product, out), self._time(product, update.time))
        for word, price, size in update.changes:
            side = _SIDES.get(word)
            if side is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"change on side {word!r}")
                continue
            out.level(side, price, size)
        out.end()

    def _match(self, kind: str, frame: Frame, out: EventBuilder) -> None:
        """``last_match`` repeats the newest trade on subscribing: it is taken only after a
        reconnect that missed it.

        {"type":"match","trade_id":216544,"maker_order_id":"4c2aa376-4bda-4947-84ee-4dc5a6337cba",
         "taker_order_id":"247a6eb2-b5c1-42db-b0ac-cb74b85bcac8","side":"buy",
         "size":"0.97133855","price":"4.97800000","product_id":"ETC-GBP",
         "sequence":253395153,"time":"2019-08-01T00:00:03.816000Z"}
        """
        match = _match.decode(frame.payload)
        product = match.product_id
        newest = self.newest_trade.get(product)
        self.newest_trade[product] = max(match.trade_id, newest or 0)
        if kind == "last_match" and (newest is None or match.trade_id <= newest):
            return
        aggressor = _AGGRESSORS.get(match.side)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"match of side {match.side!r}")
            return
        out.trade(
            self._carried(product, out),
            rfc3339_ns(match.time),
            match.price,
            match.size,
            aggressor,
            match.trade_id,
            sequence=match.sequence,
        )

    def _ticker(self, frame: Frame, out: EventBuilder) -> None:
        """Best prices after a match. Before 2022 without sizes: statistics, not a quote.

        {"type":"ticker","sequence":50978628538,"product_id":"BTC-USD","price":"17165.16",
         "best_bid":"17165.15","best_bid_size":"0.61540890","best_ask":"17167.76",
         "best_ask_size":"0.18528568","side":"sell","time":"2022-12-01T00:00:00.122581Z",
         "trade_id":463751434,"last_size":"0.05"}
        """
        ticker = _ticker.decode(frame.payload)
        instrument = self._carried(ticker.product_id, out)
        ts_event = rfc3339_ns(ticker.time) if ticker.time else 0
        bid = (ticker.best_bid, ticker.best_bid_size)
        ask = (ticker.best_ask, ticker.best_ask_size)
        if not (all(bid) or all(ask)):
            self.statistics(out, instrument, ts_event, best_bid=bid[0], best_ask=ask[0])
            return
        out.venue_quote(
            instrument,
            ts_event,
            bid if all(bid) else None,
            ask if all(ask) else None,
            sequence=ticker.sequence,
        )

    def _status(self, frame: Frame, out: EventBuilder) -> None:
        """Every product every five seconds: a row when the status of a carried one changes.

        {"type":"status","products":[{"id":"BTC-USD","base_currency":"BTC",
         "quote_currency":"USD","base_increment":"0.00000001","quote_increment":"0.01",
         "status":"online","status_message":""}],"currencies":[]}
        """
        for product in _status.decode(frame.payload).products:
            if self.statuses.get(product.id, product.status) == product.status:
                continue
            self.statuses[product.id] = product.status
            out.row(
                "market_status",
                self._carried(product.id, out),
                0,
                status=_STATUS.get(product.status, MarketStatus.UNKNOWN),
                reason=product.status_message or product.status,
            )
