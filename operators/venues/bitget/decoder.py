"""Bitget, WebSocket API of three generations: v1 (``/spot/v1/stream``, ``/mix/v1/stream``), v2
(``wss://ws.bitget.com/v2/ws/public``) and v3, the unified account's (``/v3/ws/public``).

Source: Bitget API v1, v2 (spot and contract) and v3 (UTA): channels books, trade, ticker, candle,
liquidation; REST symbols, contracts and instruments. v1 was checked against a recording of April
2022, v2 and v3 against the examples and rules of their documentation.

``instType`` names the market, in either case of letters. v2 and v3: SPOT is BITGET, USDT-FUTURES is
BITGET_USDT_FUTURES, and so for COIN and USDC. v1: ``sp`` is BITGET, ``mc`` (all contracts)
BITGET_MIX. Symbols are the ``instId`` (v3: ``symbol``) of the stream, without v1 REST's suffix
(``BTCUSDT_UMCBL``).

Continuity: ``seq`` of a book message is the ``pseq`` of the next one, where they are sent (v3, and
v2 since 2026); a snapshot's lies in [pseq, seq] of the first update behind it. A ``pseq`` of 0 says
that the venue numbers anew: the book waits for its next snapshot.
Checksum: the signed CRC32 of the top 25 of channel ``books``; 0 is none. The venue's own client
checks no channel of fewer levels: each of its messages is the whole book anyway.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import ChecksumRule, Continuity, EventKind, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.operators.venues.base.listing import Facts, increment
from marketflow.operators.venues.base.one_book import OneBookVenue
from marketflow.operators.venues.bitget import messages
from marketflow.operators.venues.bitget.messages import Integer, Message, Trade
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

SPOT: Final = "BITGET"
MIX: Final = "BITGET_MIX"

_VENUES: Final = {
    "sp": SPOT,
    "mc": MIX,
    "spot": SPOT,
    "usdt-futures": "BITGET_USDT_FUTURES",
    "coin-futures": "BITGET_COIN_FUTURES",
    "usdc-futures": "BITGET_USDC_FUTURES",
}
_AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
#: The channel of updates; of the others every message is a whole book.
_UPDATED_BOOK: Final = "books"
_OPEN: Final = frozenset({"online", "normal"})
_SILENT_EVENTS: Final = frozenset({"subscribe", "unsubscribe", "login"})

#: Time, digits of the id, id: as they follow each other.
Place = tuple[int, int, str]


def _sequence(value: Integer | None) -> int | None:
    """A sequence as number or text; MALFORMED otherwise."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise msgspec.ValidationError(f"sequence {value!r} is no number")
        return int(value)
    return value


def _traded(trade: tuple[str, str, str, str] | Trade) -> tuple[Place, str, str, str]:
    """(place in the order of trades, price, size, side)."""
    if isinstance(trade, tuple):
        return (ms_ns(trade[0]), 0, ""), *trade[1:]
    number = trade.tradeId or trade.i
    place = ms_ns(trade.ts or trade.T), len(number), number
    return place, trade.price or trade.p, trade.size or trade.v, trade.side or trade.S


def _best(price: str, size: str) -> tuple[str, str] | None:
    """A best price with its size; None where that side is empty."""
    return (price, size) if price.strip("0.") and size else None


