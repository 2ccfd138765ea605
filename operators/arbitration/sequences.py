"""Which sequence a venue's message has, so that copies of it on several connections are told apart.

Only numbers that are the same on every connection serve. Binance's (``U`` and ``u`` of depth, ``t``
and ``a`` of trades, ``u`` of bookTicker), OKX's (``prevSeqId`` and ``seqId``, ``tradeId``) and
Bybit's (``u`` of order books) are; Coinbase's count the messages of a connection, Kraken sends
none: lines of those cannot be arbitrated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec


class Sequenced(NamedTuple):
    """``key``: the stream of messages that the numbers belong to; the message covers ``first`` to
    ``last``. ``gapless``: the next message of the stream begins at ``last + 1``; ``full``: a whole
    book, which needs nothing before it."""

    key: tuple[str, str]
    first: int
    last: int
    gapless: bool = True
    full: bool = False


class _Binance(msgspec.Struct):
    e: str = ""
    s: str = ""
    U: int | None = None
    u: int | None = None
    pu: int | None = None
    t: int | None = None
    a: msgspec.Raw = msgspec.Raw()


class _Combined(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Arg(msgspec.Struct, frozen=True):
    channel: str = ""
    instId: str = ""  # noqa: N815 - the venue's name


class _OkxData(msgspec.Struct):
    seqId: int | None = None  # noqa: N815
    prevSeqId: int | None = None  # noqa: N815
    tradeId: str | None = None  # noqa: N815
    count: str = "1"


class _Okx(msgspec.Struct):
    arg: _Arg = _Arg()
    action: str = ""
    data: list[_OkxData] = []


class _BybitData(msgspec.Struct):
    u: int | None = None


class _Bybit(msgspec.Struct):
    topic: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw()


_binance = msgspec.json.Decoder(_Binance).decode
_combined = msgspec.json.Decoder(_Combined).decode
_okx = msgspec.json.Decoder(_Okx).decode
_bybit = msgspec.json.Decoder(_Bybit).decode
_bybit_data = msgspec.json.Decoder(_BybitData).decode
_OKX_BOOKS: Final = frozenset({"books", "books5", "books-l2-tbt", "books50-l2-tbt", "bbo-tbt"})


def binance(payload: bytes) -> Sequenced | None:
    """Spot: {"e":"depthUpdate","s":"BTCUSDT","U":157,"u":160,...}; futures add ``pu``, which the
    message before had as ``u``."""
    combined = _combined(payload)
    partial = combined.stream.partition("@depth")[2][:1].isdigit()  # @depth5, 10 or 20
    body = bytes(combined.data) or payload
    if body[:1] != b"{":
        return None
    found = _binance(body)
    if found.e == "depthUpdate" and found.U is not None and found.u is not None:
        key = (combined.stream or found.e, found.s)
        if partial:
            return Sequenced(key, found.u, found.u, gapless=False, full=True)
        first = found.U if found.pu is None else found.pu + 1
        return Sequenced(key, first, found.u)
    if found.e == "trade" and found.t is not None:
        return Sequenced((found.e, found.s), found.t, found.t)
    if found.e == "aggTrade" and bytes(found.a).isdigit():
        number = int(bytes(found.a))
        return Sequenced((found.e, found.s), number, number)
    if found.e in ("", "bookTicker") and found.u is not None and found.s:
        return Sequenced(("bookTicker", found.s), found.u, found.u, gapless=False)
    return None


def okx(payload: bytes) -> Sequenced | None:
    """{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{...,
    "prevSeqId":121,"seqId":123}]}; trades are numbered by ``tradeId``."""
    if payload[:1] != b"{":
        return None  # pong
    found = _okx(payload)
    if not found.data:
        return None
    key, newest = (found.arg.channel, found.arg.instId), found.data[-1]
    if found.arg.channel in _OKX_BOOKS and newest.seqId is not None:
        previous = newest.prevSeqId
        full = found.action == "snapshot" or previous is None or previous < 0
        if full or previous is None:
            return Sequenced(
                key, newest.seqId, newest.seqId, gapless=previous is not None, full=True
            )
        if previous >= newest.seqId:  # a keep-alive, or numbers that begin anew
            return None
        return Sequenced(key, previous + 1, newest.seqId)
    if newest.tradeId is not None and newest.tradeId.isdigit():
        last, first = int(newest.tradeId), found.data[0]
        count = int(first.count) if first.count.isdigit() else 1
        return Sequenced(key, int(first.tradeId or last) - count + 1, last)
    return None


def bybit(payload: bytes) -> Sequenced | None:
    """{"topic":"orderbook.50.BTCUSDT","type":"delta","data":{"s":"BTCUSDT","u":18521288,...}}"""
    found = _bybit(payload)
    if not found.topic.startswith("orderbook."):
        return None
    number = _bybit_data(bytes(found.data)).u
    if number is None:
        return None
    return Sequenced(("orderbook", found.topic), number, number, full=found.type == "snapshot")


#: Decoder of a venue -> the sequence of its messages.
SEQUENCES: Final[dict[str, Callable[[bytes], Sequenced | None]]] = {
    "BINANCE": binance,
    "BINANCE_USDM": binance,
    "BINANCE_COINM": binance,
    "OKX": okx,
    "BYBIT": bybit,
}


def sequence_of(venue: str, payload: bytes) -> Sequenced | None:
    """The sequence of a message; None where it has none, or is not what the venue documents (its
    decoder will say so)."""
    try:
        return SEQUENCES[venue](payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
