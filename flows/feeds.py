"""Which decoder reads which source: the one place where feeds and venues meet."""

from __future__ import annotations

from datetime import date

from operators.feeds import FeedDecoder
from sources.errors import SourceError
from sources.url import SourceSpec

_DEFAULT_DATE = "2026-03-02"


def decoder(spec: SourceSpec, shards: int) -> FeedDecoder:
    """A fresh decoder for a source; only the module that is needed gets imported."""
    params = spec.params
    match spec.scheme:
        case "itch":
            return _itch(params["date"], shards)
        case "binance":
            return _binance(params["market"], shards)
        case "capture":
            from operators.capture import CaptureFeed

            return CaptureFeed(shards)
        case "lobster":
            from operators.venues.lobster import LobsterDecoder

            return LobsterDecoder(
                params["symbol"],
                date.fromisoformat(params["date"]),
                book="book" in params,
                shards=shards,
            )
        case "dbn":
            from operators.venues.dbn import DbnDecoder

            return DbnDecoder(shards=shards)
        case "csv" | "parquet":
            from operators.venues.tables import TableDecoder

            return TableDecoder(params["table"], shards=shards)
        case "sim" if params.get("format", "itch") == "itch":
            return _itch(params.get("date", _DEFAULT_DATE), shards)
        case "sim":
            return _binance("spot", shards)
    raise SourceError(f"no decoder for {spec.scheme}:")


def _itch(day: str, shards: int) -> FeedDecoder:
    from operators.venues.itch import ItchDecoder

    return ItchDecoder(date.fromisoformat(day), shards=shards)


def _binance(market: str, shards: int) -> FeedDecoder:
    from operators.venues.binance import BinanceFeed

    return BinanceFeed(market, shards)
