"""What a person sees while a run works: a line on stderr, only where that is a terminal."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

_REFRESH_S = 0.5


def stderr_console() -> Console:
    """A console on its own copy of stderr: redirecting descriptor 2 does not touch it."""
    return Console(file=os.fdopen(os.dup(2), "w"))


class _Warnings(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), style="yellow", markup=False, soft_wrap=True)


def show_warnings(console: Console) -> None:
    """What sinks and sources log (an outage they wait for) goes to people."""
    logging.getLogger("marketflow").addHandler(_Warnings(console))


def quantity(value: float) -> str:
    """12345678 -> '12.3 M': numbers people read at a glance."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"


class Progress:
    """Shows ``read()`` twice a second: messages, rate, rows, event time, stale books, faults."""

    def __init__(self, title: str, read: Callable[[], dict[str, Any]], console: Console) -> None:
        self._title = title
        self._read = read
        self._console = console
        self._shown_from: tuple[float, int] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        started = last_time = time.monotonic()
        last_messages = 0
        with Live(console=self._console, transient=True, refresh_per_second=4) as live:
            while not self._done.wait(_REFRESH_S):
                now = time.monotonic()
                state = self._read()
                rate = (state["messages"] - last_messages) / (now - last_time)
                last_time, last_messages = now, state["messages"]
                live.update(self._line(state, rate, now - started))

    def _replayed(self, state: dict[str, Any], seconds: float) -> str:
        """How much of a replay is done, and how long the rest will take at the pace so far."""
        if state["warm_up"]:
            return f"warming up: {quantity(state['warm_up'])} messages to go"
        done, whole = state["replayed"], state["to_replay"]
        if self._shown_from is None:
            self._shown_from = (seconds, done)
        since_s, before = self._shown_from
        text = f"{100 * done // whole} %"
        if done > before:
            left_s = (seconds - since_s) * (whole - done) / (done - before)
            text += f", {timedelta(seconds=round(left_s))} left"
        return text

    def _line(self, state: dict[str, Any], rate: float, seconds: float) -> Table:
        row = Table.grid(padding=(0, 2))
        cells = [
            f"[bold]{self._title}[/bold]",
            f"{seconds:.0f} s",
            f"{quantity(state['messages'])} messages",
            f"{quantity(rate)}/s",
            f"{quantity(sum(state['tables'].values()))} rows",
        ]
        if state.get("last_event_ns"):
            newest = datetime.fromtimestamp(state["last_event_ns"] // 10**9, UTC)
            cells.append(f"at {newest:%Y-%m-%d %H:%M:%S} UTC")
        if state.get("stale_books"):
            cells.append(f"[yellow]{state['stale_books']} stale books[/yellow]")
        if state.get("to_replay"):
            cells.append(self._replayed(state, seconds))
        faults = sum(state["dead_letters"].values())
        if faults:
            cells.append(f"[red]{faults} dead letters[/red]")
        row.add_row(*cells)
        return row
