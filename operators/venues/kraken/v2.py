"""Kraken spot, WebSocket API v2 (``wss://ws.kraken.com/v2``): objects of channel, type, data.

Source: Kraken WebSocket API v2 (book, trade, ticker) and its book checksum guide. Prices and
sizes are JSON numbers whose trailing zeros count: the checksum is over the digits as sent.
Symbols say BTC where v1 says XBT.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import Frame
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues.base.listing import ListedVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, Side

#: Levels per side where a subscription names no depth, in both versions.
DEFAULT_DEPTH: Final = 10
Depth = Annotated[int, msgspec.Meta(ge=1, le=9_999)]

_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_SILENT_CHANNELS: Final = frozenset({"heartbeat", "status", "ohlc", "instrument"})


class Result(msgspec.Struct):
    channel: str = ""
    symbol: list[str] | str = ""
    depth: Depth = DEFAULT_DEPTH


class Message(msgspec.Struct):
    """A push has a channel; an answer the method it answers, a request has ``params``."""

    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    method: str = ""
    success: bool = True
    error: str = ""
    result: Result | None = None
    params: Result | None = None


class Level(msgspec.Struct):
    price: msgspec.Raw
    qty: msgspec.Raw


class Book(msgspec.Struct):
    symbol: str
    bids: list[Level] = []
    asks: list[Level] = []
    checksum: int | None = None
    timestamp: str = ""  # a snapshot has had one since 2025


class Trade(msgspec.Struct):
    symbol: str
    side: str
    price: msgspec.Raw
    qty: msgspec.Raw
    trade_id: int
    timestamp: str


class Ticker(msgspec.Struct):
    symbol: str
    bid: msgspec.Raw
    bid_qty: msgspec.Raw
    ask: msgspec.Raw
    ask_qty: msgspec.Raw
    timestamp: str = ""


_message: Final = msgspec.json.Decoder(Message)
_books: Final = msgspec.json.Decoder(list[Book])
_trades: Final = msgspec.json.Decoder(list[Trade])
_tickers: Final = msgspec.json.Decoder(list[Ticker])


def _is_zero(number: msgspec.Raw) -> bool:
    return not bytes(number).strip(b"0.")


class KrakenV2(ListedVenue):
    """Handlers of v2, and the depths and trades that both versions keep."""

    STATE = (*ListedVenue.STATE, "depths", "newest_trade", "history_end")

    def __init__(self) -> None:
        super().__init__()
        #: Symbol -> subscribed depth of its book.
        self.depths: dict[str, int] = {}
        #: Symbol -> highest trade id seen (v1 has none).
        self.newest_trade: dict[str, int] = {}
        #: Symbol -> highest trade id of the last history sent on subscribing.
        self.history_end: dict[str, int] = {}

    def note_depth(self, subscription: Result | None) -> None:
        """Keep the depth of a book subscription, asked for or answered."""
        if subscription is not None and subscription.channel == "book":
            symbols = subscription.symbol
            for symbol in [symbols] if isinstance(symbols, str) else symbols:
                self.depths.setdefault(symbol, subscription.depth)

    def object(self, frame: Frame, out: EventBuilder) -> None:
        """A v2 push, or the answer to a method:

        {"method":"subscribe","result":{"channel":"book","depth":25,"snapshot":true,
         "symbol":"MATIC/USD"},"success":true,"time_in":"2023-10-06T17:35:55.219022Z"}
        """
        message = _message.decode(frame.payload)
        match message.channel:
            case "book":
                self._book_v2(message, out)
            case "trade":
                self._trade_v2(message, out)
            case "ticker":
                self._ticker_v2(message, out)
            case "" if message.method and message.success:
                self.note_depth(message.result)
            case channel if channel not in _SILENT_CHANNELS:
                detail = f"channel {channel!r} method {message.method!r} {message.error}"
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail.rstrip())

    def _book_v2(self, message: Message, out: EventBuilder) -> None:
        """{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[
        {"price":0.5657,"qty":1098.3947558}],"asks":[],"checksum":2114181697,
        "timestamp":"2023-10-06T17:35:55.440295Z"}]}
        """
        for book in _books.decode(message.data):
            out.begin(
                self.instrument(out, book.symbol),
                rfc3339_ns(book.timestamp) if book.timestamp else 0,
                snapshot=message.type == "snapshot",
            )
            for side, levels in ((Side.BID, book.bids), (Side.ASK, book.asks)):
                for level in levels:
                    out.level(side, level.price, level.qty)
            out.end(book.checksum)

    def _trade_v2(self, message: Message, out: EventBuilder) -> None:
        """``side`` is the aggressor's, ids count per symbol, oldest first.

        The snapshot sent on subscribing is history. Nothing of the first one is taken (the
        recording starts now); of later ones, after a reconnect, only what was missed.

        {"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"sell",
         "price":0.5117,"qty":40.0,"ord_type":"market","trade_id":4665906,
         "timestamp":"2023-09-25T07:49:37.708706Z"}]}
        """
        is_history = message.type == "snapshot"
        known = dict(self.newest_trade) if is_history else self.history_end
        for trade in _trades.decode(message.data):
            symbol, number = trade.symbol, trade.trade_id
            self.newest_trade[symbol] = max(number, self.newest_trade.get(symbol, 0))
            if is_history:
                self.history_end[symbol] = max(number, self.history_end.get(symbol, 0))
            if number <= known.get(symbol, number if is_history else -1):
                continue
            aggressor = _AGGRESSORS.get(trade.side)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"trade {number} of side {trade.side!r}")
                continue
            out.trade(
                self.instrument(out, symbol),
                rfc3339_ns(trade.timestamp),
                trade.price,
                trade.qty,
                aggressor,
                number,
            )

    def _ticker_v2(self, message: Message, out: EventBuilder) -> None:
        """A side without orders is all zero; so are both before the market opens.

        {"channel":"ticker","type":"update","data":[{"symbol":"ALGO/USD","bid":0.10025,
         "bid_qty":740.0,"ask":0.10036,"ask_qty":1361.44813783,"last":0.10035,
         "timestamp":"2023-09-25T09:04:31.742648Z"}]}
        """
        for ticker in _tickers.decode(message.data):
            bid = None if _is_zero(ticker.bid) else (ticker.bid, ticker.bid_qty)
            ask = None if _is_zero(ticker.ask) else (ticker.ask, ticker.ask_qty)
            if bid is not None or ask is not None:
                ts_event = rfc3339_ns(ticker.timestamp) if ticker.timestamp else 0
                out.venue_quote(self.instrument(out, ticker.symbol), ts_event, bid, ask)
