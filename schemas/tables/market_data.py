"""The market-data tables: one field table per record."""

from __future__ import annotations

from typing import Final

from marketflow.schemas import codes
from marketflow.schemas.fields import Field, Kind, Table

DEPTH_LEVELS: Final = 10

#: Units as a reader is told them; what they are exactly is the venue's to say (``instruments``).
PRICE: Final = "quote currency per unit"
SIZE: Final = "units: shares, coins or contracts"
MONEY: Final = "price × size"


def _identity() -> tuple[Field, ...]:
    return (
        Field("shard", Kind.SHARD, "feed and shard that the row is of; below 0: the feed itself"),
        Field("row_sequence", Kind.INT64, "gapless per table and shard, from 0", non_negative=True),
    )


def _event(recv: bool = True) -> tuple[Field, ...]:
    received = (Field("ts_recv", Kind.TIME, "arrival time; null where the feed has none", True),)
    return (
        *_identity(),
        Field("ts_event", Kind.TIME, "the venue's own event time"),
        *(received if recv else ()),
        Field("venue", Kind.NAME, "one market, such as BINANCE_USDM"),
        Field("symbol", Kind.NAME, "the venue's own symbol"),
    )


def _price(name: str, doc: str, nullable: bool = False) -> Field:
    return Field(name, Kind.DECIMAL, doc, nullable, unit=PRICE)


def _size(name: str, doc: str, nullable: bool = False) -> Field:
    return Field(name, Kind.DECIMAL, doc, nullable, unit=SIZE, non_negative=True)


_SEQUENCE = Field(
    "sequence", Kind.INT64, "the venue's own update id or sequence; null if none", True
)

BOOK_EVENTS = Table(
    "book_events",
    2,
    "Every change of a book, as the venue told it.",
    "ts_event",
    (
        *_event(),
        _SEQUENCE,
        Field("action", Kind.CODE, "what happened", codes=codes.Action),
        Field("side", Kind.CODE, "side of the book", codes=codes.Side),
        _price("price", "price of the level or order; null for clear", True),
        _size("size", "L3: order or executed size; L2: new size of the level", True),
        Field("order_id", Kind.ID, "venue's order id; null = a price level", True),
        Field("flags", Kind.UINT8, "1 last of its group, 2 snapshot, 4 maybe bad"),
    ),
    ("venue", "symbol", "ts_event", "shard", "row_sequence"),
)

TRADES = Table(
    "trades",
    2,
    "Executions, with busts and corrections as rows of their own.",
    "ts_event",
    (
        *_event(),
        _price("price", "price traded"),
        _size("size", "quantity traded"),
        Field("notional", Kind.SUM, "price * size, rounded half-even at 1e-12", unit=MONEY),
        Field("aggressor_side", Kind.CODE, "side that took liquidity", codes=codes.AggressorSide),
        Field("trade_id", Kind.ID, "venue's trade id", True),
        _SEQUENCE,
        Field("status", Kind.CODE, "normal, bust, correction", codes=codes.TradeStatus),
    ),
    ("venue", "symbol", "ts_event", "shard", "row_sequence"),
)

QUOTES = Table(
    "quotes",
    2,
    "Best prices, sizes and state: a row per change, at the end of a group.",
    "ts_event",
    (
        *_event(),
        _price("bid_price", "best bid; null when there is none", True),
        _size("bid_size", "size at the best bid", True),
        _price("ask_price", "best ask; null when there is none", True),
        _size("ask_size", "size at the best ask", True),
        _SEQUENCE,
        Field("origin", Kind.CODE, "our book or the venue's message", codes=codes.Origin),
        Field("book_state", Kind.CODE, "may these prices be trusted", codes=codes.BookState),
    ),
    ("venue", "symbol", "ts_event", "shard", "row_sequence"),
)

DEPTH = Table(
    "depth",
    2,
    "Top levels of the book, best first.",
    "ts_event",
    (
        *_event(recv=False),
        _SEQUENCE,
        Field("book_state", Kind.CODE, "may these levels be trusted", codes=codes.BookState),
        Field("bid_prices", Kind.DECIMALS, "bid prices", unit=PRICE),
        Field("bid_sizes", Kind.DECIMALS, "bid sizes", unit=SIZE),
        Field(
            "bid_counts",
            Kind.COUNTS,
            "orders per bid level; 0 where the venue does not tell",
            unit="orders",
        ),
        Field("ask_prices", Kind.DECIMALS, "ask prices", unit=PRICE),
        Field("ask_sizes", Kind.DECIMALS, "ask sizes", unit=SIZE),
        Field(
            "ask_counts",
            Kind.COUNTS,
            "orders per ask level; 0 where the venue does not tell",
            unit="orders",
        ),
    ),
    ("venue", "symbol", "ts_event", "shard", "row_sequence"),
)

BARS = Table(
    "bars",
    3,
    "Open, high, low, close by event time; bounds [ts_open, ts_close). Ours and the venue's own.",
    "ts_open",
    (
        *_identity(),
        Field("ts_open", Kind.TIME, "start of the interval, inclusive"),
        Field("ts_close", Kind.TIME, "end of the interval, exclusive"),
        Field("venue", Kind.NAME, "one market"),
        Field("symbol", Kind.NAME, "the venue's own symbol"),
        Field("interval", Kind.NAME, "such as 1s, 1m, 1h; eod: a whole session"),
        _price("open", "first price"),
        _price("high", "highest price"),
        _price("low", "lowest price"),
        _price("close", "last price"),
        Field("volume", Kind.SUM, "sum of sizes", unit=SIZE, non_negative=True),
        Field(
            "notional",
            Kind.SUM,
            "sum of price * size, exact, rounded half-even once",
            True,
            unit=MONEY,
        ),
        Field("trade_count", Kind.INT64, "number of trades", True, unit="trades", positive=True),
        Field(
            "buy_volume",
            Kind.SUM,
            "volume whose aggressor bought",
            True,
            unit=SIZE,
            non_negative=True,
        ),
        Field(
            "sell_volume",
            Kind.SUM,
            "volume whose aggressor sold",
            True,
            unit=SIZE,
            non_negative=True,
        ),
        Field("is_final", Kind.BOOL, "false: the feed ended inside the interval"),
        Field("origin", Kind.CODE, "made from trades, or told by the venue", True, codes.BarOrigin),
    ),
    ("venue", "symbol", "interval", "ts_open", "shard", "row_sequence"),
)

