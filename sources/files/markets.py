"""Which of Binance's markets a recording is of, by its first messages.

USD-M and COIN-M send what spot never does: ``pu`` in depth updates, a named bookTicker, a trade's
``X``, mark prices. COIN-M's symbols are of a dollar pair and end in ``_PERP`` or a day; all other
contracts are USD-M's. Spot alone sends ``M`` with its trades, and depth updates without ``pu``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

_COINM: Final = re.compile(r"[A-Z0-9]+USD_(PERP|\d{6})")
_CONTRACT_EVENTS: Final = frozenset({"bookTicker", "markPriceUpdate", "forceOrder"})
_SPOT_EVENTS: Final = frozenset({"trade", "aggTrade"})
NAMES: Final = {"spot": "spot", "usdm": "USD-M futures", "coinm": "COIN-M futures"}


class _Message(msgspec.Struct):
    """What tells the markets apart, of a message or of a combined stream's envelope."""

    e: str = ""
    s: str = ""
    pu: int | None = None
    X: str | None = None
    M: bool | None = None
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Message).decode


def market_of(payload: bytes) -> str | None:
    """``spot``, ``usdm`` or ``coinm``; None where this message does not tell."""
    try:
        message = _decode(payload)
        if inner := bytes(message.data):
            message = _decode(inner)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    contract = message.pu is not None or message.X is not None or message.e in _CONTRACT_EVENTS
    if contract and message.s:
        return "coinm" if _COINM.fullmatch(message.s) else "usdm"
    if message.e == "depthUpdate" and message.s:
        return "spot"
    if message.e in _SPOT_EVENTS and message.M is not None:
        return "spot"
    return None


def other_market(payloads: Iterable[bytes], market: str) -> str | None:
    """The market that these messages are of, if none of them can be of ``market``."""
    found = {market_of(payload) for payload in payloads} - {None}
    wanted = "spot" if market == "us" else market
    if not found or wanted in found:
        return None
    return sorted(name for name in found if name is not None)[0]
