"""An answer as a table for people: as narrow as its values allow, at most a screen of it.

Only here are digits left out: zeros at the end of decimals and times, digits of calculated numbers
beyond the tenth. What is too wide is first set tighter (no frame, names and times on two lines),
then, on a terminal, shown a row below the other; into a file or a pipe it goes as wide as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Any, Final

import pyarrow as pa
from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from marketflow.flows.queries.answers import Answer
from marketflow.sinks.jsonl import json_values

#: Rows into a file or a pipe, which has no height.
_MOST_ROWS: Final = 1000
#: Lines around the rows of a table: frame, names, the prompt and what was asked.
_AROUND: Final = 6
_WIDEST: Final = 1 << 20
_DIGITS: Final = 10
#: Decimals beyond those of any column of ours are of a calculation.
_CALCULATED_SCALE: Final = 13
_EXACT_DIGITS: Final = 15
_TIME: Final = re.compile(r"(.*:\d\d)(?:\.(\d+))?(.*)")


@dataclass(frozen=True, slots=True)
class _Column:
    """``cells`` are lists of lines, one of a plain value."""

    name: str
    cells: list[list[str]]
    is_right: bool
    is_time: bool

    @property
    def width(self) -> int:
        return max((len(line) for cell in self.cells for line in cell), default=0)


def print_table(answer: Answer, console: Console, rows: int | None) -> None:
    """Print at most ``rows`` rows (0: all; None: what the screen holds)."""
    most: int | None
    if rows is None:
        most = max(1, console.height - _AROUND) if console.is_terminal else _MOST_ROWS
    else:
        most = rows or None
    table = _read(answer, most)
    columns = [_column(table.schema.field(i), table.column(i)) for i in range(table.num_columns)]
    shown = table.num_rows if most is None else min(table.num_rows, most)
    if rows is None and most is not None:
        columns = [_cut(column, most) for column in columns]
        shown = _fitting(columns, shown, most)
    for form in _forms(columns, shown):
        width = Measurement.get(console, console.options.update(max_width=_WIDEST), form).maximum
        if width <= console.width:
            console.print(form)
            break
    else:
        if console.is_terminal:
            if rows is None:
                shown = min(shown, max(1, console.height // (len(columns) + 1)))
            _print_rows(columns, shown, console)
        else:
            form = _table(columns, shown, HEAVY_HEAD)
            options = console.options.update(max_width=_WIDEST)
            console.width = Measurement.get(console, options, form).maximum
            console.print(form)
    if shown < table.num_rows:
        note = f"the first {shown} rows: --rows 0 shows all, --format csv, json or parquet has them"
        Console(stderr=True).print(note, highlight=False)


def _read(answer: Answer, most: int | None) -> pa.Table:
    """One row more than is shown, so that it is known whether there are more."""
    found, count = [], 0
    for batch in answer.batches:
        found.append(batch if most is None else batch.slice(0, most + 1 - count))
        count += found[-1].num_rows
        if most is not None and count > most:
            break
    return pa.Table.from_batches(found, answer.schema)


def _column(field: pa.Field, values: pa.ChunkedArray) -> _Column:
    kind = field.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    item = kind.value_type if is_list else kind
    found = json_values(values.combine_chunks(), trim=True)
    cells = [value if is_list and value is not None else [value] for value in found]
    lengths = [len(cell) for cell in cells]
    lines = iter(_lines(item, [value for cell in cells for value in cell]))
    is_text = not (pa.types.is_primitive(item) or pa.types.is_decimal(item))
    return _Column(
        field.name,
        [[next(lines) for _ in range(length)] for length in lengths],
        is_right=not is_text and not pa.types.is_boolean(item),
        is_time=pa.types.is_timestamp(item),
    )


def _lines(kind: pa.DataType, values: list[Any]) -> list[str]:
    if pa.types.is_decimal(kind):
        texts = [value if value is None else _decimal(value, kind.scale) for value in values]
        return _at_the_point(texts)
    if pa.types.is_floating(kind):
        return _at_the_point([v if v is None else f"{float(v):.{_DIGITS}g}" for v in values])
    if pa.types.is_timestamp(kind):
        return _times(values)
    return [_text(value) for value in values]


def _decimal(text: str, scale: int) -> str:
    if scale < _CALCULATED_SCALE or sum(c.isdigit() for c in text.lstrip("-0.")) <= _EXACT_DIGITS:
        return text
    text = f"{Context(prec=_DIGITS).create_decimal(Decimal(text)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _at_the_point(texts: list[str | None]) -> list[str]:
    """Numbers one below the other, whatever digits they have."""
    tails = [len(text.partition(".")[2]) for text in texts if text is not None]
    widest = max(tails, default=0)
    aligned = []
    for text in texts:
        whole, point, tail = ("NULL", "", "") if text is None else text.partition(".")
        gap = widest - len(tail) + (1 if widest and not point else 0)
        aligned.append(f"{whole}{point}{tail}{' ' * gap}")
    return aligned


def _times(values: list[str | None]) -> list[str]:
    """Seconds with as many decimals, by threes, as any of them needs."""
    parts = [_TIME.fullmatch(value.replace("T", " ", 1)) for value in values if value is not None]
    needed = max((len((p[2] or "").rstrip("0")) for p in parts if p), default=0)
    digits = -(-needed // 3) * 3
    shown = []
    for value in values:
        part = None if value is None else _TIME.fullmatch(value.replace("T", " ", 1))
        if part is None:
            shown.append(_text(value))
        else:
            fraction = (part[2] or "").ljust(digits, "0")[:digits]
            shown.append(f"{part[1]}{'.' if digits else ''}{fraction}{part[3]}")
    return shown


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _cut(column: _Column, most: int) -> _Column:
    """Long lists end in how many more there are."""
    cells = [
        [*cell[: most - 1], f"… {len(cell) - most + 1} more"] if len(cell) > most else cell
        for cell in column.cells
    ]
    return replace(column, cells=cells)


def _fitting(columns: Sequence[_Column], rows: int, lines: int) -> int:
    """How many rows these lines hold, one at least."""
    fitting = 0
    for row in range(rows):
        lines -= max((len(column.cells[row]) for column in columns), default=1) or 1
        if lines < 0:
            break
        fitting += 1
    return max(fitting, min(rows, 1))


def _forms(columns: list[_Column], rows: int) -> list[Table]:
    """From the roomiest to the tightest."""
    names = [_with_folded_name(column) for column in columns]
    tightest = [
        _with_folded_name(replace(column, cells=_on_two_lines(column.cells)))
        if column.is_time
        else _with_folded_name(column)
        for column in columns
    ]
    return [
        _table(columns, rows, HEAVY_HEAD),
        _table(columns, rows, SIMPLE_HEAD),
        _table(names, rows, SIMPLE_HEAD),
        _table(tightest, rows, SIMPLE_HEAD),
    ]


def _on_two_lines(cells: list[list[str]]) -> list[list[str]]:
    return [cell[0].split(" ", 1) if len(cell) == 1 else cell for cell in cells]


def _with_folded_name(column: _Column) -> _Column:
    """A name longer than the values below it, broken where it has joints."""
    pieces = re.findall(r"[^\s_().]+[\s_().]*|[\s_().]+", column.name)
    room = max(column.width, max(map(len, pieces), default=0))
    lines = [""]
    for piece in pieces:
        if lines[-1] and len((lines[-1] + piece).rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return replace(column, name="\n".join(line.strip() for line in lines))


def _table(columns: Sequence[_Column], rows: int, box: Any) -> Table:
    is_framed = box is HEAVY_HEAD
    has_lists = any(len(cell) > 1 for column in columns for cell in column.cells[:rows])
    table = Table(
        box=box,
        show_edge=is_framed,
        pad_edge=is_framed,
        padding=(0, 1) if is_framed else 0,
        show_lines=has_lists and rows > 1,
    )
    for column in columns:
        side = "right" if column.is_right else "left"
        table.add_column(Text(column.name, justify=side), no_wrap=True)  # type: ignore[arg-type]
    # Cells are set right here: justified, they would lose the room after their point.
    rooms = [
        max(column.width, *map(len, column.name.split("\n"))) if column.is_right else 0
        for column in columns
    ]
    for row in range(rows):
        cells = (
            [line.rjust(room) for line in column.cells[row]]
            for column, room in zip(columns, rooms, strict=True)
        )
        table.add_row(*(Text("\n".join(cell)) for cell in cells))
    return table


def _print_rows(columns: Sequence[_Column], rows: int, console: Console) -> None:
    longest = max(len(column.name) for column in columns)
    for row in range(rows):
        console.rule(f"row {row + 1}", align="left")
        for column in columns:
            value = ", ".join(line.strip() for line in column.cells[row])
            console.print(Text.assemble((f"{column.name:{longest}}  ", "bold"), value))
