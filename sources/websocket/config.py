"""``ws:VENUE?symbols=A,B&…``: a live feed, checked before anything is connected.

``channels`` (default book,trades,quotes; or the venue's own names), ``depth`` (levels of the
books), ``line`` (tells redundant connections of one feed apart; default 0, 1 … in the order of
the command), ``url`` and ``rest`` (other addresses than the venue's own: a path that is left out
is the venue's; with ``url`` alone REST is asked on the same host and port, and no other host is
contacted). A live feed is recorded first (``marketflow record``) and read from the record.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Final
from urllib.parse import urlsplit

from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.url import check_names, read_query
from marketflow.sources.websocket.venues.base import CHANNELS, LiveVenue, Subscription

#: ``ws:NAME`` -> "module:class" below this package.
_VENUES: Final = {
    "binance": "binance:Binance",
    "binance_coinm": "binance:BinanceCoinm",
    "binance_usdm": "binance:BinanceUsdm",
    "bybit": "bybit:Bybit",
    "bybit_inverse": "bybit:BybitInverse",
    "bybit_linear": "bybit:BybitLinear",
    "coinbase": "coinbase:Coinbase",
    "kraken": "kraken:Kraken",
    "kraken_v1": "kraken:KrakenV1",
    "okx": "okx:Okx",
}
_PARAMS: Final = ("symbols", "channels", "depth", "line", "url", "rest")
_SYMBOL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,39}")
_CHANNEL: Final = re.compile(r"[A-Za-z0-9@._!-]{1,60}")
_USER: Final = re.compile(r"(//)[^/?#]*@")
_LINE: Final = re.compile(r"[A-Za-z0-9_-]{1,30}")
FORM: Final = "ws:VENUE?symbols=A,B"


class LiveConfig(SourceConfig):
    """A checked live feed. ``connection`` names it in every frame."""

    venue: LiveVenue
    connection: str
    address: str
    rest: str

    @property
    def shown(self) -> str:
        """The address without user and password: for records and people."""
        return without_user(self.address)


def without_user(url: str) -> str:
    """The URL with ``***`` in place of user and password."""
    return _USER.sub(r"\1***@", url)


def parse_live(texts: Sequence[str]) -> list[LiveConfig]:
    """The configs of the live feeds of one recorder; SourceError names what to change."""
    count: Counter[str] = Counter()
    specs = []
    for text in texts:
        name = text.removeprefix("ws:").partition("?")[0]
        specs.append(_parse(text, str(count[name])))
        count[name] += 1
    names = Counter(spec.connection for spec in specs)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise SourceError(f"two sources are called {twice[0]}: tell them apart with line=NAME")
    return specs


def _parse(text: str, line: str) -> LiveConfig:
    if not text.startswith("ws:"):
        raise SourceError(f"{text}: a recorder reads live feeds only; write {FORM}")
    name, _, query = text.removeprefix("ws:").partition("?")
    if name not in _VENUES:
        near = difflib.get_close_matches(name, _VENUES, n=1)
        hint = f"did you mean ws:{near[0]} ?" if near else "known: " + ", ".join(_VENUES)
        raise SourceError(f"ws: there is no live venue {name!r}; {hint}")
    module, _, kind = _VENUES[name].partition(":")
    venue: type[LiveVenue] = getattr(
        import_module(f"marketflow.sources.websocket.venues.{module}"), kind
    )
    params = _params(name, query)
    symbols = _symbols(venue, params)
    channels = _channels(venue, params)
    made = venue(Subscription(symbols, channels, _depth(venue, params)))
    topics = len(symbols) * len(channels)
    if topics > venue.MAX_TOPICS:
        raise SourceError(
            f"ws:{name}: {len(symbols)} symbols on {len(channels)} channels are {topics} topics, "
            f"one connection takes {venue.MAX_TOPICS}: split the symbols over several --source"
        )
    if problem := made.problem():
        raise SourceError(f"ws:{name}: {problem}")
    line = params.get("line", line)
    if not _LINE.fullmatch(line):
        raise SourceError(f"ws:{name}: line={line}: use letters, digits, - and _")
    address = _address(name, "url", params.get("url"), made.address, ("ws", "wss"))
    # Whoever names another address has reasons: the venue's own REST is not asked then.
    own_rest = _rest_of(address) if "url" in params else venue.REST
    return LiveConfig(
        scheme="ws",
        text=without_user(text),
        venue=made,
        connection=f"{name}.{line}",
        address=address,
        rest=_address(name, "rest", params.get("rest"), own_rest, ("http", "https")),
    )


def _rest_of(address: str) -> str:
    """REST on the host and port of a WebSocket address."""
    parts = urlsplit(address)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


def _params(name: str, query: str) -> dict[str, str]:
    params = read_query(f"ws:{name}", query)
    check_names(f"ws:{name}", params, _PARAMS)
    for key, value in params.items():
        if not value:
            raise SourceError(f"ws:{name}: parameter {key!r} has no value; write {key}=VALUE")
    return params


def _symbols(venue: type[LiveVenue], params: dict[str, str]) -> tuple[str, ...]:
    if "symbols" not in params:
        raise SourceError(f"ws:{venue.NAME}: needs symbols: add symbols={venue.EXAMPLE}")
    symbols = [text.upper() if venue.UPPER_CASE else text for text in params["symbols"].split(",")]
    for symbol in symbols:
        if not _SYMBOL.fullmatch(symbol):
            raise SourceError(
                f"ws:{venue.NAME}: {symbol!r} is no symbol; write it as in {venue.EXAMPLE}"
            )
    return tuple(dict.fromkeys(symbols))


def _channels(venue: type[LiveVenue], params: dict[str, str]) -> tuple[str, ...]:
    channels = params.get("channels", ",".join(CHANNELS)).split(",")
    for channel in channels:
        if not _CHANNEL.fullmatch(channel):
            raise SourceError(
                f"ws:{venue.NAME}: {channel!r} is no channel; known: {', '.join(CHANNELS)}, or the "
                "venue's own names"
            )
    return tuple(dict.fromkeys(venue.NAMES.get(channel, channel) for channel in channels))


def _depth(venue: type[LiveVenue], params: dict[str, str]) -> int:
    if "depth" not in params:
        return 0
    text = params["depth"]
    if not text.isdecimal() or int(text) not in venue.DEPTHS:
        known = ", ".join(map(str, venue.DEPTHS))
        fix = f"one of {known}" if known else "left out: the venue decides it"
        raise SourceError(f"ws:{venue.NAME}: depth={text} must be {fix}")
    return int(text)


def _address(
    name: str, param: str, given: str | None, default: str, schemes: tuple[str, ...]
) -> str:
    """The given address, with the venue's own path where it has none."""
    if given is None:
        return default
    try:
        parts = urlsplit(given)
        good = parts.scheme in schemes and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise SourceError(
            f"ws:{name}: {param}={without_user(given)} is no address {schemes[0]}://HOST:PORT"
        )
    if parts.path in ("", "/"):
        parts = parts._replace(path=urlsplit(default).path)
    return parts.geturl()
