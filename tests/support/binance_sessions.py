"""Recorded sessions of Binance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.reference import binance as twin
from tests.support.captures import TestFrame

SESSIONS = {
    "spot": (
        "spot_btcusdt_20240808+20240809",
        "spot_btcusdt_20240808.gz",
        "spot_btcusdt_20240809.gz",
    ),
    "usdm": ("usdm_btcusdt_20240808", "usdm_btcusdt_20240808.gz"),
}


def session(data: Path, market: str) -> tuple[dict[str, Any], list[TestFrame]]:
    folder = data / "binance-ws-hftbacktest"
    key, *names = SESSIONS[market]
    expected = json.loads((folder / "expected.json").read_text())[key]
    return expected, twin.session(*(folder / name for name in names))
