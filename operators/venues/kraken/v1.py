"""Kraken spot, WebSocket API v1 (``wss://ws.kraken.com``): arrays [id, payload.., channel, pair].

Source: Kraken WebSocket API v1 (book, trade, ticker, spread, ohlc), its book checksum guide, and
REST AssetPairs, checked against a recording of April 2021.

Continuity: books carry no number; every update carries a CRC32 over the top ten levels instead.
A book is maintained to the subscribed depth: levels that an update pushes beyond it are dropped
without being told, so the depth (``book-10``: 10) is part of the rules of the instrument.
Messages in objects with a ``channel`` belong to v2 and go to :mod:`operators.venues.kraken.v2`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from marketflow.operators.events import ChecksumRule, SnapshotRule
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.feed import BookRules, Frame
from marketflow.operators.normalise.timestamps import seconds_ns
from marketflow.operators.venues.base.listing import Facts, increment
from marketflow.operators.venues.kraken.v2 import DEFAULT_DEPTH, Depth, KrakenV2, Result
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, MarketStatus, Side
from marketflow.schemas.messages.frames import FrameKind

_AGGRESSORS: Final = {"b": AggressorSide.BUY, "s": AggressorSide.SELL}
_STATUS: Final = {
    "online": MarketStatus.OPEN,
    "cancel_only": MarketStatus.PAUSED,
    "post_only": MarketStatus.PRE_OPEN,
    "limit_only": MarketStatus.AUCTION,
    "reduce_only": MarketStatus.PAUSED,
}
_SILENT_EVENTS: Final = frozenset({"heartbeat", "systemStatus", "pong", "subscriptionStatus"})
#: v1 pushes a level again with a fourth element "r": it is data like any other.
_LEVEL_LENGTHS: Final = (3, 4)
_DEPTH_DIGITS: Final = 4  # the deepest book has 1000 levels


class Subscription(msgspec.Struct):
    name: str = ""
    depth: Depth = DEFAULT_DEPTH


class Event(msgspec.Struct):
    event: str = ""
    status: str = ""
    errorMessage: str = ""  # noqa: N815 - the venue's own name
    pair: list[str] | str = ""
    subscription: Subscription = msgspec.field(default_factory=Subscription)
    params: Result | None = None  # of a v2 request

    def result(self) -> Result:
        """The subscription in the words of v2."""
        return Result(self.subscription.name, self.pair, self.subscription.depth)


class BookPart(msgspec.Struct, rename={"ask_snapshot": "as", "bid_snapshot": "bs"}):
    ask_snapshot: list[list[str]] | None = None
    bid_snapshot: list[list[str]] | None = None
    a: list[list[str]] = []
    b: list[list[str]] = []
    c: int | None = None  # sent as a string


class Ticker(msgspec.Struct):
    a: tuple[str, msgspec.Raw, str]
    b: tuple[str, msgspec.Raw, str]


class Pair(msgspec.Struct):
    base: str
    quote: str
    pair_decimals: int
    lot_decimals: int
    wsname: str = ""
    status: str = ""
    tick_size: str = ""


class AssetPairs(msgspec.Struct):
    result: dict[str, Pair]


_event: Final = msgspec.json.Decoder(Event)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)
_part: Final = msgspec.json.Decoder(BookPart | None, strict=False)
_trades: Final = msgspec.json.Decoder(list[list[str]])
_ticker: Final = msgspec.json.Decoder(Ticker)
_spread: Final = msgspec.json.Decoder(list[str])
_pairs: Final = msgspec.json.Decoder(AssetPairs)


class Kraken(KrakenV2):
    """Symbols are the WebSocket names: ``XBT/USD``."""

    VENUE = "KRAKEN"

    def rules(self, venue: str, symbol: str) -> BookRules:
        # Asked for at the pair's first message. Where a recording has neither what was sent nor the
        # answers, and a ticker comes before the book, the depth is the venue's default.
        return BookRules(
            snapshot_rule=SnapshotRule.IN_STREAM,
            checksum_rule=ChecksumRule.KRAKEN,
            max_levels=self.depths.get(symbol, DEFAULT_DEPTH),
            bbo_tolerance=8,  # channels race: in the recording by one message
        )

    def message(self, frame: Frame, out: EventBuilder) -> None:
        match frame.kind:
            case FrameKind.DATA if frame.payload[:1] == b"[":
                self._array(frame, out)
            case FrameKind.DATA:
                self._event(frame, out)
            case FrameKind.HTTP:
                self._http(frame)
            case FrameKind.SENT:
                self._sent(frame)

    def _event(self, frame: Frame, out: EventBuilder) -> None:
        """{"channelID":1664,"channelName":"book-1000","event":"subscriptionStatus",
        "pair":"WAVES/EUR","status":"subscribed","subscription":{"depth":1000,"name":"book"}}
        """
        event = _event.decode(frame.payload)
        if not event.event:
            self.object(frame, out)
        elif event.status == "error" or event.event not in _SILENT_EVENTS:
            detail = f"event {event.event!r} {event.errorMessage}"
            out.dead(DeadLetterReason.UNKNOWN_MESSAGE, detail.rstrip())
        else:
            self.note_depth(event.result())

    def _sent(self, frame: Frame) -> None:
        """The depth, known before a ticker of another connection can name the pair first.

        {"event":"subscribe","pair":["XMR/USD"],"subscription":{"name":"book","depth":1000}}
        {"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":25}}
        """
        try:
            event = _event.decode(frame.payload)
        except msgspec.MsgspecError:
            return  # our own side's message: nothing of the venue is lost
        self.note_depth(event.params or event.result())

    def _array(self, frame: Frame, out: EventBuilder) -> None:
        parts = _array.decode(frame.payload)
        if len(parts) < 4:
            out.dead(DeadLetterReason.MALFORMED, f"array of {len(parts)} elements")
            return
        channel, pair = _text.decode(parts[-2]), _text.decode(parts[-1])
        match channel.partition("-"):
            case ("book", _, depth):
                if depth.isdecimal() and len(depth) <= _DEPTH_DIGITS:
                    self.depths.setdefault(pair, int(depth))
                self._book(parts[1:-2], pair, out)
            case ("trade", _, _):
                self._trade(parts[1], pair, out)
            case ("ticker", _, _):
                self._ticker(parts[1], pair, out)
            case ("spread", _, _):
                self._spread(parts[1], pair, out)
            case ("ohlc", _, _):
                pass
            case _:
                out.dead(DeadLetterReason.UNKNOWN_MESSAGE, f"channel {channel!r}")

    def _http(self, frame: Frame) -> None:
        """``/0/public/AssetPairs``:

        {"error":[],"result":{"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT\\/USD","base":"XXBT",
         "quote":"ZUSD","pair_decimals":1,"lot_decimals":8,"tick_size":"0.1",
         "status":"online"}}}
        """
        if "/AssetPairs" not in frame.note:
            return
        for pair in _pairs.decode(frame.payload).result.values():
            if pair.wsname:
                facts = Facts(
                    frame.ts_recv,
                    price_increment=pair.tick_size or increment(pair.pair_decimals),
                    size_increment=increment(pair.lot_decimals),
                    base_currency=pair.base,
                    quote_currency=pair.quote,
                    status=_STATUS.get(pair.status, MarketStatus.UNKNOWN),
                )
                self.list_instrument(pair.wsname, facts)

    def _book(self, raw: list[msgspec.Raw], pair: str, out: EventBuilder) -> None:
        """A snapshot, then updates in one or two parts of which the last has the checksum.

        [0,{"as":[["5541.30000","2.50700000","1534614248.123678"]],
            "bs":[["5541.20000","1.52900000","1534614248.765567"]]},"book-10","XBT/USD"]
        [1234,{"a":[["5541.30000","2.50700000","1534614248.456738"],
            ["5542.50000","0.40100000","1534614248.456738","r"]]},
            {"b":[["5541.30000","0.00000000","1534614335.345903"]],"c":"974942666"},
            "book-10","XBT/USD"]
        """
        parts = [part for part in map(_part.decode, raw) if part is not None]
        snapshot = any(p.ask_snapshot is not None or p.bid_snapshot is not None for p in parts)
        sides: list[tuple[Side, list[list[str]]]] = []
        for part in parts:
            sides.append((Side.ASK, part.ask_snapshot or part.a))
            sides.append((Side.BID, part.bid_snapshot or part.b))
        rows = [level for _, levels in sides for level in levels]
        if any(len(level) not in _LEVEL_LENGTHS for level in rows):
            out.dead(
                DeadLetterReason.MALFORMED, "a level is not [price, volume, time, republished?]"
            )
            return
        ts_event = max(map(seconds_ns, {level[2] for level in rows}), default=0)
        out.begin(self.instrument(out, pair), ts_event, snapshot=snapshot)
        for side, levels in sides:
            for level in levels:
                out.level(side, level[0], level[1])
        checksum = next((part.c for part in parts if part.c is not None), None)
        out.end(checksum)

    def _trade(self, raw: msgspec.Raw, pair: str, out: EventBuilder) -> None:
        """[price, volume, time, side of the aggressor, order type, misc]; without an id.

        [0,[["5541.20000","0.15850568","1534614057.321597","s","l",""]],"trade","XBT/USD"]
        """
        instrument = self.instrument(out, pair)
        for row in _trades.decode(raw):
            price, volume, time, side = row[:4] if len(row) >= 4 else ("", "", "", "")
            aggressor = _AGGRESSORS.get(side)
            if aggressor is None:
                out.dead(DeadLetterReason.BAD_SIDE, f"trade of side {side!r}")
                continue
            out.trade(instrument, seconds_ns(time), price, volume, aggressor, None)

    def _ticker(self, raw: msgspec.Raw, pair: str, out: EventBuilder) -> None:
        """Best prices are [price, whole lots, volume]. There is no time in it.

        [340,{"a":["5525.40000",1,"1.00000000"],"b":["5525.10000",1,"1.00000000"],
          "c":["5525.10000","0.00398963"],"v":["2634.11501494","3591.17907851"]},
          "ticker","XBT/USD"]
        """
        ticker = _ticker.decode(raw)
        bid, ask = ticker.b, ticker.a
        out.venue_quote(self.instrument(out, pair), 0, (bid[0], bid[2]), (ask[0], ask[2]))

    def _spread(self, raw: msgspec.Raw, pair: str, out: EventBuilder) -> None:
        """[bid, ask, time, bid volume, ask volume]; all zero when there is no book yet.

        [0,["5698.40000","5700.00000","1542057299.545897","1.01234567","0.98765432"],
         "spread","XBT/USD"]
        """
        spread = _spread.decode(raw)
        if len(spread) != 5:
            out.dead(DeadLetterReason.MALFORMED, f"spread of {len(spread)} elements")
            return
        bid, ask, time, bid_volume, ask_volume = spread
        ts_event = seconds_ns(time)
        if ts_event:
            out.venue_quote(
                self.instrument(out, pair), ts_event, (bid, bid_volume), (ask, ask_volume)
            )
