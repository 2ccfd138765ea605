"""The venues that can be faked."""

from __future__ import annotations

from typing import Final

from tests.support.fake_venue.books import (
    BinanceModel,
    BybitModel,
    CoinbaseModel,
    KrakenModel,
    Model,
    OkxModel,
)
from tests.support.fake_venue.kraken_v2 import KrakenV2Model

#: ``kraken`` replays a recording of v1, in the words of v2.
MODELS: Final[dict[str, type[Model]]] = {
    "binance": BinanceModel,
    "bybit": BybitModel,
    "coinbase": CoinbaseModel,
    "kraken": KrakenV2Model,
    "kraken_v1": KrakenModel,
    "okx": OkxModel,
}
