"""Shared fixtures: where the recorded market data is, and how hard hypothesis works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "dev", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def kernels() -> None:
    """Kernels are compiled before any run is timed: cold they take minutes on a busy machine."""
    command = [sys.executable, "-m", "marketflow", "warmup"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of recorded market data (not part of the project: redistribution is not ours)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MARKETFLOW_TEST_DATA", default))
    if not folder.is_dir():
        reason = f"no recorded market data at {folder}; set MARKETFLOW_TEST_DATA to its folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
