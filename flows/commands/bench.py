"""``marketflow bench``: every benchmark in a fresh process, results beside targets and peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from marketflow.flows.errors import RunFailed, UsageError

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 1800


def _call(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"benchmark {' '.join(arguments)} failed: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout)


def run_benchmarks(
    only: str | None, quick: bool, console: Console
) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the benchmarks whose name contains ``only``; a list of {name, value, unit, ...}, and the
    benchmarks that failed: one that does takes no other's figures with it."""
    if not (_ROOT / "tests" / "benchmarks").is_dir():
        raise UsageError("benchmarks live in the source tree: run this from a checkout")
    names = [name for name in _call("--list") if only is None or only in name]
    if not names:
        raise UsageError(
            f"no benchmark has {only!r} in its name; known: {', '.join(_call('--list'))}"
        )
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in names:
        console.print(f"[dim]measuring {name} ...[/dim]")
        try:
            results += _call(name, *(["--quick"] if quick else []))
        except (RunFailed, subprocess.TimeoutExpired) as error:
            console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
            failed.append(name)
    return results, failed


def shown(value: float) -> str:
    """Three significant digits with a unit prefix."""
    for limit, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{prefix}"
    return f"{value:.3g}"


def print_results(results: list[dict[str, Any]], console: Console) -> None:
    """Table of figures; a value that misses its target is marked."""
    table = Table(title="benchmarks (this machine, this run)", title_justify="left")
    for column in ("what", "value", "target", "peers", "conditions"):
        is_number = column in ("value", "target")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for result in results:
        value, target = result["value"], result["target"]
        if target is None:
            mark = ""
        elif (value >= target) == (result["better"] == "higher") or value == target:
            mark = "[green]✓[/green] "
        else:
            mark = "[red]✗[/red] "
        wanted = (
            ""
            if target is None
            else f"{'≥' if result['better'] == 'higher' else '≤'} {shown(target)}"
        )
        peers = "\n".join(
            f"{name} {shown(peer)} ({value / peer:.1f}×)" for name, peer in result["peers"].items()
        )
        table.add_row(
            result["name"], f"{mark}{shown(value)} {result['unit']}", wanted, peers,
            result["conditions"],
        )  # fmt: skip
    console.print(table)
