"""The feeds contract for a lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.feeds_contract import FeedsContract, LakeStore, Store

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty lake."""
    return LakeStore(tmp_path)


class TestFeedsOfALake(FeedsContract):
    """Every test of the contract."""
