"""The obvious ITCH 5.0 decoder: one message at a time with struct, straight from the manual.

Twin of operators.formats.itch.decoder. It yields what the decoder must say, as plain Python values.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from marketflow.operators.events import EventKind, IdKind
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NO_PRICE

#: Body of each message behind type, locate, tracking number and 6-byte time.
BODIES = {
    "S": ">c", "R": ">8sccIcc2sccccc Ic".replace(" ", ""), "H": ">8scc4s", "Y": ">8sc",
    "L": ">4s8sccc", "V": ">QQQ", "W": ">c", "K": ">8sIcI", "J": ">8sIIII", "h": ">8scc",
    "A": ">QcI8sI", "F": ">QcI8sI4s", "E": ">QIQ", "C": ">QIQcI", "X": ">QI", "D": ">Q",
    "U": ">QQII", "P": ">QcI8sIQ", "Q": ">Q8sIQc", "B": ">Q", "I": ">QQc8sIIIcc", "N": ">8sc",
    "O": ">8scIIIQII",
}  # fmt: skip
#: Which of the body's values is the stock.
STOCK = {
    "R": 0, "H": 0, "Y": 0, "L": 1, "K": 0, "J": 0, "h": 0, "A": 3, "F": 3, "P": 3, "Q": 1, "I": 3,
    "N": 0, "O": 0,
}  # fmt: skip
MOST_SHARES = 10**16 - 1


class BadMessageError(Exception):
    """The message is a dead letter."""

    def __init__(self, reason: DeadLetterReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass
class Event:
    """An EVENT row; ids are None or whole numbers."""

    kind: EventKind
    ts_event: int = 0
    sequence: int | None = None
    instrument: int = -1
    side: int = 0
    price: int = NO_PRICE
    size: int = 0
    order: int | None = None
    trade: int | None = None
    extra: int = 0
    frame: int = 0


@dataclass
class ItchTwin:
    """Feed it (offset, kind, payload) frames; read its lists."""

    day: date
    events: list[Event] = field(default_factory=list)
    #: (table, sequence, symbol index, ts, values) in feed order; instruments have no sequence: 0.
    rows: list[tuple[str, int, int, int, tuple[Any, ...]]] = field(default_factory=list)
    #: (offset, reason, raw, latest time known)
    dead: list[tuple[int, DeadLetterReason, bytes, int]] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    messages: int = 0
    whole: bool | None = None

    def __post_init__(self) -> None:
        midnight = datetime(self.day.year, self.day.month, self.day.day)
        zone = ZoneInfo("America/New_York")
        self._midnight = int(midnight.replace(tzinfo=zone).timestamp()) * 10**9
        self._last = self._midnight
        self._closed = False
        self._named: dict[int, bytes] = {}
        self._rivals: dict[int, bytes] = {}
        self._of: dict[int, int] = {}
        self._frame = 0

    def frame(self, offset: int, kind: int, payload: bytes) -> None:
        """One frame."""
        if kind == FrameKind.DATA:
            self._block(offset, payload)
        elif kind == FrameKind.END:
            self.events.append(Event(EventKind.FEED_END, self._last, frame=self._frame))
        elif kind == FrameKind.DISCONNECT:
            self.events.append(Event(EventKind.DISCONNECT, self._last, frame=self._frame))
        elif kind == FrameKind.TRUNCATED:
            self._dead_letter(offset, DeadLetterReason.TRUNCATED, payload)
        elif kind == FrameKind.BROKEN:
            self._dead_letter(offset, DeadLetterReason.INVALID_ENCODING, payload)
        self._frame += 1

    def _dead_letter(self, offset: int, reason: DeadLetterReason, raw: bytes) -> None:
        self.dead.append((offset, reason, raw, self._last))

    def _block(self, offset: int, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            size = int.from_bytes(payload[at : at + 2], "big")
            raw = payload[at : at + 2 + size]
            if len(payload) - at < 2 or len(raw) < 2 + size:
                self._dead_letter(offset + at, DeadLetterReason.TRUNCATED, payload[at:])
                return
            if size == 0:
                if not self._closed:
                    self._dead_letter(offset + at, DeadLetterReason.MALFORMED, raw)
            else:
                self.messages += 1
                try:
                    self._message(raw[2:])
                except BadMessageError as bad:
                    self._dead_letter(offset + at, bad.reason, raw)
            at += len(raw)

    def _message(self, message: bytes) -> None:
        letter = chr(message[0])
        if letter not in BODIES:
            raise BadMessageError(DeadLetterReason.UNKNOWN_MESSAGE)
        if len(message) != 11 + struct.calcsize(BODIES[letter]):
            raise BadMessageError(DeadLetterReason.MALFORMED)
        locate, _tracking = struct.unpack(">HH", message[1:5])
        since_midnight = int.from_bytes(message[5:11], "big")
        body = struct.unpack(BODIES[letter], message[11:])
        if since_midnight >= 86_400 * 10**9:
            raise BadMessageError(DeadLetterReason.BAD_TIMESTAMP)
        event = self._event(letter, body)
        if letter == "I" and max(body[:2]) > MOST_SHARES:
            raise BadMessageError(DeadLetterReason.OUT_OF_RANGE)
        if self.whole is None:
            self.whole = self.messages == 1 and letter == "S" and body == (b"O",)
        index = self._instrument(letter, locate, body)
        self._last = self._midnight + since_midnight
        if letter == "S":
            self._closed = body == (b"C",)
        for table, values in table_rows(letter, locate, body):
            sequence = 0 if table == "instruments" else self.messages
            self.rows.append((table, sequence, index, self._last, values))
        if event is not None:
            event.ts_event, event.sequence, event.frame = self._last, self.messages, self._frame
            event.instrument = -1 if letter == "S" else index
            self.events.append(event)

    def _instrument(self, letter: str, locate: int, body: tuple[Any, ...]) -> int:
        if letter in "SVW":
            return self._register("*")
        if letter not in STOCK:
            if locate not in self._of:
                self._of[locate] = self._register(f"#{locate}")
            return self._of[locate]
        stock = body[STOCK[letter]]
        known = self._named.get(locate)
        if stock == known:
            return self._of[locate]
        text = stock.rstrip(b" ")
        if not text or not all(0x21 <= byte <= 0x7E for byte in text):
            raise BadMessageError(DeadLetterReason.UNKNOWN_INSTRUMENT)
        if known is not None and letter != "R" and self._rivals.get(locate) != stock:
            self._rivals[locate] = stock
            raise BadMessageError(DeadLetterReason.MALFORMED)
        self._named[locate] = stock
        self._rivals.pop(locate, None)
        self._of[locate] = self._register(text.decode())
        return self._of[locate]

    def _register(self, symbol: str) -> int:
        if symbol not in self.symbols:
            self.symbols.append(symbol)
        return self.symbols.index(symbol)

    def _event(self, letter: str, body: tuple[Any, ...]) -> Event | None:
        match letter:
            case "S":
                return Event(EventKind.CLOCK)
            case "A" | "F":
                order, side, size, _stock, price, *_ = body
                code = side_of(side)
                check(size, price)
                return Event(EventKind.ADD, side=code, price=price, size=size, order=order)
            case "P":
                _order, side, size, _stock, price, match_number = body
                side_of(side)
                check(size, price)
                return Event(EventKind.TRADE, price=price, size=size, trade=match_number)
            case "E":
                order, size, match_number = body
                check(size)
                return Event(EventKind.EXECUTE, size=size, order=order, trade=match_number)
            case "C":
                order, size, match_number, printable, price = body
                if printable not in (b"Y", b"N"):
                    raise BadMessageError(DeadLetterReason.MALFORMED)
                check(size, price)
                hidden = int(printable == b"N")
                return Event(
                    EventKind.EXECUTE, price=price, size=size, order=order, trade=match_number,
                    extra=hidden,
                )  # fmt: skip
            case "X":
                check(body[1])
                return Event(EventKind.REDUCE, order=body[0], size=body[1])
            case "D":
                return Event(EventKind.DELETE, order=body[0])
            case "U":
                old, new, size, price = body
                check(size, price)
                return Event(EventKind.REPLACE, price=price, size=size, order=old, trade=new)
            case "Q":
                size, _stock, price, match_number, cross = body
                if size > MOST_SHARES:
                    raise BadMessageError(DeadLetterReason.OUT_OF_RANGE)
                if size == 0:
                    return None
                check(size, price)
                return Event(
                    EventKind.TRADE, price=price, size=size, trade=match_number, extra=cross[0]
                )
            case "B":
                return Event(EventKind.BUST, trade=body[0])
        return None


def side_of(indicator: bytes) -> int:
    """B bid, S ask."""
    if indicator not in (b"B", b"S"):
        raise BadMessageError(DeadLetterReason.BAD_SIDE)
    return 1 if indicator == b"B" else 2


def check(size: int, price: int | None = None) -> None:
    """Neither may be zero; the size is looked at first."""
    if size == 0:
        raise BadMessageError(DeadLetterReason.BAD_SIZE)
    if price == 0:
        raise BadMessageError(DeadLetterReason.BAD_PRICE)


def dollars(value: int, digits: int = 4) -> Decimal:
    return Decimal(value) / Decimal(10**digits)


def text(value: bytes) -> str:
    return value.decode("latin-1").replace("\0", "").strip(" ")


def table_rows(
    letter: str, locate: int, body: tuple[Any, ...]
) -> list[tuple[str, tuple[Any, ...]]]:
    """(table, values): instruments (id, lot), market_status (status, reason), statistics (kind,
    value, text), imbalances (side, paired, imbalance, reference, far, near, cross type)."""
    simple: list[tuple[str, Decimal | int | None, str | None]] = []
    match letter:
        case "S":
            status, meaning = {
                b"O": ("pre_open", "start of messages"),
                b"S": ("pre_open", "start of system hours"),
                b"Q": ("open", "start of market hours"),
                b"M": ("post_close", "end of market hours"),
                b"E": ("closed", "end of system hours"),
                b"C": ("closed", "end of messages"),
            }.get(body[0], ("unknown", "unknown system event"))
            return [("market_status", (status, f"{text(body[0])} {meaning}"))]
        case "R":
            names = (
                "market_category", "financial_status", "round_lot_size", "round_lots_only",
                "issue_classification", "issue_subtype", "authenticity", "short_sale_threshold",
                "ipo", "luld_tier", "etp", "etp_leverage", "inverse",
            )  # fmt: skip
            facts = (v if isinstance(v, int) else text(v) for v in body[1:])
            told = " ".join(f"{n}={v}" for n, v in zip(names, facts, strict=True))
            lot = body[3] if body[4] == b"Y" else 1
            return [
                ("instruments", (str(locate), Decimal(lot))),
                ("statistics", ("directory", None, told)),
            ]
        case "H" | "h":
            states = {b"H": "halted", b"P": "paused", b"Q": "quoting", b"T": "open"}
            if letter == "H":
                return [("market_status", (states.get(body[1], "unknown"), text(body[3]) or None))]
            reason = f"operational, market {text(body[1])}"
            return [("market_status", (states.get(body[2], "unknown"), reason))]
        case "Y":
            status, meaning = {
                b"0": ("short_sale_allowed", "no price test"),
                b"1": ("short_sale_restricted", "intraday price drop"),
                b"2": ("short_sale_restricted", "remains in effect"),
            }.get(body[1], ("unknown", "unknown Reg SHO action"))
            return [("market_status", (status, f"{text(body[1])} {meaning}"))]
        case "L":
            told = "mpid={} primary={} mode={} state={}".format(
                *(text(body[i]) for i in (0, 2, 3, 4))
            )
            simple = [("market_participant", None, told)]
        case "V":
            simple = [(f"mwcb_level_{i + 1}", dollars(v, 8), None) for i, v in enumerate(body)]
        case "W":
            level = int(body[0]) if body[0] in (b"1", b"2", b"3") else None
            simple = [("mwcb_breached_level", level, text(body[0]))]
        case "K":
            simple = [
                ("ipo_quotation_release_time", body[1], text(body[2])),
                ("ipo_price", dollars(body[3]), None),
            ]
        case "J":
            bands = ("reference_price", "upper_price", "lower_price")
            simple = [
                (f"luld_{n}", dollars(v), None) for n, v in zip(bands, body[1:4], strict=True)
            ]
            simple.append(("luld_extension", body[4], None))
        case "Q":
            price = dollars(body[2]) if body[0] else None
            simple = [
                ("cross_shares", body[0], text(body[4])),
                ("cross_price", price, text(body[4])),
            ]
        case "N":
            simple = [("retail_interest", None, text(body[1]))]
        case "O":
            fits = body[5] < 10**16
            simple = [
                ("open_eligibility", None, text(body[1])),
                ("minimum_price", dollars(body[2]), None),
                ("maximum_price", dollars(body[3]), None),
                ("near_price", dollars(body[4]), None),
                ("near_time", body[5] if fits else None, None if fits else str(body[5])),
                ("lower_collar", dollars(body[6]), None),
                ("upper_collar", dollars(body[7]), None),
            ]
            simple = [(f"direct_listing_{kind}", value, told) for kind, value, told in simple]
        case "I":
            paired, imbalance, direction, _stock, far, near, reference, cross, _variation = body
            side = {b"B": "bid", b"S": "ask"}.get(direction, "none")
            known = direction != b"O"
            prices = tuple(dollars(p) if p else None for p in (reference, far, near))
            sizes = (Decimal(paired), Decimal(imbalance)) if known else (None, None)
            return [("imbalances", (side, *sizes, *prices, text(cross)))]
    return [
        ("statistics", (kind, None if value is None else Decimal(value), told))
        for kind, value, told in simple
    ]


def event_of(row: Any) -> Event:
    """A row of the decoder as the twin's event; asserts what is the same in every row."""
    assert row["flags"] == 1 and row["price_scale"] == 4 and row["size_scale"] == 0
    assert row["order_hi"] == row["trade_hi"] == row["count"] == row["spare"] == 0
    for name in ("order", "trade"):
        assert row[f"{name}_kind"] in (IdKind.NONE, IdKind.UINT)
        assert row[f"{name}_kind"] or not row[f"{name}_lo"]
    sequence = int(row["sequence"])
    return Event(
        EventKind(int(row["kind"])),
        int(row["ts_event"]),
        None if sequence == NO_PRICE else sequence,
        int(row["instrument"]),
        int(row["side"]),
        int(row["price"]),
        int(row["size"]),
        int(row["order_lo"]) if row["order_kind"] else None,
        int(row["trade_lo"]) if row["trade_kind"] else None,
        int(row["extra"]),
        int(row["frame"]),
    )
