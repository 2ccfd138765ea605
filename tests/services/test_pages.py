"""Examples of the README pages that need servers, with real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.infra.services.timescale import Timescale
from tests.support.pages import blocks, pages, run
from tests.support.services.local import reader_of
from tests.support.services.topics import Cluster

PAGES = [page for page in pages() if any(block.runs and block.needs for block in blocks(page))]
pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(
    page: str, kafka: Cluster, timescale: Timescale, bare_database: str, tmp_path: Path
) -> None:
    variables = {
        "MARKETFLOW_BROKERS": kafka.brokers,
        "MARKETFLOW_DSN": bare_database,
        "MARKETFLOW_READER_DSN": reader_of(timescale, bare_database),
    }
    run([block for block in blocks(page) if block.runs and block.needs], tmp_path, variables)
