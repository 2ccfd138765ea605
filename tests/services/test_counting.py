"""A flow that no catalogue lists over topics: killed, rescaled, checkpointed and replayed."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from marketflow.flows.catalogue import find
from marketflow.flows.commands.feeds import known_feeds
from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order, replay
from marketflow.flows.runtime import recovery
from marketflow.flows.runtime.run import run
from marketflow.flows.settings import load
from marketflow.schemas.shards import feed_of
from tests.support.counting import FLOW
from tests.support.lakes import assert_same_lakes, table_rows
from tests.support.patience import until
from tests.support.services.history import recorded_frames, told
from tests.support.services.running import Flow, signal_all
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
_PARTITIONS = 3
_ENVIRONMENT = {
    "MARKETFLOW_EPOCH_MS": "30",
    "MARKETFLOW_BATCH_ROWS": "50",
    "MARKETFLOW_CHECKPOINT_EVERY": "1d",
}


def _read(flow: Flow, kafka: Cluster, topic: str, frames: int) -> None:
    """Until the run has durably read so many frames."""

    def read() -> bool:
        assert flow.running(), flow.said()
        return told(kafka, [topic], "counting", _PARTITIONS) >= frames

    until(read)


def _by_connection(frames: pa.RecordBatch) -> pa.RecordBatch:
    """Each frame of one of many connections, so that every partition has some."""
    place = frames.schema.get_field_index("connection")
    names = pa.array([f"line {k % 20}" for k in range(frames.num_rows)]).dictionary_encode()
    return frames.set_column(place, frames.schema.field(place), names)


def test_two_one_and_three_processes_and_a_replay(kafka: Cluster, tmp_path: Path) -> None:
    topic, lake = kafka.topic(_PARTITIONS), tmp_path / "rough"
    source = f"kafka://{kafka.brokers}/{topic}?venue=binance&group=counting"
    flow = Flow([source], [f"parquet:{lake}"], tmp_path / "recovery", 2, _ENVIRONMENT, flow=FLOW)
    frames = _by_connection(recorded_frames())
    ends_s = []
    for count, processes in enumerate((2, 1, 3), 1):
        kafka.record(topic, frames.slice((count - 1) * 1000, 1000))
        flow.processes = processes
        flow.start()
        _read(flow, kafka, topic, 1000 * count)
        assert recovery.processes_of(flow.recovery) == processes
        if processes == 1:
            signal_all(flow.family(), signal.SIGKILL)
            flow.gone()
        else:
            signal_all(flow.family()[:1], signal.SIGTERM)
            ends_s.append(flow.result()["counted"])
    assert ends_s == [1000, 3000]

    settings = load(find(FLOW))
    done = run(FLOW, [f"{source}&to=latest"], [f"parquet:{tmp_path / 'calm'}"], settings=settings)
    assert done["messages"] == 3000
    assert assert_same_lakes(tmp_path / "calm", lake) == {"statistics": 3000}

    # From the middle of the second part on: the checkpoint at the end of the first lies before it.
    whole = table_rows(lake, "statistics")
    assert whole is not None
    partitions = {feed["feed"]: feed["parts"][0]["partition"] for feed in known_feeds(lake, None)}
    read = [partitions[feed_of(shard)] for shard in whole["shard"].to_pylist()]
    # Two thirds of each partition's frames, which are numbered by offset.
    starts = {place: count * 2 // 3 for place, count in sorted(Counter(read).items())}
    wanted = Wanted(
        kafka.brokers,
        (f"{topic}?venue=binance",),
        start=",".join(f"{partition}:{offset}" for partition, offset in starts.items()),
        original=flow.recovery,
    )
    shown = pa.array([starts[partition] for partition in read])
    expected = whole.filter(pc.greater_equal(whole["sequence"].cast(pa.int64()), shown))
    for processes in (1, 2):
        again = tmp_path / f"replayed-{processes}"
        order = Order(wanted, FLOW, (f"parquet:{again}",), processes=processes)
        summary = replay(order, settings=settings)
        assert table_rows(again, "statistics") == expected
        # It began with the checkpoint.
        assert min(interval["begun"] for interval in summary["intervals"]) > 0
