"""Options of the command line that take their value from a variable or marketflow.toml too."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup, TyperOption

from marketflow.flows.catalogue import find
from marketflow.flows.errors import UsageError
from marketflow.flows.variables import (
    COMMON_FLAGS,
    FILE,
    READER_DSN,
    READING,
    RUN_FLAGS,
    SETTINGS,
    check_variables,
    read_file,
    variable,
)

if TYPE_CHECKING:
    from marketflow.flows.settings import Settings

#: The page to read on, by command.
_PAGES: Final = {
    "run": "flows/README.md",
    "replay": "flows/README.md#replay",
    "record": "sources/README.md#recording-live-feeds",
    "sql": "flows/queries/README.md",
    "tables": "docs/tables.md",
    "compact": "sinks/README.md#the-lake",
    "retention": "sinks/README.md#retention",
    "migrate": "infra/README.md#the-database",
    "services": "infra/README.md#local-servers",
    "topics": "infra/README.md#topics",
}
#: Commands whose other options are settings of a flow.
_FLOW_COMMANDS: Final = ("run", "replay")


class ConfiguredGroup(TyperGroup):
    """Give the options of each command their variables (shown by ``--help``) and file values."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command ``cmd_name`` with its variables, None where there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is None:
            return None
        options = {
            name: option
            for option in command.params
            if isinstance(option, TyperOption) and (name := _settable(cmd_name, option))
        }
        for name, option in options.items():
            option.envvar = _variables_of(cmd_name, name)
            # A column of its own is too narrow for the names at 80 columns: see the epilog.
            option.show_envvar = False
        # Lines of a docstring are no lines of a terminal.
        paragraphs = (command.help or "").split("\n\n")
        command.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
        command.epilog = "\n\n".join(
            filter(None, (_variables(cmd_name, list(options)), _read_on(cmd_name)))
        )
        if not _asks_for_help():
            check_variables(os.environ)
            ctx.default_map = {cmd_name: _defaults(options)}
        if {"lake", "dsn"} <= options.keys():
            command.invoke = partial(  # type: ignore[method-assign]
                _invoke_at_one_place, command.invoke
            )
        return command


def _read_on(command: str) -> str:
    """The page of the manual that a command is on."""
    return f"Read on: {_PAGES[command]}" if command in _PAGES else ""


def _variables(command: str, names: list[str]) -> str | None:
    """Tell the variable of each option, and the settings that have no option."""
    if not names:
        return None
    told = [
        f"--{name.replace('_', '-')} {' or '.join(_variables_of(command, name))}" for name in names
    ]
    text = f"Variables (keys of {FILE} likewise): {', '.join(told)}."
    rest = [variable(name) for name in SETTINGS if name not in (*names, "lake")]
    if command in _FLOW_COMMANDS:
        text += f" Without an option: {', '.join(rest)}."
    return text + " Lists in a variable are separated by spaces." * ("source" in names)


def _variables_of(command: str, name: str) -> list[str]:
    """The variables of an option, the first that is set counts."""
    names = [READER_DSN, name] if command in READING and name == "dsn" else [name]
    return [variable(name) for name in names]


def _settable(command: str, option: TyperOption) -> str:
    """The name that sets an option, or ``""``."""
    name = max((text.lstrip("-").replace("-", "_") for text in option.opts), key=len)
    settable = name in COMMON_FLAGS or (command in _FLOW_COMMANDS and name in SETTINGS)
    return name if settable or (command == "run" and name in RUN_FLAGS) else ""


def _defaults(options: dict[str, TyperOption]) -> dict[str, Any]:
    """What marketflow.toml says of the options, by parameter name."""
    found = {}
    given = read_file()
    for name in ("dsn", READER_DSN):
        # Sinks and workers look for it where they run.
        if isinstance(given.get(name), str):
            os.environ.setdefault(variable(name), given[name])
    for key, value in given.items():
        option = options.get(key)
        if option is None or option.name is None:
            continue
        if option.multiple:
            value = [value] if isinstance(value, str) else value
        elif isinstance(value, list):
            value = ",".join(map(str, value))
        found[option.name] = value
    return found


def _asks_for_help() -> bool:
    return "--help" in sys.argv


def _invoke_at_one_place(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    """Run a command with --lake or --dsn: the one on the command line, where a variable or the file
    says the other. Raises UsageError where both are on the line, or neither is."""
    if ctx.params["lake"] is not None and ctx.params["dsn"] is not None:
        told = [n for n in ("lake", "dsn") if ctx.get_parameter_source(n).name == "COMMANDLINE"]
        if len(told) == 2:
            raise UsageError("--lake or --dsn, not both")
        if not told:
            raise UsageError(
                f"{variable('lake')} and {variable('dsn')} (or their keys in {FILE}) are both set: "
                "say which with --lake DIR or --dsn DSN"
            )
        ctx.params["dsn" if told == ["lake"] else "lake"] = None
    return invoke(ctx)


def settings_of_command(context: typer.Context, flow: str, **flags: object) -> Settings:
    """The settings of a flow, with the flags of a command. A flag that sets nothing of
    this flow is left out if a variable or the file gave it, to set another one.

    Raises UsageError for one that stands on the line.
    """
    from marketflow.flows import settings

    found = find(flow)
    known = settings.settings_of(found).model_fields
    for name in [name for name in flags if name not in known]:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--{name.replace('_', '-')} is no setting of {found.name}; its settings: "
                f"{', '.join(known)}"
            )
        del flags[name]
    return settings.load(found, **flags)


def command_name() -> str:
    """How this command line was called, to copy: its name where a shell finds it, else its path."""
    called = sys.argv[0]
    name = Path(called).name
    found = shutil.which(name)
    if found and Path(found).resolve() == Path(called).resolve():
        return name
    path = os.path.relpath(called)
    return called if path.startswith("..") else path
