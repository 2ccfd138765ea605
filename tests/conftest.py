"""Shared fixtures: where the recorded market data is, and how hard hypothesis works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.once import compile_kernels

pytest_plugins = ["tests.support.children", "tests.support.parallel"]

# A failing example is printed with the line that repeats it.
settings.register_profile(
    "dev",
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def kernels(pytestconfig: pytest.Config) -> None:
    """Kernels are compiled before any run is timed: cold they take minutes on a busy machine."""
    if not hasattr(pytestconfig, "workerinput"):  # for workers they were, before they started
        compile_kernels()


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
