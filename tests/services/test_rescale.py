"""1 -> 2 -> 1 processes, killed before, in the middle of and after each change: as undisturbed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import recovery
from flows.rescale import rescale
from infra.services.timescale import Timescale
from tests.recovery.outputs import assert_same_outputs, drop_database, new_outputs
from tests.recovery.running import Flow, signal_all
from tests.services.recorded import record, venues
from tests.services.topics import Cluster

pytestmark = pytest.mark.services
_VENUES = ("bitget", "independent-reserve", "okx")
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "50", "MARKETFLOW_BATCH_ROWS": "40"}
_SHARDS = 16


class Crash(Exception):  # noqa: N818 - a death, to be told from errors
    """A kill at this point, as it were."""


@pytest.fixture
def topics(kafka: Cluster, data: Path) -> Iterator[list[str]]:
    """A capture in each."""
    found = []
    for capture in venues(data):
        if capture.venue in _VENUES:
            topic = kafka.topic(1, f"rescaled.{capture.venue}")
            record(kafka, topic, capture.source)
            found.append(topic)
    yield found
    for topic in found:
        kafka.delete(topic)


def test_another_number_of_processes_between_kills(
    kafka: Cluster,
    timescale: Timescale,
    topics: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timescale.up(print)
    calm, rough = (new_outputs(tmp_path, kafka, timescale) for _ in range(2))
    undisturbed = Flow(
        _sources(kafka, topics, "calm"), calm.sinks(kafka), tmp_path / "calm", 2, _ENVIRONMENT
    )
    undisturbed.start()
    expected = undisturbed.result()

    sources = _sources(kafka, topics, "rough")
    run = Flow(sources, rough.sinks(kafka), tmp_path / "rough", 1, _ENVIRONMENT)
    seen = _killed_further_on(run, kafka, topics, 0)
    # Killed before the new layout counts, and before the old one is tidied away.
    note = tmp_path / "rough" / "run.json"
    for module_function, processes in (("_write", 1), ("tidy", 2)):
        with monkeypatch.context() as patched:
            patched.setattr(recovery, module_function, _crash)
            with pytest.raises(Crash):
                rescale(run.recovery, run.sinks, _SHARDS, 2)
        assert json.loads(note.read_text())["processes"] == processes
    run.processes = 2
    _killed_further_on(run, kafka, topics, seen)
    run.processes = 1
    run.start()
    summary = run.result()
    assert {path.name for path in run.recovery.iterdir()} == {"run.json", "layout-2-process-0"}
    assert_same_outputs(kafka, calm, rough)
    for name in set(expected) - {"seconds", "messages_per_s", "memory_bytes"}:
        assert summary[name] == expected[name], name
    for outputs in (calm, rough):
        drop_database(timescale, outputs)


def _sources(kafka: Cluster, topics: list[str], group: str) -> list[str]:
    return [
        f"kafka://{kafka.brokers}/{topic}?venue={topic.partition('.')[2]}&to=latest&group={group}"
        for topic in topics
    ]


def _crash(*_: object) -> None:
    raise Crash


def _killed_further_on(run: Flow, kafka: Cluster, topics: list[str], seen: int) -> int:
    """Start it and kill all of it when it has got beyond this many messages; how far it is then."""
    run.start()
    deadline = time.monotonic() + 120
    while (told := sum(kafka.told("rough", topic, 1) for topic in topics)) <= seen + 100:
        assert run.running(), run.said()
        assert time.monotonic() < deadline
    signal_all(run.family(), signal.SIGKILL)
    run.gone()
    return told
