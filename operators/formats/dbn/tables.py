"""Databento's status, imbalance, statistics and definition records as rows of our tables.

Records come as databento_dbn's objects of the newest version. A value that Databento marks as
undefined is null.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import databento_dbn

from marketflow.operators.normalise.passthrough import PassingRows
from marketflow.schemas.codes import MarketStatus, Side
from marketflow.schemas.units import INT64_MAX, to_decimal

_UNDEF_QUANTITY: Final = 2**32 - 1
_UNDEF_INT32: Final = 2**31 - 1
_UNDEF_TIME: Final = 2**64 - 1

_STATUSES: Final = {
    "PRE_OPEN": MarketStatus.PRE_OPEN,
    "PRE_CROSS": MarketStatus.AUCTION,
    "QUOTING": MarketStatus.QUOTING,
    "CROSS": MarketStatus.AUCTION,
    "ROTATION": MarketStatus.AUCTION,
    "NEW_PRICE_INDICATION": MarketStatus.AUCTION,
    "TRADING": MarketStatus.OPEN,
    "HALT": MarketStatus.HALTED,
    "PAUSE": MarketStatus.PAUSED,
    "SUSPEND": MarketStatus.SUSPENDED,
    "PRE_CLOSE": MarketStatus.AUCTION,
    "CLOSE": MarketStatus.CLOSED,
    "POST_CLOSE": MarketStatus.POST_CLOSE,
    "NOT_AVAILABLE_FOR_TRADING": MarketStatus.CLOSED,
}
_SIDES: Final = {"B": Side.BID, "A": Side.ASK}


def add(record: Any, instrument: int, passing: PassingRows) -> None:
    """The rows of a record."""
    match record:
        case databento_dbn.StatusMsg():
            _status(record, instrument, passing)
        case databento_dbn.ImbalanceMsg():
            _imbalance(record, instrument, passing)
        case databento_dbn.StatMsg():
            _statistic(record, instrument, passing)
        case databento_dbn.InstrumentDefMsg():
            _definition(record, instrument, passing)
        case _:
            raise TypeError(f"no table for {type(record).__name__}")


def _put(name: str, record: Any, instrument: int, passing: PassingRows, **values: Any) -> None:
    ts_event, ts_recv = (0 if ts == _UNDEF_TIME else ts for ts in (record.ts_event, record.ts_recv))
    passing.add(name, instrument, ts_event, ts_recv, values)


def _price(value: int) -> str | None:
    return None if value == INT64_MAX else f"{to_decimal(value, 9):f}"


def _auction_price(value: int) -> str | None:
    """A price that is not calculated is sent as 0."""
    return _price(value) if value else None


def _quantity(value: int) -> str | None:
    return None if value in (_UNDEF_QUANTITY, INT64_MAX) else str(value)


def _word(value: Any) -> str:
    """Lower-case name of an enum's member, or the number that this release does not know."""
    return str(getattr(value, "name", value)).lower()


def _status(record: Any, instrument: int, passing: PassingRows) -> None:
    action = _word(record.action)
    status = _STATUSES.get(action.upper(), MarketStatus.UNKNOWN)
    if action == "ssr_change":
        restricted = str(record.is_short_sell_restricted) in ("Y", "TriState.YES", "True")
        status = (
            MarketStatus.SHORT_SALE_RESTRICTED if restricted else MarketStatus.SHORT_SALE_ALLOWED
        )
    words = [action, _word(record.reason), _word(record.trading_event)]
    reason = " ".join(word for word in words if word != "none")
    _put("market_status", record, instrument, passing, status=status, reason=reason or None)


def _imbalance(record: Any, instrument: int, passing: PassingRows) -> None:
    _put(
        "imbalances",
        record,
        instrument,
        passing,
        side=_SIDES.get(str(record.side), Side.NONE),
        paired_size=_quantity(record.paired_qty),
        imbalance_size=_quantity(record.total_imbalance_qty),
        reference_price=_auction_price(record.ref_price),
        far_price=_auction_price(record.auct_interest_clr_price),
        near_price=_auction_price(record.cont_book_clr_price),
        cross_type=str(record.auction_type),
    )


def _statistic(record: Any, instrument: int, passing: PassingRows) -> None:
    """One row for the price and one for the quantity, whichever is there."""
    kind = _word(record.stat_type)
    action = _word(record.update_action)
    text = None if action == "new" else action
    price, quantity = _price(record.price), _quantity(record.quantity)
    sequence = record.sequence
    if price is not None or quantity is None:
        _put(
            "statistics", record, instrument, passing,
            kind=kind, value=price, text=text, sequence=sequence,
        )  # fmt: skip
    if quantity is not None:
        name = kind if price is None else f"{kind}_quantity"
        _put(
            "statistics", record, instrument, passing,
            kind=name, value=quantity, text=text, sequence=sequence,
        )  # fmt: skip


def _definition(record: Any, instrument: int, passing: PassingRows) -> None:
    multiplier = record.contract_multiplier
    if multiplier == _UNDEF_INT32:
        unit = record.unit_of_measure_qty
        multiplier = None if unit == INT64_MAX else to_decimal(unit, 9)
    lot = record.min_lot_size_round_lot
    _put(
        "instruments",
        record,
        instrument,
        passing,
        instrument_id=record.instrument_id,
        price_increment=_price(record.min_price_increment),
        size_increment=None if lot == _UNDEF_INT32 else str(lot),
        contract_multiplier=None if multiplier is None else f"{Decimal(multiplier):f}",
        is_inverse=False,
        base_currency=record.asset or None,
        quote_currency=record.currency or None,
        settlement_currency=record.settl_currency or record.currency or None,
        status=MarketStatus.UNKNOWN,
    )
