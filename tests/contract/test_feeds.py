"""The feeds contract for a lake."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marketflow.flows.errors import UsageError
from tests.support.feeds_contract import (
    LONG,
    LONGER,
    FeedsContract,
    LakeStore,
    Store,
    ended,
    load,
    started,
)
from tests.support.patience import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty lake."""
    return LakeStore(tmp_path)


class TestFeedsOfALake(FeedsContract):
    """Every test of the contract."""


def test_a_run_that_lives_is_not_started_twice(store: Store, tmp_path: Path) -> None:
    """The second start of the same command changes nothing of the first one's claim."""
    recovery = ["--recovery", str(tmp_path / "recovery")]
    child = started(store, LONGER, *recovery)
    until(lambda: child.poll() is not None or store.counts(), "rows")
    child.send_signal(signal.SIGSTOP)
    try:
        said = ended(started(store, LONGER, *recovery), 2)
        assert f"is being written by process {child.pid}, a start of this very run" in said
        assert [feed["state"] for feed in store.feeds()] == ["running"]
    finally:
        child.send_signal(signal.SIGCONT)
    ended(child)
    assert [feed["state"] for feed in store.feeds()] == ["complete"]
    assert store.counts() == store.counted()


def test_what_was_loaded_is_not_forgotten_silently(tmp_path: Path) -> None:
    store = LakeStore(tmp_path)
    source = "sim:?events=1000"
    load(store, source)
    known = store.lake / "_marketflow" / "feeds.json"
    whole = known.read_text()
    known.write_text(whole[:40])
    with pytest.raises(
        UsageError, match=r"feeds.json cannot be read.*back from a backup, or remove"
    ):
        load(store, source)
    known.write_text(whole)
    with pytest.raises(UsageError, match="already"):
        load(store, source)


def test_a_stop_ends_the_wait_for_a_database_that_is_away(tmp_path: Path) -> None:
    """Before the first row nothing is on its way: the stop does not wait the outage out."""
    with subprocess.Popen(
        [
            sys.executable, "-m", "marketflow", "run", "market_data", "--source", LONG,
            "--sink", "timescale:postgresql://u@127.0.0.1:1/d",
            "--recovery", str(tmp_path / "recovery"),
        ],
        stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stderr is not None
        assert "waiting for u@127.0.0.1:1/d" in child.stderr.readline()
        child.terminate()
        _, said = child.communicate(timeout=PATIENCE_S / 2)
    assert child.returncode == 1
    assert "stopped waiting" in said
    assert not (tmp_path / "recovery").exists()