MARKET_STATUS = Table(
    "market_status",
    2,
    "Trading status of an instrument or a whole market.",
    "ts_event",
    (
        *_event(),
        Field("status", Kind.CODE, "status across venues", codes=codes.MarketStatus),
        Field("reason", Kind.TEXT, "the venue's own words or code", True),
        _SEQUENCE,
    ),
)

IMBALANCES = Table(
    "imbalances",
    2,
    "Auction imbalance messages.",
    "ts_event",
    (
        *_event(),
        Field("side", Kind.CODE, "side of the imbalance", codes=codes.Side),
        _size("paired_size", "quantity paired at the reference price", True),
        _size("imbalance_size", "quantity not paired", True),
        _price("reference_price", "current reference price", True),
        _price("far_price", "crossing price of auction orders only", True),
        _price("near_price", "crossing price of auction and book orders", True),
        Field("cross_type", Kind.TEXT, "opening, closing, halt ... in the venue's code", True),
        _SEQUENCE,
    ),
)

STATISTICS = Table(
    "statistics",
    2,
    "Values a venue publishes besides its book.",
    "ts_event",
    (
        *_event(),
        Field("kind", Kind.NAME, "open_interest, index_price, mark_price, volume_24h ..."),
        Field("value", Kind.DECIMAL, "the value as sent", True, unit="by kind"),
        Field("text", Kind.TEXT, "the value where it is no number", True),
        _SEQUENCE,
    ),
)

FUNDING = Table(
    "funding",
    2,
    "Funding of perpetual contracts.",
    "ts_event",
    (
        *_event(),
        Field(
            "rate", Kind.DECIMAL, "funding rate of the period (a fraction)", True, unit="fraction"
        ),
        Field("ts_next", Kind.TIME, "next funding time", True),
        _price("mark_price", "mark price", True),
        _price("index_price", "index price", True),
        _SEQUENCE,
    ),
)

INSTRUMENTS = Table(
    "instruments",
    2,
    "What a venue says of an instrument.",
    "ts_event",
    (
        *_event(),
        Field("instrument_id", Kind.ID, "venue's number of the instrument", True),
        Field("price_increment", Kind.DECIMAL, "tick size", True, unit=PRICE),
        Field("size_increment", Kind.DECIMAL, "lot size", True, unit=SIZE),
        Field(
            "contract_multiplier",
            Kind.DECIMAL,
            "units per contract",
            True,
            unit="units per contract",
        ),
        Field("is_inverse", Kind.BOOL, "settled in the base currency", True),
        Field("base_currency", Kind.TEXT, "bought and sold", True),
        Field("quote_currency", Kind.TEXT, "prices are in it", True),
        Field("settlement_currency", Kind.TEXT, "cash flows are in it", True),
        Field("status", Kind.CODE, "trading status", codes=codes.MarketStatus),
    ),
)

QUALITY_EVENTS = Table(
    "quality_events",
    2,
    "What was wrong with a feed, where and until when.",
    "ts_event",
    (
        *_event(),
        Field("kind", Kind.CODE, "the kind", codes=codes.QualityKind),
        Field("sequence_from", Kind.INT64, "first sequence concerned", True),
        Field("sequence_to", Kind.INT64, "last sequence concerned", True),
        Field("ts_until", Kind.TIME, "end of the time concerned", True),
        Field(
            "value",
            Kind.INT64,
            "what was found (a checksum, ns of lateness, a count ...)",
            True,
            unit="by kind",
        ),
        Field("expected", Kind.INT64, "what was expected", True, unit="by kind"),
        Field(
            "cause_id",
            Kind.INT64,
            "row_sequence (same shard) of the primary fault; null: it is one",
            True,
        ),
    ),
)

DEAD_LETTERS = Table(
    "dead_letters",
    2,
    "Input that could not be taken, whole and with its place.",
    "ts_recv",
    (
        *_identity(),
        Field("ts_recv", Kind.TIME, "arrival time, or the feed's latest known time"),
        Field("feed", Kind.NAME, "name of the feed"),
        Field("partition", Kind.INT32, "partition of the feed"),
        Field("offset", Kind.INT64, "offset in the partition (bytes, lines or Kafka offset)"),
        Field("reason", Kind.CODE, "why", codes=codes.DeadLetterReason),
        Field("detail", Kind.TEXT, "what exactly, for people"),
        Field("raw", Kind.BYTES, "the bytes as received, or the bad part of them"),
    ),
)

#: In the order in which people are shown them.
MARKET_DATA: Final = (
    BOOK_EVENTS,
    TRADES,
    QUOTES,
    DEPTH,
    BARS,
    MARKET_STATUS,
    IMBALANCES,
    STATISTICS,
    FUNDING,
    INSTRUMENTS,
    QUALITY_EVENTS,
    DEAD_LETTERS,
)
