"""Kinds of messages that make no row, as the summary names them.

Venues name the kind of a message in a few ways (``event``, ``channel``, ``topic`` ...). A name here
holds no symbol and no number of an instrument, so that there are few of them.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, Final

import msgspec

from marketflow.schemas.messages.frames import FrameKind

_MOST_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_MOST_CHARS: Final = 40
#: In the order in which they are asked.
_EVENTS: Final = ("event", "e", "op", "method", "type", "msg_type")
_CHANNELS: Final = ("channel", "topic", "ch", "table", "stream")
#: Events that say nothing of what the message is about.
_VAGUE: Final = frozenset({"update", "snapshot", "message", "all", "data", "partial", "delta"})
_HOST: Final = re.compile(r"^[a-z]+://[^/]*")
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_ /.-]+")
#: Symbols come behind these: kline.1.BTCUSDT, /market/candles:BTC-USDT_1min, btcusdt@kline_1m.
_BEHIND: Final = re.compile(r"[:@]|\.(?=\d|[A-Z0-9]+$|.*\.)")


def kind_of(kind: int, note: str, text: bytes) -> str:
    """The kind of a DATA or HTTP frame."""
    if kind == FrameKind.HTTP:
        return _clean("rest " + _HOST.sub("", note.partition("?")[0]))
    if len(text) > _MOST_BYTES:
        return "other"
    if text.startswith(_GZIP):
        try:
            text = zlib.decompressobj(wbits=31).decompress(text, _MOST_BYTES)
        except zlib.error:
            return "other"
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _clean(text[:_MOST_CHARS].decode("ascii", "replace")) or "other"
    return _clean(_name(message)) or "other"


def _name(message: Any) -> str:
    if isinstance(message, list):
        # Kraken and Bitfinex: [channel number, ..., kind, symbol] or [channel number, kind].
        words = [item for item in message if isinstance(item, str)]
        return words[0].partition("-")[0] if words else "array"
    if not isinstance(message, dict):
        return "value"
    # Independent Reserve writes its names large.
    message = {str(name).lower(): value for name, value in message.items()}
    inner = [message[name] for name in ("arg", "data") if isinstance(message.get(name), dict)]
    event = _first(message, _EVENTS)
    if event and event not in _VAGUE:
        return event
    for place in (*inner, message):
        event = _first(place, _EVENTS) if place is not message else ""
        found = (event if event not in _VAGUE else "") or _first(place, _CHANNELS)
        if found:
            return _channel(found)
    return event or next(iter(message), "empty")


def _first(message: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((message[n] for n in names if isinstance(message.get(n), str)), "")


def _channel(name: str) -> str:
    if name.startswith("market."):  # Huobi: market.btcusdt.kline.1min
        name = ".".join(name.split(".")[2:3])
    return _BEHIND.split(name, maxsplit=1)[0] or name


def _clean(name: str) -> str:
    return _NOT_A_NAME.sub(" ", name).strip()[:_MOST_CHARS]
