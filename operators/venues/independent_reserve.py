"""Independent Reserve: order by order, one book per coin shown in several currencies.

Source: Independent Reserve WebSocket API (orderbook and ticker channels) and
REST ``Public/GetAllOrders``, checked against a recording of April 2022.

``orderbook-<coin>`` tells of every order once, with its price in each currency; an instrument is
coin and currency, named as in the REST calls: ``XbtAud``. Only the currencies that a snapshot was
fetched for are kept. ``Nonce`` counts the messages of the channel, so each of its instruments sees
all of them and must see a step of one.

Splice: the snapshot has no nonce, only the time it was made at. Messages say what is, not what
changes (a new order, its volume now, gone), so applying one again does no harm, and leaving one
out does for ever. So the last messages of each channel are held back, and when a snapshot
arrives, those from ``SPLICE_MARGIN_NS`` before it was made are applied again on top of it. What
comes twice is visible as it should be: a new order that the snapshot has is a duplicate, a cancel
of one that it left out already an unknown order. Messages that are missing among those applied
again, or that came too long ago to be held, are a gap: this snapshot may lack them, the next will
not.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from marketflow.operators.events import BookType, Continuity, EventKind, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame, VenueDecoder
from marketflow.operators.normalise.timestamps import ms_ns, rfc3339_ns
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NS_PER_S

#: Messages held back per channel: eight seconds of the busiest one. An answer takes 0.1 s.
HELD_MESSAGES: Final = 256
#: How far the clock of the snapshot may run ahead of that of the messages.
SPLICE_MARGIN_NS: Final = NS_PER_S

_ALL_ORDERS_URL: Final = re.compile(
    r"/GetAllOrders\?primaryCurrencyCode=(\w+)&secondaryCurrencyCode=(\w+)"
)
_AGGRESSORS: Final = {"Buy": AggressorSide.BUY, "Sell": AggressorSide.SELL}
_SIDES: Final = {
    "LimitBid": Side.BID,
    "LimitOffer": Side.ASK,
    "MarketBid": Side.BID,
    "MarketOffer": Side.ASK,
}
_ORDER_EVENTS: Final = frozenset({"NewOrder", "OrderChanged", "OrderCanceled"})
_SILENT_EVENTS: Final = frozenset({"Heartbeat", "Subscriptions", "Unsubscribe"})


class Message(msgspec.Struct):
    Event: str
    Channel: str = ""
    Nonce: int = 0
    Time: int = 0
    Data: msgspec.Raw = msgspec.Raw(b"null")


class Change(msgspec.Struct):
    OrderGuid: str
    OrderType: str
    Price: dict[str, msgspec.Raw] = {}
    Volume: msgspec.Raw = msgspec.Raw(b"null")


class Trade(msgspec.Struct):
    TradeGuid: str
    Pair: str
    TradeDate: str
    Price: msgspec.Raw
    Volume: msgspec.Raw
    Side: str


class Order(msgspec.Struct):
    Guid: str
    Price: msgspec.Raw
    Volume: msgspec.Raw


class AllOrders(msgspec.Struct):
    BuyOrders: list[Order]
    SellOrders: list[Order]
    PrimaryCurrencyCode: str
    SecondaryCurrencyCode: str
    CreatedTimestampUtc: str


_message: Final = msgspec.json.Decoder(Message)
_change: Final = msgspec.json.Decoder(Change)
_trade: Final = msgspec.json.Decoder(Trade)
_all_orders: Final = msgspec.json.Decoder(AllOrders)


class IndependentReserve(VenueDecoder):
    """Instruments are ``XbtAud``: coin and currency as in the REST calls, capitalised."""

    VENUE = "INDEPENDENT_RESERVE"
    RULES = BookRules(
        book_type=BookType.L3, continuity=Continuity.STEP_ONE, snapshot_rule=SnapshotRule.IN_STREAM
    )
    STATE = ("currencies", "held")

    def __init__(self) -> None:
        #: Coin -> currencies with a snapshot, in the order of their first one.
        self.currencies: dict[str, list[str]] = {}
        #: Coin -> its last messages, as sent.
        self.held: dict[str, list[bytes]] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            if _ALL_ORDERS_URL.search(frame.note):
                self._snapshot(frame, out)
            return
        if frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.held.clear()
        if frame.kind != FrameKind.DATA:
            return
        message = _message.decode(frame.payload)
        if message.Event in _ORDER_EVENTS and message.Channel.startswith("orderbook-"):
            self._order_event(message, frame, out)
        elif message.Event == "Trade":
            self._trade(message, out)
        elif message.Event not in _SILENT_EVENTS:
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"event {message.Event!r}")

    def _snapshot(self, frame: Frame, out: EventBuilder) -> None:
        """``/Public/GetAllOrders?primaryCurrencyCode=pmgt&secondaryCurrencyCode=nzd``:

        {"BuyOrders":[{"Guid":"ba059b48-5d41-4aa4-b94a-83aafdc4b427","Price":2755.07,
          "Volume":3.82223000}],"SellOrders":[],"PrimaryCurrencyCode":"Pmgt",
         "SecondaryCurrencyCode":"Nzd","CreatedTimestampUtc":"2022-04-03T22:10:19.5048647Z"}
        """
        answer = _all_orders.decode(frame.payload)
        made_at = rfc3339_ns(answer.CreatedTimestampUtc)
        coin, currency = answer.PrimaryCurrencyCode.lower(), answer.SecondaryCurrencyCode.lower()
        currencies = self.currencies.setdefault(coin, [])
        if currency not in currencies:
            currencies.append(currency)
        out.begin(out.instrument(_symbol(coin, currency)), made_at, snapshot=True)
        for side, orders in ((Side.BID, answer.BuyOrders), (Side.ASK, answer.SellOrders)):
            for order in orders:
                price, volume = bytes(order.Price), bytes(order.Volume)
                out.order(EventKind.ADD, side, order.Guid, price, volume)
        out.end()
        self._again(coin, currency, made_at, out)

    def _again(self, coin: str, currency: str, made_at: int, out: EventBuilder) -> None:
        """Apply what was held back on top of a snapshot made at ``made_at``."""
        held = [_message.decode(payload) for payload in self.held.get(coin, ())]
        since = made_at - SPLICE_MARGIN_NS
        start = next((i for i, m in enumerate(held) if ms_ns(m.Time) >= since), len(held))
        if len(held) == HELD_MESSAGES and ms_ns(held[0].Time) > made_at:
            # What came between the snapshot and these is not held any more: leave a hole.
            instrument = out.instrument(_symbol(coin, currency))
            out.begin(instrument, made_at, last=held[0].Nonce - 2)
            out.end()
        for message in held[start:]:
            self._apply(message, _change.decode(message.Data), coin, currency, out)

    def _order_event(self, message: Message, frame: Frame, out: EventBuilder) -> None:
        """
        {"Channel":"orderbook-eth","Nonce":19933,"Data":{"OrderType":"LimitOffer","OrderGuid":
         "52db62a0-bdc8-4d7e-8d87-d0aa64f6f62c","Price":{"aud":4729.7,"usd":3560.99,
         "nzd":5152.18,"sgd":4823.28},"Volume":15.0},"Time":1649023838826,"Event":"NewOrder"}
        {"Channel":"orderbook-xbt","Nonce":65607,"Data":{"OrderType":"LimitBid","OrderGuid":
         "fee7094c-1921-44b7-8d8d-8b6e1cedb270","Volume":0.5},"Time":1643931382904,
         "Event":"OrderChanged"}
        {"Channel":"orderbook-dot","Nonce":5100,"Data":{"OrderType":"LimitBid","OrderGuid":
         "50acf7b9-851e-4926-a3dd-bf9bf297ed97"},"Time":1649023838888,"Event":"OrderCanceled"}
        """
        coin = message.Channel.partition("-")[2]
        change = _change.decode(message.Data)
        if change.OrderType not in _SIDES:
            out.dead(DeadLetterReason.BAD_SIDE, f"order type {change.OrderType!r}")
            return
        held = self.held.setdefault(coin, [])
        held.append(frame.payload)
        del held[:-HELD_MESSAGES]
        for currency in self.currencies.get(coin, ()):
            self._apply(message, change, coin, currency, out)

    def _apply(
        self, message: Message, change: Change, coin: str, currency: str, out: EventBuilder
    ) -> None:
        """One message on one book. Orders that never rest (market orders) only move the nonce."""
        instrument = out.instrument(_symbol(coin, currency))
        side, guid = _SIDES[change.OrderType], change.OrderGuid
        out.begin(instrument, ms_ns(message.Time), last=message.Nonce)
        if message.Event == "OrderCanceled":
            out.order(EventKind.DELETE, side, guid)
        elif message.Event == "OrderChanged":
            out.order(EventKind.ORDER_SIZE, side, guid, size=bytes(change.Volume))
        elif currency in change.Price:
            price, volume = bytes(change.Price[currency]), bytes(change.Volume)
            out.order(EventKind.ADD, side, guid, price, volume)
        out.end()

    def _trade(self, message: Message, out: EventBuilder) -> None:
        """``Side`` is the aggressor's; ``TradeDate`` has the offset of Sydney.

        {"Channel":"ticker-eth-aud","Nonce":78,"Data":{"TradeGuid":
         "6d1c2e90-592a-409c-a8d8-58b2d25e0b0b","Pair":"eth-aud",
         "TradeDate":"2022-01-31T08:28:26.552573+11:00","Price":3650.81,"Volume":0.543,
         "BidGuid":"0430e003-c35e-410e-85f5-f0bb5c40193b",
         "OfferGuid":"559c1dd2-e681-4efc-b49b-14a07c069de4","Side":"Sell"},
         "Time":1643578106584,"Event":"Trade"}
        """
        trade = _trade.decode(message.Data)
        coin, _, currency = trade.Pair.partition("-")
        aggressor = _AGGRESSORS.get(trade.Side)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"side {trade.Side!r}")
            return
        out.trade(
            out.instrument(_symbol(coin, currency)),
            rfc3339_ns(trade.TradeDate),
            bytes(trade.Price),
            bytes(trade.Volume),
            aggressor,
            trade.TradeGuid,
            sequence=message.Nonce,
        )


def _symbol(coin: str, currency: str) -> str:
    return coin.capitalize() + currency.capitalize()
