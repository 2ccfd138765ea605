"""A run's summary as people read it (stderr); machines get the same values as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from flows.progress import quantity


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Rows per table, then what was wrong with the input, then the rate."""
    rows = Table(title=f"{summary['flow']}: rows written", title_justify="left")
    rows.add_column("table")
    rows.add_column("rows", justify="right")
    for name, count in summary["tables"].items():
        rows.add_row(name, f"{count:,}")
    console.print(rows)
    faults = [("dead letter", k, v) for k, v in summary["dead_letters"].items()]
    faults += [("quality", k, v) for k, v in summary["quality_events"].items()]
    if faults:
        table = Table(title="input that was not as it should be", title_justify="left")
        table.add_column("")
        table.add_column("kind")
        table.add_column("count", justify="right")
        for sort, kind, count in faults:
            table.add_row(sort, kind, f"{count:,}")
        console.print(table)
    rowless = summary["rowless_messages"]
    if rowless:
        told = ", ".join(f"{kind} {count:,}" for kind, count in rowless.items())
        console.print(f"messages that make no row: {told}", highlight=False)
    verified, failed = summary["checksums_verified"], summary["checksums_failed"]
    if verified or failed:
        console.print(f"checksums: {verified:,} verified, {failed:,} failed")
    if summary.get("stale_books"):
        console.print(f"[yellow]{summary['stale_books']} books are stale at the end[/yellow]")
    ending = "stopped by a signal" if summary["stopped"] else "end of input"
    console.print(
        f"{summary['messages']:,} messages in {summary['seconds']:.1f} s "
        f"({quantity(summary['messages_per_s'])}/s), {ending}"
    )
