"""A run's summary as people read it (stderr); machines get the same values as JSON."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from marketflow.flows.console import quantity
from marketflow.schemas.codes import QualityKind

#: Kinds of ``quality_events`` that say that something is over, or follows from a fault of its own.
CONSEQUENCES: Final = frozenset(
    kind.name.lower() for kind in (QualityKind.STALE, QualityKind.VALID, QualityKind.LINE_RECOVERED)
)
#: Books that are named; of more only the number is told.
_NAMED: Final = 8


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Rows per table, then what was wrong with the input, then the rate."""
    if not summary["new_messages"] and summary["messages"] and not summary["stopped"]:
        done = f"{summary['messages']:,} messages"
        console.print(f"nothing new: this run has read its input to the end ({done})")
        return
    rows = Table(title=f"{summary['flow']}: rows written", title_justify="left")
    rows.add_column("table")
    rows.add_column("rows", justify="right")
    for name, count in summary["tables"].items():
        rows.add_row(name, f"{count:,}")
    console.print(rows)
    faults = [("dead letter", k, v) for k, v in summary["dead_letters"].items()]
    faults += [
        ("quality", k, v) for k, v in summary["quality_events"].items() if k not in CONSEQUENCES
    ]
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
        console.print(_stale(summary), style="yellow", markup=False, soft_wrap=True)
    ending = "stopped by a signal" if summary["stopped"] else "end of input"
    new, read = summary["new_messages"], f"{summary['messages']:,} messages"
    if new < summary["messages"]:
        read = f"{new:,} messages more, {read} in all,"
    console.print(
        f"{read} in {summary['seconds']:.1f} s ({quantity(summary['messages_per_s'])}/s), {ending}"
    )


def _stale(summary: dict[str, Any]) -> str:
    """How many books are stale, and which."""
    count, names = summary["stale_books"], summary["stale"]
    text = f"{count} books are stale at the end" if count > 1 else "1 book is stale at the end"
    if names:
        more = count - min(len(names), _NAMED)
        text += f": {', '.join(names[:_NAMED])}" + (f" and {more} more" if more > 0 else "")
    return text
