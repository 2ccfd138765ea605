"""What the tests here have in common: runs as processes of their own, killed by the clock."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def ready(kernels: None) -> None:
    """Kernels are compiled before anything is timed."""
