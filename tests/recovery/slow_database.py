"""A database that is several times slower: the flow waits for it, and needs no more memory.

    python -m tests.recovery.slow_database --data FOLDER

A recorded session, several times at once, goes from a topic into a database; then again while the
server's processes are stopped for most of every second. Prints time and memory of both.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from marketflow.infra.services.kafka import Kafka
from marketflow.infra.services.timescale import Timescale
from tests.support.services.local import services_folder, start
from tests.support.services.outputs import drop_database, new_outputs
from tests.support.services.recorded import binance, record
from tests.support.services.running import Flow, Servers, signal_all
from tests.support.services.topics import Cluster

_PERIOD_S = 1.0


class Cost(NamedTuple):
    """What a run took: working seconds, rows, peak of its resident memory."""

    seconds: float
    rows: int
    peak_mb: int


def measure(flow: Flow, servers: Servers, stopped: float) -> Cost:
    """One run with the database stopped for this part of the time."""
    flow.start()
    peak = 0
    try:
        while flow.running():
            frozen = servers.database() if stopped else []
            signal_all(frozen, signal.SIGSTOP)
            peak = max(peak, _watched(flow, _PERIOD_S * stopped))
            signal_all(frozen, signal.SIGCONT)
            peak = max(peak, _watched(flow, _PERIOD_S * (1.0 - stopped)))
    finally:
        signal_all(servers.database(), signal.SIGCONT)
    summary = flow.result()
    return Cost(summary["seconds"], sum(summary["tables"].values()), peak >> 20)


def _watched(flow: Flow, seconds: float) -> int:
    """Most resident memory of the run's processes in this time."""
    peak, end = 0, time.monotonic() + seconds
    while flow.running() and time.monotonic() < end:
        resident = 0
        for process in flow.family():
            try:
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, resident)
        time.sleep(0.02)
    return peak


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the captures")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--stopped", type=float, default=0.8, help="part of every second")
    arguments = parser.parse_args()
    with services_folder() as home, tempfile.TemporaryDirectory(prefix="mf-slow-") as folder:
        services = [start("kafka", home), start("timescale", home)]
        try:
            kafka, timescale = services
            assert isinstance(kafka, Kafka)
            assert isinstance(timescale, Timescale)
            servers = Servers(Cluster(kafka), timescale)
            topic = servers.kafka.topic(arguments.copies, "recorded")
            record(servers.kafka, topic, binance(arguments.data)[0].source, arguments.copies)
            source = f"kafka://{kafka.url}/{topic}?venue=binance-usdm&to=latest"
            for number, stopped in enumerate((0.0, arguments.stopped)):
                outputs = new_outputs(Path(folder), servers.kafka, timescale)
                recovery = Path(folder) / f"recovery-{number}"
                flow = Flow([source], [f"timescale:{outputs.dsn}"], recovery, 1, {})
                cost = measure(flow, servers, stopped)
                drop_database(timescale, outputs)
                print(f"database stopped {stopped:.0%} of the time: {cost}", flush=True)
        finally:
            for service in services:
                service.down()


if __name__ == "__main__":
    main()
