"""What a machine must have, checked one by one, each with its fix."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marketflow.flows.catalogue import DEFAULT_FLOW
from marketflow.schemas.cache import cache_folder

_ROOT = Path(__file__).resolve().parents[2]
_MIN_FREE_BYTES = 2 * 10**9
_MIN_MEMORY_BYTES = 2 * 10**9

Outcome = tuple[str, str, str]  # state (ok, warning, failed), what was found, fix


def _python() -> Outcome:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return "ok", found, ""
    return "failed", found, "use Python 3.11 or 3.12: make PYTHON=python3.11"


def _packages() -> Outcome:
    try:
        lock = (_ROOT / "requirements.lock").read_text()
    except FileNotFoundError:  # installed from a wheel
        return _requirements()
    locked = dict(re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", lock, re.MULTILINE))
    wrong = _wrong(locked)
    if wrong:
        return "failed", ", ".join(wrong[:4]), "rm -rf .venv && make setup"
    return "ok", f"{len(locked)} packages as locked", ""


def _requirements() -> Outcome:
    """What the installed package says it needs, without the extras."""
    needed = re.findall(
        r"^([\w.-]+)(?:\[[^]]*\])?(?:==([\w.]+))?[^;]*$",
        "\n".join(importlib.metadata.requires("marketflow") or ()),
        re.MULTILINE,
    )
    wrong = _wrong(dict(needed))
    if wrong:
        return "failed", ", ".join(wrong[:4]), "pip install --force-reinstall marketflow"
    return "ok", f"{len(needed)} packages as required", ""


def _wrong(wanted: dict[str, str]) -> list[str]:
    """What is missing, or of another version than the one that is wanted ("" is any)."""
    wrong = []
    for name, version in wanted.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        if installed == "missing" or version not in ("", installed):
            wrong.append(f"{name} {installed} (wanted {version or 'any'})")
    return wrong


def _kernel_cache() -> Outcome:
    folder = Path(os.environ.get("NUMBA_CACHE_DIR", cache_folder() / "numba"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return "failed", str(error), "make it writable or set NUMBA_CACHE_DIR"
    compiled = sum(1 for _ in folder.rglob("*.nbc"))
    if compiled == 0:
        return "warning", f"{folder} is empty", "marketflow warmup compiles once, ahead of time"
    return "ok", f"{compiled} compiled kernels", ""


def _time_zones() -> Outcome:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError as error:
        return "failed", str(error), "make setup (installs tzdata)"
    return "ok", "America/New_York known", ""


def _disk() -> Outcome:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:.1f} GB free here"
    if free < _MIN_FREE_BYTES:
        return "warning", found, "a day of market data needs gigabytes: free some"
    return "ok", found, ""


def _machine() -> Outcome:
    import psutil

    memory = psutil.virtual_memory().total
    found = f"{os.cpu_count()} cores, {memory / 1e9:.0f} GB of memory"
    if memory < _MIN_MEMORY_BYTES:
        return "warning", found, "2 GB is the least for comfortable runs"
    return "ok", found, ""


def _small_flow() -> Outcome:
    from marketflow.flows.queries.duckdb_lake import open_lake
    from marketflow.flows.runtime.run import run

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="marketflow-doctor-") as folder:
        lake = Path(folder) / "lake"
        summary = run(DEFAULT_FLOW, ["sim:?events=5000&symbols=5&seed=1"], [f"parquet:{lake}"])
        [(found,)] = open_lake(lake).sql("SELECT count(*) FROM trades").fetchall()
    written = summary["tables"].get("trades", 0)
    if found != written or not written:
        return "failed", f"{written} trades written, {found} read", "please report this"
    seconds = time.monotonic() - started
    return "ok", f"{summary['messages']:,} messages to a lake and back in {seconds:.1f} s", ""


_CHECKS: tuple[tuple[str, Callable[[], Outcome]], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("kernel cache", _kernel_cache),
    ("time zones", _time_zones),
    ("disk", _disk),
    ("machine", _machine),
    ("small flow", _small_flow),
)


def run_checks() -> list[dict[str, Any]]:
    """Every check as {name, state, found, fix}; a check that crashes has failed."""
    results = []
    for name, check in _CHECKS:
        try:
            state, found, fix = check()
        except Exception as error:
            state, found, fix = "failed", f"{type(error).__name__}: {error}", "see the message"
        results.append({"name": name, "state": state, "found": found, "fix": fix})
    return results


def print_checks(checks: list[dict[str, Any]], console: Console) -> None:
    """The checks as a table."""
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    table = Table(title="marketflow doctor", title_justify="left")
    for column in ("check", "state", "found", "fix"):
        table.add_column(column)
    for check in checks:
        colour = colours[check["state"]]
        table.add_row(
            check["name"], f"[{colour}]{check['state']}[/{colour}]", check["found"], check["fix"]
        )
    console.print(table)
