"""The rare messages of TotalView-ITCH 5.0 as rows of tables that need no book.

| messages | table |
|---|---|
| R | ``instruments``; what has no column there is one ``statistics`` row, kind ``directory`` |
| S, H, h, Y | ``market_status``; S of the whole market, instrument ``*`` |
| I | ``imbalances`` (millions a day: whole columns at once) |
| L V W K J N O Q | ``statistics``, a row per value, kinds in :data:`KINDS` |

A value that the venue marks as not calculated or not applicable is null. Section numbers are those
of the manual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.normalise import passthrough as passing
from marketflow.schemas.codes import MarketStatus, Side
from marketflow.schemas.derived import arrow
from marketflow.schemas.fields import Kind, Table
from marketflow.schemas.tables.market_data import IMBALANCES, INSTRUMENTS, MARKET_STATUS, STATISTICS

_HEAD: Final = [("type", "S1"), ("locate", ">u2"), ("tracking", ">u2"), ("time", "S6")]


def _layout(*fields: tuple[str, str]) -> np.dtype[np.void]:
    return np.dtype([*_HEAD, *fields])


LAYOUTS: Final = {
    "S": _layout(("event", "S1")),  # 4.1
    "R": _layout(  # 4.2.1
        ("stock", "S8"), ("market_category", "S1"), ("financial_status", "S1"),
        ("round_lot_size", ">u4"), ("round_lots_only", "S1"), ("issue_classification", "S1"),
        ("issue_subtype", "S2"), ("authenticity", "S1"), ("short_sale_threshold", "S1"),
        ("ipo", "S1"), ("luld_tier", "S1"), ("etp", "S1"), ("etp_leverage", ">u4"),
        ("inverse", "S1"),
    ),
    "H": _layout(("stock", "S8"), ("state", "S1"), ("reserved", "S1"), ("reason", "S4")),  # 4.2.2
    "Y": _layout(("stock", "S8"), ("action", "S1")),  # 4.2.3
    "L": _layout(  # 4.2.4
        ("mpid", "S4"), ("stock", "S8"), ("primary", "S1"), ("mode", "S1"), ("state", "S1"),
    ),
    "V": _layout(("level_1", ">u8"), ("level_2", ">u8"), ("level_3", ">u8")),  # 4.2.5.1
    "W": _layout(("level", "S1")),  # 4.2.5.2
    "K": _layout(  # 4.2.6
        ("stock", "S8"), ("release_time", ">u4"), ("qualifier", "S1"), ("price", ">u4"),
    ),
    "J": _layout(  # 4.2.7
        ("stock", "S8"), ("reference", ">u4"), ("upper", ">u4"), ("lower", ">u4"),
        ("extension", ">u4"),
    ),
    "h": _layout(("stock", "S8"), ("market", "S1"), ("action", "S1")),  # 4.2.8
    "Q": _layout(  # 4.5.2
        ("shares", ">u8"), ("stock", "S8"), ("price", ">u4"), ("match", ">u8"),
        ("cross_type", "S1"),
    ),
    "I": _layout(  # 4.6
        ("paired", ">u8"), ("imbalance", ">u8"), ("direction", "S1"), ("stock", "S8"),
        ("far", ">u4"), ("near", ">u4"), ("reference", ">u4"), ("cross_type", "S1"),
        ("variation", "S1"),
    ),
    "N": _layout(("stock", "S8"), ("interest", "S1")),  # 4.7
    "O": _layout(  # 4.8
        ("stock", "S8"), ("open_eligibility", "S1"), ("minimum", ">u4"), ("maximum", ">u4"),
        ("near", ">u4"), ("near_time", ">u8"), ("lower", ">u4"), ("upper", ">u4"),
    ),
}  # fmt: skip

#: Every kind of ``statistics`` row this venue writes, and what it is.
KINDS: Final = {
    "directory": "text: what a directory message says that has no column of its own",
    "market_participant": "text: market maker position of a firm in a stock",
    "mwcb_level_1": "S&P 500 value of the market-wide circuit breaker's level 1",
    "mwcb_level_2": "level 2",
    "mwcb_level_3": "level 3",
    "mwcb_breached_level": "the level that was breached",
    "ipo_quotation_release_time": "seconds since midnight US/Eastern; text: its qualifier",
    "ipo_price": "IPO price to be used for the upper auction collar",
    "luld_reference_price": "reference price of a limit-up limit-down auction collar",
    "luld_upper_price": "its upper bound",
    "luld_lower_price": "its lower bound",
    "luld_extension": "number of the extension",
    "retail_interest": "text: side with retail price improvement interest (B, S, A both, N none)",
    "cross_shares": "shares matched in a cross, 0 if none took place; text: cross type",
    "cross_price": "price of that cross; text: cross type",
    "direct_listing_open_eligibility": "text: whether the stock may be released for trading",
    "direct_listing_minimum_price": "lower bound of prices allowed to open at",
    "direct_listing_maximum_price": "upper bound",
    "direct_listing_near_price": "price at which the security would open now",
    "direct_listing_near_time": "ns since midnight US/Eastern when that price was set",
    "direct_listing_lower_collar": "lower auction collar",
    "direct_listing_upper_collar": "upper auction collar",
}

_EVENTS: Final = {
    b"O": (MarketStatus.PRE_OPEN, "start of messages"),
    b"S": (MarketStatus.PRE_OPEN, "start of system hours"),
    b"Q": (MarketStatus.OPEN, "start of market hours"),
    b"M": (MarketStatus.POST_CLOSE, "end of market hours"),
    b"E": (MarketStatus.CLOSED, "end of system hours"),
    b"C": (MarketStatus.CLOSED, "end of messages"),
}
_STATES: Final = {
    b"H": MarketStatus.HALTED,
    b"P": MarketStatus.PAUSED,
    b"Q": MarketStatus.QUOTING,
    b"T": MarketStatus.OPEN,
}
_SHORT_SALES: Final = {
    b"0": (MarketStatus.SHORT_SALE_ALLOWED, "no price test"),
    b"1": (MarketStatus.SHORT_SALE_RESTRICTED, "intraday price drop"),
    b"2": (MarketStatus.SHORT_SALE_RESTRICTED, "remains in effect"),
}
_SIDES: Final = np.zeros(256, np.int8)
_SIDES[ord("B")] = Side.BID
_SIDES[ord("S")] = Side.ASK

#: One row: table name, and its own columns by name.
Row = tuple[str, dict[str, Any]]


def _text(value: bytes) -> str:
    """A field as text. Any byte may come, only the stock is checked; no database takes a NUL."""
    return value.decode("latin-1").replace("\0", "").strip(" ")


#: A one-letter field as text, by its byte.
_LETTERS: Final = pa.array([_text(bytes([byte])) for byte in range(256)], pa.string())


def _price(value: int) -> Decimal:
    return Decimal(int(value)).scaleb(-4)


def _statistic(kind: str, value: Decimal | int | None, text: str | None = None) -> Row:
    assert kind in KINDS, kind
    return "statistics", {
        "kind": kind,
        "value": None if value is None else Decimal(value),
        "text": text,
    }


def _system_event(m: Any) -> Iterator[Row]:
    code = bytes(m["event"])
    status, meaning = _EVENTS.get(code, (MarketStatus.UNKNOWN, "unknown system event"))
    yield "market_status", {"status": status, "reason": f"{_text(code)} {meaning}"}


_DIRECTORY: Final = (
    "market_category", "financial_status", "round_lot_size", "round_lots_only",
    "issue_classification", "issue_subtype", "authenticity", "short_sale_threshold", "ipo",
    "luld_tier", "etp", "etp_leverage", "inverse",
)  # fmt: skip


def _directory(m: Any) -> Iterator[Row]:
    lot = int(m["round_lot_size"]) if m["round_lots_only"] == b"Y" else 1
    yield (
        "instruments",
        {
            "instrument_id": str(int(m["locate"])),
            "size_increment": Decimal(lot),
            "quote_currency": "USD",
            "settlement_currency": "USD",
            "status": MarketStatus.UNKNOWN,
        },
    )
    facts = ((name, m[name]) for name in _DIRECTORY)
    shown = (f"{n}={_text(v) if isinstance(v, bytes) else int(v)}" for n, v in facts)
    yield _statistic("directory", None, " ".join(shown))


def _trading_action(m: Any) -> Iterator[Row]:
    status = _STATES.get(bytes(m["state"]), MarketStatus.UNKNOWN)
    yield "market_status", {"status": status, "reason": _text(m["reason"]) or None}


def _operational_halt(m: Any) -> Iterator[Row]:
    status = _STATES.get(bytes(m["action"]), MarketStatus.UNKNOWN)
    yield "market_status", {"status": status, "reason": f"operational, market {_text(m['market'])}"}


def _short_sale(m: Any) -> Iterator[Row]:
    code = bytes(m["action"])
    status, meaning = _SHORT_SALES.get(code, (MarketStatus.UNKNOWN, "unknown Reg SHO action"))
    yield "market_status", {"status": status, "reason": f"{_text(code)} {meaning}"}


def _participant(m: Any) -> Iterator[Row]:
    mpid, primary, mode, state = (_text(m[name]) for name in ("mpid", "primary", "mode", "state"))
    text = f"mpid={mpid} primary={primary} mode={mode} state={state}"
    yield _statistic("market_participant", None, text)


def _breaker_levels(m: Any) -> Iterator[Row]:
    for level in (1, 2, 3):
        yield _statistic(f"mwcb_level_{level}", Decimal(int(m[f"level_{level}"])).scaleb(-8))


def _breached(m: Any) -> Iterator[Row]:
    level = _text(m["level"])
    number = int(level) if level in ("1", "2", "3") else None
    yield _statistic("mwcb_breached_level", number, level)


def _ipo(m: Any) -> Iterator[Row]:
    qualifier = _text(m["qualifier"])
    yield _statistic("ipo_quotation_release_time", int(m["release_time"]), qualifier)
    yield _statistic("ipo_price", _price(m["price"]))


def _auction_collar(m: Any) -> Iterator[Row]:
    for name in ("reference", "upper", "lower"):
        yield _statistic(f"luld_{name}_price", _price(m[name]))
    yield _statistic("luld_extension", int(m["extension"]))


def _cross(m: Any) -> Iterator[Row]:
    cross_type = _text(m["cross_type"])
    yield _statistic("cross_shares", int(m["shares"]), cross_type)
    yield _statistic("cross_price", _price(m["price"]) if m["shares"] else None, cross_type)


def _retail_interest(m: Any) -> Iterator[Row]:
    yield _statistic("retail_interest", None, _text(m["interest"]))


def _direct_listing(m: Any) -> Iterator[Row]:
    kind = "direct_listing"
    yield _statistic(f"{kind}_open_eligibility", None, _text(m["open_eligibility"]))
    yield _statistic(f"{kind}_minimum_price", _price(m["minimum"]))
    yield _statistic(f"{kind}_maximum_price", _price(m["maximum"]))
    yield _statistic(f"{kind}_near_price", _price(m["near"]))
    # Any 64 bits may come; what no column holds is shown as text.
    near_time = int(m["near_time"])
    fits = near_time < 10**16
    yield _statistic(
        f"{kind}_near_time", near_time if fits else None, None if fits else str(near_time)
    )
    yield _statistic(f"{kind}_lower_collar", _price(m["lower"]))
    yield _statistic(f"{kind}_upper_collar", _price(m["upper"]))


_HANDLERS: Final[dict[str, Callable[[Any], Iterator[Row]]]] = {
    "S": _system_event,
    "R": _directory,
    "H": _trading_action,
    "h": _operational_halt,
    "Y": _short_sale,
    "L": _participant,
    "V": _breaker_levels,
    "W": _breached,
    "K": _ipo,
    "J": _auction_collar,
    "Q": _cross,
    "N": _retail_interest,
    "O": _direct_listing,
}
_TABLES: Final = {t.name: t for t in (INSTRUMENTS, MARKET_STATUS, STATISTICS)}


def tables_of(
    data: NDArray[np.uint8], received: NDArray[np.int64], rare: NDArray[np.void]
) -> dict[str, pa.RecordBatch]:
    """Tables of the messages noted in ``rare`` (kernels.itch_layout.RARE), rows in feed order."""
    tables: dict[str, pa.RecordBatch] = {}
    if len(rare) == 0:
        return tables
    letters = data[rare["at"]]
    imbalances = letters == ord("I")
    if imbalances.any():
        notes = rare[imbalances]
        tables["imbalances"] = _imbalances(_gather(data, notes["at"], "I"), received, notes)
    others = np.flatnonzero(~imbalances)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    sources: dict[str, list[int]] = {name: [] for name in _TABLES}
    for i in others.tolist():
        letter = chr(letters[i])
        layout = LAYOUTS[letter]
        at = int(rare["at"][i])
        message = np.frombuffer(data[at : at + layout.itemsize], layout)[0]
        for name, values in _HANDLERS[letter](message):
            rows[name].append(values)
            sources[name].append(i)
    for name, chosen in sources.items():
        if chosen:
            tables[name] = _batch(_TABLES[name], rows[name], received, rare[chosen])
    return tables


def _gather(data: NDArray[np.uint8], at: NDArray[np.int64], letter: str) -> NDArray[np.void]:
    """Messages of one type as structured rows."""
    layout = LAYOUTS[letter]
    spans = data[at[:, None] + np.arange(layout.itemsize)]
    return np.ascontiguousarray(spans).view(layout)[:, 0]


def _shared(received: NDArray[np.int64], notes: NDArray[np.void]) -> dict[str, pa.Array]:
    """The columns every table has."""
    ts_recv = received[notes["frame"]]
    return {
        "ts_event": pa.array(np.ascontiguousarray(notes["ts"])).cast(arrow.TIME),
        "ts_recv": pa.array(ts_recv, mask=ts_recv == 0).cast(arrow.TIME),
        "sequence": pa.array(np.ascontiguousarray(notes["sequence"])),
        "instrument": pa.array(np.ascontiguousarray(notes["instrument"])),
    }


def _batch(
    table: Table,
    rows: list[dict[str, Any]],
    received: NDArray[np.int64],
    notes: NDArray[np.void],
) -> pa.RecordBatch:
    columns = _shared(received, notes)
    schema = passing.schema(table)
    for field in table.fields:
        if field.name in columns or field.name not in schema.names:
            continue
        values: list[Any] = [row.get(field.name) for row in rows]
        if field.kind is Kind.CODE:
            codes = pa.array([int(v) for v in values], pa.int8())
            columns[field.name] = pa.DictionaryArray.from_arrays(codes, arrow.dictionary(field))
        elif field.kind is Kind.NAME:
            columns[field.name] = pa.array(values, pa.string()).dictionary_encode()
        else:
            columns[field.name] = pa.array(values, arrow.arrow_type(field))
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema)


def _prices(values: NDArray[Any]) -> pa.Array:
    """1/10000 USD to the column; 0 = not applicable."""
    parts = np.zeros((len(values), 2), np.int64)
    parts[:, 0] = values.astype(np.int64) * 10 ** (arrow.DECIMAL.scale - 4)
    valid = np.packbits(values != 0, bitorder="little")
    return pa.Array.from_buffers(
        arrow.DECIMAL, len(values), [pa.py_buffer(valid), pa.py_buffer(parts)]
    )


def _sizes(values: NDArray[Any], null: NDArray[np.bool_]) -> pa.Array:
    """Shares (below 10**16) to the column."""
    whole = pa.array(values.astype(np.int64), mask=null)
    return whole.cast(arrow.SUM).cast(arrow.DECIMAL)


def _bytes(letters: NDArray[Any]) -> NDArray[np.uint8]:
    """One-letter fields as numbers."""
    return np.ascontiguousarray(letters).view(np.uint8)


def _imbalances(
    messages: NDArray[np.void], received: NDArray[np.int64], notes: NDArray[np.void]
) -> pa.RecordBatch:
    """I, net order imbalance (4.6). Direction O: not enough orders to calculate, sizes null."""
    direction = _bytes(messages["direction"])
    unknown = direction == ord("O")
    field = IMBALANCES.field("side")
    columns = _shared(received, notes) | {
        "side": pa.DictionaryArray.from_arrays(
            pa.array(_SIDES[direction]), arrow.dictionary(field)
        ),
        "paired_size": _sizes(messages["paired"], unknown),
        "imbalance_size": _sizes(messages["imbalance"], unknown),
        "reference_price": _prices(messages["reference"]),
        "far_price": _prices(messages["far"]),
        "near_price": _prices(messages["near"]),
        "cross_type": _LETTERS.take(pa.array(_bytes(messages["cross_type"]))),
    }
    schema = passing.schema(IMBALANCES)
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema)
