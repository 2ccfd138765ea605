"""``marketflow tables``: the tables for people, for machines and for the docs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marketflow.flows.queries.describe import COLUMNS, cells, described, page


def tables(
    name: Annotated[str | None, typer.Argument(help="One table [default: all].")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON value on stdout, for machines.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page of the docs.")] = False,
) -> None:
    """Show what the tables hold: columns, types, units and meaning."""
    found = described(name)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    elif markdown:
        sys.stdout.write(page(found))
    else:
        _print(found, Console())


def _print(found: list[dict[str, Any]], console: Console) -> None:
    for table in found:
        shown = Table(title=f"{table['table']}: {table['meaning']}", title_justify="left")
        for head in COLUMNS:
            shown.add_column(head, overflow="fold")
        for column in table["columns"]:
            shown.add_row(*map(Text, cells(column)))
        console.print(shown)
