"""Config of ``sim:``, a seeded market."""

from __future__ import annotations

import datetime
from typing import Annotated, Final, Self

from marketflow.sources.config import Day, LakeFiles, Param, SourceConfig, one_of, whole
from marketflow.sources.errors import SourceError
from marketflow.sources.url import Url

MAX_SYMBOLS: Final = 10_000
#: Of the bytes that the same parameters give: part of a feed's identity.
VERSION: Final = 1


class SimulatorConfig(SourceConfig):
    """Parameters of a simulated feed; every one changes its bytes."""

    events: Annotated[int, whole(0, 10**12), Param("events=1000000")] = 1_000_000
    seed: Annotated[int, whole(0, 2**64 - 1), Param("seed=1")] = 1
    symbols: Annotated[int, whole(1, MAX_SYMBOLS), Param("symbols=100")] = 100
    format: Annotated[str, one_of("itch", "binance"), Param("format=itch")] = "itch"
    date: Annotated[Day, Param("date=2026-03-02")] = datetime.date(2026, 3, 2)

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        if url.place:
            raise SourceError(f"{url.text}: sim: takes no path; write {url.form}")
        return cls.of(url)

    @property
    def made_with(self) -> tuple[int, int, int, str, str]:
        """What the bytes are made of, for a resume position: plain data."""
        return self.events, self.seed, self.symbols, self.format, self.date.isoformat()
