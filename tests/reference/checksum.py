"""Slow twin of operators.books.kernels.checksum: texts joined as the venues' manuals say, zlib's
CRC."""

from __future__ import annotations

import zlib

from marketflow.operators.events import ChecksumRule

Level = tuple[str, str]


def checksum(rule: ChecksumRule, bids: list[Level], asks: list[Level]) -> int:
    """CRC32 of levels (price text, size text), best first."""
    if rule is ChecksumRule.KRAKEN:
        numbers = [text for level in asks[:10] + bids[:10] for text in level]
        joined = "".join(text.replace(".", "").lstrip("0") for text in numbers)
    else:
        parts: list[str] = []
        for i in range(25):
            for side in (bids, asks):
                parts += side[i] if i < len(side) else ()
        joined = ":".join(parts)
    return zlib.crc32(joined.encode())
