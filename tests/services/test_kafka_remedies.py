"""A topic that a run cannot go on from: what the message advises is done, and loses and doubles
nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.runtime.run import run
from marketflow.flows.settings import load
from marketflow.schemas.recovery import START_ANEW
from marketflow.sources.registry import open_reader, parse_source
from tests.support.halfway import stop_halfway
from tests.support.lakes import assert_same_lakes
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
_ROWS = 4000


def _record(kafka: Cluster, topic: str) -> None:
    reader = open_reader(parse_source(f"sim:?events={_ROWS}&symbols=3&seed=5&format=binance"))
    while (batch := reader.read()) is not None:
        kafka.record(topic, batch)


def _made_anew(kafka: Cluster, topic: str) -> None:
    kafka.delete(topic)
    kafka.topic(1, topic)
    _record(kafka, topic)


def _shortened(kafka: Cluster, topic: str) -> None:
    kafka.forget(topic, 0, _ROWS - 100)


@pytest.mark.parametrize(
    ("spoil", "says", "then"),
    [
        (_made_anew, "was deleted and created anew", ""),
        (_shortened, "retention has removed .* messages in between", "&from=earliest"),
    ],
)
def test_start_anew(
    spoil: Callable[[Cluster, str], None],
    says: str,
    then: str,
    kafka: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = kafka.topic(1)
    _record(kafka, topic)
    source = f"kafka://{kafka.brokers}/{topic}?venue=binance&to=latest"
    settings = load(batch_rows=100, epoch_ms=10)

    def start(name: str, more: str = "") -> dict[str, object]:
        sinks = [f"parquet:{tmp_path / f'lake-{name}'}"]
        state = tmp_path / f"state-{name}"
        return run("market_data", [source + more], sinks, recovery=state, settings=settings)

    stop_halfway(lambda: start("old"), monkeypatch)
    spoil(kafka, topic)
    with pytest.raises(UsageError, match=says) as caught:
        start("old")
    assert START_ANEW in str(caught.value)
    summary = start("new", then)
    run("market_data", [source + then], [f"parquet:{tmp_path / 'calm'}"], settings=settings)
    assert assert_same_lakes(tmp_path / "calm", tmp_path / "lake-new") == summary["tables"]
