"""``marketflow services``: local Kafka, TimescaleDB and Prometheus, up and down."""

from __future__ import annotations

from dataclasses import asdict
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.errors import RunFailed, UsageError
from infra.services import docker, manager
from infra.services.base import ServiceError

ACTIONS = ("up", "down", "status", "reset")


def run_action(action: str, only: str | None, console: Console) -> dict[str, dict[str, Any]]:
    """Carry out ``action`` on the services (comma-separated ``only``); their state afterwards."""
    if action not in ACTIONS:
        raise UsageError(f"services {action}: no such action; known: {', '.join(ACTIONS)}")
    try:
        chosen = manager.services([name for name in (only or "").split(",") if name])
    except ServiceError as error:
        raise UsageError(str(error)) from None
    backend: ModuleType = docker if docker.engine_answers() else manager
    try:
        if action == "up":
            states = backend.up(chosen, console.print)
        else:
            states = getattr(backend, action)(chosen)
    except ServiceError as error:
        raise RunFailed(str(error)) from None
    return {name: asdict(state) for name, state in states.items()}


def print_states(states: dict[str, dict[str, Any]], console: Console) -> None:
    """The states as a table."""
    colours = {"up": "green", "starting": "yellow", "down": "dim", "not installed": "dim"}
    table = Table(title="services", title_justify="left")
    for column in ("service", "state", "url", ""):
        table.add_column(column, overflow="fold")
    for name, state in states.items():
        colour = colours[state["state"]]
        shown = f"[{colour}]{state['state']}[/{colour}]"
        table.add_row(name, shown, redact(state["url"]), state["detail"])
    console.print(table)
    for state in states.values():
        if state["reader"]:
            console.print("To read the database (a login that cannot write):")
            console.print(f'marketflow sql --dsn {state["reader"]} "SELECT …"', soft_wrap=True)


def redact(url: str) -> str:
    """The address without its password."""
    head, at, tail = url.rpartition("@")
    scheme, colon, _ = head.rpartition(":")
    return f"{scheme}{colon}***{at}{tail}" if at and "//" in scheme else url
