"""``marketflow services``: local Kafka, TimescaleDB and Prometheus, up and down."""

from __future__ import annotations

from dataclasses import asdict
from shlex import quote
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.variables import variable
from marketflow.infra.services import docker, manager
from marketflow.infra.services.base import ServiceError

ACTIONS = ("up", "down", "status", "env", "reset")
#: Which variable the address of a service is, and that of its login that only reads.
_VARIABLES = {"kafka": ("brokers", ""), "timescale": ("dsn", "reader_dsn")}


def run_action(
    action: str, only: str | None, yes: bool, console: Console
) -> dict[str, dict[str, Any]]:
    """Carry out ``action`` on the services (comma-separated ``only``); their state afterwards.

    ``reset`` says what would go and raises UsageError unless ``yes``."""
    if action not in ACTIONS:
        raise UsageError(f"services {action}: no such action; known: {', '.join(ACTIONS)}")
    try:
        chosen = manager.services([name for name in (only or "").split(",") if name])
    except ServiceError as error:
        raise UsageError(str(error)) from None
    backend: ModuleType = docker if docker.engine_answers() else manager
    if action == "reset" and not yes:
        raise UsageError(
            f"reset stops {', '.join(s.name for s in chosen)} and forgets all their data "
            f"({', '.join(str(s.data) for s in chosen)}); nothing was done: repeat with --yes"
        )
    try:
        if action == "env":
            states = backend.status(chosen)
        elif action == "up":
            states = backend.up(chosen, console.print)
        else:
            states = getattr(backend, action)(chosen)
    except ServiceError as error:
        raise RunFailed(str(error)) from None
    return {name: asdict(state) for name, state in states.items()}


def print_states(states: dict[str, dict[str, Any]], console: Console) -> None:
    """The states as a table, and the line that hands their addresses to other commands."""
    colours = {"up": "green", "starting": "yellow", "down": "dim", "not installed": "dim"}
    table = Table(title="services", title_justify="left")
    for column in ("service", "state", "address", ""):
        table.add_column(column, no_wrap=column == "address")
    for name, state in states.items():
        colour = colours[state["state"]]
        shown = f"[{colour}]{state['state']}[/{colour}]"
        table.add_row(name, shown, _address(state["url"]), state["detail"])
    console.print(table)
    if lines := exports(states):
        console.print("for this shell:")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def exports(states: dict[str, dict[str, Any]]) -> list[str]:
    """Shell lines that set the variables which every command takes its addresses from."""
    lines = []
    for name, (address, reader) in _VARIABLES.items():
        state = states.get(name, {})
        if state.get("state") == "up":
            lines.append(f"export {variable(address)}={quote(state['url'])}")
        if reader and state.get("reader"):
            lines.append(f"export {variable(reader)}={quote(state['reader'])}")
    return lines


def _address(url: str) -> str:
    """Host, port and database of an address."""
    return url.rpartition("://")[2].rpartition("@")[2]
