"""``parquet:DIR?seal_rows=N&seal_after_s=S``: a lake, and when rows become a file of it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from marketflow.sinks.config import (
    Count,
    Opening,
    Options,
    Seconds,
    SinkConfig,
    no_destination,
    options_of,
    split,
)
from marketflow.sinks.lake.layout import check_writable
from marketflow.sinks.lineage import Claim, Lineage
from marketflow.sinks.overlap import Arrived, Interval
from marketflow.sinks.writer import Writer

FORM = "parquet:DIR"


class SealOptions(Options):
    """When rows become a file.

    ``seal_rows``, ``seal_bytes`` (of memory): size of a partition that is sealed.
    ``seal_after_s``: longest time until a row is in a file.
    ``max_pending_bytes``: the largest partitions are sealed while all hold more.
    """

    seal_rows: Count = 1 << 19
    seal_bytes: Count = 64 << 20
    seal_after_s: Seconds = 300.0
    max_pending_bytes: Count = 512 << 20


class LakeConfig(SinkConfig):
    """A lake (sinks.lake.writer)."""

    can_replace: ClassVar[bool] = True
    folder: Path
    seal: SealOptions = SealOptions()

    @classmethod
    def parse(cls, text: str) -> LakeConfig:
        """The config of a URL. SinkError."""
        path, given = split(text)
        if not path:
            raise no_destination(text, FORM)
        return cls(text=text, folder=Path(path), seal=options_of(SealOptions, text, given))

    @property
    def place(self) -> str:
        return f"parquet:{self.folder.resolve()}"

    def check(self) -> None:
        check_writable(self.folder)

    def _writer(self, opening: Opening) -> Writer:
        from marketflow.sinks.lake import backfill
        from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter

        writer, recovery, midway, aside = opening
        root = self.folder if aside is None else backfill.aside(self.folder, aside)
        options = ParquetOptions(**self.seal.model_dump())
        return ParquetWriter(root, writer, recovery, options, midway)

    def holds(self, interval: Interval, written: Collection[str]) -> str | None:
        from marketflow.sinks.lake.overlap import holds

        return holds(self.folder, interval, written)

    def lineage(self, stop: threading.Event | None = None) -> Lineage:
        from marketflow.sinks.lake.feeds import LakeLineage

        return LakeLineage(self.folder)

    def prepare_back_fill(self, key: str, numbers: Collection[int]) -> None:
        from marketflow.sinks.lake import backfill

        with backfill.quiet(self.folder, numbers):
            backfill.aside(self.folder, key).mkdir(exist_ok=True)

    def replace_feeds(self, key: str, claim: Claim, reached: Mapping[int, int]) -> dict[str, int]:
        from marketflow.sinks.lake import backfill
        from marketflow.sinks.lake.writer import ParquetWriter

        def settle(writer: str) -> None:
            ParquetWriter(self.folder, writer).settle()

        return backfill.replace_feeds(self.folder, key, claim, reached, settle)

    def back_fill(self, key: str, arrived: Arrived) -> dict[str, int]:
        from marketflow.sinks.lake import backfill

        return backfill.replace(self.folder, key, arrived)
