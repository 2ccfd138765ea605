"""Bitstamp WebSocket v2 (``wss://ws.bitstamp.net``) and its REST order book.

Source: Bitstamp WebSocket API v2 and HTTP API v2 "order book", checked against a recording of
January 2022.

Continuity: ``microtimestamp`` grows from one ``diff_order_book`` message of a pair to the next,
but says nothing about what came before it, so a lost message cannot be seen (INCREASING). The REST
answer carries the microtimestamp it was made at: older diffs are dropped, newer ones applied.

``order_book_*`` (the top 100, whole each time) is taken as snapshots, unless the pair's diffs are
recorded too: then it would only cut the deeper book off. Diffs do not continue it either: at the
first one the book waits for a REST answer.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from marketflow.operators.events import Continuity, EventKind, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import us_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue, increment
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NS_PER_US

_ORDER_BOOK_URL: Final = re.compile(r"/order_book/([^/?]+)/?(?:\?|$)")
_AGGRESSORS: Final = {0: AggressorSide.BUY, 1: AggressorSide.SELL}
_SILENT_EVENTS: Final = frozenset(
    {
        "bts:subscription_succeeded",
        "bts:unsubscription_succeeded",
        "bts:heartbeat",
        "bts:request_reconnect",  # the server will drop the connection: the recorder's business
    }
)
#: Channels that carry nothing the books or trades do not have already.
_SILENT_CHANNELS: Final = ("live_orders_", "detail_order_book_")


class Message(msgspec.Struct):
    event: str
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class Book(msgspec.Struct):
    bids: msgspec.Raw
    asks: msgspec.Raw
    timestamp: str
    microtimestamp: str | None = None


class Pair(msgspec.Struct):
    url_symbol: str
    name: str
    base_decimals: int
    counter_decimals: int
    trading: str = ""


class Trade(msgspec.Struct):
    id: int
    type: int
    microtimestamp: str
    price: msgspec.Raw
    amount: msgspec.Raw
    price_str: str | None = None
    amount_str: str | None = None


_message: Final = msgspec.json.Decoder(Message)
_book: Final = msgspec.json.Decoder(Book)
_pairs: Final = msgspec.json.Decoder(list[Pair])
_trade: Final = msgspec.json.Decoder(Trade)


class Bitstamp(ListedVenue):
    """Pairs are named as in the channels: ``btcusd``."""

    VENUE = "BITSTAMP"
    RULES = BookRules(continuity=Continuity.INCREASING, snapshot_rule=SnapshotRule.SPLICE)
    STATE = (*ListedVenue.STATE, "diff_pairs", "top_pairs")

    def __init__(self) -> None:
        super().__init__()
        self.diff_pairs: set[str] = set()
        #: Pairs whose book is the top 100 so far.
        self.top_pairs: set[str] = set()

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame, out)
            return
        if frame.kind != FrameKind.DATA:
            return
        message = _message.decode(frame.payload)
        channel, event = message.channel, message.event
        if event in _SILENT_EVENTS:
            return
        pair = channel.rpartition("_")[2]
        if event == "data" and channel.startswith("diff_order_book_"):
            self.diff_pairs.add(pair)
            if pair in self.top_pairs:
                self.top_pairs.discard(pair)
                out.feed_row(EventKind.DISCONNECT, self.instrument(out, pair))
            self._group(pair, message.data, out, snapshot=False)
        elif event == "trade" and channel.startswith("live_trades_"):
            self._trade(pair, message.data, out)
        elif event == "data" and channel.startswith("order_book_"):
            if pair not in self.diff_pairs:
                self.top_pairs.add(pair)
                self._group(pair, message.data, out, snapshot=True)
        elif not channel.startswith(_SILENT_CHANNELS):
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"event {event!r} on channel {channel!r}")

    def _http(self, frame: Frame, out: EventBuilder) -> None:
        """``/api/v2/order_book/ethusd``:

        {"timestamp": "1641343695", "microtimestamp": "1641343695681418",
         "bids": [["3802.90", "0.60000000"]], "asks": [["3802.91", "1.57771900"]]}

        ``/api/v2/trading-pairs-info/``:

        [{"trading": "Enabled", "base_decimals": 8, "url_symbol": "btcusd", "name": "BTC/USD",
          "instant_and_market_orders": "Enabled", "minimum_order": "20.0 USD",
          "counter_decimals": 2, "description": "Bitcoin / U.S. dollar"}]
        """
        match = _ORDER_BOOK_URL.search(frame.note)
        if match:
            self._group(match[1], frame.payload, out, snapshot=True)
        elif "/trading-pairs-info" in frame.note:
            for pair in _pairs.decode(frame.payload):
                base, _, quote = pair.name.partition("/")
                enabled = pair.trading == "Enabled"
                facts = Facts(
                    frame.ts_recv,
                    price_increment=increment(pair.counter_decimals),
                    size_increment=increment(pair.base_decimals),
                    base_currency=base,
                    quote_currency=quote,
                    status=MarketStatus.OPEN if enabled else MarketStatus.SUSPENDED,
                )
                self.list_instrument(pair.url_symbol, facts)

    def _group(self, pair: str, data: bytes, out: EventBuilder, *, snapshot: bool) -> None:
        """One diff or whole book; a size of 0 removes the level.

        {"data":{"timestamp":"1641343691","microtimestamp":"1641343691244908",
         "bids":[["1.15979","993.02588113"]],"asks":[["1.16601","1200.00000000"]]},
         "channel":"diff_order_book_bateur","event":"data"}
        """
        book = _book.decode(data)
        # Before 2019 the answer had whole seconds only.
        stamp = book.microtimestamp or book.timestamp + "000000"
        ts_event = us_ns(stamp)
        instrument = self.instrument(out, pair)
        out.begin(instrument, ts_event, last=ts_event // NS_PER_US, snapshot=snapshot)
        out.levels(Side.BID, book.bids)
        out.levels(Side.ASK, book.asks)
        out.end()

    def _trade(self, pair: str, data: bytes, out: EventBuilder) -> None:
        """``type`` is the aggressor: 0 buy, 1 sell.

        {"data":{"id":216000477,"timestamp":"1641343699","amount":0.0792,
         "amount_str":"0.07920000","price":3805.44,"price_str":"3805.44","type":0,
         "microtimestamp":"1641343699596000","buy_order_id":1443875737346049,
         "sell_order_id":1443875731320832},"channel":"live_trades_ethusd","event":"trade"}
        """
        trade = _trade.decode(data)
        aggressor = _AGGRESSORS.get(trade.type)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"trade type {trade.type} is neither 0 nor 1")
            return
        out.trade(
            self.instrument(out, pair),
            us_ns(trade.microtimestamp),
            trade.price_str or trade.price,
            trade.amount_str or trade.amount,
            aggressor,
            trade.id,
        )
