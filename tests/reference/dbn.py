"""Databento records to rows one by one, with their own decoder's objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import databento_dbn as dbn
import pyarrow as pa

from marketflow.operators.events import NO_SEQUENCE, EventKind
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.units import NO_PRICE

UNDEFINED = 2**63 - 1
SIDES = {"B": Side.BID, "A": Side.ASK, "N": Side.NONE}
AGGRESSORS = {"B": AggressorSide.BUY, "A": AggressorSide.SELL, "N": AggressorSide.NONE}
ORDERS = {"A": EventKind.ADD, "C": EventKind.REDUCE, "M": EventKind.MODIFY}


class Row(NamedTuple):
    """The fields of EVENT that a record decides."""

    kind: int
    side: int
    price: int
    size: int
    order: int
    count: int  # type: ignore[assignment] # a column of that name, not the tuple's method
    flags: int
    sequence: int
    ts_event: int
    ts_recv: int


def objects(path: Path) -> list[Any]:
    """Metadata and records of a .dbn.zst file, upgraded to the newest version."""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
        raw = file.read()
    decoder = dbn.DBNDecoder(
        upgrade_policy=dbn.VersionUpgradePolicy.UPGRADE_TO_V3  # type: ignore[arg-type]
    )
    decoder.write(raw)
    return list(decoder.decode())


def rows(record: Any, book: str) -> list[Row]:
    """Rows of a record whose instrument's book is ``L3``, ``L2`` or none."""
    match record:
        case dbn.MBOMsg():
            return _order(record, book)
        case dbn.TradeMsg():
            return [_trade(record)]
        case dbn.MBP1Msg() | dbn.MBP10Msg() | dbn.BBOMsg() | dbn.CMBP1Msg() | dbn.CBBOMsg():
            found = _book(record) if book == "L2" else _quote(record)
            return found + ([_trade(record)] if getattr(record, "action", "") == "T" else [])
    return []


def _flags(record: Any) -> int:
    pairs = ((dbn.F_LAST, RowFlag.LAST), (dbn.F_SNAPSHOT, RowFlag.SNAPSHOT))
    flags = sum(int(ours) for theirs, ours in pairs if int(record.flags) & int(theirs))
    return flags | (RowFlag.MAYBE_BAD if int(record.flags) & int(dbn.F_MAYBE_BAD_BOOK) else 0)


def _row(record: Any, kind: int, **values: int) -> Row:
    received = 0 if int(record.flags) & int(dbn.F_BAD_TS_RECV) else record.ts_recv
    shared = {
        "side": 0, "price": NO_PRICE, "size": 0, "order": 0, "count": 0, "flags": _flags(record),
        "sequence": getattr(record, "sequence", NO_SEQUENCE),
        "ts_event": record.ts_event, "ts_recv": received,
    }  # fmt: skip
    return Row(kind=kind, **(shared | values))


def _trade(record: Any) -> Row:
    return _row(
        record,
        EventKind.TRADE,
        side=AGGRESSORS[str(record.side)],
        price=record.price,
        size=record.size,
        flags=_flags(record) | RowFlag.LAST,
    )


def _order(record: Any, book: str) -> list[Row]:
    action = str(record.action)
    if action == "T":
        trade = _trade(record)
        return [trade._replace(flags=_flags(record)) if book == "L3" else trade]
    if book != "L3":
        return []
    if action == "R":
        return [_row(record, EventKind.CLEAR)]
    if action in ORDERS:
        return [
            _row(
                record,
                ORDERS[action],
                side=SIDES[str(record.side)],
                price=record.price,
                size=record.size,
                order=record.order_id,
            )
        ]
    return [_row(record, EventKind.CLOCK)] if _flags(record) & RowFlag.LAST else []


def _book(record: Any) -> list[Row]:
    flags = (_flags(record) | RowFlag.SNAPSHOT) & ~RowFlag.LAST
    found = [_row(record, EventKind.BEGIN, order=2**63, flags=flags)]
    for side, name in ((Side.BID, "bid"), (Side.ASK, "ask")):
        for level in record.levels:
            price, size = getattr(level, f"{name}_px"), getattr(level, f"{name}_sz")
            if price != UNDEFINED and size:
                count = getattr(level, f"{name}_ct")
                values = {"side": side, "price": price, "size": size, "count": count}
                found.append(_row(record, EventKind.LEVEL, flags=flags, **values))
    return [*found, _row(record, EventKind.END, flags=flags)]


def _quote(record: Any) -> list[Row]:
    level = record.levels[0]
    found = []
    for kind, side, name in (
        (EventKind.VENUE_BID, Side.BID, "bid"),
        (EventKind.VENUE_ASK, Side.ASK, "ask"),
    ):
        price, size = getattr(level, f"{name}_px"), getattr(level, f"{name}_sz")
        if price == UNDEFINED or not size:
            price, size = NO_PRICE, 0
        last = RowFlag.LAST if side is Side.ASK else 0
        flags = (_flags(record) & ~RowFlag.LAST) | last
        found.append(_row(record, kind, side=side, price=price, size=size, flags=flags))
    return found
