"""OKX: WebSocket API v5, ``wss://ws.okx.com:8443/ws/v5/public``.

Source: OKX API guide v5: without anything sent for 30 s the venue disconnects, so the text
``ping`` is sent and answered with ``pong``; 480 subscription messages an hour, 64 KiB each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from marketflow.sources.websocket.venues.base import HEAD, LiveVenue, chunks, decoded

_FUTURE: Final = re.compile(r".+-\d{6}")


class _Arg(msgspec.Struct):
    channel: str
    instId: str  # noqa: N815 - the venue's own name


class _Book(msgspec.Struct):
    arg: _Arg


_book: Final = msgspec.json.Decoder(_Book)


class Okx(LiveVenue):
    """Symbols name their market (``BTC-USDT``, ``BTC-USDT-SWAP``); other channels: ``tickers``,
    ``trades-all``, ``funding-rate``, ``mark-price``."""

    NAME = "okx"
    DECODER = "OKX"
    VENUE = "OKX"
    ADDRESS = "wss://ws.okx.com:8443/ws/v5/public"
    REST = "https://www.okx.com"
    EXAMPLE = "BTC-USDT"
    NAMES = {"book": "books", "trades": "trades", "quotes": "bbo-tbt"}  # noqa: RUF012
    PING = "ping"
    SEND_PAUSE_S = 0.35
    REFUSALS = (b'"event":"error"',)
    CHANNEL = re.compile(rb'"channel":"([^"]+)"')
    ANSWERS = b'"event":'

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}"""
        args = (
            json.dumps({"channel": channel, "instId": symbol})
            for channel in channels
            for symbol in symbols
        )
        for chunk in chunks(args, self.CHUNK):
            yield f'{{"op": "{verb}", "args": [{", ".join(chunk)}]}}'

    def full_book(self, message: bytes) -> str:
        if b'"action":"snapshot"' not in message[:HEAD]:
            return ""
        book = decoded(_book, message)
        return "" if book is None else book.arg.instId

    def listings(self) -> list[str]:
        kinds = sorted({_kind(symbol) for symbol in self.symbols})
        return [f"/api/v5/public/instruments?instType={kind}" for kind in kinds if kind]


def _kind(symbol: str) -> str:
    """The market of a symbol; "" for options, which are listed by underlying."""
    if symbol.endswith("-SWAP"):
        return "SWAP"
    if symbol.endswith(("-C", "-P")):
        return ""
    return "FUTURES" if _FUTURE.fullmatch(symbol) else "SPOT"
