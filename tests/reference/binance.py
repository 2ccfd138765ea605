"""The obvious Binance decoder: json and Decimal, one dict per message, no rules."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.support.captures import TestFrame


def session(*paths: Path) -> list[TestFrame]:
    """Frames of recorded session files, lines ``<local ns> <json>``, as one feed."""
    found = []
    offset = 0
    for path in paths:
        for line in gzip.decompress(path.read_bytes()).splitlines():
            stamp, _, payload = line.partition(b" ")
            found.append(TestFrame(payload, ts_recv=int(stamp), connection="", offset=offset))
            offset += len(line) + 1
    return found


def decode(frame: TestFrame) -> Iterator[tuple[Any, ...]]:
    """(what, ts_event ns, sequence, values ...) of one message of a session file."""
    message = json.loads(frame.payload)
    body = message.get("data", message)
    match body.get("e", "bookTicker" if "u" in body else "snapshot"):
        case "depthUpdate":
            yield ("begin", body["E"] * 10**6, body["u"], body["U"], body.get("pu"))
            for side in ("b", "a"):
                for price, size in body[side]:
                    yield ("level", side, Decimal(price), Decimal(size))
        case "snapshot":
            at = body["E"] * 10**6 if "E" in body else 0
            yield ("begin", at, body["lastUpdateId"], None, None)
            for side in ("bids", "asks"):
                for price, size in body[side]:
                    yield ("level", side[0], Decimal(price), Decimal(size))
        case "trade":
            side = "sell" if body["m"] else "buy"
            yield (
                "trade",
                body["T"] * 10**6,
                body["t"],
                Decimal(body["p"]),
                Decimal(body["q"]),
                side,
            )
        case "bookTicker":
            at = body["E"] * 10**6 if "E" in body else 0
            yield ("quote", at, body["u"], Decimal(body["b"]), Decimal(body["B"]))
            yield ("quote", at, body["u"], Decimal(body["a"]), Decimal(body["A"]))
