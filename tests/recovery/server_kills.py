"""Kill everything that a run over real servers needs, at random moments; compare what it leaves.

    python -m tests.recovery.server_kills --kills 50

The recorded captures are put into topics; from there they go through market_data into a lake, a
database and topics. An undisturbed run shows what must come out. Then the flow, one process of
two, its parent alone, the broker, the database, both, or all of these are killed (-9), or servers
frozen for a while, again and again. What was killed is started again; a run that waits for a
server must still be alive when that is back. Prints a line per mishap and fails loudly at the
first difference between the two runs' lakes, topics and databases.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketflow.infra.services.kafka import Kafka
from marketflow.infra.services.timescale import Timescale
from tests.support.services.local import services_folder, start
from tests.support.services.outputs import (
    Outputs,
    assert_same_outputs,
    drop_database,
    new_outputs,
)
from tests.support.services.recorded import binance, record, venues
from tests.support.services.running import TIMEOUT_S, Flow, Servers, signal_all
from tests.support.services.topics import Cluster

#: Then the run may come to its end and is compared.
_PER_ROUND = 10
_COUNTED = ("messages", "tables", "dead_letters", "quality_events", "checksums_verified")


# -- mishaps: each returns whether the run must have survived it ----------------------------------


def kill_flow(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    signal_all(flow.family(), signal.SIGKILL)
    flow.gone()
    return False


def kill_parent(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    """The run's first process alone; its workers must notice."""
    signal_all(flow.family()[:1], signal.SIGKILL)
    flow.gone()
    return False


