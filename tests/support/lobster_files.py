"""LOBSTER's AMZN day."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa

from marketflow.operators.formats.lobster.decoder import LobsterDecoder

STEM = "AMZN_2012-06-21_34200000_57600000"


def make() -> LobsterDecoder:
    return LobsterDecoder("AMZN", date(2012, 6, 21))


def lines(path: Path) -> list[str]:
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
        text: str = file.read().decode()
    return text.splitlines()
