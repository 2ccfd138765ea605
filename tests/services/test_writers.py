"""The writer contract for the sinks that need a server, on real ones."""

from __future__ import annotations

import pytest

from tests.contract.writers import (
    SERVER_STORES,
    Store,
    WriterContract,
    database_store,
    topics_store,
)
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services


@pytest.fixture(params=SERVER_STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of the test's own."""
    if request.param == "timescale":
        return database_store(request.getfixturevalue("database"))
    cluster: Cluster = request.getfixturevalue("kafka")
    return topics_store(cluster, cluster.tables())


class TestServerWriters(WriterContract):
    """Every test of the contract."""
