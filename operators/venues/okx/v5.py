"""OKX: WebSocket API v5 (``wss://ws.okx.com:8443/ws/v5/public``).

Source: OKX API guide v5 (order book, trades, tickers, public data channels, instruments) and its
notice of May 2026 on checksums, checked against a recording of May 2022. Messages of the older v3
go to :mod:`operators.venues.okx.v3`.

Symbols name their market (``BTC-USDT``, ``BTC-USDT-SWAP``, ``BTC-USD-220527``), so OKX is one
venue. One channel keeps an instrument's book (see :mod:`operators.venues.base.one_book`).

Continuity: ``prevSeqId`` equals the ``seqId`` before it; a message without changes repeats its
own; after maintenance the numbers may start again lower, still chained. Before 2023 there was only
the CRC32 (signed, top 25). Since June 2026 ``checksum`` is sent as 0 and says nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import ChecksumRule, Continuity, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.operators.venues.base.listing import Facts
from marketflow.operators.venues.okx.v3 import AGGRESSORS, OkxTables
from marketflow.schemas.codes import DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_STATUS: Final = {
    "live": MarketStatus.OPEN,
    "suspend": MarketStatus.SUSPENDED,
    "preopen": MarketStatus.PRE_OPEN,
    "expired": MarketStatus.DELISTED,
}
_SILENT_EVENTS: Final = frozenset(
    {"subscribe", "unsubscribe", "login", "channel-conn-count", "notice"}
)
_SILENT_CHANNELS: Final = (
    "candle",
    "index-candle",
    "mark-price-candle",
    "price-limit",
    "estimated-price",
    "liquidation-orders",
    "status",
    "instruments",
    "opt-summary",
)


class Arg(msgspec.Struct):
    channel: str
    instId: str = ""  # noqa: N815 - the venue's own names


class Message(msgspec.Struct):
    """Data has ``arg`` and ``data``, an answer ``event``, the old format ``table``."""

    arg: Arg | None = None
    data: msgspec.Raw = msgspec.Raw(b"[]")
    action: str = ""
    table: str = ""
    event: str = ""
    msg: str = ""


class Book(msgspec.Struct):
    asks: msgspec.Raw
    bids: msgspec.Raw
    ts: str
    checksum: int = 0
    seqId: int | None = None  # noqa: N815
    prevSeqId: int | None = None  # noqa: N815


class Top(msgspec.Struct):
    asks: list[list[str]]
    bids: list[list[str]]
    ts: str
    seqId: int | None = None  # noqa: N815


class Trade(msgspec.Struct):
    instId: str  # noqa: N815
    tradeId: str  # noqa: N815
    px: str
    sz: str
    side: str
    ts: str
    seqId: int | None = None  # noqa: N815


class Ticker(msgspec.Struct):
    instId: str  # noqa: N815
    ts: str
    bidPx: str = ""  # noqa: N815
    bidSz: str = ""  # noqa: N815
    askPx: str = ""  # noqa: N815
    askSz: str = ""  # noqa: N815


class Funding(msgspec.Struct):
    instId: str  # noqa: N815
    fundingTime: str  # noqa: N815
    fundingRate: str = ""  # noqa: N815
    ts: str = ""


class Value(msgspec.Struct):
    instId: str  # noqa: N815
    ts: str
    markPx: str = ""  # noqa: N815
    oi: str = ""
    idxPx: str = ""  # noqa: N815


class Instrument(msgspec.Struct):
    instId: str  # noqa: N815
    tickSz: str = ""  # noqa: N815
    lotSz: str = ""  # noqa: N815
    ctVal: str = ""  # noqa: N815
    ctType: str = ""  # noqa: N815
    baseCcy: str = ""  # noqa: N815
    quoteCcy: str = ""  # noqa: N815
    settleCcy: str = ""  # noqa: N815
    state: str = ""


class Instruments(msgspec.Struct):
    data: list[Instrument]


_message: Final = msgspec.json.Decoder(Message)
_books: Final = msgspec.json.Decoder(list[Book])
_tops: Final = msgspec.json.Decoder(list[Top])
_trades: Final = msgspec.json.Decoder(list[Trade])
_tickers: Final = msgspec.json.Decoder(list[Ticker])
_fundings: Final = msgspec.json.Decoder(list[Funding])
_values: Final = msgspec.json.Decoder(list[Value])
_instruments: Final = msgspec.json.Decoder(Instruments)


class Okx(OkxTables):
    """Symbols as sent (``instId``)."""

    VENUE = "OKX"
    RULES = BookRules(
        continuity=Continuity.PREVIOUS_EQUALS,
        snapshot_rule=SnapshotRule.IN_STREAM,
        checksum_rule=ChecksumRule.OKX,
        # Tickers come late: in the recording up to 28 messages of the book.
        bbo_tolerance=32,
    )

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.release_books(frame)
        if frame.kind != FrameKind.DATA or frame.payload == b"pong":
            return
        message = _message.decode(frame.payload)
        if message.event:
            if message.event not in _SILENT_EVENTS:
                detail = f"event {message.event!r} {message.msg}"
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail.rstrip())
        elif message.table:
            self.table(frame, out)
        elif message.arg is None:
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, "neither arg, event nor table")
        else:
            self._data(message.arg, message, frame, out)

    def _data(self, arg: Arg, message: Message, frame: Frame, out: EventBuilder) -> None:
        match arg.channel:
            case "books" | "books-l2-tbt" | "books50-l2-tbt" | "books5":
                if self.keeps_book(self.VENUE, arg.instId, arg.channel, frame):
                    self._book(arg, message, out)
            case "bbo-tbt":
                self._bbo(arg, message, out)
            case "trades" | "trades-all":
                self._trade(message, out)
            case "tickers":
                self._ticker(message, out)
            case "funding-rate":
                self._funding(message, out)
            case "mark-price" | "open-interest" | "index-tickers":
                self._value(message, out)
            case channel if not channel.startswith(_SILENT_CHANNELS):
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _http(self, frame: Frame) -> None:
        """``/api/v5/public/instruments?instType=SWAP``:

        {"code":"0","data":[{"instType":"SWAP","instId":"BTC-USD-SWAP","uly":"BTC-USD",
         "baseCcy":"","quoteCcy":"","settleCcy":"BTC","ctVal":"100","ctMult":"1",
         "ctValCcy":"USD","ctType":"inverse","lotSz":"1","tickSz":"0.1","state":"live"}]}
        """
        if "/public/instruments" not in frame.note:
            return
        for item in _instruments.decode(frame.payload).data:
            facts = Facts(
                frame.ts_recv,
                price_increment=item.tickSz,
                size_increment=item.lotSz,
                contract_multiplier=item.ctVal,
                is_inverse=item.ctType == "inverse" if item.ctType else None,
                base_currency=item.baseCcy,
                quote_currency=item.quoteCcy,
                settlement_currency=item.settleCcy,
                status=_STATUS.get(item.state, MarketStatus.UNKNOWN),
            )
            self.list_instrument(item.instId, facts)

    def _book(self, arg: Arg, message: Message, out: EventBuilder) -> None:
        """Levels are [price, size, "0" (once: liquidated orders), orders].

        {"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{
         "asks":[["30243.5","1.2112","0","4"]],"bids":[["30177.8","0.649","0","1"]],
         "ts":"1652459225453","checksum":-652563973,"prevSeqId":123455,"seqId":123456}]}
        """
        is_whole = message.action == "snapshot" or arg.channel == "books5"
        instrument = self.instrument(out, arg.instId)
        for book in _books.decode(message.data):
            out.begin(
                instrument,
                ms_ns(book.ts),
                last=book.seqId,
                previous=book.prevSeqId,
                snapshot=is_whole,
            )
            out.levels(Side.BID, bytes(book.bids), "psxc")
            out.levels(Side.ASK, bytes(book.asks), "psxc")
            out.end(book.checksum or None)

    def _bbo(self, arg: Arg, message: Message, out: EventBuilder) -> None:
        """{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT-SWAP"},"data":[{
        "asks":[["38632.4","727","0","22"]],"bids":[["38632.3","990","0","22"]],
        "ts":"1651761120004","seqId":363996337}]}
        """
        instrument = self.instrument(out, arg.instId)
        for top in _tops.decode(message.data):
            out.venue_quote(
                instrument,
                ms_ns(top.ts),
                (top.bids[0][0], top.bids[0][1]) if top.bids else None,
                (top.asks[0][0], top.asks[0][1]) if top.asks else None,
                sequence=top.seqId,
            )

    def _trade(self, message: Message, out: EventBuilder) -> None:
        """``side`` is the aggressor's.

        {"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",
         "tradeId":"338476307","px":"30236","sz":"0.0002","side":"buy","ts":"1652459224818"}]}
        """
        for trade in _trades.decode(message.data):
            aggressor = AGGRESSORS.get(trade.side)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"trade {trade.tradeId} of side {trade.side!r}")
                continue
            out.trade(
                self.instrument(out, trade.instId),
                ms_ns(trade.ts),
                trade.px,
                trade.sz,
                aggressor,
                trade.tradeId,
                sequence=trade.seqId,
            )

    def _ticker(self, message: Message, out: EventBuilder) -> None:
        """{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT",
        "instId":"BTC-USDT","last":"30236","lastSz":"0.0002","askPx":"30228.7",
        "askSz":"1.55896972","bidPx":"30228.6","bidSz":"0.23393","ts":"1652459224956"}]}
        """
        for ticker in _tickers.decode(message.data):
            bid, ask = (ticker.bidPx, ticker.bidSz), (ticker.askPx, ticker.askSz)
            out.venue_quote(
                self.instrument(out, ticker.instId),
                ms_ns(ticker.ts),
                bid if all(bid) else None,
                ask if all(ask) else None,
            )

    def _funding(self, message: Message, out: EventBuilder) -> None:
        """Rate of the period that ends at ``fundingTime``; before 2023 without a time.

        {"arg":{"channel":"funding-rate","instId":"WNCG-USDT-SWAP"},"data":[{
         "fundingRate":"0.00048105","fundingTime":"1640131200000","instId":"WNCG-USDT-SWAP",
         "instType":"SWAP","nextFundingRate":"0.00114"}]}
        """
        for funding in _fundings.decode(message.data):
            out.row(
                "funding",
                self.instrument(out, funding.instId),
                ms_ns(funding.ts) if funding.ts else 0,
                rate=funding.fundingRate or None,
                ts_next=ms_ns(funding.fundingTime),
            )

    def _value(self, message: Message, out: EventBuilder) -> None:
        """{"arg":{"channel":"mark-price","instId":"WNCG-USDT-SWAP"},"data":[{
        "instId":"WNCG-USDT-SWAP","instType":"SWAP","markPx":"2.1729","ts":"1640131259180"}]}
        """
        for value in _values.decode(message.data):
            self.statistics(
                out,
                self.instrument(out, value.instId),
                ms_ns(value.ts),
                mark_price=value.markPx,
                open_interest=value.oi,
                index_price=value.idxPx,
            )
