"""Bitget, WebSocket API v1: ``wss://ws.bitget.com/spot/v1/stream`` and ``/mix/v1/stream``.

Source: Bitget API v1, spot and mix (contracts), channels books, trade, ticker, candle; REST
spot products and mix contracts; checked against a recording of April 2022.

``instType`` names the market: ``sp`` is BITGET, ``mc`` (all contracts) BITGET_MIX; the letters
come back in lower case. Symbols are the ``instId`` of the stream, without REST's suffix
(``BTCUSDT_UMCBL``).

Continuity: no numbers; every book message carries the signed CRC32 of the top 25.
"""

from __future__ import annotations

from typing import Final

import msgspec

from operators.building import EventBuilder
from operators.events import ChecksumRule, SnapshotRule
from operators.feeds import BookRules, Frame
from operators.venues.listing import Facts, increment
from operators.venues.one_book import OneBookVenue
from operators.venues.times import ms_ns
from schemas.codes import AggressorSide, MarketStatus, RejectReason, Side
from schemas.frames import FrameKind

SPOT: Final = "BITGET"
MIX: Final = "BITGET_MIX"

_VENUES: Final = {"sp": SPOT, "mc": MIX}
_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_WHOLE_BOOKS: Final = frozenset({"books1", "books5", "books15"})
_SILENT_EVENTS: Final = frozenset({"subscribe", "unsubscribe", "login"})


class Arg(msgspec.Struct):
    instType: str  # noqa: N815 - the venue's own names
    channel: str
    instId: str = ""  # noqa: N815


class Message(msgspec.Struct):
    arg: Arg | None = None
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    event: str = ""
    msg: str = ""


class Book(msgspec.Struct):
    asks: msgspec.Raw
    bids: msgspec.Raw
    ts: str
    checksum: int | None = None


class Ticker(msgspec.Struct):
    """The spot ticker has ``ts``, that of a contract ``systemTime`` and all that follows it."""

    bestBid: str = ""  # noqa: N815
    bestAsk: str = ""  # noqa: N815
    ts: int | None = None
    systemTime: int | None = None  # noqa: N815
    capitalRate: str | None = None  # noqa: N815
    nextSettleTime: int | None = None  # noqa: N815
    markPrice: str | None = None  # noqa: N815
    indexPrice: str | None = None  # noqa: N815
    holding: str | None = None


class Product(msgspec.Struct):
    symbolName: str  # noqa: N815
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    priceScale: int  # noqa: N815
    quantityScale: int  # noqa: N815
    status: str = ""


class Contract(msgspec.Struct):
    symbol: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    pricePlace: int  # noqa: N815
    priceEndStep: str  # noqa: N815
    volumePlace: int  # noqa: N815


class Answer(msgspec.Struct):
    data: msgspec.Raw


_message: Final = msgspec.json.Decoder(Message)
_books: Final = msgspec.json.Decoder(list[Book])
_trades: Final = msgspec.json.Decoder(list[tuple[str, str, str, str]])
_tickers: Final = msgspec.json.Decoder(list[Ticker])
_answer: Final = msgspec.json.Decoder(Answer)
_products: Final = msgspec.json.Decoder(list[Product], strict=False)
_contracts: Final = msgspec.json.Decoder(list[Contract], strict=False)


