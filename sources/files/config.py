"""Configs of the schemes that read files. An empty file is an empty feed, with a warning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote

from pydantic import BeforeValidator

from marketflow.sources.config import (
    INPUT_TABLES,
    Day,
    DayOrNone,
    LakeFiles,
    Param,
    SourceConfig,
    Symbol,
    Text,
    Venue,
    one_of,
)
from marketflow.sources.errors import SourceError
from marketflow.sources.files.paths import FRAMES_TABLE, find_paths, find_recorded
from marketflow.sources.url import Url


class FileConfig(SourceConfig):
    """Files that are read one after the other as one feed."""

    paths: tuple[Path, ...] = ()

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        config = cls.of(url)
        paths = find_paths(url.scheme, url.place, url.form)
        return config.model_copy(update={"paths": paths})

    @property
    def name(self) -> str:
        if not self.paths:
            return self.scheme
        more = f"+{len(self.paths) - 1}" if len(self.paths) > 1 else ""
        return f"{self.scheme}:{self.paths[0].name}{more}"

    @property
    def files(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        return self.paths, ()


class ItchConfig(FileConfig):
    """``itch:`` Nasdaq TotalView-ITCH 5.0. Its messages do not say their day."""

    date: Day


class DbnConfig(FileConfig):
    """``dbn:`` Databento files."""


class CaptureConfig(FileConfig):
    """``capture:`` JSONL recordings."""


class BinanceConfig(FileConfig):
    """``binance:`` recorded WebSocket lines of one of its markets."""

    market: Annotated[str, one_of("spot", "us", "usdm", "coinm"), Param("market=spot")]


class LobsterConfig(FileConfig):
    """``lobster:`` message files, each with an orderbook file or none."""

    symbol: Annotated[Symbol, Param("symbol=AMZN")]
    date: Annotated[Day, Param("date=2012-06-21")]
    book: Annotated[Text, Param("book=ORDERBOOK_CSV")] = ""
    book_paths: tuple[Path, ...] = ()

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        config = super().parse(url)
        if not config.book:
            return config
        books = find_paths(url.scheme, config.book, url.form)
        if len(books) != len(config.paths):
            raise SourceError(
                f"lobster: {len(config.paths)} message files but {len(books)} book files; give "
                "one book file for each message file, in the same order"
            )
        return config.model_copy(update={"book_paths": books})

    @property
    def files(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        return self.paths, self.book_paths


def _renames(text: str) -> str:
    from marketflow.sources.files.tables import renames

    renames(text)
    return text


class TableConfig(FileConfig):
    """Rows of a table. ``venue``, ``symbol``: of all rows, where the files do not say."""

    table: Annotated[str, one_of(*INPUT_TABLES), Param("table=trades")]
    venue: Venue = ""
    symbol: Symbol = ""
    columns: Annotated[str, BeforeValidator(_renames), Param("columns=ts_event:time")] = ""
    time_unit: Annotated[str, one_of("s", "ms", "us", "ns"), Param("time_unit=ms")] = ""

    @property
    def given(self) -> Mapping[str, str]:
        """What the URL says of all rows."""
        named = {
            "venue": self.venue,
            "symbol": self.symbol,
            "columns": self.columns,
            "time_unit": self.time_unit,
        }
        return {name: value for name, value in named.items() if value}


class CsvConfig(TableConfig):
    """``csv:`` files of a table."""


class ParquetConfig(TableConfig):
    """``parquet:`` files of a table, a table of a lake, or raw frames of a recorder.

    ``lake``: the folder that ``paths`` are a table of.
    ``is_listed``: the files were listed by the store that wrote them.
    """

    table: Annotated[str, one_of(*INPUT_TABLES, FRAMES_TABLE), Param("table=trades")]
    date: DayOrNone = None
    lake: Path | None = None
    is_listed: bool = False

    @classmethod
    def parse(cls, url: Url, lake_files: LakeFiles | None = None) -> Self:
        config = cls.of(url)
        folder = Path(url.place).expanduser()
        is_folder = bool(url.place) and folder.is_dir()
        if config.is_frames:
            config._check_frames()
            if is_folder:
                paths = find_recorded(folder, config.venue.upper())
                return config.model_copy(update={"paths": paths, "is_listed": True})
            form = "parquet:DIR?table=frames&venue=VENUE"
            return config.model_copy(update={"paths": find_paths(url.scheme, url.place, form)})
        if config.date is not None:
            raise SourceError(
                "parquet: date= is the day of raw ITCH frames: leave it out of tables"
            )
        found = lake_files(folder, config.table) if is_folder and lake_files is not None else None
        if found is None:
            paths = find_paths(url.scheme, url.place, url.form)
            return config.model_copy(update={"paths": paths})
        chosen = {"paths": config._chosen(folder, found), "lake": folder, "is_listed": True}
        return config.model_copy(update=chosen)

    @property
    def is_frames(self) -> bool:
        """Raw frames of a recorder, not rows."""
        return self.table == FRAMES_TABLE

    @property
    def name(self) -> str:
        return super().name if self.lake is None else f"{self.scheme}:{self.lake.name}"

    def _check_frames(self) -> None:
        if not self.venue:
            raise SourceError(
                "parquet: raw frames need the venue that sent them: add venue=binance"
            )
        if self.symbol:
            raise SourceError("parquet: raw frames are of all symbols: leave out symbol=")

    def _chosen(self, lake: Path, files: Sequence[Path]) -> tuple[Path, ...]:
        """The files of a lake's table that are of the venue."""
        for name in ("columns", "time_unit"):
            if name in self.given:
                raise SourceError(f"parquet: {lake} is a lake and known: leave out {name}=")
        if not files:
            raise SourceError(f"the lake {lake} has no rows of {self.table}: name another table")
        chosen = tuple(path for path in files if self.venue in ("", _venue_of(path)))
        if not chosen:
            venues = sorted({_venue_of(path) for path in files})
            raise SourceError(
                f"the lake {lake} has no {self.table} of venue={self.venue}; it has "
                f"{', '.join(venues)}"
            )
        return chosen


def _venue_of(path: Path) -> str:
    return unquote(path.parent.name.partition("=")[2])
