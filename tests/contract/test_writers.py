"""The writer contract for the sinks that need no server, and for recorders."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.sinks.registry import SCHEMES
from tests.contract.writers import LOCAL_STORES, SERVER_STORES, Store, WriterContract


@pytest.fixture(params=LOCAL_STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of the test's own."""
    (tmp_path / "store").mkdir()
    return LOCAL_STORES[request.param](tmp_path / "store")


class TestLocalWriters(WriterContract):
    """Every test of the contract."""


def test_every_scheme_has_a_case() -> None:
    assert {*LOCAL_STORES, *SERVER_STORES} == SCHEMES.keys()
