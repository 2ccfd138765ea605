"""What a person sees while a run works: a line on stderr, only where that is a terminal."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from marketflow.schemas.moments import datetime_at

_REFRESH_S: Final = 0.5
#: A rate is that of so many seconds.
_RATE_S: Final = 5.0


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
    """Shows ``read()`` twice a second on one line: how far, messages, rate, rows, event time, stale
    books, dead letters. What does not fit into the width is left out, the least important first.

    The time that kernels took to compile (``compile_s`` of the state) is in no rate.
    """

    def __init__(self, title: str, read: Callable[[], dict[str, Any]], console: Console) -> None:
        self._title = title
        self._read = read
        self._console = console
        self._shown_from: tuple[float, int] | None = None
        #: (seconds without the compiler, messages) of the last seconds.
        self._past: deque[tuple[float, int]] = deque(maxlen=round(_RATE_S / _REFRESH_S))
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
        started, before_s = time.monotonic(), self._read().get("compile_s", 0.0)
        with Live(console=self._console, transient=True, refresh_per_second=4) as live:
            while not self._done.wait(_REFRESH_S):
                state = self._read()
                compiled_s = state.get("compile_s", 0.0) - before_s
                seconds = time.monotonic() - started - compiled_s
                live.update(fitted(self.cells(state, seconds), self._console.width - 1))

    def rate(self, messages: int, seconds: float) -> float:
        """Messages a second of the last seconds; where none have come in them, of all that have:
        what is written at the end takes a while."""
        self._past.append((seconds, messages))
        if messages == self._past[0][1]:
            return messages / seconds if seconds > 0 else 0.0
        first_s, first = self._past[0]
        return (messages - first) / (seconds - first_s)

    def _replayed(self, state: dict[str, Any], seconds: float) -> str:
        """How much of a replay is done, and how long the rest will take at the pace so far."""
        if state["warm_up"]:
            return f"warming up: {quantity(state['warm_up'])} messages to go"
        return self._share(state["replayed"], state["to_replay"], seconds)

    def _share(self, done: int, whole: int, seconds: float) -> str:
        if self._shown_from is None:
            self._shown_from = (seconds, done)
        since_s, before = self._shown_from
        text = f"{100 * done // whole} %"
        if done >= whole:
            return f"{text}, finishing"
        if done > before and seconds > since_s:
            left_s = (seconds - since_s) * (whole - done) / (done - before)
            text += f", {timedelta(seconds=round(left_s))} left"
        return text

    def cells(self, state: dict[str, Any], seconds: float) -> list[Cell]:
        """What is shown, in order."""
        messages = state["messages"] - state.get("earlier_messages", 0)
        cells = [Cell(f"[bold]{self._title}[/bold]", 9), Cell(f"{seconds:.0f} s", 6)]
        if state.get("compiling"):
            cells.append(Cell(f"[yellow]compiling {state['compiling']}[/yellow]", 9))
        if state.get("to_replay"):
            cells.append(Cell(self._replayed(state, seconds), 8))
        elif state.get("to_read"):
            cells.append(Cell(self._share(state["read"], state["to_read"], seconds), 8))
        cells.append(Cell(f"{quantity(state['messages'])} messages", 5))
        cells.append(Cell(f"{quantity(self.rate(messages, seconds))}/s", 7))
        cells.append(Cell(f"{quantity(sum(state['tables'].values()))} rows", 2))
        if state.get("last_event_ns"):
            newest = datetime_at(state["last_event_ns"])
            cells.append(Cell(f"at {newest:%Y-%m-%d %H:%M:%S}", 1))
        if state.get("stale_books"):
            cells.append(Cell(f"[yellow]{state['stale_books']} stale[/yellow]", 4))
        if faults := sum(state["dead_letters"].values()):
            cells.append(Cell(f"[red]{quantity(faults)} dead letters[/red]", 7))
        return cells


class Cell(NamedTuple):
    """A piece of the line: markup, and how much it matters (more stays longer)."""

    text: str
    weight: int


def fitted(cells: Sequence[Cell], width: int) -> Text:
    """The cells on one line of at most so many columns."""
    kept = list(cells)
    while True:
        line = Text.from_markup("  ".join(cell.text for cell in kept))
        if line.cell_len <= width or len(kept) == 1:
            line.truncate(width, overflow="ellipsis")
            return line
        kept.remove(min(kept, key=lambda cell: cell.weight))
