"""Binance spot, USD-M and COIN-M: combined streams, books by differences and a REST snapshot.

Source: Binance Open Platform, "WebSocket Streams" and "How to manage a local order book
correctly": the stream is buffered first, then the snapshot is fetched, and fetched again while it
is older than the first difference. Limits: 1024 streams per connection, 5 messages a second.
The venue pings every 20 s (futures: 3 minutes), and answers pings of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import msgspec

from marketflow.sources.websocket.venues.base import HEAD, LiveVenue, Subscription, chunks, decoded

_DIFFERENCES: Final = re.compile(r"depth(@\d+ms)?")
_LAST_ID: Final = re.compile(rb'"lastUpdateId"\s*:\s*(\d+)')
_DEPTH: Final = b'"depthUpdate"'


class _Update(msgspec.Struct):
    s: str
    U: int


class _Combined(msgspec.Struct):
    data: _Update


_combined: Final = msgspec.json.Decoder(_Combined)


class Binance(LiveVenue):
    """Spot. Symbols as in ``BTCUSDT``; other channels by their stream names (``aggTrade``)."""

    NAME = "binance"
    DECODER = "BINANCE"
    VENUE = "BINANCE"
    ADDRESS = "wss://stream.binance.com:9443/stream"
    REST = "https://api.binance.com"
    PATHS = "/api/v3"
    EXAMPLE = "BTCUSDT"
    NAMES = {"book": "depth@100ms", "trades": "trade", "quotes": "bookTicker"}  # noqa: RUF012
    DEPTHS: ClassVar[tuple[int, ...]] = (5, 10, 20, 50, 100, 500, 1000, 5000)
    DEPTH = 1000
    SEND_PAUSE_S = 0.25
    MAX_TOPICS = 1024
    REFUSALS = (b'{"error"', b'{"code"')
    CHANNEL = re.compile(rb'"stream":"[^"@]*@([^"]+)"')

    def __init__(self, wanted: Subscription) -> None:
        super().__init__(wanted)
        self._sent = 0

    @property
    def book_channels(self) -> tuple[str, ...]:
        return tuple(c for c in self.channels if _DIFFERENCES.fullmatch(c))

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms"],"id":1}"""
        streams = (f"{symbol.lower()}@{channel}" for channel in channels for symbol in symbols)
        for chunk in chunks(streams, self.CHUNK):
            self._sent += 1
            yield json.dumps({"method": verb.upper(), "params": chunk, "id": self._sent})

    def resubscribe(self, symbol: str) -> list[str]:
        """Nothing: a fresh snapshot is enough."""
        return []

    def listings(self) -> list[str]:
        names = json.dumps(list(self.symbols), separators=(",", ":"))
        return [f"{self.PATHS}/exchangeInfo?symbols={names}"]

    def snapshot(self, symbol: str) -> str:
        if not self.book_channels:
            return ""
        return f"{self.PATHS}/depth?symbol={symbol}&limit={self.depth}"

    def first_id(self, message: bytes) -> tuple[str, int] | None:
        if _DEPTH not in message[:HEAD]:
            return None
        combined = decoded(_combined, message)
        return None if combined is None else (combined.data.s, combined.data.U)

    def snapshot_id(self, body: bytes) -> int | None:
        match = _LAST_ID.search(body[:HEAD])
        return int(match[1]) if match else None


class _Futures(Binance):
    DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
    SILENCE_S = 240.0

    def listings(self) -> list[str]:
        return [f"{self.PATHS}/exchangeInfo"]


class BinanceUsdm(_Futures):
    """USD-M futures. Since 2026 the path of the address decides which streams it sends: books,
    best prices and trades come from ``/public``, all others from ``/market``."""

    NAME = "binance_usdm"
    DECODER = "BINANCE_USDM"
    VENUE = "BINANCE_USDM"
    ADDRESS = "wss://fstream.binance.com/public/stream"
    MARKET_ADDRESS = "wss://fstream.binance.com/market/stream"
    REST = "https://fapi.binance.com"
    PATHS = "/fapi/v1"

    @property
    def address(self) -> str:
        return self.ADDRESS if self._is_public(self.channels[0]) else self.MARKET_ADDRESS

    def problem(self) -> str:
        public = [channel for channel in self.channels if self._is_public(channel)]
        others = [channel for channel in self.channels if channel not in public]
        if public and others:
            return (
                f"{', '.join(public)} and {', '.join(others)} come from two addresses of Binance: "
                "record them as two sources"
            )
        return ""

    def _is_public(self, channel: str) -> bool:
        return channel.startswith("depth") or channel in ("trade", "bookTicker")


class BinanceCoinm(_Futures):
    """COIN-M futures; symbols as in ``BTCUSD_PERP``."""

    NAME = "binance_coinm"
    DECODER = "BINANCE_COINM"
    VENUE = "BINANCE_COINM"
    ADDRESS = "wss://dstream.binance.com/stream"
    REST = "https://dapi.binance.com"
    PATHS = "/dapi/v1"
    EXAMPLE = "BTCUSD_PERP"
