"""The demo: a simulated Nasdaq day through the real flow into a lake, and answers from SQL."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from marketflow.flows.console import quantity
from marketflow.flows.errors import UsageError
from marketflow.flows.options import command_name
from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.flows.runtime.run import run

_NOTE: Final = "demo.json"
_DATE: Final = "2026-03-02"

MOST_ACTIVE: Final = """
SELECT symbol, count(*) AS trades, sum(size)::BIGINT AS shares,
       round(sum(notional) / sum(size), 4) AS vwap, min(price) AS low, max(price) AS high
FROM trades WHERE status = 'normal'
GROUP BY symbol ORDER BY shares DESC, symbol LIMIT 5
"""
SPREADS: Final = """
SELECT symbol, count(*) AS quotes,
       round(avg(ask_price - bid_price), 4) AS mean_spread,
       round(10000 * avg((ask_price - bid_price) / bid_price), 2) AS spread_bps
FROM quotes WHERE book_state = 'valid' AND symbol IN ({symbols})
GROUP BY symbol ORDER BY quotes DESC
"""
LAST_BARS: Final = """
SELECT strftime(ts_open, '%H:%M') AS open_utc, open, high, low, close,
       volume::BIGINT AS volume, trade_count AS trades
FROM bars WHERE interval = '1m' AND symbol = '{symbol}' AND is_final
ORDER BY ts_open DESC LIMIT 5
"""
BOOK: Final = """
SELECT bid_counts[i] AS orders, bid_sizes[i]::BIGINT AS bid_size, bid_prices[i] AS bid,
       ask_prices[i] AS ask, ask_sizes[i]::BIGINT AS ask_size, ask_counts[i] AS orders_
FROM (SELECT * FROM depth WHERE symbol = '{symbol}' AND book_state = 'valid'
      ORDER BY ts_event DESC, row_sequence DESC LIMIT 1), range(1, 6) AS levels(i)
"""


def run_demo(events: int, out: Path, console: Console, as_json: bool) -> None:
    """Simulate, run, query, print. The lake stays at ``out`` for further questions."""
    _fresh(out)
    console.print(
        f"[bold]1[/bold] a simulated Nasdaq day: {events:,} ITCH messages of 100 symbols, "
        f"through the market_data flow, into {out}"
    )
    source = f"sim:?events={events}&symbols=100&seed=7&date={_DATE}"
    summary = run("market_data", [source], [f"parquet:{out}"], console=console)
    (out / _NOTE).write_text(json.dumps({"source": source}))
    answers = _ask(out)
    if as_json:
        sys.stdout.write(json.dumps({**summary, "answers": answers}, indent=1, default=str) + "\n")
        return
    _tell(summary, answers, out, console)


def _fresh(out: Path) -> None:
    """Remove the lake of an earlier demo; anything else at ``out`` is not ours to touch."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / _NOTE).is_file() and not (out / "_marketflow").is_dir():
        raise UsageError(f"{out} exists and is no demo lake: name another folder with --out")
    if not (out / _NOTE).is_file():
        raise UsageError(f"{out} is a lake, but not of a demo: name another folder with --out")
    shutil.rmtree(out)


def _ask(out: Path) -> dict[str, list[dict[str, Any]]]:
    lake = open_lake(out)

    def rows(query: str) -> list[dict[str, Any]]:
        result = lake.sql(query)
        return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]

    active = rows(MOST_ACTIVE)
    symbols = ", ".join(f"'{row['symbol']}'" for row in active)
    top = active[0]["symbol"]
    return {
        "most_active": active,
        "spreads": rows(SPREADS.format(symbols=symbols)),
        f"last_bars_{top}": rows(LAST_BARS.format(symbol=top)),
        f"book_{top}": rows(BOOK.format(symbol=top)),
    }


def _tell(
    summary: dict[str, Any], answers: dict[str, list[dict[str, Any]]], out: Path, console: Console
) -> None:
    written = ", ".join(f"{quantity(n)} {name}" for name, n in summary["tables"].items() if n)
    console.print(
        f"[bold]2[/bold] {summary['messages']:,} messages in {summary['seconds']:.1f} s "
        f"({quantity(summary['messages_per_s'])}/s): {written}"
    )
    console.print("[bold]3[/bold] the answers, read back from the lake with SQL:\n")
    titles = {
        "most_active": "most active symbols",
        "spreads": "their spreads",
        "last_bars": "last one-minute bars of",
        "book": "book at the close of",
    }
    stdout = Console()
    for name, rows in answers.items():
        key, _, symbol = name.rpartition("_") if name[-1].isupper() else (name, "", "")
        _table(f"{titles[key]} {symbol}".strip(), rows, stdout)
    console.print("ask more:")
    console.print(
        f"  {command_name()} sql --lake {out} "
        '"SELECT symbol, count(*) FROM quotes GROUP BY symbol ORDER BY 2 DESC LIMIT 3"'
    )


def _table(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column.rstrip("_"), justify="left" if column == "symbol" else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text and text[0].isdigit() else text
