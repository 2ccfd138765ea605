"""Peers run in a virtual environment of their own (their requirements are not ours).

``environment()`` builds ``.cache/peers`` from peers.lock once; ``measure(script, ...)`` runs a
script of this folder there and returns the JSON it prints: units per second by peer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_HOME = _HERE.parents[1] / ".cache" / "peers"


def environment() -> Path:
    """Python of the peers' environment, made at first use."""
    python = _HOME / "bin" / "python"
    ready = _HOME / ".ready"
    lock = _HERE / "peers.lock"
    if not ready.is_file() or ready.read_text() != lock.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_HOME)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
             "--require-hashes", "-r", str(lock)],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        ready.write_text(lock.read_text())
    return python


def measure(script: str, *arguments: str) -> dict[str, Any]:
    """Run ``peer_<script>.py`` with the peers' Python on this process's cores."""
    return _run(str(environment()), script, arguments)


def measure_here(script: str, *arguments: str) -> dict[str, Any]:
    """As :func:`measure`, of peers that are in our own environment too."""
    return _run(sys.executable, script, arguments)


def _run(python: str, script: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(_HERE / f"peer_{script}.py"), *arguments],
        capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"peer {script} failed: {done.stderr[-800:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