class Bitget(OneBookVenue):
    """Symbols as sent (``instId``): ``BTCUSDT``."""

    VENUE = SPOT
    RULES = BookRules(snapshot_rule=SnapshotRule.IN_STREAM, checksum_rule=ChecksumRule.BITGET)
    STATE = (*OneBookVenue.STATE, "newest_trade_ns")

    def __init__(self) -> None:
        super().__init__()
        #: (venue, symbol) -> time of its newest trade.
        self.newest_trade_ns: dict[tuple[str, str], int] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.release_books(frame)
        if frame.kind != FrameKind.DATA or frame.payload == b"pong":
            return
        message = _message.decode(frame.payload)
        arg = message.arg
        if message.event or arg is None:
            if message.event not in _SILENT_EVENTS:
                detail = f"event {message.event!r} {message.msg}"
                out.dead(RejectReason.UNKNOWN_MESSAGE, detail.rstrip())
            return
        venue = _VENUES.get(arg.instType.lower())
        if venue is None:
            out.dead(RejectReason.UNKNOWN_INSTRUMENT, f"instType {arg.instType!r}")
            return
        match arg.channel:
            case "books" | "books1" | "books5" | "books15":
                self._book(venue, arg, message, frame, out)
            case "trade":
                self._trade(venue, arg, message, out)
            case "ticker":
                self._ticker(venue, arg, message, out)
            case channel if not channel.startswith("candle"):
                out.dead(RejectReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _http(self, frame: Frame) -> None:
        """``/api/spot/v1/public/products`` and ``/api/mix/v1/market/contracts``:

        {"code":"00000","data":[{"symbol":"EOSUSDT_SPBL","symbolName":"EOSUSDT","baseCoin":"EOS",
         "quoteCoin":"USDT","priceScale":"4","quantityScale":"4","status":"online"}]}
        {"code":"00000","data":[{"symbol":"BTCUSDT_UMCBL","baseCoin":"BTC","quoteCoin":"USDT",
         "pricePlace":"1","priceEndStep":"5","volumePlace":"3"}]}
        """
        if "/spot/v1/public/products" in frame.note:
            for product in _products.decode(_answer.decode(frame.payload).data):
                online = product.status == "online"
                facts = Facts(
                    frame.ts_recv,
                    price_increment=increment(product.priceScale),
                    size_increment=increment(product.quantityScale),
                    base_currency=product.baseCoin,
                    quote_currency=product.quoteCoin,
                    status=MarketStatus.OPEN if online else MarketStatus.UNKNOWN,
                )
                self.list_instrument(product.symbolName, facts, SPOT)
        elif "/mix/v1/market/contracts" in frame.note:
            for contract in _contracts.decode(_answer.decode(frame.payload).data):
                symbol, _, kind = contract.symbol.partition("_")
                step = increment(contract.pricePlace)
                # A price ends on a multiple of priceEndStep of its last decimal.
                facts = Facts(
                    frame.ts_recv,
                    price_increment=step[:-1] + contract.priceEndStep,
                    size_increment=increment(contract.volumePlace),
                    is_inverse=kind == "DMCBL",
                    base_currency=contract.baseCoin,
                    quote_currency=contract.quoteCoin,
                    settlement_currency=None if kind == "DMCBL" else contract.quoteCoin,
                )
                self.list_instrument(symbol, facts, MIX)

    def _book(
        self, venue: str, arg: Arg, message: Message, frame: Frame, out: EventBuilder
    ) -> None:
        """{"action":"update","arg":{"instType":"sp","channel":"books","instId":"CULTUSDT"},
        "data":[{"asks":[["0.00003614","600000"]],"bids":[["0.00003395","440000"]],
        "checksum":-1816604544,"ts":"1649290077611"}]}
        """
        if not self.keeps_book(venue, arg.instId, arg.channel, frame):
            return
        snapshot = message.action == "snapshot" or arg.channel in _WHOLE_BOOKS
        instrument = self.instrument(out, arg.instId, venue)
        for book in _books.decode(message.data):
            out.begin(instrument, ms_ns(book.ts), snapshot=snapshot)
            out.levels(Side.BID, book.bids)
            out.levels(Side.ASK, book.asks)
            out.end(book.checksum)

    def _trade(self, venue: str, arg: Arg, message: Message, out: EventBuilder) -> None:
        """[time, price, size, side of the taker], newest first; without an id.

        The snapshot sent on subscribing is history. Nothing of the first one is taken (the
        recording starts now); of later ones, after a reconnect, only what is newer.

        {"action":"update","arg":{"instType":"sp","channel":"trade","instId":"GOGUSDT"},
         "data":[["1649290078140","0.5555","18.3496","buy"]]}
        """
        key = venue, arg.instId
        instrument = self.instrument(out, arg.instId, venue)
        known_ns = self.newest_trade_ns.get(key)
        for time, price, size, side in reversed(_trades.decode(message.data)):
            ts_event = ms_ns(time)
            self.newest_trade_ns[key] = max(ts_event, self.newest_trade_ns.get(key, 0))
            if message.action == "snapshot" and (known_ns is None or ts_event <= known_ns):
                continue
            aggressor = _AGGRESSORS.get(side)
            if aggressor is None:
                out.dead(RejectReason.BAD_SIDE, f"trade of side {side!r}")
                continue
            out.trade(instrument, ts_event, price, size, aggressor, None)

    def _ticker(self, venue: str, arg: Arg, message: Message, out: EventBuilder) -> None:
        """Best prices come without sizes and rounded ("0.000036" on both sides of a book at
        0.00003505 / 0.00003530): statistics, not a quote. Contracts have their funding in it.

        {"action":"snapshot","arg":{"instType":"mc","channel":"ticker","instId":"DASHUSDT"},
         "data":[{"instId":"DASHUSDT","last":"113.370","bestAsk":"113.41","bestBid":"113.36",
         "capitalRate":"-0.000100","nextSettleTime":1649314800000,"systemTime":1649290077309,
         "markPrice":"113.381","indexPrice":"113.427","holding":"21957.17"}]}
        """
        instrument = self.instrument(out, arg.instId, venue)
        for ticker in _tickers.decode(message.data):
            ts_event = ms_ns(ticker.systemTime or ticker.ts or 0)
            self.statistics(
                out,
                instrument,
                ts_event,
                best_bid=ticker.bestBid,
                best_ask=ticker.bestAsk,
                open_interest=ticker.holding,
            )
            if ticker.capitalRate is not None:
                out.row(
                    "funding",
                    instrument,
                    ts_event,
                    rate=ticker.capitalRate,
                    ts_next=ms_ns(ticker.nextSettleTime or 0),
                    mark_price=ticker.markPrice,
                    index_price=ticker.indexPrice,
                )
