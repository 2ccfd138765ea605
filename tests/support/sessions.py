"""Recorded sessions of Coinbase, Bybit, Kraken, OKX and Bitget, and what was counted of them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.captures import TestFrame, capture_frames

CAPTURES = {
    "COINBASE": "cryptofeed-captures/COINBASE.jsonl.zst",
    "BYBIT": "cryptofeed-captures/BYBIT.jsonl.zst",
    "KRAKEN": "checksum-captures/KRAKEN.open.jsonl.zst",
    "OKX": "checksum-captures/OKX.open.jsonl.zst",
    "BITGET": "checksum-captures/BITGET.open.jsonl.zst",
}


def recorded(data: Path, exchange: str) -> list[TestFrame]:
    return capture_frames(data / CAPTURES[exchange])


def callbacks(data: Path, exchange: str) -> dict[str, int]:
    text = (data / "cryptofeed-captures" / "expected_callback_counts.json").read_text()
    counts: dict[str, int] = json.loads(text)[exchange]
    return counts
