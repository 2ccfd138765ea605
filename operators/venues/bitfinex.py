"""Bitfinex WebSocket v2: array frames ``[channel id, payload, sequence?, timestamp?]``.

Source: Bitfinex API v2 documentation ("WS general", "Public channels", "Books", "Raw books",
"Trades", "Ticker", conf flags), checked against a recording of April 2021.

State per connection: its flags, its last sequence and its channels, known from the "subscribed"
events. Continuity: with flag 65536 every frame of a connection carries one more than the frame
before it, whatever its channel. A book message hands the engine as ``previous`` the sequence of the
last message given to that book. When a number is missing, nobody knows whose it was: every book of
the connection gets an empty group that names the lost number as its predecessor, and goes stale at
once, not at its next change. A new subscription brings the snapshot that mends it.

One book per symbol: the first precision subscribed (P0 levels, R0 orders ...) is kept, a second
one is refused. Amounts are signed: above zero is the bid side of a book and a buying aggressor of a
trade. Checksum frames ("cs") are counted, not verified: no recording has them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from marketflow.operators.events import BookType, Continuity, EventKind, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame, VenueDecoder
from marketflow.operators.normalise.timestamps import ms_ns
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, Side
from marketflow.schemas.messages.frames import FrameKind

#: conf flag: a nested array that is not the first of its channel is a bulk of updates.
BULK_UPDATES: Final = 536_870_912
RAW_BOOK: Final = "R0"
#: Trailing numbers from here on are a time in ms (flag 32768), below it a sequence (flag 65536):
#: a connection never lives to see 10**12 frames, and times passed it in 2001.
FIRST_TIME: Final = 10**12

ACCOUNT: Final = 0  # the channel of one's own orders
BOOK_COLUMNS: Final = 3
TRADE_COLUMNS: Final = 4
MAX_DIGITS: Final = 18  # of any sequence or time
TICKER_COLUMNS: Final = 10
TICKER_KINDS: Final = {0: "best_bid", 2: "best_ask", 6: "last_price", 7: "volume_24h"}

_SILENT_EVENTS: Final = frozenset({"info", "conf", "pong", "auth", "unsubscribed"})
_SILENT_CHANNELS: Final = frozenset({"candles", "status"})
_AGGRESSORS: Final = {Side.BID: AggressorSide.BUY, Side.ASK: AggressorSide.SELL}


class Event(msgspec.Struct):
    event: str
    channel: str = ""
    chanId: int = 0  # noqa: N815 - the venue's own name
    symbol: str = ""
    key: str = ""
    prec: str = ""
    flags: int = 0
    msg: str = ""


@dataclass(slots=True)
class Channel:
    """``book``: the precision of a book, empty for other channels and refused books."""

    name: str
    symbol: str
    book: str = ""
    primed: bool = False  # the snapshot has been seen
    sequence: int | None = None  # of the last message given to the book
    orders: set[int] = field(default_factory=set)  # live orders of a raw book (at most 500)


@dataclass(slots=True)
class Connection:
    flags: int = 0
    sequence: int | None = None
    channels: dict[int, Channel] = field(default_factory=dict)


def _plain(channel: Channel) -> tuple[Any, ...]:
    *values, orders = dataclasses.astuple(channel)
    return (*values, tuple(sorted(orders)))


def _channel(
    name: str, symbol: str, book: str, primed: bool, sequence: int | None, orders: tuple[int, ...]
) -> Channel:
    return Channel(name, symbol, book, primed, sequence, set(orders))


_event: Final = msgspec.json.Decoder(Event)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_number: Final = msgspec.json.Decoder(int)


def _text(number: msgspec.Raw) -> bytes:
    """A JSON number, or with flag 8 (decimals as strings) a JSON string, as plain text."""
    return bytes(number).strip(b'"')


def _signed(amount: msgspec.Raw) -> tuple[Side, bytes]:
    """Side and size of a signed amount."""
    text = _text(amount)
    return (Side.ASK, text[1:]) if text.startswith(b"-") else (Side.BID, text)


class Bitfinex(VenueDecoder):
    """Symbols as sent: ``tBTCUSD``, ``tTESTBTC:TESTUSD``, ``fUSD``."""

    VENUE = "BITFINEX"
    STATE = ("connections", "precisions", "trades")

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        #: Symbol -> the precision of the book that is kept.
        self.precisions: dict[str, str] = {}
        #: Symbol -> the highest trade id seen.
        self.trades: dict[str, int] = {}

    def snapshot(self) -> dict[str, Any]:
        """See VenueDecoder. A connection is (flags, sequence, channels), a channel the tuple of its
        fields."""
        connections = {
            name: (c.flags, c.sequence, {n: _plain(channel) for n, channel in c.channels.items()})
            for name, c in self.connections.items()
        }
        return {
            "connections": connections,
            "precisions": dict(self.precisions),
            "trades": dict(self.trades),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See VenueDecoder."""
        self.precisions, self.trades = dict(state["precisions"]), dict(state["trades"])
        self.connections = {
            name: Connection(flags, sequence, {n: _channel(*c) for n, c in channels.items()})
            for name, (flags, sequence, channels) in state["connections"].items()
        }

    def rules(self, venue: str, symbol: str) -> BookRules:
        raw = self.precisions.setdefault(symbol, "P0") == RAW_BOOK
        return BookRules(
            book_type=BookType.L3 if raw else BookType.L2,
            continuity=Continuity.PREVIOUS_EQUALS,
            snapshot_rule=SnapshotRule.IN_STREAM,
        )

    def message(self, frame: Frame, out: EventBuilder) -> None:
        if frame.kind == FrameKind.SENT:
            self._sent(frame)
        elif frame.kind in (FrameKind.CONNECT, FrameKind.DISCONNECT):
            self.connections.pop(frame.connection, None)
        elif frame.kind == FrameKind.DATA:
            if frame.payload.lstrip()[:1] == b"{":
                self._event(frame, out)
            else:
                self._array(frame, out)

    def _sent(self, frame: Frame) -> None:
        """Note a subscription, so that a raw book is known before the symbol's first ticker.

        {"event":"subscribe","channel":"book","symbol":"tBFTUSD","prec":"P0","freq":"F0",
         "len":"100"}
        """
        try:
            event = _event.decode(frame.payload)
        except msgspec.MsgspecError:
            return  # our own side's message: nothing of the venue is lost
        if event.event == "subscribe" and event.channel == "book":
            self.precisions.setdefault(event.symbol, event.prec or "P0")

    def _event(self, frame: Frame, out: EventBuilder) -> None:
        """
        {"event":"conf","status":"OK","flags":65536}
        {"event":"subscribed","channel":"book","chanId":232958,"symbol":"tSNGUSD","prec":"P0",
         "freq":"F0","len":"100","pair":"SNGUSD"}
        """
        event = _event.decode(frame.payload)
        connection = self.connections.setdefault(frame.connection, Connection())
        if event.event == "subscribed":
            channel = Channel(event.channel, event.symbol or event.key)
            connection.channels[event.chanId] = channel
            if event.channel == "book":
                precision = event.prec or "P0"
                kept = self.precisions.setdefault(event.symbol, precision)
                if kept == precision:
                    channel.book = precision
                else:
                    detail = f"second book {precision} of {event.symbol}: {kept} is kept"
                    out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail)
        elif event.event == "conf":
            connection.flags = event.flags
        elif event.event == "unsubscribed":
            connection.channels.pop(event.chanId, None)
        elif event.event not in _SILENT_EVENTS:
            detail = f"event {event.event!r} {event.msg}".strip()
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail)

    def _array(self, frame: Frame, out: EventBuilder) -> None:
        """Everything but events:

        [232958,[0.0371,1,300],18]        [204928,"hb",127]        [89,"te",[...],18]
        """
        items = _array.decode(frame.payload)
        if len(items) < 2:
            out.dead(DeadLetterReason.MALFORMED, "an array of less than two elements")
            return
        payload = bytes(items[1])
        tag = payload[1:-1].decode() if payload.startswith(b'"') else ""
        at = 2 if tag and tag != "hb" and len(items) > 2 else 1
        connection = self.connections.setdefault(frame.connection, Connection())
        sequence, ts_event = _trailer(items[at + 1 :])
        self._follow(connection, sequence, ts_event, out)
        channel_id = _number.decode(items[0])
        if tag == "hb" or channel_id == ACCOUNT:
            return
        channel = connection.channels.get(channel_id)
        if channel is None:
            detail = f"channel {channel_id} was never subscribed on this connection"
            out.dead(DeadLetterReason.UNKNOWN_INSTRUMENT, detail)
        elif channel.book and tag != "cs":
            self._book(connection, channel, items[at], sequence, ts_event, out)
        elif channel.name == "trades":
            self._trades(channel, tag, items[at], sequence, out)
        elif channel.name == "ticker":
            self._ticker(channel, items[at], ts_event, out)
        elif channel.name not in _SILENT_CHANNELS and channel.name != "book":
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel.name!r}")

    def _follow(
        self, connection: Connection, sequence: int | None, ts_event: int, out: EventBuilder
    ) -> None:
        """Check the connection's chain; a hole in it makes every book of the connection stale."""
        if sequence is None:
            return
        last, connection.sequence = connection.sequence, sequence
        if last is None or sequence == last + 1:
            return
        lost = max(sequence - 1, last + 1)
        for channel in connection.channels.values():
            if channel.primed:
                channel.sequence = lost
                out.begin(out.instrument(channel.symbol), ts_event, last=lost, previous=lost)
                out.end()

    def _book(
        self,
        connection: Connection,
        channel: Channel,
        payload: msgspec.Raw,
        sequence: int | None,
        ts_event: int,
        out: EventBuilder,
    ) -> None:
        """A nested array is a snapshot, a flat one a change.

        Precision P0..P4, [price, count, signed amount], a count of 0 removes the level:
            [232958,[[0.037107,1,11111],[0.0371,1,300]],18]     [232955,[0.0010262,0,1],1670]
        R0, [order id, price, signed amount], a price of 0 removes the order:
            [433290,[[34753002978,7294.7,1.54340371]],19]       [433290,[34753002978,0,1],20]
        Funding books have four columns and are not kept.
        """
        if channel.symbol.startswith("f"):
            return
        # Set before anything can fail: if this message is refused, the next one shows the gap.
        previous, channel.sequence = channel.sequence, sequence
        items = _array.decode(payload)
        nested = not items or bytes(items[0]).startswith(b"[")
        rows = [_array.decode(item) for item in items] if nested else [items]
        if any(len(row) < BOOK_COLUMNS for row in rows):
            out.dead(DeadLetterReason.MALFORMED, f"a book row of less than {BOOK_COLUMNS} columns")
            return
        snapshot = nested and not (channel.primed and connection.flags & BULK_UPDATES)
        channel.primed |= snapshot
        instrument = out.instrument(channel.symbol)
        out.begin(instrument, ts_event, last=sequence, previous=previous, snapshot=snapshot)
        if channel.book == RAW_BOOK:
            if snapshot:
                channel.orders.clear()
            for row in rows:
                _order(channel.orders, row, out)
        else:
            for price, count, amount, *_ in rows:
                side, size = _signed(amount)
                orders = _number.decode(count)
                out.level(side, _text(price), size if orders else b"0", orders)
        out.end()

    def _trades(
        self,
        channel: Channel,
        tag: str,
        payload: msgspec.Raw,
        sequence: int | None,
        out: EventBuilder,
    ) -> None:
        """[id, ms, signed amount, price]: one of them ("te"), or the latest ones, newest first,
        after subscribing. "tu" repeats "te" with the id confirmed. Funding trades ("fte", a loan
        at a daily rate for a number of days) have the rate for a price.

        [89,"te",[382489563,1564617600709,0.00705845,10087.98969503],18,1564617600784]
        [232959,[[669899159,1618665870435,166.391496,0.076989]],2]
        """
        if tag in ("tu", "ftu"):
            return
        if tag not in ("te", "fte", ""):
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"{tag!r} on a channel of trades")
            return
        items = _array.decode(payload)
        rows = [items] if tag else [_array.decode(item) for item in items]
        instrument = out.instrument(channel.symbol)
        known = self.trades.get(channel.symbol, -1)
        for row in reversed(rows):
            if len(row) < TRADE_COLUMNS:
                out.dead(DeadLetterReason.MALFORMED, "a trade of less than four columns")
                continue
            trade_id = _number.decode(row[0])
            # A new subscription repeats trades that came before the connection was lost.
            if not tag and trade_id <= known:
                continue
            side, size = _signed(row[2])
            self.trades[channel.symbol] = max(trade_id, self.trades.get(channel.symbol, -1))
            out.trade(
                instrument,
                ms_ns(_number.decode(row[1])),
                _text(row[3]),
                size,
                _AGGRESSORS[side],
                trade_id,
                sequence=sequence,
            )

    def _ticker(
        self, channel: Channel, payload: msgspec.Raw, ts_event: int, out: EventBuilder
    ) -> None:
        """Best bid, sum of the 25 best bid sizes, the same of the asks, daily change and its
        percentage, last price, daily volume, high, low. Without the size at the best price it is
        no quote: statistics. Funding tickers are not kept.

        [232949,[0.068965,60157.36709703,0.0774,48578.50804052,0.001969,0.0262,0.076989,
         101459.39453471,0.0828,0.068961],1]
        """
        if channel.symbol.startswith("f"):
            return
        values = _array.decode(payload)
        if len(values) < TICKER_COLUMNS:
            out.dead(DeadLetterReason.MALFORMED, f"a ticker of less than {TICKER_COLUMNS} columns")
            return
        instrument = out.instrument(channel.symbol)
        for column, kind in TICKER_KINDS.items():
            if bytes(values[column]) != b"null":
                out.row("statistics", instrument, ts_event, kind=kind, value=_text(values[column]))


def _trailer(items: list[msgspec.Raw]) -> tuple[int | None, int]:
    """Sequence and event time in ns (0: not told) from what stands behind the payload.

    Fields may be appended to any array: what is no whole number is left alone.
    """
    sequence, ts_event = None, 0
    for item in map(bytes, items):
        if not item.isdigit() or len(item) > MAX_DIGITS:
            continue
        number = int(item)
        if number >= FIRST_TIME:
            ts_event = ms_ns(number)
        else:
            sequence = number
    return sequence, ts_event


def _order(live: set[int], row: list[msgspec.Raw], out: EventBuilder) -> None:
    """One row of a raw book: new, changed or gone, as ``live`` (kept up to date) tells."""
    order_id, price = _number.decode(row[0]), _text(row[1])
    side, size = _signed(row[2])
    if not price.strip(b"0."):
        live.discard(order_id)
        out.order(EventKind.DELETE, side, order_id)
    elif order_id in live:
        out.order(EventKind.MODIFY, side, order_id, price, size)
    else:
        live.add(order_id)
        out.order(EventKind.ADD, side, order_id, price, size)
