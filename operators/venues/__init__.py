"""Venues that are decoded message by message: a module or folder each, declarations and handlers.

A decoder is found by the ``exchange`` name of a capture's header. Modules are imported when their
decoder is first made, so a flow of one venue pays for one.

Imports schemas, the top of operators and :mod:`operators.normalise`. Formats and flows import it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from marketflow.operators.normalise.feed import VenueDecoder

#: Exchange name of a recording -> "module:class" below this package.
DECODERS: Final[dict[str, str]] = {
    "BINANCE": "binance.decoder:Binance",
    "BINANCE_COINM": "binance.decoder:coinm",
    "BINANCE_DELIVERY": "binance.decoder:coinm",
    "BINANCE_FUTURES": "binance.decoder:usdm",
    "BINANCE_US": "binance.decoder:us",
    "BINANCE_USDM": "binance.decoder:usdm",
    "BITFINEX": "bitfinex:Bitfinex",
    "BITGET": "bitget.decoder:Bitget",
    "BITSTAMP": "bitstamp:Bitstamp",
    "BYBIT": "bybit:Bybit",
    "COINBASE": "coinbase.advanced:Coinbase",
    "COINBASE_EXCHANGE": "coinbase.exchange:CoinbaseExchange",
    "GATEIO": "gateio:Gateio",
    "HUOBI": "huobi:Huobi",
    "INDEPENDENT_RESERVE": "independent_reserve:IndependentReserve",
    "KRAKEN": "kraken.v1:Kraken",
    "KUCOIN": "kucoin:Kucoin",
    "OKX": "okx.v5:Okx",
}


def _make(place: str) -> VenueDecoder:
    module, _, name = place.partition(":")
    decoder: VenueDecoder = getattr(import_module(f"{__name__}.{module}"), name)()
    return decoder


#: Exchange name of a recording -> maker of a fresh decoder.
VENUES: Final[dict[str, Callable[[], VenueDecoder]]] = {
    exchange: partial(_make, place) for exchange, place in DECODERS.items()
}
