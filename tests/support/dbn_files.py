"""What Databento's CSV files say of a book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl


def csv_rows(data: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a Databento CSV, all text."""
    path = data / "databento-mbo-mbp" / name
    return pl.read_csv(path, infer_schema=False).to_dicts()


def nanos(text: str | None) -> int:
    whole, _, decimals = (text or "").partition(".")
    return int(whole) * 10**9 + int(decimals.ljust(9, "0")) if whole else 2**63 - 1


def told_levels(row: dict[str, Any]) -> tuple[list[tuple[int, int, int]], ...]:
    """Bids and asks of an MBP-10 row."""
    sides = []
    for side in ("bid", "ask"):
        cells = [
            (nanos(row[f"{side}_px_0{n}"]), row[f"{side}_sz_0{n}"], row[f"{side}_ct_0{n}"])
            for n in range(10)
        ]
        sides.append([(p, int(s), int(c)) for p, s, c in cells if p != 2**63 - 1])
    return tuple(sides)
