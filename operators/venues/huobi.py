"""Huobi (HTX) spot WebSocket: every frame is one gzip member holding one JSON message.

Source: Huobi (HTX) spot API v1 documentation ("Market by price", "Market depth", "Best bid/offer",
"Trade detail"), checked against a recording of April 2021.

Books: ``market.X.depth.stepN`` and ``mbp.refresh.N`` are whole books, each replacing the last.
``mbp.N`` is incremental: ``prevSeqNum`` must equal the last id applied, and the snapshot is the
answer ("rep") to a request on the same connection. A symbol's book is the first of the two kinds
that was asked for or received; the other kind of the same symbol is left out.

Numbers are JSON numbers with exponents (``1.26936964043E7``) and ids of up to 27 digits, so they
are kept raw until they are parsed exactly. Frames recorded as plain text are taken too.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

import msgspec

from marketflow.operators.events import Continuity, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue, increment
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

#: Largest message unpacked; 5,000 levels are below 1 MB. Keeps a bomb from filling the memory.
MAX_MESSAGE_BYTES: Final = 16 * 2**20

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_FULL: Final = BookRules(snapshot_rule=SnapshotRule.EVERY)
_INCREMENTAL: Final = BookRules(
    continuity=Continuity.PREVIOUS_EQUALS, snapshot_rule=SnapshotRule.SPLICE
)
_WHOLE: Final = re.compile(r"depth\.step\d|mbp\.refresh\.\d+")
_INCREMENTS: Final = re.compile(r"mbp\.\d+")
#: Channels that say nothing besides what trades say.
_SILENT: Final = frozenset({"kline", "detail", "ticker"})


class Message(msgspec.Struct):
    ch: str = ""
    rep: str = ""
    sub: str = ""
    ts: int = 0
    tick: msgspec.Raw = msgspec.Raw(b"null")
    data: msgspec.Raw = msgspec.Raw(b"null")
    status: str = ""
    ping: int | None = None
    update: bool = False
    err: str = msgspec.field(name="err-msg", default="")


class Depth(msgspec.Struct):
    bids: msgspec.Raw = msgspec.Raw(b"[]")
    asks: msgspec.Raw = msgspec.Raw(b"[]")
    version: int | None = None
    seqNum: int | None = None  # noqa: N815 - the venue's own names
    prevSeqNum: int | None = None  # noqa: N815


class Bbo(msgspec.Struct):
    bid: msgspec.Raw
    bidSize: msgspec.Raw  # noqa: N815
    ask: msgspec.Raw
    askSize: msgspec.Raw  # noqa: N815
    quoteTime: int  # noqa: N815
    seqId: int | None = None  # noqa: N815


class Trade(msgspec.Struct):
    ts: int
    price: msgspec.Raw
    amount: msgspec.Raw
    direction: str
    id: msgspec.Raw
    tradeId: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815


class Listed(msgspec.Struct, rename="kebab"):
    symbol: str
    base_currency: str
    quote_currency: str
    price_precision: int
    amount_precision: int
    state: str = ""


class Listing(msgspec.Struct):
    data: list[Listed]


class Trades(msgspec.Struct):
    data: list[Trade]


_message: Final = msgspec.json.Decoder(Message)
_depth: Final = msgspec.json.Decoder(Depth)
_bbo: Final = msgspec.json.Decoder(Bbo)
_listing: Final = msgspec.json.Decoder(Listing)
_trades: Final = msgspec.json.Decoder(Trades)


def unpack(payload: bytes) -> bytes | None:
    """The message of one gzip frame; None if it is broken, cut off or beyond MAX_MESSAGE_BYTES."""
    unzip = zlib.decompressobj(_GZIP_WINDOW)
    try:
        message = unzip.decompress(payload, MAX_MESSAGE_BYTES)
    except zlib.error:
        return None
    return message if unzip.eof else None


def _quote(price: msgspec.Raw, size: msgspec.Raw) -> tuple[msgspec.Raw, msgspec.Raw] | None:
    return None if bytes(price) == b"null" or bytes(size) == b"null" else (price, size)


class Huobi(ListedVenue):
    """Symbols as in the channels: ``btcusdt``."""

    VENUE = "HUOBI"
    STATE = (*ListedVenue.STATE, "incremental")

    def __init__(self) -> None:
        super().__init__()
        #: Symbol -> whether its book is kept from mbp.N.
        self.incremental: dict[str, bool] = {}

    def rules(self, venue: str, symbol: str) -> BookRules:
        return _INCREMENTAL if self.incremental.setdefault(symbol, False) else _FULL

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind not in (FrameKind.DATA, FrameKind.SENT):
            return
        payload = frame.payload
        if payload[:2] == _GZIP_MAGIC:
            unpacked = unpack(payload)
            if unpacked is None:
                out.dead(DeadLetterReason.INVALID_ENCODING, "broken or oversized gzip frame")
                return
            payload = unpacked
        message = _message.decode(payload)
        if frame.kind == FrameKind.SENT:
            self._kind_of_book(message.sub)
        elif message.ch:
            self._channel(message, out)
        elif message.rep:
            self._snapshot(message, out)
        elif message.status == "error":
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"venue reports: {message.err}")
        elif message.ping is None and message.status != "ok":
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, "neither channel, answer nor ping")

    def _http(self, frame: Frame) -> None:
        """``/v1/common/symbols``:

        {"status":"ok","data":[{"base-currency":"yee","quote-currency":"btc",
         "price-precision":10,"amount-precision":2,"symbol":"yeebtc","state":"online"}]}
        """
        if not frame.note.partition("?")[0].endswith("/common/symbols"):
            return
        for listed in _listing.decode(frame.payload).data:
            online = listed.state == "online"
            facts = Facts(
                frame.ts_recv,
                price_increment=increment(listed.price_precision),
                size_increment=increment(listed.amount_precision),
                base_currency=listed.base_currency,
                quote_currency=listed.quote_currency,
                status=MarketStatus.OPEN if online else MarketStatus.SUSPENDED,
            )
            self.list_instrument(listed.symbol, facts)

    def _kind_of_book(self, channel: str) -> bool | None:
        """Remember which kind of book came first; whether ``channel`` is of the kept kind.

        None: it is no channel of books.
        """
        symbol, kind = _parts(channel)
        if _WHOLE.fullmatch(kind):
            return not self.incremental.setdefault(symbol, False)
        if _INCREMENTS.fullmatch(kind):
            return self.incremental.setdefault(symbol, True)
        return None

    def _channel(self, message: Message, out: EventBuilder) -> None:
        symbol, kind = _parts(message.ch)
        kept = self._kind_of_book(message.ch)
        if message.update:
            # Some recorders write only what changed between two whole books, and say so thus.
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, "a recorder's difference of whole books")
        elif kept is not None:
            if kept:
                self._depth(symbol, message, out)
        elif kind == "trade.detail":
            self._trade(symbol, message, out)
        elif kind == "bbo":
            self._bbo(symbol, message, out)
        elif kind.split(".")[0] not in _SILENT:
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {message.ch!r}")

    def _depth(self, symbol: str, message: Message, out: EventBuilder) -> None:
        """A whole book, or an increment with the ids that chain it; 0 removes a level.

        {"ch":"market.trioeth.depth.step0","ts":1618678069870,"tick":{
         "bids":[[9.121E-7,92730.24]],"asks":[[9.199E-7,21003.78]],"version":100182534679,
         "ts":1618678069867}}
        {"ch":"market.btcusdt.mbp.150","ts":1593561600793,"tick":{"seqNum":109409288160,
         "prevSeqNum":109409288130,"asks":[[9138.6,0.010259]],"bids":[[9135.95,0.4998]]}}
        """
        depth = _depth.decode(message.tick)
        incremental = self.incremental[symbol]
        out.begin(
            self.instrument(out, symbol),
            ms_ns(message.ts),
            last=depth.seqNum if depth.version is None else depth.version,
            previous=depth.prevSeqNum if incremental else None,
            snapshot=not incremental,
        )
        out.levels(Side.BID, depth.bids)
        out.levels(Side.ASK, depth.asks)
        out.end()

    def _snapshot(self, message: Message, out: EventBuilder) -> None:
        """Answer to a request for the whole book behind the increments.

        {"id":"1","status":"ok","ts":1593561601666,"rep":"market.btcusdt.mbp.150","data":{
         "bids":[[9137.67,4.683547]],"asks":[[9137.68,0.190075]],"seqNum":109409288160}}
        """
        symbol, kind = _parts(message.rep)
        if not _INCREMENTS.fullmatch(kind) or not self._kind_of_book(message.rep):
            return
        depth = _depth.decode(message.data)
        out.begin(self.instrument(out, symbol), ms_ns(message.ts), last=depth.seqNum, snapshot=True)
        out.levels(Side.BID, depth.bids)
        out.levels(Side.ASK, depth.asks)
        out.end()

    def _trade(self, symbol: str, message: Message, out: EventBuilder) -> None:
        """Trades of one match, newest first; ``direction`` is the aggressor's. Before 2019 without
        ``tradeId``: then ``id`` names it.

        {"ch":"market.trioeth.trade.detail","ts":1618678027942,"tick":{"id":100182534526,
         "ts":1618678027940,"data":[{"id":100182534526255757567432481,"ts":1618678027940,
         "tradeId":100045088885,"amount":20995.88,"price":9.2E-7,"direction":"buy"}]}}
        """
        instrument = self.instrument(out, symbol)
        for trade in reversed(_trades.decode(message.tick).data):
            aggressor = _AGGRESSORS.get(trade.direction)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"direction {trade.direction!r}")
                continue
            trade_id = bytes(trade.tradeId) or bytes(trade.id)
            out.trade(
                instrument,
                ms_ns(trade.ts),
                trade.price,
                trade.amount,
                aggressor,
                trade_id.strip(b'"').decode(),
            )

    def _bbo(self, symbol: str, message: Message, out: EventBuilder) -> None:
        """
        {"ch":"market.btcusdt.bbo","ts":1575158404058,"tick":{"seqId":103273695595,
         "ask":7543.59,"askSize":2.323241,"bid":7541.16,"bidSize":0.002329,
         "quoteTime":1575158404057,"symbol":"btcusdt"}}
        """
        quote = _bbo.decode(message.tick)
        out.venue_quote(
            self.instrument(out, symbol),
            ms_ns(quote.quoteTime),
            _quote(quote.bid, quote.bidSize),
            _quote(quote.ask, quote.askSize),
            sequence=quote.seqId,
        )


def _parts(channel: str) -> tuple[str, str]:
    """``market.btcusdt.mbp.150`` -> ("btcusdt", "mbp.150")."""
    market, _, rest = channel.partition(".")
    symbol, _, kind = rest.partition(".")
    return (symbol, kind) if market == "market" else ("", "")
