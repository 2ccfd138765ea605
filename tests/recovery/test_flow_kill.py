"""kill -9 of whole runs on real and simulated feeds: the lake equals an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recovery.kills import kill_and_resume

pytestmark = pytest.mark.usefixtures("kernels")


def _same_counts(outcome) -> None:
    """The summary of the last resume tells the whole story, kills or not."""
    for name in ("messages", "tables", "dead_letters", "quality_events"):
        assert outcome.summary[name] == outcome.undisturbed[name], name
    assert outcome.summary["tables"] == outcome.rows


def test_kills_on_a_recorded_session(data: Path, tmp_path: Path) -> None:
    source = f"binance:{data}/binance-ws-hftbacktest/spot_btcusdt_20240808.gz?market=spot"
    _same_counts(kill_and_resume([source], kills=3, seed=1, folder=tmp_path))


@pytest.mark.parametrize("processes", [1, 2])
def test_kills_on_a_simulated_day(tmp_path: Path, processes: int) -> None:
    source = "sim:?events=60000&symbols=12&seed=5"
    outcome = kill_and_resume(
        [source],
        kills=2,
        seed=2 + processes,
        folder=tmp_path,
        processes=processes,
        environment={"MARKETFLOW_BATCH_ROWS": "500"},
    )
    _same_counts(outcome)
