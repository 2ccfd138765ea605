"""Every checksum in the recorded books verifies, through a plain Python book of texts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketflow.operators.books.kernels.checksum import checksum
from marketflow.operators.events import ChecksumRule

Levels = list[tuple[str, str]]
#: symbol, is snapshot, bids, asks, checksum or None
Update = tuple[str, bool, Levels, Levels, int | None]


def messages(path: Path) -> Iterator[object]:
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        for line in io.TextIOWrapper(stream, "utf-8"):
            record = json.loads(line)
            if record["t"] == "recv":
                yield json.loads(record["data"])


def kraken(path: Path) -> Iterator[Update]:
    for message in messages(path):
        if isinstance(message, list) and message[-2].startswith("book"):
            parts: dict = {key: value for part in message[1:-2] for key, value in part.items()}
            bids, asks = (
                [(level[0], level[1]) for level in parts.get(side + "s", parts.get(side, []))]
                for side in "ba"
            )
            crc = int(parts["c"]) if "c" in parts else None
            yield message[-1], "as" in parts, bids, asks, crc


def okx(path: Path) -> Iterator[Update]:
    for message in messages(path):
        if isinstance(message, dict) and "data" in message and message["arg"]["channel"] == "books":
            for data in message["data"]:
                bids, asks = ([(p, s) for p, s, *_ in data[side]] for side in ("bids", "asks"))
                snapshot = message["action"] == "snapshot"
                yield message["arg"]["instId"], snapshot, bids, asks, int(data["checksum"])


def split(text: str) -> tuple[int, int]:
    whole, _, decimals = text.partition(".")
    return int(whole + decimals), len(decimals)


def columns(levels: Levels) -> tuple:
    prices, sizes = [split(p) for p, _ in levels], [split(s) for _, s in levels]
    return (
        np.array([m for m, _ in prices], np.int64),
        np.array([s for _, s in prices], np.int8),
        np.array([m for m, _ in sizes], np.int64),
        np.array([s for _, s in sizes], np.int8),
        len(levels),
    )


@pytest.mark.parametrize(
    ("venue", "rule", "updates", "depth"),
    [
        ("KRAKEN", ChecksumRule.KRAKEN, kraken, 1000),
        ("OKX", ChecksumRule.OKX, okx, None),
        ("BITGET", ChecksumRule.BITGET, okx, None),
    ],
)
def test_all_checksums_verify(data: Path, venue: str, rule: ChecksumRule, updates, depth) -> None:
    folder = data / "checksum-captures"
    expected = json.loads((folder / "expected.json").read_text())[venue]
    books: dict[str, tuple[dict, dict]] = {}
    verified: dict[str, int] = {}
    for symbol, snapshot, bids, asks, crc in updates(folder / f"{venue}.open.jsonl.zst"):
        if snapshot:
            books[symbol] = ({}, {})
        sides = books[symbol]
        for side, levels in zip(sides, (bids, asks), strict=True):
            for price, size in levels:
                if Decimal(size) == 0:
                    side.pop(Decimal(price), None)
                else:
                    side[Decimal(price)] = (price, size)
        for side, is_bid in zip(sides, (True, False), strict=True):
            # Kraken: what falls out of the subscribed depth is gone for good.
            for price in sorted(side, reverse=is_bid)[depth:] if depth else ():
                del side[price]
        best = [
            [side[p] for p in sorted(side, reverse=is_bid)[:25]]
            for side, is_bid in zip(sides, (True, False), strict=True)
        ]
        if crc is not None:
            assert checksum(rule, *columns(best[0]), *columns(best[1])) == crc % 2**32
            verified[symbol] = verified.get(symbol, 0) + 1
    assert verified == expected["checksums_ok"]
