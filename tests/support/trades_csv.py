"""A CSV file of trades of very many instruments."""

from __future__ import annotations

from pathlib import Path

from tests.support.reading import write

START_NS = 1_772_000_000_000_000_000
HEADER = "ts_event,venue,symbol,price,size,aggressor_side,trade_id"


def trades_csv(folder: Path, symbols: list[int], first: int = 0) -> str:
    """A CSV with a trade of each of these symbols; ``first`` numbers the first one."""
    lines = [
        f"{START_NS + i * 1000},TEST,SYM{s:07d},{100 + i % 97}.{i % 100:02d},{1 + i % 50},buy,{i}"
        for i, s in enumerate(symbols, first)
    ]
    path = write(folder / f"trades-{first}.csv", "\n".join((HEADER, *lines, "")).encode())
    return f"csv:{path}?table=trades"
