"""The answer to a query, whoever gave it, and the forms it is written in.

The same query has the same answer in every form from a lake and from a database: decimals are
exact, with the decimals of their type (whole numbers of any size are plain numbers), times are
UTC with the decimals that are known of them.
"""

from __future__ import annotations

import csv
import glob
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
from rich.console import Console

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.sinks.durable import Survives, replacing, sweep
from marketflow.sinks.jsonl import json_rows

FORMATS: Final = ("table", "csv", "json", "parquet")


@dataclass(frozen=True, slots=True)
class Answer:
    """Columns, and the rows as they come; to be read once. Names are unique."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    @classmethod
    def of(cls, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Answer:
        """An answer whose columns may have the same names: later ones get a number, as in DuckDB's
        frames."""
        names = _unique(schema.names)
        if names == schema.names:
            return cls(schema, batches)
        renamed = pa.schema([f.with_name(name) for f, name in zip(schema, names, strict=True)])
        return cls(renamed, (b.rename_columns(names) for b in batches))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as exact JSON values."""
        whole = [f.name for f in self.schema if pa.types.is_decimal(f.type) and f.type.scale == 0]
        for batch in self.batches:
            for row in json_rows(batch, trim=False):
                for name in whole:
                    row[name] = None if row[name] is None else int(row[name])
                yield row


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    times: Counter[str] = Counter()
    for name in names:
        unique = name
        while times[unique.lower()]:
            unique = f"{name}_{times[name.lower()]}"
            times[name.lower()] += 1
        times[unique.lower()] += 1
        found.append(unique)
    return found


def print_answer(
    ask: Callable[[Callable[[Answer], None]], None],
    form: str,
    out: Path | None,
    console: Console,
    rows: int | None = None,
) -> None:
    """Have ``ask`` answer, and write that in ``form`` to ``out`` or to standard output.

    ``table`` has at most ``rows`` rows (see flows.queries.answer_table), all other forms have all.
    ``json`` is a list of row objects: decimals as strings, times ISO 8601 with nanoseconds. ``ask``
    may call twice when the first answer broke off.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r} is none of {', '.join(FORMATS)}")
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise UsageError("--format parquet is not for a terminal: name a file with --out FILE")
    if form == "table" and out is None:
        from marketflow.flows.queries.answer_table import print_table

        ask(lambda answer: print_table(answer, console, rows))
        return
    write = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}.get(form)
    if write is None:
        raise UsageError("--out goes with --format csv, json or parquet")

    begun = False

    def write_out(answer: Answer) -> None:
        nonlocal begun
        if begun and out is None:  # half of it may be out already
            raise RunFailed("the lake was compacted while the query ran: run it again")
        begun = True
        with _destination(out) as file:
            write(answer, file)

    ask(write_out)


@contextmanager
def _destination(out: Path | None) -> Iterator[IO[bytes]]:
    """The file, whole or not at all; standard output without one."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    sweep(out.parent, glob.escape(out.name))
    try:
        with replacing(out, Survives.PROCESS) as file:
            yield file
    except OSError as error:
        raise RunFailed(f"cannot write {out}: {error.strerror or error}") from None


def _write_json(answer: Answer, file: IO[bytes]) -> None:
    file.write(b"[")
    for number, row in enumerate(answer.rows()):
        text = json.dumps(row, ensure_ascii=False)
        file.write((",\n " if number else "\n ").encode() + text.encode())
    file.write(b"\n]\n")


def _write_csv(answer: Answer, file: IO[bytes]) -> None:
    lines = _Lines(file)
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for row in answer.rows():
        writer.writerow([_cell(value, "") for value in row.values()])


class _Lines:
    """Text in, UTF-8 out: what csv needs of a file, without owning it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())


def _write_parquet(answer: Answer, file: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, answer.schema, compression="zstd") as writer:
        for batch in answer.batches:
            writer.write_batch(batch)


def _cell(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
