"""Kill a run again and again at random moments, resume it, compare with an undisturbed one.

    python -m tests.recovery.kills --kills 20 --source "binance:FILE?market=usdm"

Prints a line per kill and fails loudly at the first difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketflow.flows.catalogue import DEFAULT_FLOW
from tests.support.lakes import assert_same_lakes, last_change, until_it_writes
from tests.support.patience import PATIENCE_S

# Small batches and epochs: a small file then has hundreds of moments worth dying at.
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "40", "MARKETFLOW_BATCH_ROWS": "200"}


@dataclass(frozen=True)
class Outcome:
    """What a killed and resumed run ended with."""

    kills: int
    rows: dict[str, int]
    summary: dict[str, Any]
    undisturbed: dict[str, Any]


def _command(
    flow: str, sources: list[str], lake: Path, recovery: Path, processes: int
) -> list[str]:
    command = [sys.executable, "-m", "marketflow", "run", flow, "--json"]
    for source in sources:
        command += ["--source", source]
    command += ["--sink", f"parquet:{lake}", "--recovery", str(recovery)]
    return [*command, "--processes", str(processes)]


def kill_and_resume(
    sources: list[str],
    *,
    kills: int,
    seed: int,
    folder: Path,
    processes: int = 1,
    environment: dict[str, str] | None = None,
    flow: str = DEFAULT_FLOW,
) -> Outcome:
    """Run undisturbed, then with ``kills`` kill -9s; assert both lakes equal."""
    env = {**os.environ, **_ENVIRONMENT, **(environment or {})}
    calm, rough = folder / "calm", folder / "rough"
    done = subprocess.run(
        _command(flow, sources, calm, folder / "calm-recovery", processes),
        env=env, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    undisturbed = json.loads(done.stdout)
    working_s = undisturbed["seconds"]
    chance = random.Random(seed)
    landed = 0
    for _ in range(50 * kills):
        before = last_change(rough)
        child = subprocess.Popen(
            _command(flow, sources, rough, folder / "rough-recovery", processes),
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        if landed < kills:
            # Early in start-up a kill teaches little: aim at the working time, sliced by kills.
            until_it_writes(child, rough, before)
            delay_s = chance.uniform(0.0, 2.0 * working_s / kills)
            try:
                child.wait(delay_s)
            except subprocess.TimeoutExpired:
                _kill(child, chance, processes)
                landed += 1
                print(f"kill {landed}: after {delay_s:.2f} s", file=sys.stderr)
                child.communicate()
                continue
        out, errors = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, errors
        rows = assert_same_lakes(calm, rough)
        if landed >= kills:
            return Outcome(landed, rows, json.loads(out), undisturbed)
        # The run ended before all kills: another round from the start, into a fresh lake.
        shutil.rmtree(rough)
        shutil.rmtree(folder / "rough-recovery")
    raise AssertionError(f"only {landed} of {kills} kills hit a running flow")


def _kill(child: subprocess.Popen[str], chance: random.Random, processes: int) -> None:
    """The whole run, or (with several processes) sometimes just one worker of it."""
    if processes > 1 and chance.random() < 0.5:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(child.pid)], capture_output=True, text=True
        )
        workers = [int(pid) for pid in listed.stdout.split()]
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            return
    _kill_family(child.pid)


def _kill_family(pid: int) -> None:
    """The process and its children, which have sessions of their own."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    for victim in (pid, *(int(p) for p in listed.stdout.split())):
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marketflow-kills-") as folder:
        outcome = kill_and_resume(
            arguments.source,
            kills=arguments.kills,
            seed=arguments.seed,
            folder=Path(folder),
            processes=arguments.processes,
        )
    print(f"{outcome.kills} kills, all tables equal: {outcome.rows}")


if __name__ == "__main__":
    main()
