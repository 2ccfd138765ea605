"""A replay in several processes makes the rows of one, killed or not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.replay.run import replay
from tests.support.patience import PATIENCE_S
from tests.support.services.history import (
    History,
    environment,
    quick,
    tables_of,
    wait_for_rows,
)

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]


def test_several_processes_make_the_rows_of_one(history: History, tmp_path: Path) -> None:
    start, end = history.at(0.2), history.at(0.8)
    interval = {"start": start, "end": end, "original": history.recovery}
    one = replay(history.order(tmp_path / "one", **interval), settings=quick())
    expected = tables_of([tmp_path / "one"])
    assert len(expected["quotes"]) > 500
    order = replace(
        history.order(tmp_path / "three", **interval), processes=3, recovery=tmp_path / "recovery"
    )
    three = replay(order, settings=quick())
    assert tables_of([tmp_path / "three"]) == expected
    for name in ("messages", "tables", "intervals"):
        assert three[name] == one[name]
    again = replay(order, settings=quick())
    assert again["new_messages"] == 0
    assert tables_of([tmp_path / "three"]) == expected
    with pytest.raises(UsageError, match="resume with --processes 3"):
        replay(replace(order, processes=2), settings=quick())
    with pytest.raises(UsageError, match="a pace is kept by one process"):
        replay(replace(order, speed="10x"), settings=quick())


def test_processes_of_a_replay_that_are_killed_go_on(history: History, tmp_path: Path) -> None:
    line = [
        sys.executable, "-m", "marketflow", "replay", "--brokers", history.brokers, "--json",
        "--sink", f"parquet:{tmp_path / 'rough'}", "--processes", "2",
        "--recovery", str(tmp_path / "recovery"),
    ]  # fmt: skip
    for topic in history.topics:
        line += ["--topic", f"{topic}?venue=binance"]
    # Small batches: there is something left to do.
    env = {**environment(), "MARKETFLOW_BATCH_ROWS": "5", "MARKETFLOW_EPOCH_MS": "10"}
    child = subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    wait_for_rows(child, tmp_path / "rough")
    assert child.poll() is None
    for victim in (child, *psutil.Process(child.pid).children(recursive=True)):
        victim.kill()
    child.communicate()
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    replay(replace(history.order(tmp_path / "calm")), settings=quick())
    assert tables_of([tmp_path / "rough"]) == tables_of([tmp_path / "calm"])
