"""KuCoin spot: public WebSocket topics and the REST level 2 snapshot.

Source: KuCoin API documentation, Spot WebSocket "level2", "match execution", "ticker", checked
against a recording of April 2021.

Continuity: every ``/market/level2`` message names its first and last sequence; the first must
follow the last one applied. The REST snapshot has the sequence it was made at, and the first
message spliced onto it must reach across that number. A change at price "0" only moves the
sequence: it passes as the no-op it is.

The ticker is the book at its own sequence (819 of 819 in the recording), but comes up to five
messages early or late.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from marketflow.operators.events import Continuity, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import ms_ns, whole_ns
from marketflow.operators.venues.base.listing import Facts, ListedVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_LEVEL2_URL: Final = re.compile(r"/orderbook/level2\w*\?(?:.*&)?symbol=([^&]+)")
_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_SILENT_TYPES: Final = frozenset({"welcome", "ack", "pong", "ping", "notice"})
#: Topics derived from trades, or about other things than books and trades.
_SILENT_TOPICS: Final = ("/market/candles:", "/market/snapshot:", "/indicator/", "/margin/")
_OK: Final = "200000"


class Message(msgspec.Struct):
    type: str
    topic: str = ""
    subject: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class Changes(msgspec.Struct):
    asks: msgspec.Raw
    bids: msgspec.Raw


class Update(msgspec.Struct):
    sequenceStart: int  # noqa: N815 - the venue's own names
    sequenceEnd: int  # noqa: N815
    symbol: str
    changes: Changes
    time: int | None = None


class Match(msgspec.Struct):
    symbol: str
    sequence: int
    side: str
    price: str
    size: str
    time: str
    tradeId: str  # noqa: N815


class Ticker(msgspec.Struct):
    sequence: int
    bestBid: str | None = None  # noqa: N815
    bestBidSize: str | None = None  # noqa: N815
    bestAsk: str | None = None  # noqa: N815
    bestAskSize: str | None = None  # noqa: N815
    time: int | None = None


class Snapshot(msgspec.Struct):
    time: int
    sequence: int
    bids: msgspec.Raw
    asks: msgspec.Raw


class Answer(msgspec.Struct):
    code: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class Listed(msgspec.Struct):
    symbol: str
    baseCurrency: str  # noqa: N815
    quoteCurrency: str  # noqa: N815
    baseIncrement: str  # noqa: N815
    priceIncrement: str  # noqa: N815
    enableTrading: bool = True  # noqa: N815


# sequences come as numbers and as texts: strict=False takes both
_message: Final = msgspec.json.Decoder(Message)
_update: Final = msgspec.json.Decoder(Update)
_match: Final = msgspec.json.Decoder(Match, strict=False)
_ticker: Final = msgspec.json.Decoder(Ticker, strict=False)
_answer: Final = msgspec.json.Decoder(Answer)
_listing: Final = msgspec.json.Decoder(list[Listed])
_snapshot: Final = msgspec.json.Decoder(Snapshot, strict=False)


class Kucoin(ListedVenue):
    """Symbols as sent: ``BTC-USDT``."""

    VENUE = "KUCOIN"
    RULES = BookRules(
        continuity=Continuity.FIRST_FOLLOWS,
        snapshot_rule=SnapshotRule.SPLICE,
        first_overlap=1,
        bbo_tolerance=16,
    )

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame, out)
            return
        if frame.kind != FrameKind.DATA:
            return
        message = _message.decode(frame.payload)
        if message.type in _SILENT_TYPES:
            return
        topic = message.topic
        if topic.startswith("/market/level2:"):
            self._level2(message.data, out)
        elif topic.startswith("/market/match:"):
            self._match(message.data, out)
        elif topic.startswith("/market/ticker:"):
            self._ticker(message, out)
        elif not topic.startswith(_SILENT_TOPICS):
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"type {message.type!r}, topic {topic!r}")

    def _http(self, frame: Frame, out: EventBuilder) -> None:
        """``/api/v3/market/orderbook/level2?symbol=BCHSV-USDT``:

        {"code":"200000","data":{"time":1619378326628,"sequence":"1613277183892",
         "bids":[["242.649","5"]],"asks":[["243.01","0.68148185"]]}}

        ``/api/v1/symbols``, later ``v2``:

        {"code":"200000","data":[{"symbol":"REQ-ETH","baseCurrency":"REQ","quoteCurrency":"ETH",
         "baseIncrement":"0.0001","priceIncrement":"0.0000001","enableTrading":true}]}
        """
        match = _LEVEL2_URL.search(frame.note)
        listing = frame.note.partition("?")[0].endswith("/symbols")
        if not match and not listing:
            return
        answer = _answer.decode(frame.payload)
        if answer.code != _OK:
            out.dead(DeadLetterReason.MALFORMED, f"request answered with code {answer.code}")
            return
        if not match:
            self._list(answer.data, frame.ts_recv)
            return
        snapshot = _snapshot.decode(answer.data)
        out.begin(
            self.instrument(out, match[1]),
            ms_ns(snapshot.time),
            last=snapshot.sequence,
            snapshot=True,
        )
        out.levels(Side.BID, snapshot.bids)
        out.levels(Side.ASK, snapshot.asks)
        out.end()

    def _list(self, data: bytes, ts_recv: int) -> None:
        for listed in _listing.decode(data):
            facts = Facts(
                ts_recv,
                price_increment=listed.priceIncrement,
                size_increment=listed.baseIncrement,
                base_currency=listed.baseCurrency,
                quote_currency=listed.quoteCurrency,
                status=MarketStatus.OPEN if listed.enableTrading else MarketStatus.SUSPENDED,
            )
            self.list_instrument(listed.symbol, facts)

    def _level2(self, data: bytes, out: EventBuilder) -> None:
        """Changes are [price, size, sequence]; before 2022 the message had no ``time``.

        {"data":{"sequenceStart":1613277183893,"symbol":"BCHSV-USDT","changes":{"asks":
         [["243.01","0.5","1613277183893"]],"bids":[]},"sequenceEnd":1613277183893},
         "subject":"trade.l2update","topic":"/market/level2:BCHSV-USDT","type":"message"}
        """
        update = _update.decode(data)
        ts_event = 0 if update.time is None else ms_ns(update.time)
        instrument = self.instrument(out, update.symbol)
        out.begin(instrument, ts_event, first=update.sequenceStart, last=update.sequenceEnd)
        out.levels(Side.BID, update.changes.bids, "psx")
        out.levels(Side.ASK, update.changes.asks, "psx")
        out.end()

    def _match(self, data: bytes, out: EventBuilder) -> None:
        """``side`` is the aggressor's; ``time`` is ns.

        {"data":{"symbol":"DAPPT-BTC","sequence":"1612701563869","side":"buy","size":"81.8814",
         "price":"0.0000001117","takerOrderId":"6085c097587c2000060cde57",
         "time":"1619378327739050725","type":"match","makerOrderId":"6085c06144b3790006512a4d",
         "tradeId":"6085c09769bc506996295e36"},"subject":"trade.l3match",
         "topic":"/market/match:DAPPT-BTC","type":"message"}
        """
        match = _match.decode(data)
        aggressor = _AGGRESSORS.get(match.side)
        if aggressor is None:
            out.dead(DeadLetterReason.BAD_SIDE, f"side {match.side!r}")
            return
        out.trade(
            self.instrument(out, match.symbol),
            whole_ns(match.time),
            match.price,
            match.size,
            aggressor,
            match.tradeId,
            sequence=match.sequence,
        )

    def _ticker(self, message: Message, out: EventBuilder) -> None:
        """The topic names the symbol, or "all": then the subject does.

        {"data":{"sequence":"1612844051653","bestAsk":"0.00028717","size":"0.01745248",
         "bestBidSize":"3.70422021","price":"0.00028676","time":1619378326323,
         "bestAskSize":"14.04274325","bestBid":"0.00028678"},"subject":"trade.ticker",
         "topic":"/market/ticker:SNX-BTC","type":"message"}
        """
        symbol = message.topic.partition(":")[2]
        ticker = _ticker.decode(message.data)
        bid, ask = ticker.bestBid, ticker.bestAsk
        out.venue_quote(
            self.instrument(out, message.subject if symbol == "all" else symbol),
            0 if ticker.time is None else ms_ns(ticker.time),
            (bid, ticker.bestBidSize) if bid and ticker.bestBidSize else None,
            (ask, ticker.bestAskSize) if ask and ticker.bestAskSize else None,
            sequence=ticker.sequence,
        )
