"""OKX's older WebSocket API v3 ("OKEx", until 2021): messages of the form table, action, data.

Source: OKEx API v3, spot/futures/swap WebSocket channels. Times are RFC 3339; numbers strings, in
some early messages plain. The checksum is that of v5.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import Frame
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues.base.one_book import OneBookVenue
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, Side

AGGRESSORS: Final = {"buy": AggressorSide.BUY, "sell": AggressorSide.SELL}
_SNAPSHOT_TABLES: Final = frozenset({"depth5"})
_SILENT_TABLES: Final = ("candle", "estimated_price", "price_range", "liquidation")


class Table(msgspec.Struct):
    table: str
    data: msgspec.Raw
    action: str = ""


class Book(msgspec.Struct):
    instrument_id: str
    asks: msgspec.Raw
    bids: msgspec.Raw
    timestamp: str
    checksum: int | None = None


class Trade(msgspec.Struct):
    instrument_id: str
    trade_id: str
    price: msgspec.Raw
    side: str
    timestamp: str
    size: msgspec.Raw = msgspec.Raw(b"")
    qty: msgspec.Raw = msgspec.Raw(b"")  # contracts of futures


class Ticker(msgspec.Struct):
    instrument_id: str
    timestamp: str
    best_bid: str = ""
    best_bid_size: str = ""
    best_ask: str = ""
    best_ask_size: str = ""
    open_interest: str = ""


class FundingRate(msgspec.Struct):
    instrument_id: str
    funding_rate: str
    funding_time: str


class MarkPrice(msgspec.Struct):
    instrument_id: str
    mark_price: str
    timestamp: str


_table: Final = msgspec.json.Decoder(Table)
_books: Final = msgspec.json.Decoder(list[Book])
_trades: Final = msgspec.json.Decoder(list[Trade])
_tickers: Final = msgspec.json.Decoder(list[Ticker])
_funding_rates: Final = msgspec.json.Decoder(list[FundingRate])
_mark_prices: Final = msgspec.json.Decoder(list[MarkPrice])


class OkxTables(OneBookVenue):
    """Handlers of the v3 tables."""

    def table(self, frame: Frame, out: EventBuilder) -> None:
        """One v3 message; the table is ``<market>/<channel>``."""
        message = _table.decode(frame.payload)
        channel = message.table.partition("/")[2]
        match channel:
            case "depth" | "depth_l2_tbt" | "depth5":
                self._depth(channel, message, frame, out)
            case "trade":
                self._old_trade(message, out)
            case "ticker":
                self._old_ticker(message, out)
            case "funding_rate":
                self._funding_rate(message, out)
            case "mark_price":
                self._mark_price(message, out)
            case _ if not channel.startswith(_SILENT_TABLES):
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"table {message.table!r}")

    def _depth(self, channel: str, message: Table, frame: Frame, out: EventBuilder) -> None:
        """Levels are [price, size, liquidated orders, orders].

        {"table":"swap/depth","action":"update","data":[{"instrument_id":"XRP-USD-SWAP",
         "asks":[["0.3198","264","0","5"]],"bids":[["0.3196","1646","0","14"]],
         "timestamp":"2019-08-01T00:00:08.930Z","checksum":1684272782}]}
        """
        for book in _books.decode(message.data):
            if not self.keeps_book(self.VENUE, book.instrument_id, channel, frame):
                continue
            out.begin(
                self.instrument(out, book.instrument_id),
                rfc3339_ns(book.timestamp),
                snapshot=message.action == "partial" or channel in _SNAPSHOT_TABLES,
            )
            out.levels(Side.BID, bytes(book.bids), "psxc")
            out.levels(Side.ASK, bytes(book.asks), "psxc")
            out.end(book.checksum)

    def _old_trade(self, message: Table, out: EventBuilder) -> None:
        """``side`` is the aggressor's.

        {"table":"spot/trade","data":[{"instrument_id":"BCH-USDT","price":"328.74",
         "side":"sell","size":"0.12","timestamp":"2019-08-01T00:00:08.806Z",
         "trade_id":"423886239"}]}
        """
        for trade in _trades.decode(message.data):
            aggressor = AGGRESSORS.get(trade.side)
            if aggressor is None:
                out.dead(
                    DeadLetterReason.BAD_SIDE, f"trade {trade.trade_id} of side {trade.side!r}"
                )
                continue
            out.trade(
                self.instrument(out, trade.instrument_id),
                rfc3339_ns(trade.timestamp),
                trade.price,
                trade.size if bytes(trade.size) else trade.qty,
                aggressor,
                trade.trade_id,
            )

    def _old_ticker(self, message: Table, out: EventBuilder) -> None:
        """Before 2020 without sizes: statistics, not a quote.

        {"table":"spot/ticker","data":[{"instrument_id":"EOS-USDT","last":"2.585",
         "best_bid":"2.584","best_bid_size":"1574.0289","best_ask":"2.585",
         "best_ask_size":"849.6017","timestamp":"2019-12-31T23:59:58.352Z"}]}
        """
        for ticker in _tickers.decode(message.data):
            instrument = self.instrument(out, ticker.instrument_id)
            ts_event = rfc3339_ns(ticker.timestamp)
            bid = (ticker.best_bid, ticker.best_bid_size)
            ask = (ticker.best_ask, ticker.best_ask_size)
            if all(bid) or all(ask):
                out.venue_quote(
                    instrument, ts_event, bid if all(bid) else None, ask if all(ask) else None
                )
            else:
                self.statistics(out, instrument, ts_event, best_bid=bid[0], best_ask=ask[0])
            self.statistics(out, instrument, ts_event, open_interest=ticker.open_interest)

    def _funding_rate(self, message: Table, out: EventBuilder) -> None:
        """Rate of the period that ends at ``funding_time``; the message has no time.

        {"table":"swap/funding_rate","data":[{"estimated_rate":"0.00037",
         "funding_rate":"0.00023534","funding_time":"2019-08-01T04:00:00.000Z",
         "instrument_id":"BCH-USD-SWAP","interest_rate":"0"}]}
        """
        for funding in _funding_rates.decode(message.data):
            out.row(
                "funding",
                self.instrument(out, funding.instrument_id),
                0,
                rate=funding.funding_rate,
                ts_next=rfc3339_ns(funding.funding_time),
            )

    def _mark_price(self, message: Table, out: EventBuilder) -> None:
        """{"table":"swap/mark_price","data":[{"instrument_id":"BCH-USD-SWAP",
        "mark_price":"329.3","timestamp":"2019-08-01T00:00:20.773Z"}]}
        """
        for mark in _mark_prices.decode(message.data):
            instrument = self.instrument(out, mark.instrument_id)
            self.statistics(out, instrument, rfc3339_ns(mark.timestamp), mark_price=mark.mark_price)
