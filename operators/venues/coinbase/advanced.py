"""Coinbase Advanced Trade: WebSocket channels of ``wss://advanced-trade-ws.coinbase.com``.

Source: Coinbase Developer Platform, Advanced Trade WebSocket channels (level2, market_trades,
ticker, status) and REST "List Public Products", checked against a recording of August 2026.

Continuity: ``sequence_num`` counts the messages of one *connection* over all its channels, so one
lost message may belong to any book of that connection. It is turned into a chain per product: an
update names as ``previous`` the sequence_num of the product's last level2 message as long as the
connection has lost nothing since, and after it has, the sequence_num before its own, which the
book has not seen. One lost message therefore makes every book of that connection stale at its own
next update, and no other book.

Aggressor: ``side`` of a market trade is the *maker's* side, so the aggressor is the other one
(in the recording 74 of 78 updates print "SELL" near the kept book's ask or "BUY" near its bid).
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import Continuity, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_SIDES: Final = {"bid": Side.BID, "offer": Side.ASK}
_AGGRESSORS: Final = {"BUY": AggressorSide.SELL, "SELL": AggressorSide.BUY}
_STATUS: Final = {"online": MarketStatus.OPEN, "delisted": MarketStatus.DELISTED}
_SILENT: Final = frozenset({"subscriptions", "heartbeats", "candles"})
_PRODUCTS_URL: Final = "/market/products"


class Message(msgspec.Struct):
    channel: str
    timestamp: str
    sequence_num: int
    events: msgspec.Raw


class Update(msgspec.Struct):
    side: str
    event_time: str
    price_level: msgspec.Raw
    new_quantity: msgspec.Raw


class BookEvent(msgspec.Struct):
    type: str
    product_id: str
    updates: list[Update]


class Trade(msgspec.Struct):
    product_id: str
    trade_id: int  # sent as a string
    price: str
    size: str
    time: str
    side: str


class TradesEvent(msgspec.Struct):
    type: str
    trades: list[Trade]


class Ticker(msgspec.Struct):
    product_id: str
    best_bid: str = ""
    best_bid_quantity: str = ""
    best_ask: str = ""
    best_ask_quantity: str = ""


class TickerEvent(msgspec.Struct):
    tickers: list[Ticker]


class StatusProduct(msgspec.Struct):
    id: str
    status: str
    status_message: str = ""


class StatusEvent(msgspec.Struct):
    products: list[StatusProduct]


class Product(msgspec.Struct):
    product_id: str
    status: str = ""
    price_increment: str | None = None
    base_increment: str | None = None
    base_currency_id: str | None = None
    quote_currency_id: str | None = None


class Products(msgspec.Struct):
    products: list[Product]


_message: Final = msgspec.json.Decoder(Message)
_books: Final = msgspec.json.Decoder(list[BookEvent])
_trades: Final = msgspec.json.Decoder(list[TradesEvent], strict=False)
_tickers: Final = msgspec.json.Decoder(list[TickerEvent])
_status: Final = msgspec.json.Decoder(list[StatusEvent])
_products: Final = msgspec.json.Decoder(Products)


class Coinbase(ListedVenue):
    """Symbols as sent: ``BTC-USD``."""

    VENUE = "COINBASE"
    RULES = BookRules(
        continuity=Continuity.PREVIOUS_EQUALS,
        snapshot_rule=SnapshotRule.IN_STREAM,
        # Tickers and books race: in the recording up to 5 updates ahead or behind.
        bbo_tolerance=8,
    )
    STATE = (*ListedVenue.STATE, "last", "chains", "newest_trade", "history_end", "statuses")

    def __init__(self) -> None:
        super().__init__()
        #: Connection -> its last sequence_num.
        self.last: dict[str, int] = {}
        #: Connection -> product -> sequence_num of its last level2 message in this chain.
        self.chains: dict[str, dict[str, int]] = {}
        #: Product -> highest trade id seen.
        self.newest_trade: dict[str, int] = {}
        #: Product -> highest trade id of the last history sent on subscribing.
        self.history_end: dict[str, int] = {}
        #: Product that the feed carries -> its last status told.
        self.statuses: dict[str, str] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.last.pop(frame.connection, None)
            self.chains.pop(frame.connection, None)
            return
        if frame.kind != FrameKind.DATA:
            return
        message = _message.decode(frame.payload)
        self._chain(frame.connection, message.sequence_num)
        match message.channel:
            case "l2_data":
                self._l2_data(frame.connection, message, out)
            case "market_trades":
                self._market_trades(message, out)
            case "ticker" | "ticker_batch":
                self._ticker(message, out)
            case "status":
                self._status(message, out)
            case channel if channel not in _SILENT:
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _chain(self, connection: str, sequence: int) -> None:
        """Note a message of the connection; a lost one breaks the chain of all its books, a
        repeated one does not."""
        last = self.last.get(connection)
        self.last[connection] = sequence
        if last is not None and sequence not in (last, last + 1):
            self.chains.pop(connection, None)

    def _carried(self, product: str, out: EventBuilder) -> int:
        self.statuses.setdefault(product, "")
        return self.instrument(out, product)

    def _http(self, frame: Frame) -> None:
        """``/api/v3/brokerage/market/products``:

        {"products":[{"product_id":"BTC-USD","price":"65086.18","base_increment":"0.00000001",
         "quote_increment":"0.01","price_increment":"0.01","status":"online",
         "product_type":"SPOT","quote_currency_id":"USD","base_currency_id":"BTC"}]}
        """
        if _PRODUCTS_URL not in frame.note:
            return
        for product in _products.decode(frame.payload).products:
            facts = Facts(
                frame.ts_recv,
                price_increment=product.price_increment,
                size_increment=product.base_increment,
                base_currency=product.base_currency_id,
                quote_currency=product.quote_currency_id,
                status=_STATUS.get(product.status, MarketStatus.UNKNOWN),
            )
            self.list_instrument(product.product_id, facts)

    def _l2_data(self, connection: str, message: Message, out: EventBuilder) -> None:
        """A snapshot, then the new size of each level that changed ("0": gone).

        {"channel":"l2_data","timestamp":"2026-08-09T21:05:48.899Z","sequence_num":36,
         "events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"offer",
         "event_time":"2026-08-09T21:05:48.854Z","price_level":"65091.5",
         "new_quantity":"0.5"}]}]}
        """
        chain = self.chains.setdefault(connection, {})
        for event in _books.decode(message.events):
            product = event.product_id
            previous = chain.get(product, message.sequence_num - 1)
            chain[product] = message.sequence_num
            # All levels of an event bear one time; where that is 1970, the message's own counts.
            ts_event = max(map(rfc3339_ns, {u.event_time for u in event.updates}), default=0)
            out.begin(
                self._carried(product, out),
                ts_event or rfc3339_ns(message.timestamp),
                last=message.sequence_num,
                previous=previous,
                snapshot=event.type == "snapshot",
            )
            # As arrays, which are scanned at once: a snapshot has tens of thousands of levels.
            sides: dict[Side, list[bytes]] = {Side.BID: [], Side.ASK: []}
            for update in event.updates:
                side = _SIDES.get(update.side)
                if side is None:
                    out.dead(DeadLetterReason.BAD_SIDE, f"level on side {update.side!r}")
                    continue
                sides[side].append(b"[%b,%b]" % (update.price_level, update.new_quantity))
            for side, levels in sides.items():
                out.levels(side, b"[%b]" % b",".join(levels))
            out.end()

    def _market_trades(self, message: Message, out: EventBuilder) -> None:
        """Newest first, here put in order of time.

        The snapshot sent on subscribing is history. Nothing of the first one is taken (the
        recording starts now); of later ones, after a reconnect, only what was missed.

        {"channel":"market_trades","timestamp":"2026-08-09T21:05:49.11Z","sequence_num":44,
         "events":[{"type":"update","trades":[{"product_id":"BTC-USD",
         "trade_id":"1068572091","price":"65091.5","size":"0.00149955",
         "time":"2026-08-09T21:05:48.80Z","side":"SELL"}]}]}
        """
        for event in _trades.decode(message.events):
            is_history = event.type == "snapshot"
            known = dict(self.newest_trade) if is_history else self.history_end
            for trade in reversed(event.trades):
                product, number = trade.product_id, trade.trade_id
                self.newest_trade[product] = max(number, self.newest_trade.get(product, 0))
                if is_history:
                    self.history_end[product] = max(number, self.history_end.get(product, 0))
                if number > known.get(product, number if is_history else 0):
                    self._trade(trade, message.sequence_num, out)

    def _trade(self, trade: Trade, sequence: int, out: EventBuilder) -> None:
        aggressor = _AGGRESSORS.get(trade.side)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"trade {trade.trade_id} of side {trade.side!r}")
            return
        out.trade(
            self._carried(trade.product_id, out),
            rfc3339_ns(trade.time),
            trade.price,
            trade.size,
            aggressor,
            trade.trade_id,
            sequence=sequence,
        )

    def _ticker(self, message: Message, out: EventBuilder) -> None:
        """Best prices after a match; the time is the message's.

        {"channel":"ticker","timestamp":"2026-08-09T21:05:48.229198328Z","sequence_num":6,
         "events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"BTC-USD",
         "price":"65086.18","volume_24_h":"2867.54532609","best_bid":"65083.66",
         "best_ask":"65083.67","best_bid_quantity":"0.20371215",
         "best_ask_quantity":"0.24290402"}]}]}
        """
        ts_event = rfc3339_ns(message.timestamp)
        for event in _tickers.decode(message.events):
            for ticker in event.tickers:
                bid = (ticker.best_bid, ticker.best_bid_quantity)
                ask = (ticker.best_ask, ticker.best_ask_quantity)
                out.venue_quote(
                    self._carried(ticker.product_id, out),
                    ts_event,
                    bid if all(bid) else None,
                    ask if all(ask) else None,
                    sequence=message.sequence_num,
                )

    def _status(self, message: Message, out: EventBuilder) -> None:
        """Every product at an interval: a row when the status of one that is carried changes.

        {"channel":"status","timestamp":"2023-02-09T20:29:49.753424311Z","sequence_num":0,
         "events":[{"type":"snapshot","products":[{"product_type":"SPOT","id":"BTC-USD",
         "base_currency":"BTC","quote_currency":"USD","status":"online",
         "status_message":""}]}]}
        """
        ts_event = rfc3339_ns(message.timestamp)
        for event in _status.decode(message.events):
            for product in event.products:
                if self.statuses.get(product.id, product.status) == product.status:
                    continue
                self.statuses[product.id] = product.status
                out.row(
                    "market_status",
                    self._carried(product.id, out),
                    ts_event,
                    status=_STATUS.get(product.status, MarketStatus.UNKNOWN),
                    reason=product.status_message or product.status,
                    sequence=message.sequence_num,
                )