def kill_worker(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    """One process of several: the run fails, and says how to go on."""
    workers = flow.family()[1:]
    if not workers:
        return kill_flow(flow, servers, chance)
    signal_all([chance.choice(workers)], signal.SIGKILL)
    assert flow.child is not None
    code = flow.child.wait(TIMEOUT_S)
    assert code in (0, 1), flow.said()
    assert code == 0 or "start the same command again" in flow.said(), flow.said()
    flow.gone()
    return False


def kill_broker(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    signal_all(servers.broker(), signal.SIGKILL)
    time.sleep(chance.uniform(0.0, 3.0))
    servers.up()
    return True


def kill_database(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    signal_all(servers.database(), signal.SIGKILL)
    time.sleep(chance.uniform(0.0, 3.0))
    servers.up()
    return True


def kill_servers(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    signal_all([*servers.broker(), *servers.database()], signal.SIGKILL)
    time.sleep(chance.uniform(0.0, 2.0))
    servers.up()
    return True


def kill_all(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    """The machine goes down, as it were."""
    signal_all([*flow.family(), *servers.broker(), *servers.database()], signal.SIGKILL)
    flow.gone()
    servers.up()
    return False


def freeze_servers(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    """One or both do nothing for a while; longer, sometimes, than the broker's own patience."""
    frozen = chance.choice(
        [servers.broker(), servers.database(), [*servers.broker(), *servers.database()]]
    )
    signal_all(frozen, signal.SIGSTOP)
    try:
        time.sleep(chance.uniform(0.5, 6.0))
    finally:
        signal_all(frozen, signal.SIGCONT)
    return True


def kill_flow_in_outage(flow: Flow, servers: Servers, chance: random.Random) -> bool:
    """The run dies while it waits, or just after the servers are back."""
    frozen = [*servers.broker(), *servers.database()]
    signal_all(frozen, signal.SIGSTOP)
    time.sleep(chance.uniform(0.2, 2.0))
    signal_all(flow.family(), signal.SIGKILL)
    signal_all(frozen, signal.SIGCONT)
    flow.gone()
    return False


Mishap = Callable[[Flow, Servers, random.Random], bool]
MISHAPS: tuple[Mishap, ...] = (
    kill_flow,
    kill_worker,
    kill_broker,
    kill_database,
    freeze_servers,
    kill_parent,
    kill_servers,
    kill_all,
    kill_flow_in_outage,
)


# -- the whole ------------------------------------------------------------------------------------


@dataclass
class Trial:
    """Mishaps upon runs of one feed, until there were enough of them."""

    servers: Servers
    sources: list[str]
    folder: Path
    chance: random.Random
    #: Numbers of processes: each start takes the next one.
    processes: Sequence[int] = (2,)
    environment: dict[str, str] = field(default_factory=dict)
    landed: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    starts: int = 0

    def undisturbed(self) -> None:
        """What must come out, and how long that takes."""
        self.calm = new_outputs(self.folder, self.servers.kafka, self.servers.timescale)
        flow = self._flow(self.calm, "calm-recovery")
        flow.start()
        self.summary = flow.result()
        whole_s = time.monotonic() - flow.started_s
        self.working_s = self.summary["seconds"]
        self.startup_s = max(0.0, whole_s - self.working_s)
        say(f"undisturbed: {self.summary['messages']} messages in {self.working_s:.1f} s")

    def _flow(self, outputs: Outputs, recovery: str) -> Flow:
        sinks = outputs.sinks(self.servers.kafka)
        return Flow(
            self.sources, sinks, self.folder / recovery, self.processes[0], self.environment
        )

    def disturb(self, mishaps: Sequence[Mishap]) -> dict[str, int]:
        """All of ``mishaps``, in as many rounds as it takes; rows per table of each."""
        left = list(mishaps)
        while True:
            waiting, left = left[:_PER_ROUND], left[_PER_ROUND:]
            self.rounds += 1
            rough = new_outputs(self.folder, self.servers.kafka, self.servers.timescale)
            recovery = f"recovery-{self.rounds}"
            summary = self._round(self._flow(rough, recovery), waiting)
            rows = assert_same_outputs(self.servers.kafka, self.calm, rough)
            for name in _COUNTED:
                assert summary[name] == self.summary[name], name
            assert rows == {name: n for name, n in self.summary["tables"].items() if n}
            done = sum(self.landed.values())
            say(f"round {self.rounds}: after {done} mishaps all three stores equal the calm ones")
            shutil.rmtree(rough.lake)
            drop_database(self.servers.timescale, rough)
            left = waiting + left
            if not left:
                return rows

    def _round(self, flow: Flow, waiting: list[Mishap]) -> dict[str, Any]:
        """Until the run ends by itself; takes from ``waiting`` what it was done."""
        while True:
            if not flow.running():
                if flow.child is not None:
                    return flow.result()
                flow.processes = self.processes[self.starts % len(self.processes)]
                self.starts += 1
                flow.start()
            if not waiting:
                return flow.result()
            self._let_it_work(flow)
            if not flow.running():
                continue
            mishap = waiting.pop()
            after_s = time.monotonic() - flow.started_s
            survives = mishap(flow, self.servers, self.chance)
            self.landed[mishap.__name__] = self.landed.get(mishap.__name__, 0) + 1
            number = sum(self.landed.values())
            say(f"{number}: {mishap.__name__}, {after_s:.1f} s after the start")
            if survives and flow.child is not None and flow.child.poll() not in (None, 0):
                flow.result()

    def _let_it_work(self, flow: Flow) -> None:
        """A random while: mostly into its work, now and then into its start; but not into a first
        one, which has little patience with an address that may be mistyped."""
        first = not (flow.recovery / "run.json").is_file()
        least_s = self.startup_s if first or self.chance.random() < 0.8 else 0.0
        begun_s = max(time.monotonic(), flow.started_s + least_s)
        end_s = begun_s + self.chance.uniform(0.0, min(6.0, 0.2 * self.working_s))
        while flow.running() and time.monotonic() < end_s:
            time.sleep(0.02)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def bag(kills: int, chance: random.Random, kinds: Sequence[Mishap] = MISHAPS) -> list[Mishap]:
    """So many mishaps in random order, all kinds alike often."""
    mishaps = [kinds[number % len(kinds)] for number in range(kills)]
    chance.shuffle(mishaps)
    return mishaps


def recorded_sources(kafka: Cluster, data: Path, copies: int) -> list[str]:
    """All captures in topics; the long ones several times, in partitions of their own."""
    sources = []
    for captures, times in ((binance(data), copies), (venues(data), 1)):
        for capture in captures:
            topic = kafka.topic(times, f"recorded.{len(sources)}.{capture.venue}")
            record(kafka, topic, capture.source, times)
            sources.append(f"kafka://{kafka.brokers}/{topic}?venue={capture.venue}&to=latest")
    return sources


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--copies", type=int, default=3, help="of the long captures")
    parser.add_argument(
        "--processes", default="2", help="numbers, such as 1,2: another one at each start"
    )
    parser.add_argument("--only", default="", help="kinds of mishaps, separated by commas")
    parser.add_argument("--data", type=Path, required=True, help="folder of the captures")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    say(f"seed {arguments.seed}")
    kinds = [m for m in MISHAPS if not arguments.only or m.__name__ in arguments.only.split(",")]
    with services_folder() as home, tempfile.TemporaryDirectory(prefix="mf-kills-") as folder:
        services = [start("kafka", home), start("timescale", home)]
        try:
            kafka, timescale = services
            assert isinstance(kafka, Kafka)
            assert isinstance(timescale, Timescale)
            servers = Servers(Cluster(kafka), timescale)
            trial = Trial(
                servers,
                recorded_sources(servers.kafka, arguments.data, arguments.copies),
                Path(folder),
                chance,
                processes=[int(n) for n in arguments.processes.split(",")],
            )
            trial.undisturbed()
            rows = trial.disturb(bag(arguments.kills, chance, kinds))
        finally:
            for service in services:
                service.down()
    print(f"{trial.landed} in {trial.rounds} rounds, all tables equal: {rows}")


if __name__ == "__main__":
    main()
