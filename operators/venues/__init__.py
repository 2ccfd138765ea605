"""Venues that are decoded message by message: one module each, a page of declarations and handlers.

A decoder is found by the ``exchange`` name of a capture's header. Modules are imported when their
decoder is first made, so a flow of one venue pays for one.
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
    "BINANCE": "binance_decoder:Binance",
    "BINANCE_COINM": "binance_decoder:coinm",
    "BINANCE_DELIVERY": "binance_decoder:coinm",
    "BINANCE_FUTURES": "binance_decoder:usdm",
    "BINANCE_US": "binance_decoder:us",
    "BINANCE_USDM": "binance_decoder:usdm",
    "BITFINEX": "bitfinex:Bitfinex",
    "BITGET": "bitget:Bitget",
    "BITSTAMP": "bitstamp:Bitstamp",
    "BYBIT": "bybit:Bybit",
    "COINBASE": "coinbase:Coinbase",
    "COINBASE_EXCHANGE": "coinbase_exchange:CoinbaseExchange",
    "GATEIO": "gateio:Gateio",
    "HUOBI": "huobi:Huobi",
    "INDEPENDENT_RESERVE": "independent_reserve:IndependentReserve",
    "KRAKEN": "kraken:Kraken",
    "KUCOIN": "kucoin:Kucoin",
    "OKX": "okx:Okx",
}


def _make(place: str) -> VenueDecoder:
    module, _, name = place.partition(":")
    decoder: VenueDecoder = getattr(import_module(f"{__name__}.{module}"), name)()
    return decoder


#: Exchange name of a recording -> maker of a fresh decoder.
VENUES: Final[dict[str, Callable[[], VenueDecoder]]] = {
    exchange: partial(_make, place) for exchange, place in DECODERS.items()
}
