"""Which decoder reads which source: the one place where feeds and venues meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.operators.venues import DECODERS, VENUES
from marketflow.sinks.errors import LakeFailed, SinkError
from marketflow.sinks.lake.layout import check_lake, is_lake, list_files
from marketflow.sources.errors import SourceError
from marketflow.sources.kafka.config import parse_feed
from marketflow.sources.url import SourceSpec, parse_source

_DEFAULT_DATE = "2026-03-02"
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


def parse(text: str) -> SourceSpec:
    """A source URL as :func:`sources.url.parse_source` checks it; a lake's table is one, too."""
    return parse_source(text, _lake_files)


def _lake_files(folder: Path, table: str) -> list[Path] | None:
    """The committed files of a lake's table; None if the folder is no lake."""
    if not is_lake(folder):
        return None
    try:
        check_lake(folder)
        return list_files(folder, table)
    except (SinkError, LakeFailed) as error:
        raise SourceError(str(error)) from None


def decoder(spec: SourceSpec, shards: int) -> FeedDecoder:
    """A fresh decoder for a source; only the module that is needed gets imported."""
    params = spec.params
    match spec.scheme:
        case "itch":
            return _itch(params["date"], shards)
        case "binance":
            return _binance(params["market"], shards)
        case "capture":
            from marketflow.operators.formats.capture import CaptureFeed

            return CaptureFeed(shards)
        case "lobster":
            from marketflow.operators.formats.lobster.decoder import LobsterDecoder

            return LobsterDecoder(
                params["symbol"],
                date.fromisoformat(params["date"]),
                book="book" in params,
                shards=shards,
            )
        case "dbn":
            from marketflow.operators.formats.dbn.decoder import DbnDecoder

            return DbnDecoder(shards=shards)
        case "parquet" if params["table"] == "frames":
            return _raw(params["venue"].upper(), params, shards)
        case "csv" | "parquet":
            from marketflow.operators.formats.tables.decoder import TableDecoder

            return TableDecoder(params["table"], shards=shards)
        case "kafka":
            return _topic(spec, shards)
        case "sim" if params.get("format", "itch") == "itch":
            return _itch(params.get("date", _DEFAULT_DATE), shards)
        case "sim":
            return _binance("spot", shards)
    raise SourceError(f"no decoder for {spec.scheme}:")


def _itch(day: str, shards: int) -> FeedDecoder:
    from marketflow.operators.formats.itch.decoder import ItchDecoder

    return ItchDecoder(date.fromisoformat(day), shards=shards)


def _binance(market: str, shards: int) -> FeedDecoder:
    from marketflow.operators.venues.binance.feed import BinanceFeed

    return BinanceFeed(market, shards)


def _topic(spec: SourceSpec, shards: int) -> FeedDecoder:
    """Rows of a table, or the raw frames of a venue."""
    feed = parse_feed(spec.place, spec.params)
    if feed.table:
        from marketflow.operators.formats.tables.decoder import TableDecoder

        return TableDecoder(feed.table, shards=shards)
    return _raw(feed.venue, spec.params, shards)


def _raw(venue: str, params: Mapping[str, str], shards: int) -> FeedDecoder:
    """Frames as a recorder received them."""
    _check_raw(venue, params)
    if venue == ITCH:
        return _itch(params["date"], shards)
    if venue == CAPTURE:
        from marketflow.operators.formats.capture import CaptureFeed

        return CaptureFeed(shards)
    if venue in _BINANCE:
        return _binance(_BINANCE[venue], shards)
    from marketflow.operators.normalise.feed import JsonFeed

    return JsonFeed(VENUES[venue](), shards)


def rows_of(venue: str) -> tuple[str | None, frozenset[str]]:
    """The venue of the rows that raw frames of ``venue`` make (None: any), and the venues that are
    other feeds'."""
    if venue in _BINANCE:
        from marketflow.operators.venues.binance.decoder import VENUES as BINANCE_VENUES

        venue = BINANCE_VENUES[_BINANCE[venue]]
    return venue or None, frozenset(DECODERS) - {venue}


def check(spec: SourceSpec) -> None:
    """SourceError with the remedy unless :func:`decoder` has one for the source; cheap."""
    if spec.scheme == "kafka":
        feed = parse_feed(spec.place, spec.params)
        if not feed.table:
            _check_raw(feed.venue, spec.params)
    elif spec.scheme == "capture":
        _check_capture(spec)
    elif spec.params.get("table") == "frames":
        _check_raw(spec.params["venue"].upper(), spec.params)


def _check_raw(venue: str, params: Mapping[str, str]) -> None:
    check_venue(venue)
    if venue == ITCH and "date" not in params:
        raise SourceError(
            f"raw frames of {venue.lower()} do not say their day: add date=YYYY-MM-DD"
        )


def _check_capture(spec: SourceSpec) -> None:
    """Do the files say that no decoder of ours, or another one, reads them?"""
    from marketflow.sources.files import capture, markets

    first: tuple[Path, str] | None = None
    for path in spec.paths:
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
