"""kill -9 of runs whose states are too large for the engine's store: the lake is as undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recovery.kills import kill_and_resume
from tests.support.trades_csv import trades_csv


@pytest.mark.parametrize("processes", [1, 2])
def test_kills_with_states_written_aside(tmp_path: Path, processes: int) -> None:
    symbols = [i % 20_000 for i in range(30_000)]
    outcome = kill_and_resume(
        [trades_csv(tmp_path, symbols)],
        kills=2,
        seed=processes,
        folder=tmp_path,
        processes=processes,
        environment={"MARKETFLOW_BATCH_ROWS": "2000", "MARKETFLOW_MAX_INSTRUMENTS": "18000"},
    )
    assert list((tmp_path / "rough-recovery").glob("process-*/aside/*.state"))
    assert outcome.summary["dead_letters"] == {"too_many_instruments": 2000}
    for name in ("messages", "tables", "dead_letters"):
        assert outcome.summary[name] == outcome.undisturbed[name], name
