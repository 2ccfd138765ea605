"""Sinks by URL: ``parquet:DIR``, ``jsonl:PATH`` or ``jsonl:-``, ``null:``.

``parquet:DIR?seal_rows=N&seal_after_s=S`` sets when rows become a file (ParquetOptions).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from sinks.errors import SinkError
from sinks.jsonl import JsonlWriter
from sinks.null import NullWriter
from sinks.parquet import ParquetOptions, ParquetWriter
from sinks.writer import Writer


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A checked sink URL. ``path`` is empty for ``null:``, ``-`` for standard output."""

    text: str
    scheme: str
    path: str
    options: dict[str, str]


_NUMBERS: Final[dict[str, Callable[[str], int | float]]] = {
    "seal_rows": int,
    "seal_bytes": int,
    "seal_after_s": float,
    "max_pending_bytes": int,
}
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "parquet": frozenset(_NUMBERS),
    "jsonl": frozenset(),
    "null": frozenset(),
}
_EXAMPLES: Final = "parquet:DIR, jsonl:PATH, jsonl:-, null:"


def parse_sink(text: str) -> SinkSpec:
    """Check a sink URL without touching anything. Raises SinkError naming what is known."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _OPTIONS:
        raise SinkError(f"sink {text!r}: unknown kind; known sinks: {_EXAMPLES}")
    path, _, query = rest.partition("?")
    if scheme == "null":
        if path:
            raise SinkError(f"sink {text!r}: null: takes no path")
    elif not path:
        raise SinkError(f"sink {text!r} names no path; write {scheme}:PATH")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in _OPTIONS[scheme]:
            known = ", ".join(sorted(_OPTIONS[scheme])) or "none"
            raise SinkError(f"sink {text!r}: unknown option {name!r}; {scheme}: takes {known}")
        _number(text, name, value)
    return SinkSpec(text, scheme, path, options)


def _number(text: str, name: str, value: str) -> int | float:
    try:
        number = _NUMBERS[name](value)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise SinkError(f"sink {text!r}: {name}={value!r} is no number above 0")
    return number


def open_writer(text: str, writer: str = "w0", recovery: str | None = None) -> Writer:
    """The writer of a sink URL. ``writer`` tells processes apart ("w0", "w1" ...); ``recovery``
    is the identity of the recovery folder that the snapshots go to, None without one."""
    spec = parse_sink(text)
    if spec.scheme == "null":
        return NullWriter()
    if spec.scheme == "jsonl":
        return JsonlWriter(_jsonl_path(spec.path, writer))
    numbers = {name: _number(text, name, value) for name, value in spec.options.items()}
    options = dataclasses.replace(ParquetOptions(), **numbers)  # type: ignore[arg-type]
    return ParquetWriter(Path(spec.path), writer, recovery, options)


def _jsonl_path(path: str, writer: str) -> Path | None:
    """Each process has its own file: the first the one that was named, others with their id."""
    if path == "-":
        return None
    file = Path(path)
    return file if writer == "w0" else file.with_name(f"{file.stem}.{writer}{file.suffix}")