class Bitget(OneBookVenue):
    """Symbols as sent: ``BTCUSDT``."""

    VENUE = SPOT
    # No tolerance: tickers come up to 400 ms late, and without an update id to compare them by.
    RULES = BookRules(
        continuity=Continuity.PREVIOUS_EQUALS,
        snapshot_rule=SnapshotRule.IN_STREAM,
        checksum_rule=ChecksumRule.BITGET,
    )
    STATE = (*OneBookVenue.STATE, "newest_trades")

    def __init__(self) -> None:
        super().__init__()
        #: (venue, symbol) -> place of its newest trade.
        self.newest_trades: dict[tuple[str, str], Place] = {}

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.HTTP:
            self._http(frame)
            return
        if frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.release_books(frame)
        if frame.kind != FrameKind.DATA or frame.payload == b"pong":
            return
        message = messages.message.decode(frame.payload)
        arg = message.arg
        if message.event or arg is None:
            if message.event not in _SILENT_EVENTS:
                detail = f"event {message.event!r} {message.msg}"
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail.rstrip())
            return
        venue = _VENUES.get(arg.instType.lower())
        if venue is None:
            out.dead(DeadLetterReason.UNKNOWN_INSTRUMENT, f"instType {arg.instType!r}")
            return
        symbol = arg.instId or arg.symbol
        match arg.channel or arg.topic:
            case "books" | "books1" | "books5" | "books15" | "books50" as channel:
                self._book(venue, symbol, channel, message, frame, out)
            case "trade" | "publicTrade":
                self._trade(venue, symbol, message, out)
            case "ticker":
                self._ticker(venue, symbol, message, out)
            case "liquidation":
                self._liquidation(venue, message, out)
            case channel if not channel.startswith(("candle", "kline")):
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _http(self, frame: Frame) -> None:
        """``/api/spot/v1/public/products`` and ``/api/mix/v1/market/contracts``:

        {"code":"00000","data":[{"symbol":"EOSUSDT_SPBL","symbolName":"EOSUSDT","baseCoin":"EOS",
         "quoteCoin":"USDT","priceScale":"4","quantityScale":"4","status":"online"}]}
        {"code":"00000","data":[{"symbol":"BTCUSDT_UMCBL","baseCoin":"BTC","quoteCoin":"USDT",
         "pricePlace":"1","priceEndStep":"5","volumePlace":"3"}]}

        ``/api/v2/spot/public/symbols``, ``/api/v2/mix/market/contracts?productType=…`` and
        ``/api/v3/market/instruments?category=…``:

        {"code":"00000","data":[{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT",
         "pricePrecision":"2","quantityPrecision":"6","status":"online"}]}
        {"code":"00000","data":[{"symbol":"ETHUSDT","baseCoin":"ETH","quoteCoin":"USDT",
         "pricePlace":"2","priceEndStep":"1","volumePlace":"2","symbolStatus":"normal"}]}
        {"code":"00000","data":[{"symbol":"BTCUSD","category":"COIN-FUTURES","baseCoin":"BTC",
         "quoteCoin":"USD","priceMultiplier":"0.5","quantityMultiplier":"1","status":"online"}]}
        """
        path, _, query = frame.note.partition("?")
        if not path.endswith(("/public/products", "/public/symbols", "/contracts", "/instruments")):
            return
        kinds = dict(item.split("=", 1) for item in query.split("&") if "=" in item)
        old = "/mix/v1/" in path
        asked = kinds.get("category") or kinds.get("productType") or "spot"
        for product in messages.products.decode(messages.answer.decode(frame.payload).data):
            symbol, _, suffix = product.symbol.partition("_")
            venue = MIX if old else _VENUES.get((product.category or asked).lower())
            if venue is None:
                continue
            contract = venue != SPOT
            inverse = suffix == "DMCBL" or venue == "BITGET_COIN_FUTURES"
            places = max(product.priceScale, product.pricePrecision, product.pricePlace)
            sizes = max(product.quantityScale, product.quantityPrecision, product.volumePlace)
            step = increment(places)
            status = product.status or product.symbolStatus
            facts = Facts(
                frame.ts_recv,
                # A price ends on a multiple of priceEndStep of its last decimal.
                price_increment=product.priceMultiplier
                or (step and step[:-1] + product.priceEndStep),
                size_increment=product.quantityMultiplier or increment(sizes),
                is_inverse=inverse if contract else None,
                base_currency=product.baseCoin,
                quote_currency=product.quoteCoin,
                settlement_currency=product.quoteCoin if contract and not inverse else None,
                status=MarketStatus.OPEN if status in _OPEN else MarketStatus.UNKNOWN,
            )
            self.list_instrument(product.symbolName or symbol, facts, venue)

    def _book(
        self, venue: str, symbol: str, channel: str, message: Message, frame: Frame,
        out: EventBuilder,
    ) -> None:  # fmt: skip
        """{"action":"update","arg":{"instType":"sp","channel":"books","instId":"CULTUSDT"},
        "data":[{"asks":[["0.00003614","600000"]],"bids":[["0.00003395","440000"]],
        "checksum":-1816604544,"ts":"1649290077611"}]}

        v2, then v3:

        {"action":"snapshot","arg":{"instType":"SPOT","channel":"books5","instId":"BTCUSDT"},
         "data":[{"asks":[["26274.9","0.0009"],["26275.0","0.0500"]],"bids":[["26274.8","0.0009"],
         ["26274.7","0.0027"]],"checksum":0,"seq":123,"ts":"1695710946294"}],"ts":1695710946294}
        {"action":"snapshot","arg":{"instType":"usdt-futures","topic":"books","symbol":"BTCUSDT"},
         "data":[{"a":[["99756.7","23.9774"]],"b":[["99756.6","0.0128"]],"pseq":0,
         "seq":1304314508780744705,"maxDepth":"50","ts":"1746698732562"}],"ts":1746698732563}
        """
        if not self.keeps_book(venue, symbol, channel, frame):
            return
        updated = channel == _UPDATED_BOOK
        snapshot = message.action == "snapshot" or not updated
        instrument = self.instrument(out, symbol, venue)
        for book in messages.books.decode(message.data):
            bids, asks = bytes(book.bids) or bytes(book.b), bytes(book.asks) or bytes(book.a)
            if not bids or not asks:
                raise msgspec.ValidationError("a book without bids or asks")
            previous = _sequence(book.pseq)
            if previous == 0 and not snapshot:
                out.feed_row(EventKind.DISCONNECT, instrument)
            out.begin(
                instrument,
                ms_ns(book.ts),
                last=_sequence(book.seq),
                previous=previous or None,
                snapshot=snapshot,
            )
            out.levels(Side.BID, bids)
            out.levels(Side.ASK, asks)
            out.end(book.checksum or None if updated else None)

    def _trade(self, venue: str, symbol: str, message: Message, out: EventBuilder) -> None:
        """v1: [time, price, size, side of the aggressor], newest first; without an id.

        The snapshot sent on subscribing is history. Nothing of the first one is taken (the
        recording starts now); of later ones, after a reconnect, only what is newer.

        {"action":"update","arg":{"instType":"sp","channel":"trade","instId":"GOGUSDT"},
         "data":[["1649290078140","0.5555","18.3496","buy"]]}
        {"action":"update","arg":{"instType":"SPOT","channel":"trade","instId":"BTCUSDT"},
         "data":[{"ts":"1701910980366","price":"43854.01","size":"0.0535","side":"buy",
         "tradeId":"1116461060594286593"}],"ts":1701910980730}
        {"action":"update","arg":{"instType":"usdt-futures","topic":"publicTrade",
         "symbol":"BTCUSDT"},"data":[{"p":"100000","S":"buy","T":"1736348770627","v":"0.00118",
         "i":"1260903622036942849","L":"1234568787878787","isRPI":"no"}],"ts":1736371104297}
        """
        key = venue, symbol
        instrument = self.instrument(out, symbol, venue)
        known = self.newest_trades.get(key)
        trades = [_traded(trade) for trade in reversed(messages.trades.decode(message.data))]
        for place, price, size, side in sorted(trades, key=lambda trade: trade[0]):
            self.newest_trades[key] = max(place, self.newest_trades.get(key, (0, 0, "")))
            if message.action == "snapshot" and (known is None or place <= known):
                continue
            aggressor = _AGGRESSORS.get(side)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"trade of side {side!r}")
                continue
            out.trade(instrument, place[0], price, size, aggressor, place[2] or None)

    def _ticker(self, venue: str, symbol: str, message: Message, out: EventBuilder) -> None:
        """v1's best prices come without sizes and rounded ("0.000036" on both sides of a book at
        0.00003505 / 0.00003530): statistics, not a quote. Contracts have their funding in it.

        {"action":"snapshot","arg":{"instType":"mc","channel":"ticker","instId":"DASHUSDT"},
         "data":[{"instId":"DASHUSDT","last":"113.370","bestAsk":"113.41","bestBid":"113.36",
         "capitalRate":"-0.000100","nextSettleTime":1649314800000,"systemTime":1649290077309,
         "markPrice":"113.381","indexPrice":"113.427","holding":"21957.17"}]}
        {"action":"snapshot","arg":{"instType":"USDT-FUTURES","channel":"ticker",
         "instId":"BTCUSDT"},"data":[{"instId":"BTCUSDT","lastPr":"43480.4","bidPr":"43476.3",
         "askPr":"43476.8","bidSz":"0.1","askSz":"3.055","fundingRate":"0.000096",
         "nextFundingTime":"1701849600000","markPrice":"43476.4","indexPrice":"43478.4",
         "holdingAmount":"50670.787","ts":"1701843962811"}],"ts":1701843962812}
        {"action":"snapshot","arg":{"instType":"spot","topic":"ticker","symbol":"BTCUSDT"},
         "data":[{"lastPrice":"119818.83","bid1Price":"119811.26","ask1Price":"119831.18",
         "bid1Size":"0.008732","ask1Size":"0.004297"}],"ts":1753230479687}
        """
        instrument = self.instrument(out, symbol, venue)
        for ticker in messages.tickers.decode(message.data):
            ts_event = ms_ns(ticker.systemTime or ticker.ts or message.ts)
            bid = _best(ticker.bidPr or ticker.bid1Price, ticker.bidSz or ticker.bid1Size)
            ask = _best(ticker.askPr or ticker.ask1Price, ticker.askSz or ticker.ask1Size)
            if bid is not None or ask is not None:
                out.venue_quote(instrument, ts_event, bid, ask)
            self.statistics(
                out,
                instrument,
                ts_event,
                best_bid=ticker.bestBid,
                best_ask=ticker.bestAsk,
                open_interest=ticker.holding or ticker.holdingAmount or ticker.openInterest,
            )
            rate = ticker.capitalRate or ticker.fundingRate
            if rate:
                out.row(
                    "funding",
                    instrument,
                    ts_event,
                    rate=rate,
                    ts_next=ms_ns(ticker.nextSettleTime or ticker.nextFundingTime or 0),
                    mark_price=ticker.markPrice or None,
                    index_price=ticker.indexPrice or None,
                )

    def _liquidation(self, venue: str, message: Message, out: EventBuilder) -> None:
        """Rows of statistics named by the side of the order: ``side`` is that of the position,
        which the order closes. ``value`` is the amount, the price is in ``text``.

        {"action":"update","arg":{"instType":"usdt-futures","topic":"liquidation"},"data":[{
         "symbol":"BTCUSDT","side":"buy","price":"89000","amount":"37.722858",
         "ts":"1736371332162"}],"ts":1736371332162}
        """
        for row in messages.liquidations.decode(message.data):
            position = _AGGRESSORS.get(row.side)
            if position is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"liquidation of side {row.side!r}")
                continue
            out.row(
                "statistics",
                self.instrument(out, row.symbol, venue),
                ms_ns(row.ts),
                kind="liquidation_sell" if position is AggressorSide.BUY else "liquidation_buy",
                value=row.amount,
                text=f"price {row.price}",
            )
