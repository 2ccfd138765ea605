"""A rescale that dies, at each of its steps in turn, is only a rescale that has to be repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marketflow.flows.runtime import recovery
from marketflow.infra.services.timescale import Timescale
from tests.support.chance import chance
from tests.support.services.outputs import assert_same_outputs, new_outputs
from tests.support.services.running import Flow, signal_all
from tests.support.services.small_record import record
from tests.support.services.topics import Cluster

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "60", "MARKETFLOW_BATCH_ROWS": "100"}
_PARTITIONS = 3
_SHARDS = 16


def _die_rescaling(flow: Flow, processes: int) -> int:
    """How many attempts died on the way to this number of processes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.recovery.rescale_deaths", str(flow.recovery), str(_SHARDS),
         str(processes), *flow.sinks],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert recovery.processes_of(flow.recovery) == processes
    return int(done.stdout)


def test_dying_at_every_step_between_kills(
    kafka: Cluster, timescale: Timescale, tmp_path: Path
) -> None:
    timescale.up(print)
    topic = kafka.topic(_PARTITIONS)
    record(kafka, topic, _PARTITIONS)
    source = f"kafka://{kafka.brokers}/{topic}?venue=binance&to=latest"
    calm, rough = (new_outputs(tmp_path, kafka, timescale) for _ in range(2))
    undisturbed = Flow([source], calm.sinks(kafka), tmp_path / "calm", 2, _ENVIRONMENT)
    undisturbed.start()
    working_s = undisturbed.result()["seconds"]
    startup_s = time.monotonic() - undisturbed.started_s - working_s

    luck = chance()
    flow = Flow([source], rough.sinks(kafka), tmp_path / "rough", 2, _ENVIRONMENT)
    for processes in (1, 2):
        flow.start()
        time.sleep(startup_s + luck.uniform(0.2, 0.5) * working_s)
        assert (flow.recovery / "run.json").is_file(), flow.said()
        signal_all(flow.family(), signal.SIGKILL)
        flow.gone()
        # At least: the sinks of each old process, a store for each new one, the note.
        assert _die_rescaling(flow, processes) > 3 * 4 + processes
        flow.processes = processes
    flow.start()
    flow.result()
    rows = assert_same_outputs(kafka, calm, rough)
    assert rows["quotes"] > 1000
