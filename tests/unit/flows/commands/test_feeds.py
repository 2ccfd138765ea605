"""``marketflow feeds`` as people read it."""

from __future__ import annotations

import io

from rich.console import Console

from marketflow.flows.commands.feeds import print_feeds


def shown(*feeds: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_feeds(list(feeds), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def feed(source: str, **rows: int) -> dict[str, object]:
    first = "2026-03-02T14:30:00.000000090"
    times = {"first_event": first, "last_event": None}
    return {"source": source, "state": "running", "rows": rows, **times}


def test_a_line_per_feed_with_rows_and_the_others_counted() -> None:
    text = shown(feed("itch:a", trades=1200, quotes=34), feed("kafka:b [7]"))
    lines = text.splitlines()
    assert lines[1].split() == ["itch:a", "running", "1,234", "2026-03-02", "14:30"]
    assert lines[2:] == ["feeds without a row: 1 (--json shows them)"]
    assert max(map(len, lines)) <= 80


def test_nothing_was_loaded() -> None:
    assert shown() == "no feeds: nothing was loaded yet\n"
