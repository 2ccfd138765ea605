"""Which decoder reads which source: the one place where feeds and venues meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.operators.venues import DECODERS, VENUES
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.files.config import (
    BinanceConfig,
    CaptureConfig,
    DbnConfig,
    ItchConfig,
    LobsterConfig,
    ParquetConfig,
    TableConfig,
)
from marketflow.sources.kafka.config import KafkaConfig
from marketflow.sources.simulator.config import SimulatorConfig

#: Raw topics whose HEADER frames name the venue.
CAPTURE = "CAPTURE"
#: Raw frames of the lines of a Nasdaq session.
ITCH = "XNAS"
_BINANCE = {
    "BINANCE": "spot",
    "BINANCE_US": "us",
    "BINANCE_USDM": "usdm",
    "BINANCE_FUTURES": "usdm",
    "BINANCE_COINM": "coinm",
    "BINANCE_DELIVERY": "coinm",
}


def decoder(config: SourceConfig, shards: int) -> FeedDecoder:
    """A fresh decoder for a source; only the module that is needed gets imported."""
    match config:
        case ItchConfig() | SimulatorConfig(format="itch"):
            return _itch(config.date, shards)
        case BinanceConfig():
            return _binance(config.market, shards)
        case SimulatorConfig():
            return _binance("spot", shards)
        case CaptureConfig():
            return _capture(shards)
        case LobsterConfig():
            from marketflow.operators.formats.lobster.decoder import LobsterDecoder

            return LobsterDecoder(config.symbol, config.date, book=bool(config.book), shards=shards)
        case DbnConfig():
            from marketflow.operators.formats.dbn.decoder import DbnDecoder

            return DbnDecoder(shards=shards)
        case KafkaConfig() | ParquetConfig() if raw := raw_venue(config):
            return _raw(raw, config.date, shards)
        case KafkaConfig() | TableConfig():
            from marketflow.operators.formats.tables.decoder import TableDecoder

            return TableDecoder(config.table, shards=shards)
    raise SourceError(f"no decoder for {config.scheme}:")


def raw_venue(config: SourceConfig) -> str:
    """The venue whose raw frames a source holds, upper case; "": it holds something else."""
    match config:
        case KafkaConfig():
            return config.venue
        case ParquetConfig(is_frames=True):
            return config.venue.upper()
    return ""


def venue_of(config: SourceConfig) -> str | None:
    """The venue of a source's rows, where there is one and it is known beforehand."""
    from marketflow.operators.venues.binance.decoder import VENUES as BINANCE_VENUES

    match config:
        case ItchConfig() | SimulatorConfig(format="itch"):
            return ITCH
        case BinanceConfig():
            return BINANCE_VENUES[config.market]
        case SimulatorConfig():
            return BINANCE_VENUES["spot"]
        case KafkaConfig() | ParquetConfig() if raw := raw_venue(config):
            return rows_of(raw)[0]
    return getattr(config, "venue", None) or None


def _itch(day: date, shards: int) -> FeedDecoder:
    from marketflow.operators.formats.itch.decoder import ItchDecoder

    return ItchDecoder(day, shards=shards)


def _binance(market: str, shards: int) -> FeedDecoder:
    from marketflow.operators.venues.binance.feed import BinanceFeed

    return BinanceFeed(market, shards)


def _capture(shards: int) -> FeedDecoder:
    from marketflow.operators.formats.capture import CaptureFeed

    return CaptureFeed(shards)


def _raw(venue: str, day: date | None, shards: int) -> FeedDecoder:
    """Frames as a recorder received them."""
    _check_raw(venue, day)
    if venue == ITCH:
        assert day is not None
        return _itch(day, shards)
    if venue == CAPTURE:
        return _capture(shards)
    if venue in _BINANCE:
        return _binance(_BINANCE[venue], shards)
    from marketflow.operators.normalise.feed import JsonFeed

    return JsonFeed(VENUES[venue](), shards)


def rows_of(venue: str) -> tuple[str | None, frozenset[str]]:
    """The venue of the rows that raw frames of ``venue`` ("": not known) make (None: any), and the
    venues that are other feeds'."""
    if venue == CAPTURE:
        venue = ""
    if venue in _BINANCE:
        from marketflow.operators.venues.binance.decoder import VENUES as BINANCE_VENUES

        venue = BINANCE_VENUES[_BINANCE[venue]]
    return venue or None, frozenset(DECODERS) - {venue}


def check(config: SourceConfig) -> None:
    """SourceError with the remedy unless :func:`decoder` has one for the source; cheap."""
    match config:
        case CaptureConfig():
            _check_capture(config)
        case KafkaConfig() | ParquetConfig() if raw := raw_venue(config):
            _check_raw(raw, config.date)


def _check_raw(venue: str, day: date | None) -> None:
    check_venue(venue)
    if venue == ITCH and day is None:
        raise SourceError(
            f"raw frames of {venue.lower()} do not say their day: add date=YYYY-MM-DD"
        )


def _check_capture(config: CaptureConfig) -> None:
    """Do the files say that no decoder of ours, or another one, reads them?"""
    from marketflow.sources.files import capture, markets

    first: tuple[Path, str] | None = None
    for path in config.paths:
        exchange = capture.exchange_of(path)
        if exchange is None:
            continue
        if exchange and exchange not in DECODERS:
            raise SourceError(
                f"{path} is a capture of {exchange}, which is no venue we can decode; known: "
                f"{', '.join(DECODERS)}{_nearest(exchange, DECODERS)}"
            )
        if first is None and not exchange:
            raise SourceError(
                f"{path} has no header that names its venue: put the line "
                '{"t":"header","exchange":"VENUE"} first; known: ' + ", ".join(DECODERS)
            )
        if first is None:
            first = path, exchange
        elif exchange and DECODERS[exchange] != DECODERS[first[1]]:
            raise SourceError(
                f"{first[0]} is a capture of {first[1]}, {path} of {exchange}: a feed is of one "
                "venue, give each a --source of its own"
            )
        if exchange in _BINANCE:
            found = markets.other_market(capture.first_messages(path), _BINANCE[exchange])
            if found is not None:
                right = next(name for name, market in _BINANCE.items() if market == found)
                raise SourceError(
                    f"the header of {path} says {exchange}, but it is a recording of Binance "
                    f"{markets.NAMES[found]}: write {right} there"
                )


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name that begins as this one does, else the one that is written most alike."""
    by_lower = {entry.lower(): entry for entry in known}
    market_of = [entry for entry in by_lower if name.lower().startswith(f"{entry}_")]
    near = market_of or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; nearest: {by_lower[max(near, key=len)]}" if near else ""


def check_venue(venue: str) -> None:
    """SourceError unless raw frames of this venue can be decoded; "" is no venue."""
    if venue and venue not in (CAPTURE, ITCH) and venue not in VENUES:
        known = [name.lower() for name in (*DECODERS, CAPTURE, ITCH)]
        raise SourceError(
            f"venue={venue.lower()} is none we can decode; known: "
            f"{', '.join(known)}{_nearest(venue, known)}"
        )
