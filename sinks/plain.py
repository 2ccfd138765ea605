"""Configs of the sinks without a room: ``jsonl:`` and ``null:``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from marketflow.sinks.config import (
    FIRST_WRITER,
    Opening,
    Options,
    SinkConfig,
    no_destination,
    options_of,
    split,
)
from marketflow.sinks.errors import SinkError
from marketflow.sinks.jsonl import JsonlWriter
from marketflow.sinks.lineage import place_of
from marketflow.sinks.null import NullWriter
from marketflow.sinks.writer import Writer


class JsonlConfig(SinkConfig):
    """JSON lines (sinks.jsonl). ``path`` None: standard output."""

    path: Path | None

    @classmethod
    def parse(cls, text: str) -> JsonlConfig:
        """The config of a URL. SinkError."""
        path, given = split(text)
        options_of(Options, text, given)
        if not path:
            raise no_destination(text, "jsonl:PATH or jsonl:-")
        return cls(text=text, path=None if path == "-" else Path(path))

    @property
    def place(self) -> str:
        return f"jsonl:{'-' if self.path is None else self.path.resolve()}"

    @property
    def is_shared(self) -> bool:
        return self.path is not None

    def check(self) -> None:
        if self.path is not None and self.path.is_dir():
            raise SinkError(f"{self.text}: the path is a folder: name a file for the lines")

    def _writer(self, opening: Opening) -> Writer:
        """Each process has its own file: the first the named one, others with their id."""
        path = self.path
        own = place_of(opening.writer)
        if path is not None and own not in (FIRST_WRITER, "p0"):
            path = path.with_name(f"{path.stem}.{own}{path.suffix}")
        return JsonlWriter(path)


class NullConfig(SinkConfig):
    """Nothing is kept (sinks.null), so that a back-fill replaces nothing."""

    can_replace: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> NullConfig:
        """The config of a URL. SinkError."""
        if text.partition(":")[2]:
            raise SinkError(f"sink {text!r}: null: takes no path")
        return cls(text=text)

    @property
    def place(self) -> str:
        return "null:"

    def _writer(self, opening: Opening) -> Writer:
        return NullWriter()
