"""Gate.io spot, API v4: WebSocket channels and the REST order book.

Source: Gate.io API v4, "Spot WebSocket v4" and "Retrieve order book", checked against a recording
of April 2021 and messages of 2023 and 2025.

Continuity: an update names its first and last id (U, u); U must follow the last id applied. The
REST answer (asked for with ``with_id=true``) has the id it was made at, and the first update
spliced onto it must reach across that id. ``spot.obu`` is the same with the snapshot in the
stream (``full``).

``spot.order_book`` (the top levels, whole each time) is taken as snapshots, unless the pair's
updates are recorded too: then it would only cut the deeper book off. Updates do not continue it
either: at the first one the book waits for a REST answer.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from marketflow.operators.events import Continuity, EventKind, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import decimal_ms_ns, ms_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue, increment
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_ORDER_BOOK_URL: Final = re.compile(r"/spot/order_book\?(?:.*&)?currency_pair=([^&]+)")
_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_SILENT_CHANNELS: Final = frozenset(
    {"spot.candlesticks", "spot.ping", "spot.pong", "spot.tickers_v2"}
)
_ANSWERS: Final = frozenset({"subscribe", "unsubscribe"})


class Message(msgspec.Struct):
    channel: str = ""
    event: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class Trade(msgspec.Struct):
    id: int
    create_time_ms: str
    side: str
    currency_pair: str
    amount: str
    price: str


class Update(msgspec.Struct):
    """``spot.order_book_update``, and ``spot.obu`` where ``s`` is ``ob.PAIR.DEPTH``."""

    t: int
    s: str
    u: int
    U: int | None = None
    full: bool = False
    b: msgspec.Raw = msgspec.Raw(b"[]")
    a: msgspec.Raw = msgspec.Raw(b"[]")


class Listed(msgspec.Struct):
    id: str
    base: str
    quote: str
    amount_precision: int
    precision: int
    trade_status: str = ""


class TopLevels(msgspec.Struct):
    t: int
    s: str
    lastUpdateId: int  # noqa: N815 - the venue's own name
    bids: msgspec.Raw
    asks: msgspec.Raw


class Snapshot(msgspec.Struct):
    id: int
    bids: msgspec.Raw
    asks: msgspec.Raw
    update: int | None = None


class Ticker(msgspec.Struct):
    currency_pair: str
    last: str | None = None
    lowest_ask: str | None = None
    highest_bid: str | None = None
    base_volume: str | None = None


class BookTicker(msgspec.Struct):
    t: int
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


_message: Final = msgspec.json.Decoder(Message)
_trade: Final = msgspec.json.Decoder(Trade)
_update: Final = msgspec.json.Decoder(Update)
_top_levels: Final = msgspec.json.Decoder(TopLevels)
_snapshot: Final = msgspec.json.Decoder(Snapshot)
_listing: Final = msgspec.json.Decoder(list[Listed])
_ticker: Final = msgspec.json.Decoder(Ticker)
_book_ticker: Final = msgspec.json.Decoder(BookTicker)


def _levels(raw: msgspec.Raw) -> bytes:
    """A side without changes may be null."""
    text = bytes(raw)
    return b"[]" if text == b"null" else text


class Gateio(ListedVenue):
    """Pairs as sent: ``BTC_USDT``."""

    VENUE = "GATEIO"
    RULES = BookRules(
        continuity=Continuity.FIRST_FOLLOWS, snapshot_rule=SnapshotRule.SPLICE, first_overlap=1
    )
    STATE = (*ListedVenue.STATE, "update_pairs", "top_pairs")

    def __init__(self) -> None:
        super().__init__()
        self.update_pairs: set[str] = set()
        #: Pairs whose book is made of top levels so far.
        self.top_pairs: set[str] = set()

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame, out)
            return
        if frame.kind != FrameKind.DATA:
            return
        message = _message.decode(frame.payload)
        channel = message.channel
        if bytes(message.error) != b"null":
            error = bytes(message.error).decode()
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"error on channel {channel}: {error}")
        elif message.event in _ANSWERS or channel in _SILENT_CHANNELS:
            return
        elif message.event != "update":
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"event {message.event!r} on {channel!r}")
        elif channel == "spot.order_book_update":
            self._update(message.result, out)
        elif channel == "spot.trades":
            self._trade(message.result, out)
        elif channel == "spot.book_ticker":
            self._book_ticker(message.result, out)
        elif channel == "spot.tickers":
            self._ticker(message.result, out)
        elif channel == "spot.obu":
            self._obu(message.result, out)
        elif channel == "spot.order_book":
            self._top_levels(message.result, out)
        else:
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _http(self, frame: Frame, out: EventBuilder) -> None:
        """``/api/v4/spot/order_book?currency_pair=FAST_USDT&limit=100&with_id=true``:

        {"id":1138115,"asks":[["10.63","5"]],"bids":[["10.2","85.961"]]}

        Later releases add ``current`` and ``update``, times in ms.

        ``/api/v4/spot/currency_pairs``:

        [{"id":"IHT_ETH","base":"IHT","quote":"ETH","fee":"0.2","min_quote_amount":"0.001",
          "amount_precision":1,"precision":9,"trade_status":"tradable"}]
        """
        match = _ORDER_BOOK_URL.search(frame.note)
        if not match:
            if frame.note.partition("?")[0].endswith("/spot/currency_pairs"):
                self._list(frame)
            return
        book = _snapshot.decode(frame.payload)
        ts_event = 0 if book.update is None else ms_ns(book.update)
        out.begin(self.instrument(out, match[1]), ts_event, last=book.id, snapshot=True)
        out.levels(Side.BID, _levels(book.bids))
        out.levels(Side.ASK, _levels(book.asks))
        out.end()

    def _list(self, frame: Frame) -> None:
        for pair in _listing.decode(frame.payload):
            tradable = pair.trade_status == "tradable"
            facts = Facts(
                frame.ts_recv,
                price_increment=increment(pair.precision),
                size_increment=increment(pair.amount_precision),
                base_currency=pair.base,
                quote_currency=pair.quote,
                status=MarketStatus.OPEN if tradable else MarketStatus.SUSPENDED,
            )
            self.list_instrument(pair.id, facts)

    def _update(self, data: bytes, out: EventBuilder) -> None:
        """A size of 0 removes the level.

        {"time":1619093562,"channel":"spot.order_book_update","event":"update","result":
         {"t":1619093562998,"e":"depthUpdate","E":1619093562,"s":"DIS_USDT","U":1750488,
          "u":1750488,"b":[["121.5","0.148"],["73.5","0"]],"a":[]}}
        """
        update = _update.decode(data)
        self._changes(update.s, update, out)

    def _obu(self, data: bytes, out: EventBuilder) -> None:
        """
        {"channel":"spot.obu","result":{"t":1754006400261,"full":true,"s":"ob.BTC_USDT.400",
         "u":25847113075,"b":[["115765.1","0.337839"]],"a":[["115765.2","0.631155"]]},
         "time_ms":1754006400264,"event":"update"}
        """
        update = _update.decode(data)
        parts = update.s.split(".")
        if len(parts) != 3:
            out.dead(DeadLetterReason.MALFORMED, f"stream {update.s!r} is not ob.PAIR.DEPTH")
            return
        self._changes(parts[1], update, out)

    def _changes(self, pair: str, update: Update, out: EventBuilder) -> None:
        if update.U is None and not update.full:
            out.dead(DeadLetterReason.MALFORMED, "an update without its first id U")
            return
        self.update_pairs.add(pair)
        instrument = self.instrument(out, pair)
        if pair in self.top_pairs:
            self.top_pairs.discard(pair)
            out.feed_row(EventKind.DISCONNECT, instrument)
        out.begin(
            instrument,
            ms_ns(update.t),
            first=update.U,
            last=update.u,
            snapshot=update.full,
        )
        out.levels(Side.BID, _levels(update.b))
        out.levels(Side.ASK, _levels(update.a))
        out.end()

    def _top_levels(self, data: bytes, out: EventBuilder) -> None:
        """
        {"time":1606295412,"channel":"spot.order_book","event":"update","result":
         {"t":1606295412123,"lastUpdateId":48791820,"s":"BTC_USDT","l":"5",
          "bids":[["19079.55","0.0195"]],"asks":[["19080.24","0.1638"]]}}
        """
        book = _top_levels.decode(data)
        if book.s in self.update_pairs:
            return
        self.top_pairs.add(book.s)
        out.begin(
            self.instrument(out, book.s), ms_ns(book.t), last=book.lastUpdateId, snapshot=True
        )
        out.levels(Side.BID, _levels(book.bids))
        out.levels(Side.ASK, _levels(book.asks))
        out.end()

    def _trade(self, data: bytes, out: EventBuilder) -> None:
        """``side`` is the aggressor's; ``create_time_ms`` has decimals.

        {"time":1619093562,"channel":"spot.trades","event":"update","result":{"id":816997068,
         "create_time":1619093562,"create_time_ms":"1619093562050.3572","side":"sell",
         "currency_pair":"NEO_BTC","amount":"0.5000000000","price":"0.0018678000"}}
        """
        trade = _trade.decode(data)
        aggressor = _AGGRESSORS.get(trade.side)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"side {trade.side!r}")
            return
        out.trade(
            self.instrument(out, trade.currency_pair),
            decimal_ms_ns(trade.create_time_ms),
            trade.price,
            trade.amount,
            aggressor,
            trade.id,
        )

    def _book_ticker(self, data: bytes, out: EventBuilder) -> None:
        """An empty side has empty strings.

        {"time":1682689046,"time_ms":1682689046142,"channel":"spot.book_ticker",
         "event":"update","result":{"t":1682689046131,"u":517377894,"s":"ETC_ETH",
         "b":"0.010326","B":"0.001","a":"0.010366","A":"10"}}
        """
        quote = _book_ticker.decode(data)
        out.venue_quote(
            self.instrument(out, quote.s),
            ms_ns(quote.t),
            (quote.b, quote.B) if quote.b else None,
            (quote.a, quote.A) if quote.a else None,
            sequence=quote.u,
        )

    def _ticker(self, data: bytes, out: EventBuilder) -> None:
        """No sizes and no time of its own: statistics, not a quote.

        {"time":1619093533,"channel":"spot.tickers","event":"update","result":
         {"currency_pair":"NEO_BTC","last":"0.0018716","lowest_ask":"0.0018734",
          "highest_bid":"0.0018697","change_percentage":"2.9256","base_volume":"1138.01640718",
          "quote_volume":"2.048263365803126","high_24h":"0.0018754","low_24h":"0.0017148"}}
        """
        ticker = _ticker.decode(data)
        instrument = self.instrument(out, ticker.currency_pair)
        for kind, value in (
            ("last_price", ticker.last),
            ("best_bid", ticker.highest_bid),
            ("best_ask", ticker.lowest_ask),
            ("volume_24h", ticker.base_volume),
        ):
            if value:
                out.row("statistics", instrument, 0, kind=kind, value=value)
