"""A short version of tests.recovery.server_kills: recorded captures, all three stores, real kills;
and with another number of processes at each start."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.infra.services.timescale import Timescale
from tests.recovery import server_kills as kills
from tests.support.chance import chance
from tests.support.services.recorded import record, venues
from tests.support.services.topics import Cluster

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
#: Hundreds of moments worth dying at, in a feed of seconds.
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "60", "MARKETFLOW_BATCH_ROWS": "50"}
_VENUES = ("kraken", "bitget", "okx", "bybit", "independent-reserve", "coinbase")


@pytest.fixture(scope="module")
def sources(kafka: Cluster, data: Path) -> list[str]:
    """Captures of a few venues, one of them with checksums and orders each, in their topics."""
    found = []
    for capture in venues(data):
        if capture.venue in _VENUES:
            topic = kafka.topic(1)
            record(kafka, topic, capture.source)
            found.append(f"kafka://{kafka.brokers}/{topic}?venue={capture.venue}&to=latest")
    return found


@pytest.mark.parametrize(
    ("processes", "mishaps"),
    [
        ((2,), (kills.kill_worker, kills.kill_broker, kills.kill_database)),
        ((1, 2), (kills.kill_flow, kills.freeze_servers, kills.kill_parent)),
    ],
)
def test_whatever_dies_the_stores_end_as_undisturbed(
    kafka: Cluster,
    timescale: Timescale,
    sources: list[str],
    tmp_path: Path,
    processes: tuple[int, ...],
    mishaps: tuple[kills.Mishap, ...],
) -> None:
    timescale.up(print)
    trial = kills.Trial(
        kills.Servers(kafka, timescale),
        sources,
        tmp_path,
        chance(),
        processes=processes,
        environment=_ENVIRONMENT,
    )
    trial.undisturbed()
    rows = trial.disturb(mishaps)
    assert rows["quotes"] > 1000
    assert sum(trial.landed.values()) == len(mishaps)
