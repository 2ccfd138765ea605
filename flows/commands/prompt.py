"""The prompt of ``marketflow sql``: queries over several lines, with a history and completion."""

from __future__ import annotations

import os
import readline
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES

_KEPT_LINES: Final = 1000
_HELP: Final = (
    "a query ends with ; · SHOW TABLES, DESCRIBE trades · Tab completes names · Ctrl-C drops or "
    "stops a query · \\rows N shows so many rows (0: all) · \\q or Ctrl-D leaves"
)
_LEAVE: Final = frozenset({"\\q", "quit", "exit"})


def run_prompt(ask: Callable[[str, int | None], None], rows: int | None, console: Console) -> None:
    """Ask and answer until the end of input. A mistake ends its query alone."""
    history = _history_file()
    _load(history)
    console.print(_HELP, style="dim", markup=False, highlight=False)
    try:
        while True:
            try:
                text = _read()
            except KeyboardInterrupt:
                console.print()
                continue
            if text is None:
                console.print()
                return
            if text.lower() in _LEAVE:
                return
            command, _, argument = text.partition(" ")
            if command == "\\rows":
                rows = int(argument) if argument.strip().isdigit() else rows
            elif text.startswith("\\"):
                console.print(_HELP, style="dim", markup=False, highlight=False)
            else:
                _answered(ask, text, rows, console)
    finally:
        _save(history)


def _answered(
    ask: Callable[[str, int | None], None], text: str, rows: int | None, console: Console
) -> None:
    try:
        ask(text, rows)
    except (UsageError, RunFailed) as error:
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
    except KeyboardInterrupt:
        console.print("interrupted")


def _read() -> str | None:
    """The next query or command, without its ``;``; None at the end of input."""
    lines: list[str] = []
    while True:
        try:
            line = input("......> " if lines else "market> ")
        except EOFError:
            return None
        if not lines and not line.strip():
            continue
        lines.append(line)
        text = "\n".join(lines).strip()
        is_command = text.startswith("\\") or text.lower().rstrip(";") in _LEAVE
        if is_command or line.rstrip().endswith(";"):
            # One entry: the history brings the whole query back. (A comment would swallow it.)
            for entry in lines if "--" in text else [" ".join(lines)]:
                readline.add_history(entry)
            return text.rstrip(";").strip()


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "marketflow" / "sql_history"


def _load(history: Path) -> None:
    readline.set_auto_history(False)
    readline.clear_history()
    readline.set_history_length(_KEPT_LINES)
    if history.is_file():
        readline.read_history_file(history)
    columns = {
        name
        for table in TABLES.values()
        for field in table.fields
        for name in (
            [field.name, f"{field.name}_epoch_ns"] if field.kind is Kind.TIME else [field.name]
        )
    }
    words = sorted({*TABLES, *columns})

    def complete(start: str, number: int) -> str | None:
        found = [word for word in words if word.startswith(start.lower())]
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def _save(history: Path) -> None:
    """For its owner's eyes. A folder that cannot be written keeps nothing."""
    try:
        history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        history.touch(0o600)
        readline.write_history_file(history)
    except OSError:
        return
